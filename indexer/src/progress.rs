//! What long work tells those who wait for it, and how they stop it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// The sending end of progress messages for people. Only the latest one is kept, so work never waits for its watchers.
#[derive(Clone, Debug)]
pub(crate) struct Progress(watch::Sender<String>);

impl Progress {
    /// A sender, and the receiver of its latest message.
    pub(crate) fn channel() -> (Progress, watch::Receiver<String>) {
        let (sender, receiver) = watch::channel(String::new());
        (Progress(sender), receiver)
    }

    /// A sender nobody listens to.
    pub(crate) fn unwatched() -> Progress {
        Progress::channel().0
    }

    /// Replaces the latest message.
    pub(crate) fn report(&self, message: String) {
        self.0.send_replace(message);
    }
}

/// Tells blocking work on another thread to stop. Asynchronous work is stopped by dropping its future.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancellation(Arc<AtomicBool>);

impl Cancellation {
    /// Whether the work is no longer wanted.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// A guard that cancels the work when it is dropped.
    pub(crate) fn on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(self.clone())
    }
}

/// See [`Cancellation::on_drop`].
#[derive(Debug)]
pub(crate) struct CancelOnDrop(Cancellation);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}
