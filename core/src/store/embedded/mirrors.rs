//! Mirror records. Each statement writes only the columns that its operation is about, so that the daemon's settings and
//! the indexer's observations never overwrite each other.

use std::cell::RefCell;

use rusqlite::types::{FromSql, ValueRef};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, ToSql, named_params};

use super::failure::Failure;
use crate::mirror::{
    DownloadProtocol, Health, InvalidMirror, Mirror, MirrorId, MirrorSettings, MirrorState, with_closing_slash,
};
use crate::store::SyncRecord;
use crate::time::Timestamp;

/// All mirrors by ascending id.
pub(super) fn all(connection: &Connection) -> Result<Vec<Mirror>, Failure> {
    let mut statement = connection.prepare_cached("SELECT * FROM mirror ORDER BY id")?;
    let mirrors = statement.query_map((), mirror_of)?.filter_map(Result::transpose);
    Ok(mirrors.collect::<rusqlite::Result<_>>()?)
}

/// Adds a mirror whose state is that of one never seen.
pub(super) fn add(connection: &Connection, settings: &MirrorSettings) -> Result<MirrorId, Failure> {
    let sql = "INSERT INTO mirror (
            name, http_url, rsync_url, ftp_url, sponsor_name, sponsor_url, sponsor_logo_url, admin_name, admin_email,
            custom_data, continent_only, country_only, as_only, score, latitude, longitude, continent_code, country_codes,
            excluded_country_codes, asn, comment, allow_redirects
        ) VALUES (
            :name, :http_url, :rsync_url, :ftp_url, :sponsor_name, :sponsor_url, :sponsor_logo_url, :admin_name,
            :admin_email, :custom_data, :continent_only, :country_only, :as_only, :score, :latitude, :longitude,
            :continent_code, :country_codes, :excluded_country_codes, :asn, :comment, :allow_redirects
        ) RETURNING id";
    connection
        .prepare_cached(sql)?
        .query_row(settings_values(settings).as_slice(), |row| row.get(0))
        .map_err(name_taken)
}

/// Writes a mirror of another store, with its id and its state.
pub(super) fn insert(connection: &Connection, mirror: &Mirror) -> Result<(), Failure> {
    let Mirror { id, settings, state } = mirror;
    let mut values = settings_values(settings);
    values.extend::<[(&str, &dyn ToSql); 13]>([
        (":id", id),
        (":enabled", &state.enabled),
        (":http_up", &state.http.up),
        (":http_down_reason", &state.http.down_reason),
        (":https_up", &state.https.up),
        (":https_down_reason", &state.https.down_reason),
        (":since", &state.since),
        (":timezone_offset_ms", &state.timezone_offset_ms),
        (":last_sync", &state.last_sync),
        (":last_successful_sync", &state.last_successful_sync),
        (":last_successful_sync_protocol", &state.last_successful_sync_protocol),
        (":last_successful_sync_precision_ns", &state.last_successful_sync_precision_ns),
        (":last_mod_time", &state.last_mod_time),
    ]);
    let parameters = values.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let columns = parameters.replace(':', "");
    let sql = format!("INSERT INTO mirror ({columns}) VALUES ({parameters})");
    connection.prepare_cached(&sql)?.execute(values.as_slice()).map_err(name_taken)?;
    Ok(())
}

/// Replaces every setting and touches nothing else.
pub(super) fn update_settings(connection: &Connection, id: MirrorId, settings: &MirrorSettings) -> Result<(), Failure> {
    let sql = "UPDATE mirror SET
            name = :name, http_url = :http_url, rsync_url = :rsync_url, ftp_url = :ftp_url, sponsor_name = :sponsor_name,
            sponsor_url = :sponsor_url, sponsor_logo_url = :sponsor_logo_url, admin_name = :admin_name,
            admin_email = :admin_email, custom_data = :custom_data, continent_only = :continent_only,
            country_only = :country_only, as_only = :as_only, score = :score, latitude = :latitude,
            longitude = :longitude, continent_code = :continent_code, country_codes = :country_codes,
            excluded_country_codes = :excluded_country_codes, asn = :asn, comment = :comment,
            allow_redirects = :allow_redirects
        WHERE id = :id";
    let mut values = settings_values(settings);
    values.push((":id", &id));
    one_changed(connection.prepare_cached(sql)?.execute(values.as_slice()).map_err(name_taken)?, id)
}

/// Removes the mirror; its log goes with it.
pub(super) fn remove(connection: &Connection, id: MirrorId) -> Result<(), Failure> {
    one_changed(connection.prepare_cached("DELETE FROM mirror WHERE id = ?")?.execute([id])?, id)
}

