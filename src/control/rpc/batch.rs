//! Changes of many mirrors, received in parts and checked before any is made.

use std::collections::HashSet;

use mb_core::store::MirrorEdit;
use prost::Message as _;
use tonic::{Status, Streaming};

use super::{proto, settings, wire};
use crate::control::mirror_documents::shown_mistakes;

/// Mirrors that one call may change. Redis answers nobody else meanwhile, so that the time has to stay below a second or two.
const CHANGES_MAX: usize = 20_000;

/// Bytes of the messages of one call: mirrors of 3 KiB each.
const BYTES_MAX: usize = 64 << 20;

/// The changes of all parts, with settings in the form that is stored.
pub(super) async fn receive(mut parts: Streaming<proto::ApplyMirrorsRequest>) -> Result<Vec<MirrorEdit>, Status> {
    let (mut edits, mut mistakes) = (Vec::new(), Vec::new());
    let (mut ids, mut names) = (HashSet::new(), HashSet::new());
    let (mut changes, mut bytes) = (0, 0);
    while let Some(part) = parts.message().await? {
        changes += part.put.len() + part.remove.len();
        bytes += part.encoded_len();
        if changes > CHANGES_MAX || bytes > BYTES_MAX {
            return Err(Status::resource_exhausted(format!(
                "more than {CHANGES_MAX} mirrors or {} MiB in one call, nothing was changed: apply the list in parts",
                BYTES_MAX >> 20
            )));
        }
        for mirror in part.put {
            let (id, enabled) = (mirror.id, mirror.enabled);
            let is_new_name = names.insert(mirror.name.clone());
            let name = mirror.name.clone();
            match edit(id, enabled, mirror) {
                Ok(edit) if is_new_name && (id == 0 || ids.insert(id)) => edits.push(edit),
                Ok(_) => mistakes.push(format!("{name}: is given twice")),
                Err(mistake) => mistakes.push(format!("{name}: {mistake}")),
            }
        }
        for id in part.remove {
            match wire::id_from_wire(id) {
                Some(known) if ids.insert(id) => edits.push(MirrorEdit::Remove(known)),
                Some(_) => mistakes.push(format!("mirror {id}: is given twice")),
                None => mistakes.push(format!("{id} is no mirror id")),
            }
        }
    }
    if mistakes.is_empty() { Ok(edits) } else { Err(Status::invalid_argument(shown_mistakes(&mistakes))) }
}

fn edit(id: i32, enabled: bool, mirror: proto::Mirror) -> Result<MirrorEdit, String> {
    let settings = settings::accept(wire::settings_from_wire(mirror)).map_err(|error| error.to_string())?;
    if id == 0 {
        return Ok(MirrorEdit::Add { settings, enabled });
    }
    let id = wire::id_from_wire(id).ok_or_else(|| format!("{id} is no mirror id"))?;
    Ok(MirrorEdit::Update { id, settings, enabled })
}
