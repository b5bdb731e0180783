//! Changes made by other nodes and outside tools.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::mirror::MirrorId;

/// What changed in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// This mirror was added, changed or removed.
    Mirror(MirrorId),
    /// Changes may have been missed: read everything again. Comes once the watch has begun, too.
    Everything,
}

/// A running watch; dropping it ends it within a second or so, without waiting for that.
#[must_use = "dropping it ends the watch"]
pub struct ChangeWatch {
    ended: Arc<AtomicBool>,
}

impl ChangeWatch {
    /// A watch that nobody serves yet, and what tells its server that it ended.
    pub(super) fn new() -> (ChangeWatch, Ended) {
        let ended = Arc::new(AtomicBool::new(false));
        (ChangeWatch { ended: Arc::clone(&ended) }, Ended(ended))
    }
}

impl Drop for ChangeWatch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
    }
}

/// Tells whether the watch was dropped.
#[derive(Clone)]
pub(super) struct Ended(Arc<AtomicBool>);

impl Ended {
    /// Whether it was.
    pub(super) fn is_ended(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
