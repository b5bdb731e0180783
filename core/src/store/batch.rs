//! Changes of many mirrors that are made together, or not at all.

use crate::mirror::{MirrorId, MirrorSettings};

/// The change of one mirror in a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum MirrorEdit {
    /// Add a mirror, not yet checked.
    Add {
        /// Its settings.
        settings: MirrorSettings,
        /// Whether it is enabled from the start.
        enabled: bool,
    },
    /// Replace the settings of a mirror, and enable or disable it.
    Update {
        /// The mirror.
        id: MirrorId,
        /// Its settings from now on.
        settings: MirrorSettings,
        /// Whether it is enabled from now on.
        enabled: bool,
    },
    /// Remove a mirror with its log and its shared scan result.
    Remove(MirrorId),
}

impl MirrorEdit {
    /// What messages call the mirror.
    pub(super) fn label(&self) -> String {
        match self {
            MirrorEdit::Add { settings, .. } | MirrorEdit::Update { settings, .. } => settings.name.clone(),
            MirrorEdit::Remove(id) => format!("mirror {id}"),
        }
    }

    /// Removals come first and additions last, so that a name that is given up can be taken.
    pub(super) fn rank(&self) -> u8 {
        match self {
            MirrorEdit::Remove(_) => 0,
            MirrorEdit::Update { .. } => 1,
            MirrorEdit::Add { .. } => 2,
        }
    }
}
