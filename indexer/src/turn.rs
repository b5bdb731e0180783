//! Whose turn it is to scan: one at a time on this node by a file lock, and across the nodes of a store by a lease in it.
//!
//! The embedded store has one node, whose file lock says everything and ends with its process at once.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mb_core::store::{Lease, LeaseName, Store, StoreError};

use crate::lease_keeper::{KeptLease, LeaseKeeper};
use crate::lock::{HeldLock, LockError, mirror_lock, source_lock, try_lock};
use crate::progress::Progress;

/// How long a lease lasts after its node died.
const LEASE_TERM: Duration = Duration::from_secs(30);

/// How often a lock is tried that another job of this node holds.
const LOCK_RETRY: Duration = Duration::from_millis(100);
/// How often a lease is tried that another node has: a question to Redis each time.
const LEASE_RETRY: Duration = Duration::from_millis(500);

/// Why nobody can tell whose turn it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TurnError {
    /// The file lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The lease.
    #[error("asking whether another node scans the same: {0}")]
    Store(#[from] StoreError),
}

/// Whose turn it is instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Other {
    /// Another job or process with this state directory.
    OnThisNode,
    /// Another node of the store.
    Node,
}

impl fmt::Display for Other {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Other::OnThisNode => "another job of this node",
            Other::Node => "another node",
        })
    }
}

/// The right to scan; dropping it ends it.
pub(crate) struct Turn {
    // Given up in this order: who gets the lock finds the lease free, or about to be.
    _lease: Option<KeptLease>,
    _lock: HeldLock,
}

/// Gives turns out.
pub(crate) struct Turns {
    state_dir: PathBuf,
    /// None when the store has one node.
    leases: Option<Leases>,
}

struct Leases {
    store: Arc<dyn Store>,
    keeper: LeaseKeeper,
}

impl Turns {
    /// Turns of a store that this node has for itself.
    pub(crate) fn of_one_node(state_dir: PathBuf) -> Turns {
        Turns { state_dir, leases: None }
    }

    /// Turns of a store that other nodes use, too.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn of_several_nodes(state_dir: PathBuf, store: Arc<dyn Store>) -> std::io::Result<Turns> {
        let keeper = LeaseKeeper::start(LEASE_TERM)?;
        Ok(Turns { state_dir, leases: Some(Leases { store, keeper }) })
    }

    /// Takes the turn for `name` if it is free, else says whose it is. Blocks.
    pub(crate) fn attempt(&self, name: LeaseName) -> Result<Result<Turn, Other>, TurnError> {
        let path = match name {
            LeaseName::MirrorScan(mirror) => mirror_lock(&self.state_dir, mirror),
            LeaseName::SourceScan => source_lock(&self.state_dir),
        };
        let Some(lock) = try_lock(&path)? else {
            return Ok(Err(Other::OnThisNode));
        };
        let Some(leases) = &self.leases else {
            return Ok(Ok(Turn { _lease: None, _lock: lock }));
        };
        Ok(match Lease::take(&leases.store, name, LEASE_TERM)? {
            Some(lease) => Ok(Turn { _lease: Some(leases.keeper.keep(name, lease)), _lock: lock }),
            None => Err(Other::Node),
        })
    }

    /// Gives all leases back at the end of the program, whatever work still goes on.
    pub(crate) fn end(&self) {
        if let Some(leases) = &self.leases {
            leases.keeper.end();
        }
    }
}

/// Says who is waited for, and waits until another attempt is worth it.
pub(crate) async fn pause(other: Other, progress: &Progress) {
    progress.report(format!("Waiting for {other}, which scans the same, to end"));
    tokio::time::sleep(match other {
        Other::OnThisNode => LOCK_RETRY,
        Other::Node => LEASE_RETRY,
    })
    .await;
}
