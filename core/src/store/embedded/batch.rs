//! Changes of many mirrors in one transaction.

use std::collections::HashMap;

use rusqlite::Connection;

use super::failure::Failure;
use super::{logs, mirrors};
use crate::mirror::{Mirror, MirrorId};
use crate::store::{LogEntry, LogEvent, MirrorEdit};
use crate::time::Timestamp;

/// Makes all of `edits` and writes the mirrors' logs. The caller's transaction makes them one.
pub(super) fn apply(connection: &Connection, edits: &[MirrorEdit], now: Timestamp) -> Result<Vec<MirrorId>, Failure> {
    let present: HashMap<MirrorId, Mirror> =
        mirrors::all(connection)?.into_iter().map(|mirror| (mirror.id, mirror)).collect();
    let mut order: Vec<(usize, &MirrorEdit)> = edits.iter().enumerate().collect();
    order.sort_by_key(|(_, edit)| edit.rank());
    let mut ids = vec![MirrorId(0); edits.len()];
    for (position, edit) in order {
        let id = make(connection, edit, &present, now)
            .map_err(|cause| Failure::Batch { mirror: edit.label(), cause: Box::new(cause) })?;
        if let Some(place) = ids.get_mut(position) {
            *place = id;
        }
    }
    Ok(ids)
}

fn make(
    connection: &Connection,
    edit: &MirrorEdit,
    present: &HashMap<MirrorId, Mirror>,
    now: Timestamp,
) -> Result<MirrorId, Failure> {
    let log = |mirror, event| logs::append(connection, &LogEntry { mirror, at: now, event });
    let (id, enabled) = match edit {
        MirrorEdit::Remove(id) => {
            mirrors::remove(connection, *id)?;
            return Ok(*id);
        }
        MirrorEdit::Update { id, settings, enabled } => {
            let old = present.get(id).ok_or(Failure::UnknownMirror(*id))?;
            if old.settings != *settings {
                mirrors::update_settings(connection, *id, settings)?;
                log(*id, LogEvent::Edited)?;
            }
            (*id, *enabled)
        }
        MirrorEdit::Add { settings, enabled } => {
            let id = mirrors::add(connection, settings)?;
            log(id, LogEvent::Added)?;
            (id, *enabled)
        }
    };
    if mirrors::set_enabled(connection, id, enabled, now)? {
        log(id, if enabled { LogEvent::Enabled } else { LogEvent::Disabled })?;
    }
    Ok(id)
}
