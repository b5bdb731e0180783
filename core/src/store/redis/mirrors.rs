//! Mirror records. Where a write depends on what is there, a script does both: Redis runs it as a whole, in one round trip.

use std::sync::LazyLock;

use redis::Script;

use super::connection::Session;
use super::failure::Failure;
use super::records::{self, Fields};
use super::{keys, logs, scans, warn_once};
use crate::mirror::{DownloadProtocol, Mirror, MirrorId, MirrorSettings, MirrorState};
use crate::store::{LOG_ENTRIES_KEPT, LogEntry, StoreError, SyncRecord};
use crate::time::Timestamp;

/// What scripts answer instead of a count.
const UNKNOWN_MIRROR: i64 = -1;
const NAME_TAKEN: i64 = -2;

/// All mirrors: id, name, type of the record's key, and its fields if that is a hash. KEYS: MIRRORS.
static ALL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local names = redis.call('HGETALL', KEYS[1])
        local mirrors = {}
        for i = 1, #names, 2 do
            local key = 'MIRROR_' .. names[i]
            local kind = redis.call('TYPE', key).ok
            mirrors[#mirrors + 1] = {names[i], names[i + 1], kind, kind == 'hash' and redis.call('HGETALL', key) or {}}
        end
        return mirrors",
    )
});

/// Adds a mirror. KEYS: MIRRORS, LAST_MID. ARGV: channel, name, fields and values.
static ADD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local last = tonumber(redis.call('GET', KEYS[2]) or '0') or 0
        local names = redis.call('HGETALL', KEYS[1])
        for i = 1, #names, 2 do
            if names[i + 1] == ARGV[2] then return -2 end
            local known = tonumber(names[i]) or 0
            if known < 2147483647 then last = math.max(last, known) end
        end
        local id = string.format('%d', last + 1)
        redis.call('SET', KEYS[2], id)
        redis.call('UNLINK', 'MIRROR_' .. id, 'MIRRORLOGS_' .. id)
        redis.call('HSET', KEYS[1], id, ARGV[2])
        redis.call('HSET', 'MIRROR_' .. id, 'ID', id, unpack(ARGV, 3))
        redis.call('PUBLISH', ARGV[1], id)
        return tonumber(id)",
    )
});

/// Writes settings; a key of another type in the record's place goes. KEYS: MIRRORS, MIRROR_id. ARGV: channel, id, name, fields and values.
static UPDATE_SETTINGS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 0 then return -1 end
        local names = redis.call('HGETALL', KEYS[1])
        for i = 1, #names, 2 do
            if names[i + 1] == ARGV[3] and names[i] ~= ARGV[2] then return -2 end
        end
        redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
        if redis.call('TYPE', KEYS[2]).ok ~= 'hash' then redis.call('UNLINK', KEYS[2]) end
        redis.call('HSET', KEYS[2], unpack(ARGV, 4))
        redis.call('PUBLISH', ARGV[1], ARGV[2])
        return 1",
    )
});

/// Removes a mirror. KEYS: MIRRORS, MB_SCAN_BLOCKS, MB_SCAN_USES, then every key of the mirror. ARGV: channel, id, key of the
/// scan result.
static REMOVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{}
        if redis.call('HDEL', KEYS[1], ARGV[2]) == 0 then return -1 end
        if redis.call('TYPE', ARGV[3]).ok == 'hash' then
            release(redis.call('HGET', ARGV[3], 'blocks') or '', KEYS[2], KEYS[3])
        end
        redis.call('UNLINK', unpack(KEYS, 4))
        redis.call('PUBLISH', ARGV[1], ARGV[2])
        return 1",
        scans::RELEASE
    ))
});

/// Enables or disables. KEYS: MIRRORS, MIRROR_id. ARGV: channel, id, enabled, now.
static SET_ENABLED: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 0 then return -1 end
        local words = {['1'] = '1', t = '1', T = '1', ['true'] = '1', TRUE = '1', True = '1'}
        local old = words[redis.call('HGET', KEYS[2], 'enabled') or ''] or '0'
        if old == ARGV[3] then return 0 end
        redis.call('HSET', KEYS[2], 'enabled', ARGV[3], 'stateSince', ARGV[4])
        redis.call('PUBLISH', ARGV[1], ARGV[2])
        return 1",
    )
});

