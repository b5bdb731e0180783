//! Opens the reading of mirror records to the fuzz targets (`fuzz/`).

use std::collections::HashMap;

use super::records;
use crate::mirror::{Mirror, MirrorId};

/// The mirror of a hash of `MIRROR_<id>`; `name` is what `MIRRORS` calls it.
pub fn mirror(id: MirrorId, name: &[u8], fields: &HashMap<Vec<u8>, Vec<u8>>) -> Mirror {
    records::mirror(id, name, fields)
}
