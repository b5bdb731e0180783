//! What wakes a shard for that which no socket tells of.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use atomic_waker::AtomicWaker;
use rustix::event::{EventfdFlags, eventfd};

/// Wakes the task that serves the connections. As a waker itself, which any thread may have, it tells that an answer from
/// elsewhere has come.
#[derive(Debug)]
pub(super) struct Bell {
    task: AtomicWaker,
    answered: AtomicBool,
    /// Readable once it was written to: ends a wait on the shard's poller.
    nudge: OwnedFd,
}

impl Bell {
    /// A bell that nobody listens to yet.
    ///
    /// # Errors
    /// The system has no memory or descriptors left.
    pub fn new() -> io::Result<Arc<Bell>> {
        let nudge = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Bell { task: AtomicWaker::new(), answered: AtomicBool::new(false), nudge }))
    }

    /// Wakes the task, from its own thread.
    pub fn ring(&self) {
        self.task.wake();
    }

    /// The task that is woken from now on.
    pub fn register(&self, task: &Waker) {
        self.task.register(task);
    }

    /// Whether an answer has come since [`Bell::take_answered`].
    pub fn has_answered(&self) -> bool {
        self.answered.load(Ordering::SeqCst)
    }

    /// Whether an answer has come since the last call.
    pub fn take_answered(&self) -> bool {
        // Nearly always there is none, and looking is cheaper than taking.
        self.has_answered() && self.answered.swap(false, Ordering::SeqCst)
    }

    /// `future`, whose wakers other threads may have: where the runtime does not get to run, since the shard waits by itself,
    /// that wait is ended, too.
    pub async fn heard<T>(self: &Arc<Self>, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|context| {
            let waker = Waker::from(Arc::new(Nudging { task: context.waker().clone(), bell: self.clone() }));
            future.as_mut().poll(&mut Context::from_waker(&waker))
        })
        .await
    }

    /// Ends a wait on the shard's poller.
    fn nudge(&self) {
        // It fails when nobody has listened to as many nudges as the counter can hold.
        let _ = rustix::io::write(&self.nudge, &1_u64.to_ne_bytes());
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.nudge.as_fd()
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.answered.store(true, Ordering::SeqCst);
        self.ring();
        self.nudge();
    }
}

/// Wakes a task of a shard from any thread.
struct Nudging {
    task: Waker,
    bell: Arc<Bell>,
}

impl Wake for Nudging {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.task.wake_by_ref();
        self.bell.nudge();
    }
}