/// Enables or disables the mirror. Returns whether that was a change.
pub(super) fn set_enabled(
    connection: &Connection,
    id: MirrorId,
    enabled: bool,
    now: Timestamp,
) -> Result<bool, Failure> {
    let sql = "UPDATE mirror SET enabled = :enabled, since = :now WHERE id = :id AND enabled <> :enabled";
    let changed =
        connection.prepare_cached(sql)?.execute(named_params! { ":enabled": enabled, ":now": now, ":id": id })?;
    any_changed(connection, changed, id)
}

/// Writes the health over one protocol. Returns whether the record changed.
pub(super) fn set_health(
    connection: &Connection,
    id: MirrorId,
    protocol: DownloadProtocol,
    down_reason: Option<&str>,
    now: Timestamp,
) -> Result<bool, Failure> {
    let sql = match protocol {
        DownloadProtocol::Http => {
            "UPDATE mirror SET
                since = CASE WHEN http_up = :up AND since > 0 THEN since ELSE :now END, http_up = :up, http_down_reason = :reason
            WHERE id = :id AND (http_up <> :up OR http_down_reason <> :reason)"
        }
        DownloadProtocol::Https => {
            "UPDATE mirror SET
                since = CASE WHEN https_up = :up AND since > 0 THEN since ELSE :now END, https_up = :up, https_down_reason = :reason
            WHERE id = :id AND (https_up <> :up OR https_down_reason <> :reason)"
        }
    };
    let (up, reason) = (down_reason.is_none(), down_reason.unwrap_or_default());
    let changed = connection
        .prepare_cached(sql)?
        .execute(named_params! { ":up": up, ":reason": reason, ":now": now, ":id": id })?;
    any_changed(connection, changed, id)
}

/// Writes the start of the latest scan.
pub(super) fn record_sync_attempt(connection: &Connection, id: MirrorId, started: Timestamp) -> Result<(), Failure> {
    let sql = "UPDATE mirror SET last_sync = :started WHERE id = :id";
    one_changed(connection.prepare_cached(sql)?.execute(named_params! { ":started": started, ":id": id })?, id)
}

/// Writes what a complete scan found out.
pub(super) fn record_sync(connection: &Connection, id: MirrorId, sync: &SyncRecord) -> Result<(), Failure> {
    let sql = "UPDATE mirror SET
            last_sync = max(last_sync, :started), last_successful_sync = :started,
            last_successful_sync_protocol = :protocol, last_successful_sync_precision_ns = :precision_ns,
            timezone_offset_ms = :timezone_offset_ms, last_mod_time = coalesce(:last_mod_time, last_mod_time)
        WHERE id = :id";
    let changed = connection.prepare_cached(sql)?.execute(named_params! {
        ":started": sync.started,
        ":protocol": sync.protocol,
        ":precision_ns": sync.precision_ns,
        ":timezone_offset_ms": sync.timezone_offset_ms,
        ":last_mod_time": sync.last_mod_time,
        ":id": id,
    })?;
    one_changed(changed, id)
}

/// The named parameters of the statements that write settings.
fn settings_values(settings: &MirrorSettings) -> Vec<(&str, &dyn ToSql)> {
    vec![
        (":name", &settings.name),
        (":http_url", &settings.http_url),
        (":rsync_url", &settings.rsync_url),
        (":ftp_url", &settings.ftp_url),
        (":sponsor_name", &settings.sponsor_name),
        (":sponsor_url", &settings.sponsor_url),
        (":sponsor_logo_url", &settings.sponsor_logo_url),
        (":admin_name", &settings.admin_name),
        (":admin_email", &settings.admin_email),
        (":custom_data", &settings.custom_data),
        (":continent_only", &settings.continent_only),
        (":country_only", &settings.country_only),
        (":as_only", &settings.as_only),
        (":score", &settings.score),
        (":latitude", &settings.latitude),
        (":longitude", &settings.longitude),
        (":continent_code", &settings.continent_code),
        (":country_codes", &settings.country_codes),
        (":excluded_country_codes", &settings.excluded_country_codes),
        (":asn", &settings.asn),
        (":comment", &settings.comment),
        (":allow_redirects", &settings.allow_redirects),
    ]
}

/// The only UNIQUE constraint of a mirror beside its id is its name.
fn name_taken(error: rusqlite::Error) -> Failure {
    match error.sqlite_error() {
        Some(cause)
            if cause.code == ErrorCode::ConstraintViolation
                && cause.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE =>
        {
            Failure::NameTaken
        }
        _ => Failure::Sqlite(error),
    }
}

