//! The JSON document of an answer: file, client, and mirrors with the reasons for and against each. Other documents take the
//! members of a mirror from here.

use mb_core::config::OutputMode;
use mb_core::mirror::{AllowRedirects, MirrorSettings, MirrorState, ScanProtocol};
use mb_core::secret::without_login;
use mb_core::time::{FileTime, Timestamp};
use mb_index::FileRef;

use super::locate::Location;
use super::settings::Settings;
use crate::http::date::append_rfc3339;
use crate::http::json::JsonWriter;
use crate::select::{Reason, TableMirror};

/// A mirror in the document.
pub struct Listed<'a> {
    /// Its id; 0 and below for fallbacks.
    pub id: i64,
    /// What the operator entered.
    pub settings: &'a MirrorSettings,
    /// What was observed.
    pub state: &'a MirrorState,
    /// Base URL it would answer from; empty when its scheme excludes it.
    pub absolute_url: &'a str,
    /// Kilometres to the client.
    pub distance: f32,
    /// Selection score.
    pub score: i64,
    /// Share of the load in percent; only in mirror lists.
    pub weight: Option<f32>,
    /// Why it is not chosen.
    pub excluded: Option<(Reason, &'a TableMirror)>,
}

/// What is the same for all mirrors of a document.
pub struct Subject<'a> {
    /// Path of the file.
    pub path: &'a [u8],
    /// The file, unless it is not known.
    pub file: Option<FileRef<'a>>,
    /// The client.
    pub location: &'a Location,
    /// The configuration.
    pub settings: &'a Settings,
}

/// Whether `settings` and what the client accepts ask for JSON.
pub fn wants_json(mode: OutputMode, accepts_json: bool) -> bool {
    match mode {
        OutputMode::Auto => accepts_json,
        OutputMode::Redirect => false,
        OutputMode::Json => true,
    }
}

/// Writes the document.
pub fn write<'m>(
    json: &mut JsonWriter<'_>,
    subject: &Subject<'_>,
    listed: impl Iterator<Item = Listed<'m>>,
    excluded: impl Iterator<Item = Listed<'m>>,
    fallback: bool,
) {
    let expose = subject.settings.expose_private_fields;
    json.begin_object();
    json.name("FileInfo");
    write_file(json, subject);
    json.name("IP");
    json.displayed(subject.location.address);
    json.name("ClientInfo");
    write_client(json, subject.location);
    json.name("MirrorList");
    json.begin_array();
    listed.for_each(|mirror| write_mirror(json, &mirror, expose));
    json.end_array();
    let mut excluded = excluded.peekable();
    if excluded.peek().is_some() {
        json.name("ExcludedList");
        json.begin_array();
        excluded.for_each(|mirror| write_mirror(json, &mirror, expose));
        json.end_array();
    }
    if fallback {
        flag(json, "Fallback", true);
    }
    text(json, "LocalJSPath", &subject.settings.local_js_path);
    json.end_object();
}

fn write_file(json: &mut JsonWriter<'_>, subject: &Subject<'_>) {
    json.begin_object();
    json.name("Path");
    json.string(subject.path);
    json.name("Size");
    json.plain(subject.file.map_or(0, |file| file.size()));
    json.name("ModTime");
    match subject.file {
        Some(file) => file_time(json, file.modified()),
        None => timestamp(json, Timestamp::NEVER),
    }
    if let Some(file) = subject.file {
        hash(json, "Sha1", file.sha1().map(|digest| digest.as_slice()));
        hash(json, "Sha256", file.sha256().map(|digest| digest.as_slice()));
        hash(json, "Md5", file.md5().map(|digest| digest.as_slice()));
    }
    json.end_object();
}

fn write_client(json: &mut JsonWriter<'_>, location: &Location) {
    let place = &location.place.place;
    json.begin_object();
    text(json, "CountryCode", &place.country_code);
    text(json, "ContinentCode", &place.continent_code);
    text(json, "City", &place.city);
    text(json, "Country", &place.country);
    number(json, "Latitude", place.latitude);
    number(json, "Longitude", place.longitude);
    text(json, "ASName", &location.system.name);
    number(json, "ASNum", location.system.number);
    json.end_object();
}

fn write_mirror(json: &mut JsonWriter<'_>, mirror: &Listed<'_>, expose_private: bool) {
    json.begin_object();
    write_settings(json, mirror.id, mirror.settings, expose_private);
    write_state(json, mirror.settings, mirror.state);
    number(json, "Distance", mirror.distance);
    number(json, "ComputedScore", mirror.score);
    if let Some(weight) = mirror.weight {
        number(json, "Weight", weight);
    }
    write_scans(json, mirror.state);
    text(json, "AbsoluteURL", mirror.absolute_url);
    if let Some((reason, table_mirror)) = mirror.excluded {
        json.name("ExcludeReason");
        json.displayed(reason.describe(table_mirror));
    }
    json.end_object();
}