/// Writes the health over one protocol. KEYS: MIRRORS, MIRROR_id. ARGV: channel, id, field of up, field of the reason, up,
/// reason, now.
static SET_HEALTH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 0 then return -1 end
        local words = {['1'] = '1', t = '1', T = '1', ['true'] = '1', TRUE = '1', True = '1'}
        local old = words[redis.call('HGET', KEYS[2], ARGV[3]) or ''] or '0'
        local reason = redis.call('HGET', KEYS[2], ARGV[4]) or ''
        if old == ARGV[5] and reason == ARGV[6] then return 0 end
        redis.call('HSET', KEYS[2], ARGV[3], ARGV[5], ARGV[4], ARGV[6])
        local since = tonumber(redis.call('HGET', KEYS[2], 'stateSince') or '') or 0
        if old ~= ARGV[5] or since <= 0 then redis.call('HSET', KEYS[2], 'stateSince', ARGV[7]) end
        redis.call('PUBLISH', ARGV[1], ARGV[2])
        return 1",
    )
});

/// Writes what scans tell. KEYS: MIRRORS, MIRROR_id. ARGV: channel, id, start of the scan, whether `lastSync` may go back,
/// further fields and values.
static RECORD_SYNC: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 0 then return -1 end
        local last = tonumber(redis.call('HGET', KEYS[2], 'lastSync') or '0') or 0
        if ARGV[4] == '1' or last < tonumber(ARGV[3]) then redis.call('HSET', KEYS[2], 'lastSync', ARGV[3]) end
        if #ARGV > 4 then redis.call('HSET', KEYS[2], unpack(ARGV, 5)) end
        redis.call('PUBLISH', ARGV[1], ARGV[2])
        return 1",
    )
});

/// Appends to a log. KEYS: MIRRORS, MIRRORLOGS_id. ARGV: id, entry, entries kept.
static APPEND_LOG: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return -1 end
        redis.call('RPUSH', KEYS[2], ARGV[2])
        redis.call('LTRIM', KEYS[2], -tonumber(ARGV[3]), -1)
        return 1",
    )
});

/// All mirrors by ascending id. What is wrong with one is in its record and hurts no other.
pub(super) fn all(session: &mut Session) -> Result<Vec<Mirror>, Failure> {
    let rows: Vec<(Vec<u8>, Vec<u8>, String, Fields)> = session.run(&ALL.key(keys::MIRRORS))?;
    let mut mirrors: Vec<Mirror> = rows
        .into_iter()
        .filter_map(|(id, name, kind, fields)| {
            let Some(id) = mirror_id(&id) else {
                let id = id.escape_ascii().to_string();
                warn_once(format!("{}: {id:?} is no mirror id, left out: remove it with HDEL", keys::MIRRORS));
                return None;
            };
            Some(match kind.as_str() {
                "hash" => records::mirror(id, &name, &fields),
                kind => records::mirror_without_record(id, &name, &keys::mirror(id), kind),
            })
        })
        .collect();
    mirrors.sort_unstable_by_key(|mirror| mirror.id);
    Ok(mirrors)
}

/// The id of a field of `MIRRORS`, written as this program and Mirrorbits write it: another spelling would be a second record
/// of the same id.
fn mirror_id(field: &[u8]) -> Option<MirrorId> {
    let text = std::str::from_utf8(field).ok()?;
    let id = text.parse().ok().filter(|id: &i32| *id > 0 && id.to_string() == text)?;
    u32::try_from(id).ok().map(MirrorId)
}

/// Adds a mirror whose state is that of one never seen.
pub(super) fn add(session: &mut Session, settings: &MirrorSettings) -> Result<MirrorId, Failure> {
    let mut script = ADD.key(keys::MIRRORS);
    script.key(keys::LAST_ID).arg(keys::MIRROR_CHANNEL).arg(&settings.name);
    for (field, value) in records::settings_fields(settings) {
        script.arg(field).arg(value);
    }
    for (field, value) in records::state_fields(&MirrorState::default()) {
        script.arg(field).arg(value);
    }
    match session.run(&script)? {
        NAME_TAKEN => Err(StoreError::NameTaken.into()),
        id => u32::try_from(id).map(MirrorId).map_err(|_| {
            Failure::Unusable(format!("{} is at its end: ids are numbers below {}", keys::LAST_ID, u32::MAX))
        }),
    }
}

/// Replaces every setting and touches nothing else.
pub(super) fn update_settings(session: &mut Session, id: MirrorId, settings: &MirrorSettings) -> Result<(), Failure> {
    let mut script = UPDATE_SETTINGS.key(keys::MIRRORS);
    script.key(keys::mirror(id)).arg(keys::MIRROR_CHANNEL).arg(id.0).arg(&settings.name);
    for (field, value) in records::settings_fields(settings) {
        script.arg(field).arg(value);
    }
    known(session.run(&script)?, id).map(|_| ())
}

