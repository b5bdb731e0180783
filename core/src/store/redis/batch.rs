//! Changes of many mirrors by one script: everything is checked before the first write, since Redis takes none back.

use std::sync::LazyLock;

use redis::Script;
use serde::Serialize;

use super::connection::Session;
use super::failure::Failure;
use super::{keys, logs, records, scans};
use crate::mirror::{MirrorId, MirrorSettings, MirrorState};
use crate::store::{LOG_ENTRIES_KEPT, LogEntry, LogEvent, MirrorEdit, StoreError};
use crate::time::Timestamp;

/// What the script answers instead of [`DONE`], with the position of the edit that cannot be made.
const UNKNOWN_MIRROR: i64 = -1;
const NAME_TAKEN: i64 = -2;
const NO_MORE_IDS: i64 = -3;

/// The script made all edits; their ids follow.
const DONE: i64 = 1;

/// Makes all edits. KEYS: MIRRORS, LAST_MID, MB_SCAN_BLOCKS, MB_SCAN_USES. ARGV: channel, edits and log entries as JSON (one
/// argument, however many edits), now, entries kept by a log. Numbers of the JSON are texts, which Lua does not round.
static APPLY: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{}
        local batch = cjson.decode(ARGV[2])
        local names = redis.call('HGETALL', KEYS[1])
        local last = tonumber(redis.call('GET', KEYS[2]) or '0') or 0
        for i = 3, 4 do
            local kind = redis.call('TYPE', KEYS[i]).ok
            if kind ~= 'hash' and kind ~= 'none' then
                return redis.error_reply('WRONGTYPE the key ' .. KEYS[i] .. ' is no hash')
            end
        end
        local name_of, id_of = {{}}, {{}}
        for i = 1, #names, 2 do
            name_of[names[i]] = names[i + 1]
            id_of[names[i + 1]] = names[i]
            local known = tonumber(names[i]) or 0
            if known < 2147483647 then last = math.max(last, known) end
        end
        for i, edit in ipairs(batch.edits) do
            if edit.id ~= '' then
                if not name_of[edit.id] then return {{-1, i}} end
                if edit.remove or name_of[edit.id] ~= edit.name then
                    if id_of[name_of[edit.id]] == edit.id then id_of[name_of[edit.id]] = nil end
                end
            end
        end
        local new_id = last
        for i, edit in ipairs(batch.edits) do
            if not edit.remove then
                local owner = id_of[edit.name]
                if owner and owner ~= edit.id then return {{-2, i}} end
                if edit.id == '' then
                    new_id = new_id + 1
                    if new_id > 2147483647 then return {{-3, i}} end
                    edit.add = true
                    edit.id = string.format('%d', new_id)
                end
                id_of[edit.name] = edit.id
            end
        end
        local function log(id, line)
            local key = 'MIRRORLOGS_' .. id
            local kind = redis.call('TYPE', key).ok
            if kind == 'list' or kind == 'none' then
                redis.call('RPUSH', key, (string.gsub(line, '\"MirrorID\":0', '\"MirrorID\":' .. id)))
                redis.call('LTRIM', key, -tonumber(ARGV[4]), -1)
            end
        end
        local words = {{['1'] = '1', t = '1', T = '1', ['true'] = '1', TRUE = '1', True = '1'}}
        if new_id > last then redis.call('SET', KEYS[2], string.format('%d', new_id)) end
        local answer = {{1}}
        for i, edit in ipairs(batch.edits) do
            local id, key = edit.id, 'MIRROR_' .. edit.id
            if edit.remove then
                local scan = 'MB_SCAN_' .. id
                redis.call('HDEL', KEYS[1], id)
                if redis.call('TYPE', scan).ok == 'hash' then
                    release(redis.call('HGET', scan, 'blocks') or '', KEYS[3], KEYS[4])
                end
                redis.call('UNLINK', unpack(edit.keys))
            else
                if edit.add then
                    redis.call('UNLINK', key, 'MIRRORLOGS_' .. id)
                    redis.call('HSET', KEYS[1], id, edit.name)
                    redis.call('HSET', key, 'ID', id, unpack(batch.new_state))
                    redis.call('HSET', key, unpack(edit.fields))
                    log(id, batch.added)
                else
                    if redis.call('TYPE', key).ok ~= 'hash' then redis.call('UNLINK', key) end
                    local edited = name_of[id] ~= edit.name
                    for f = 1, #edit.fields, 2 do
                        edited = edited or redis.call('HGET', key, edit.fields[f]) ~= edit.fields[f + 1]
                    end
                    if edited then
                        redis.call('HSET', KEYS[1], id, edit.name)
                        redis.call('HSET', key, unpack(edit.fields))
                        log(id, batch.edited)
                    end
                end
                local old = words[redis.call('HGET', key, 'enabled') or ''] or '0'
                if old ~= edit.enabled then
                    redis.call('HSET', key, 'enabled', edit.enabled, 'stateSince', ARGV[3])
                    log(id, edit.enabled == '1' and batch.enabled or batch.disabled)
                end
            end
            redis.call('PUBLISH', ARGV[1], id)
            answer[#answer + 1] = tonumber(id)
        end
        return answer",
        scans::RELEASE
    ))
});

