//! Work that only one node does at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Result, Store};
use crate::mirror::MirrorId;

/// What is leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseName {
    /// The scan of a mirror.
    MirrorScan(MirrorId),
    /// The scan of the source repository.
    SourceScan,
}

impl LeaseName {
    /// The name of Mirrorbits' key for it.
    pub(super) fn key(self) -> String {
        match self {
            LeaseName::MirrorScan(id) => format!("SCANNING_{id}"),
            LeaseName::SourceScan => "SOURCE_REPO_SYNC".to_owned(),
        }
    }
}

/// A right that ends by itself, so that a node that died does not keep it. Given back when dropped.
pub struct Lease {
    store: Arc<dyn Store>,
    name: LeaseName,
    holder: String,
}

impl Lease {
    /// Takes what `name` says for `duration`; `None` when another holds it.
    ///
    /// # Errors
    /// The store cannot be used.
    pub fn take(store: &Arc<dyn Store>, name: LeaseName, duration: Duration) -> Result<Option<Lease>> {
        let holder = new_holder();
        let taken = store.take_lease(name, &holder, duration)?;
        Ok(taken.then(|| Lease { store: Arc::clone(store), name, holder }))
    }

    /// Makes the lease last for `duration` from now. `false`: it ended, and another holds it.
    ///
    /// # Errors
    /// The store cannot be used.
    pub fn extend(&self, duration: Duration) -> Result<bool> {
        self.store.take_lease(self.name, &self.holder, duration)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Err(error) = self.store.give_lease_back(self.name, &self.holder) {
            tracing::warn!("{} stays locked until its time is over: {error}", self.name.key());
        }
    }
}

/// A text that no other holder on any node has: process, moment, and a number within the process.
fn new_holder() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}-{:x}-{}", std::process::id(), now.as_nanos(), NUMBER.fetch_add(1, Ordering::Relaxed))
}