/// Removes a mirror and what belongs to it, except for its statistics.
pub(super) fn remove(session: &mut Session, id: MirrorId) -> Result<(), Failure> {
    let mut script = REMOVE.key(keys::MIRRORS);
    script.key(keys::SCAN_BLOCKS).key(keys::SCAN_USES);
    for key in keys::of_removed_mirror(id) {
        script.key(key);
    }
    script.arg(keys::MIRROR_CHANNEL).arg(id.0).arg(keys::scan(id));
    known(session.run(&script)?, id).map(|_| ())
}

/// Enables or disables a mirror. Returns whether that was a change.
pub(super) fn set_enabled(session: &mut Session, id: MirrorId, enabled: bool, now: Timestamp) -> Result<bool, Failure> {
    let mut script = SET_ENABLED.key(keys::MIRRORS);
    script.key(keys::mirror(id)).arg(keys::MIRROR_CHANNEL).arg(id.0).arg(records::boolean(enabled)).arg(now.0);
    known(session.run(&script)?, id)
}

/// Writes the health over one protocol. Returns whether the record changed.
pub(super) fn set_health(
    session: &mut Session,
    id: MirrorId,
    protocol: DownloadProtocol,
    down_reason: Option<&str>,
    now: Timestamp,
) -> Result<bool, Failure> {
    let (up_field, reason_field) = match protocol {
        DownloadProtocol::Http => ("httpUp", "httpDownReason"),
        DownloadProtocol::Https => ("httpsUp", "httpsDownReason"),
    };
    let mut script = SET_HEALTH.key(keys::MIRRORS);
    script.key(keys::mirror(id)).arg(keys::MIRROR_CHANNEL).arg(id.0).arg(up_field).arg(reason_field);
    script.arg(records::boolean(down_reason.is_none())).arg(down_reason.unwrap_or_default()).arg(now.0);
    known(session.run(&script)?, id)
}

/// Writes the start of the latest scan.
pub(super) fn record_sync_attempt(session: &mut Session, id: MirrorId, started: Timestamp) -> Result<(), Failure> {
    let mut script = RECORD_SYNC.key(keys::MIRRORS);
    script.key(keys::mirror(id)).arg(keys::MIRROR_CHANNEL).arg(id.0).arg(started.0).arg(1);
    known(session.run(&script)?, id).map(|_| ())
}

/// Writes what a complete scan found out.
pub(super) fn record_sync(session: &mut Session, id: MirrorId, sync: &SyncRecord) -> Result<(), Failure> {
    let mut script = RECORD_SYNC.key(keys::MIRRORS);
    script.key(keys::mirror(id)).arg(keys::MIRROR_CHANNEL).arg(id.0).arg(sync.started.0).arg(0);
    script.arg("lastSuccessfulSync").arg(sync.started.0);
    script.arg("lastSuccessfulSyncProtocol").arg(records::scan_protocol_number(sync.protocol));
    script.arg("lastSuccessfulSyncPrecision").arg(sync.precision_ns);
    script.arg("tzoffset").arg(sync.timezone_offset_ms);
    if let Some(last_mod_time) = sync.last_mod_time {
        script.arg("lastModTime").arg(last_mod_time.0);
    }
    known(session.run(&script)?, id).map(|_| ())
}

/// Appends to a mirror's log and drops what is now too many.
pub(super) fn append_log(session: &mut Session, entry: &LogEntry) -> Result<(), Failure> {
    let text = logs::write(entry).map_err(Failure::Unusable)?;
    let mut script = APPEND_LOG.key(keys::MIRRORS);
    script.key(keys::log(entry.mirror)).arg(entry.mirror.0).arg(text).arg(LOG_ENTRIES_KEPT);
    known(session.run(&script)?, entry.mirror).map(|_| ())
}

/// The newest `limit` entries of a log, oldest first.
pub(super) fn newest_log(session: &mut Session, id: MirrorId, limit: usize) -> Result<Vec<LogEntry>, Failure> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let from = -i64::try_from(limit.min(LOG_ENTRIES_KEPT)).unwrap_or(i64::MAX);
    let lines: Vec<Vec<u8>> = session
        .query(redis::cmd("LRANGE").arg(keys::log(id)).arg(from).arg(-1))
        .map_err(|failure| failure.about_key(keys::log(id).as_bytes(), "list"))?;
    Ok(lines.iter().filter_map(|line| logs::read(id, line)).collect())
}

/// Whether a script changed something, unless it met no mirror or another's name.
fn known(answer: i64, id: MirrorId) -> Result<bool, Failure> {
    match answer {
        UNKNOWN_MIRROR => Err(StoreError::UnknownMirror(id).into()),
        NAME_TAKEN => Err(StoreError::NameTaken.into()),
        changes => Ok(changes > 0),
    }
}