/// The second argument of the script.
#[derive(Serialize)]
struct Batch {
    edits: Vec<Edit>,
    new_state: Vec<String>,
    added: String,
    edited: String,
    enabled: String,
    disabled: String,
}

/// An edit as the script reads it; the id of a new mirror is empty.
#[derive(Default, Serialize)]
struct Edit {
    id: String,
    name: String,
    remove: bool,
    enabled: String,
    fields: Vec<String>,
    keys: Vec<String>,
}

impl Edit {
    fn of(edit: &MirrorEdit) -> Edit {
        let put = |id: String, settings: &MirrorSettings, enabled| Edit {
            id,
            name: settings.name.clone(),
            enabled: records::boolean(enabled),
            fields: texts(records::settings_fields(settings)),
            ..Edit::default()
        };
        match edit {
            MirrorEdit::Add { settings, enabled } => put(String::new(), settings, *enabled),
            MirrorEdit::Update { id, settings, enabled } => put(id.to_string(), settings, *enabled),
            MirrorEdit::Remove(id) => {
                let keys = keys::of_removed_mirror(*id).to_vec();
                Edit { id: id.to_string(), remove: true, keys, ..Edit::default() }
            }
        }
    }
}

fn texts(fields: Vec<(&'static str, String)>) -> Vec<String> {
    fields.into_iter().flat_map(|(field, value)| [field.to_owned(), value]).collect()
}

/// Makes all of `edits` and writes the mirrors' logs.
pub(super) fn apply(session: &mut Session, edits: &[MirrorEdit], now: Timestamp) -> Result<Vec<MirrorId>, Failure> {
    // The script puts the id in.
    let line = |event| logs::write(&LogEntry { mirror: MirrorId(0), at: now, event }).map_err(Failure::Unusable);
    let batch = Batch {
        edits: edits.iter().map(Edit::of).collect(),
        new_state: texts(records::state_fields(&MirrorState::default())),
        added: line(LogEvent::Added)?,
        edited: line(LogEvent::Edited)?,
        enabled: line(LogEvent::Enabled)?,
        disabled: line(LogEvent::Disabled)?,
    };
    let batch = serde_json::to_string(&batch).map_err(|cause| Failure::Unusable(cause.to_string()))?;
    let mut script = APPLY.key(keys::MIRRORS);
    script.key(keys::LAST_ID).key(keys::SCAN_BLOCKS).key(keys::SCAN_USES);
    script.arg(keys::MIRROR_CHANNEL).arg(batch).arg(now.0).arg(LOG_ENTRIES_KEPT);
    let answer: Vec<i64> = session.run(&script)?;
    let (outcome, rest) = answer.split_first().ok_or_else(unexpected)?;
    if *outcome == DONE {
        let ids: Option<Vec<MirrorId>> = rest.iter().map(|id| u32::try_from(*id).ok().map(MirrorId)).collect();
        return ids.filter(|ids| ids.len() == edits.len()).ok_or_else(unexpected);
    }
    let position = rest.first().and_then(|position| usize::try_from(*position).ok()?.checked_sub(1));
    let edit = position.and_then(|position| edits.get(position)).ok_or_else(unexpected)?;
    let cause = match (*outcome, edit) {
        (UNKNOWN_MIRROR, MirrorEdit::Update { id, .. } | MirrorEdit::Remove(id)) => StoreError::UnknownMirror(*id),
        (NAME_TAKEN, _) => StoreError::NameTaken,
        (NO_MORE_IDS, _) => {
            StoreError::Database(format!("{} is at its end: ids are numbers below {}", keys::LAST_ID, i32::MAX))
        }
        _ => return Err(unexpected()),
    };
    Err(StoreError::Batch { mirror: edit.label(), cause: Box::new(cause) }.into())
}

fn unexpected() -> Failure {
    Failure::Unusable("the script that changes mirrors gave an answer that is not its own".to_owned())
}
