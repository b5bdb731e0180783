//! Leases that last as long as the work that they are for: renewed while it goes on, given back after it.
//!
//! One thread does both for all leases, since the store blocks and work may be dropped by a thread that must not.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use mb_core::store::{Lease, LeaseName};

use crate::job_panics;

/// Renewals in the term of a lease: it outlasts two that fail.
const RENEWALS_IN_TERM: u32 = 3;

/// How long [`LeaseKeeper::end`] waits for a store that does not answer.
const END_PATIENCE: Duration = Duration::from_secs(2);

enum Message {
    Keep(LeaseName, Lease),
    GiveBack(LeaseName),
    /// Give all back and drop the sender, which its receiver notices.
    End(Sender<()>),
}

/// The keeper; its thread ends with it.
pub(crate) struct LeaseKeeper {
    messages: Sender<Message>,
}

/// Keeps a lease until it is dropped.
pub(crate) struct KeptLease {
    name: LeaseName,
    messages: Sender<Message>,
}

impl LeaseKeeper {
    /// A keeper of leases that were taken for `term`.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn start(term: Duration) -> std::io::Result<LeaseKeeper> {
        let (messages, received) = mpsc::channel();
        thread::Builder::new().name("leases".to_owned()).spawn(move || {
            job_panics::essential("leases", || keep(&received, term));
        })?;
        Ok(LeaseKeeper { messages })
    }

    /// Keeps `lease`, which is of `name`.
    pub(crate) fn keep(&self, name: LeaseName, lease: Lease) -> KeptLease {
        // A keeper that has ended drops the lease, which gives it back.
        let _ = self.messages.send(Message::Keep(name, lease));
        KeptLease { name, messages: self.messages.clone() }
    }

    /// Gives all leases back, whatever work still goes on, and waits for that, but not for long.
    pub(crate) fn end(&self) {
        let (working, done) = mpsc::channel();
        // A keeper that has ended before drops the message.
        let _ = self.messages.send(Message::End(working));
        // Ends by an error in either case: nothing is ever sent.
        let _ = done.recv_timeout(END_PATIENCE);
    }
}

impl Drop for KeptLease {
    fn drop(&mut self) {
        // A keeper that has ended has given it back.
        let _ = self.messages.send(Message::GiveBack(self.name));
    }
}

fn keep(messages: &Receiver<Message>, term: Duration) {
    let interval = term / RENEWALS_IN_TERM;
    let mut leases: Vec<(LeaseName, Lease)> = Vec::new();
    let mut next_renewal = Instant::now() + interval;
    loop {
        match messages.recv_timeout(next_renewal.saturating_duration_since(Instant::now())) {
            Ok(Message::Keep(name, lease)) => leases.push((name, lease)),
            Ok(Message::GiveBack(name)) => leases.retain(|(kept, _)| *kept != name),
            Ok(Message::End(working)) => {
                drop(leases);
                drop(working);
                return;
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                next_renewal = Instant::now() + interval;
                leases.retain(|(name, lease)| renew(*name, lease, term));
            }
        }
    }
}

/// Returns whether the lease is worth keeping.
fn renew(name: LeaseName, lease: &Lease, term: Duration) -> bool {
    match lease.extend(term) {
        Ok(true) => true,
        Ok(false) => {
            tracing::warn!(?name, "another node does the same: the store was away for longer than our lease lasted");
            false
        }
        Err(error) => {
            tracing::warn!(?name, %error, "lease not renewed, tried again");
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mb_core::store::{EmbeddedStore, Store};

    use super::*;

    const NAME: LeaseName = LeaseName::SourceScan;
    /// Long enough that a busy machine does not make us miss two renewals.
    const TERM: Duration = Duration::from_secs(2);

    fn taken_by_another(store: &Arc<dyn Store>) -> bool {
        Lease::take(store, NAME, TERM).unwrap().is_some()
    }

    #[test]
    fn a_lease_outlasts_its_term_while_it_is_kept_and_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(folder.path()).unwrap());
        let keeper = LeaseKeeper::start(TERM).unwrap();
        let kept = keeper.keep(NAME, Lease::take(&store, NAME, TERM).unwrap().unwrap());
        let until = Instant::now() + TERM + TERM / 2;
        while Instant::now() < until {
            assert!(!taken_by_another(&store));
            thread::sleep(Duration::from_millis(50));
        }
        drop(kept);
        keeper.end();
        assert!(taken_by_another(&store));
    }

    #[test]
    fn ending_gives_back_what_is_still_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(folder.path()).unwrap());
        let keeper = LeaseKeeper::start(TERM * 100).unwrap();
        let _kept = keeper.keep(NAME, Lease::take(&store, NAME, TERM * 100).unwrap().unwrap());
        keeper.end();
        assert!(taken_by_another(&store));
    }
}