/// Writes the members of a mirror that tell what the operator entered.
pub fn write_settings(json: &mut JsonWriter<'_>, id: i64, settings: &MirrorSettings, expose_private: bool) {
    let private = |value| if expose_private { value } else { "" };
    // Nobody who reads this logs in by them.
    let (rsync_url, ftp_url) = (without_login(&settings.rsync_url), without_login(&settings.ftp_url));
    number(json, "ID", id);
    text(json, "Name", &settings.name);
    text(json, "HttpURL", &settings.http_url);
    text(json, "RsyncURL", private(&rsync_url));
    text(json, "FtpURL", private(&ftp_url));
    text(json, "SponsorName", &settings.sponsor_name);
    text(json, "SponsorURL", &settings.sponsor_url);
    text(json, "SponsorLogoURL", &settings.sponsor_logo_url);
    text(json, "AdminName", private(&settings.admin_name));
    text(json, "AdminEmail", private(&settings.admin_email));
    text(json, "CustomData", &settings.custom_data);
    flag(json, "ContinentOnly", settings.continent_only);
    flag(json, "CountryOnly", settings.country_only);
    flag(json, "ASOnly", settings.as_only);
    number(json, "Score", settings.score);
    number(json, "Latitude", settings.latitude);
    number(json, "Longitude", settings.longitude);
    text(json, "ContinentCode", &settings.continent_code);
    text(json, "CountryCodes", &settings.country_codes);
    text(json, "ExcludedCountryCodes", &settings.excluded_country_codes);
    number(json, "Asnum", settings.asn);
    text(json, "Comment", private(&settings.comment));
}

/// Writes the members of a mirror that tell whether it is in use.
pub fn write_state(json: &mut JsonWriter<'_>, settings: &MirrorSettings, state: &MirrorState) {
    flag(json, "Enabled", state.enabled);
    text_unless_empty(json, "HttpDownReason", &state.http.down_reason);
    text_unless_empty(json, "HttpsDownReason", &state.https.down_reason);
    time(json, "StateSince", state.since);
    match settings.allow_redirects {
        AllowRedirects::Default => {}
        AllowRedirects::Allowed => number(json, "AllowRedirects", 1),
        AllowRedirects::Disallowed => number(json, "AllowRedirects", 2),
    }
}

/// Writes the members of a mirror that tell of its scans.
pub fn write_scans(json: &mut JsonWriter<'_>, state: &MirrorState) {
    time(json, "LastSync", state.last_sync);
    time(json, "LastSuccessfulSync", state.last_successful_sync);
    let protocol = match state.last_successful_sync_protocol {
        ScanProtocol::Rsync => 0,
        ScanProtocol::Ftp => 1,
        ScanProtocol::Http => 2,
    };
    number(json, "LastSuccessfulSyncProtocol", protocol);
    number(json, "LastSuccessfulSyncPrecision", state.last_successful_sync_precision_ns);
    time(json, "LastModTime", state.last_mod_time);
}

/// Writes a member that is text.
pub fn text(json: &mut JsonWriter<'_>, name: &str, value: &str) {
    json.name(name);
    json.string(value);
}

fn text_unless_empty(json: &mut JsonWriter<'_>, name: &str, value: &str) {
    if !value.is_empty() {
        text(json, name, value);
    }
}

fn flag(json: &mut JsonWriter<'_>, name: &str, value: bool) {
    json.name(name);
    json.plain(value);
}

/// Writes a member that is a number.
pub fn number(json: &mut JsonWriter<'_>, name: &str, value: impl std::fmt::Display) {
    json.name(name);
    json.plain(value);
}

/// Writes a member that is a time; one that was never set is `0001-01-01T00:00:00Z`.
pub fn time(json: &mut JsonWriter<'_>, name: &str, value: Timestamp) {
    json.name(name);
    timestamp(json, value);
}

fn timestamp(json: &mut JsonWriter<'_>, value: Timestamp) {
    if value.is_never() {
        json.string("0001-01-01T00:00:00Z");
    } else {
        json.quoted_by(|out| append_rfc3339(out, value.0, 0));
    }
}

fn file_time(json: &mut JsonWriter<'_>, value: FileTime) {
    json.quoted_by(|out| append_rfc3339(out, value.seconds(), value.subsecond_nanoseconds()));
}

fn hash(json: &mut JsonWriter<'_>, name: &str, digest: Option<&[u8]>) {
    if let Some(digest) = digest {
        json.name(name);
        json.quoted_by(|out| append_hex(out, digest));
    }
}

/// Appends `bytes` in lower-case hexadecimal.
#[expect(clippy::indexing_slicing, reason = "four bits are always below 16")]
pub fn append_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}