fn one_changed(changed: usize, id: MirrorId) -> Result<(), Failure> {
    if changed == 0 { Err(Failure::UnknownMirror(id)) } else { Ok(()) }
}

/// Tells "nothing to change" from "no such mirror".
fn any_changed(connection: &Connection, changed: usize, id: MirrorId) -> Result<bool, Failure> {
    if changed > 0 {
        return Ok(true);
    }
    let known =
        connection.prepare_cached("SELECT 1 FROM mirror WHERE id = ?")?.query_row([id], |_| Ok(())).optional()?;
    known.map(|()| false).ok_or(Failure::UnknownMirror(id))
}

/// The mirror of a row; `None` when its id cannot be one. A setting that cannot be read makes the record invalid, with the
/// reason, and no other: whoever writes to the file by hand gets around its constraints.
fn mirror_of(row: &Row<'_>) -> rusqlite::Result<Option<Mirror>> {
    let id: i64 = row.get("id")?;
    let Some(id) = i32::try_from(id).ok().and_then(|id| u32::try_from(id).ok()).filter(|id| *id > 0) else {
        tracing::warn!("table mirror: {id} is no mirror id, left out: delete that row");
        return Ok(None);
    };
    let row = Reader { row, unreadable: RefCell::new(None) };
    let settings = MirrorSettings {
        name: row.text("name"),
        http_url: with_closing_slash(row.text("http_url")),
        rsync_url: row.text("rsync_url"),
        ftp_url: row.text("ftp_url"),
        sponsor_name: row.text("sponsor_name"),
        sponsor_url: row.text("sponsor_url"),
        sponsor_logo_url: row.text("sponsor_logo_url"),
        admin_name: row.text("admin_name"),
        admin_email: row.text("admin_email"),
        custom_data: row.text("custom_data"),
        continent_only: row.setting("continent_only"),
        country_only: row.setting("country_only"),
        as_only: row.setting("as_only"),
        score: row.setting("score"),
        latitude: row.setting("latitude"),
        longitude: row.setting("longitude"),
        continent_code: row.text("continent_code"),
        country_codes: row.text("country_codes"),
        excluded_country_codes: row.text("excluded_country_codes"),
        asn: row.setting("asn"),
        comment: row.text("comment"),
        allow_redirects: row.setting("allow_redirects"),
    };
    let state = MirrorState {
        enabled: row.setting("enabled"),
        http: Health { up: row.observed("http_up"), down_reason: row.observed("http_down_reason") },
        https: Health { up: row.observed("https_up"), down_reason: row.observed("https_down_reason") },
        since: row.observed("since"),
        timezone_offset_ms: row.observed("timezone_offset_ms"),
        last_sync: row.observed("last_sync"),
        last_successful_sync: row.observed("last_successful_sync"),
        last_successful_sync_protocol: row.observed("last_successful_sync_protocol"),
        last_successful_sync_precision_ns: row.observed("last_successful_sync_precision_ns"),
        last_mod_time: row.observed("last_mod_time"),
        unreadable: row.unreadable.into_inner(),
    };
    Ok(Some(Mirror { id: MirrorId(id), settings, state }))
}

/// Typed access to the columns of a row.
struct Reader<'a> {
    row: &'a Row<'a>,
    /// The first setting that cannot be read.
    unreadable: RefCell<Option<InvalidMirror>>,
}

impl Reader<'_> {
    fn refuse(&self, column: &str, reason: &str) {
        self.unreadable
            .borrow_mut()
            .get_or_insert_with(|| InvalidMirror::new(format!("the column `{column}`"), reason));
    }

    fn text(&self, column: &str) -> String {
        match self.row.get_ref(column) {
            Ok(ValueRef::Text(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) => text.to_owned(),
                Err(_) => {
                    self.refuse(column, "is not UTF-8 text");
                    String::from_utf8_lossy(bytes).into_owned()
                }
            },
            _ => {
                self.refuse(column, "is no text");
                String::new()
            }
        }
    }

    fn setting<T: FromSql + Default>(&self, column: &str) -> T {
        self.row.get(column).unwrap_or_else(|_| {
            self.refuse(column, "has a value that is not allowed there");
            T::default()
        })
    }

    /// What is none of the operator's; the zero value when it cannot be read.
    fn observed<T: FromSql + Default>(&self, column: &str) -> T {
        self.row.get(column).unwrap_or_default()
    }
}
