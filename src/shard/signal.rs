//! A word from one task to another of the same thread, on any runtime.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// Raised by any task, and waited for by one of the same thread.
#[derive(Default)]
pub(super) struct Signal {
    raised: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Signal {
    /// Raises it.
    pub(super) fn raise(&self) {
        self.raised.set(true);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Whether it is raised.
    pub(super) fn is_raised(&self) -> bool {
        self.raised.get()
    }

    /// Waits until it is raised.
    pub(super) async fn raised(&self) {
        poll_fn(|context| self.poll_raised(context)).await;
    }

    /// Waits until it is raised, and lowers it.
    pub(super) async fn caught(&self) {
        self.raised().await;
        self.raised.set(false);
    }

    /// Ready while it is raised; until then the task is woken when it is.
    fn poll_raised(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.raised.get() {
            return Poll::Ready(());
        }
        match &mut *self.waiting.borrow_mut() {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn who_waits_is_woken_and_a_caught_signal_is_raised_anew() {
        let signal = Signal::default();
        let mut waiting = pin!(signal.caught());
        assert_eq!(block_on(poll_once(waiting.as_mut())), None);
        signal.raise();
        assert!(signal.is_raised());
        assert_eq!(block_on(poll_once(waiting)), Some(()));
        assert_eq!(block_on(poll_once(signal.raised())), None);
        signal.raise();
        assert_eq!(block_on(poll_once(signal.raised())), Some(()));
        assert_eq!(block_on(poll_once(signal.raised())), Some(()), "until it is caught");
    }
}
