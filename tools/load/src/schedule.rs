//! Who sends the next request, and when it was meant to be sent.
//!
//! At a fixed rate, a timer of the kernel (nanoseconds, where tokio's has milliseconds) releases requests when they are due,
//! and connections take them as they become free. A request that waits for a connection still counts from the moment at which
//! it was due: this is what corrects the latencies for coordinated omission.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::plan::{Limit, Pace, Plan};
use crate::request::{Request, Sequence};
use crate::run::Progress;

/// Longest sleep of the timer, after which it looks whether it was told to stop.
const LONGEST_SLEEP: Duration = Duration::from_millis(20);

/// A request whose turn it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(crate) request: Request,
    /// When it was due; at no fixed rate, when it is sent.
    pub(crate) due: Option<Instant>,
}

/// The requests of a run, in their order.
pub(crate) struct Schedule {
    plan: Arc<Plan>,
    progress: Arc<Progress>,
    sequence: RefCell<Sequence>,
    start: Instant,
    /// Requests that a connection took.
    taken: Cell<u64>,
    /// Requests that are due, at a fixed rate.
    released: Cell<u64>,
    /// No more will be due.
    over: Cell<bool>,
    changed: Notify,
}

impl Schedule {
    pub(crate) fn new(plan: Arc<Plan>, progress: Arc<Progress>) -> Schedule {
        Schedule {
            sequence: RefCell::new(Sequence::new(plan.seed)),
            plan,
            progress,
            start: Instant::now(),
            taken: Cell::new(0),
            released: Cell::new(0),
            over: Cell::new(false),
            changed: Notify::new(),
        }
    }

    /// Since the run started.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The next request, as soon as it is due; `None` when the run is over.
    pub(crate) async fn next(&self) -> Option<Ticket> {
        loop {
            if let Some(ticket) = self.try_next() {
                return Some(ticket);
            }
            if self.over.get() || self.plan.pace == Pace::Closed {
                return None;
            }
            self.changed.notified().await;
        }
    }

    /// The next request, if one is due now.
    pub(crate) fn try_next(&self) -> Option<Ticket> {
        let taken = self.taken.get();
        let due = match self.plan.pace {
            Pace::Closed if self.is_over(taken, self.elapsed()) => return None,
            Pace::Closed => None,
            Pace::Open(_) if taken >= self.released.get() => return None,
            Pace::Open(rate) => Some(self.due(taken, rate)),
        };
        self.taken.set(taken + 1);
        Some(Ticket { request: self.sequence.borrow_mut().next(&self.plan), due })
    }

    /// Whether a request that is due `time` after the start, behind `requests` others, is none of this run any more.
    fn is_over(&self, requests: u64, time: Duration) -> bool {
        self.progress.stop.load(Ordering::Relaxed)
            || match self.plan.limit {
                Limit::Requests(limit) => requests >= limit,
                Limit::Duration(limit) => time >= limit,
                Limit::Stopped => false,
            }
    }

    fn due(&self, number: u64, rate: f64) -> Instant {
        self.start + Duration::from_secs_f64(number as f64 / rate)
    }

    /// Releases requests as they become due, until the run is over.
    pub(crate) async fn release(&self, rate: f64) -> io::Result<()> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: an `OwnedFd` is open as long as it lives, and nothing closes or replaces it before `timer` is dropped.
        let timer = unsafe { AsyncFd::register(timer) }?;
        loop {
            let next = self.due(self.released.get(), rate);
            // One that was due within the run is sent even if the run is late by then: not to ask is to hide a long wait.
            if self.is_over(self.released.get(), next.duration_since(self.start)) {
                break;
            }
            let wait = next.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                self.released.set(self.released.get() + 1);
                self.changed.notify_one();
                // A run that cannot keep up must let its connections run.
                if self.released.get().is_multiple_of(64) {
                    tokio::task::yield_now().await;
                }
            } else {
                sleep(&timer, wait.min(LONGEST_SLEEP)).await?;
            }
        }
        self.over.set(true);
        self.changed.notify_waiters();
        Ok(())
    }
}

async fn sleep(timer: &AsyncFd<OwnedFd>, wait: Duration) -> io::Result<()> {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let wait = Timespec::try_from(wait).unwrap_or(zero);
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: zero, it_value: wait })?;
    loop {
        let mut ready = timer.readable().await?;
        let mut count = [0; 8];
        if ready.try_io(|timer| Ok(rustix::io::read(timer, &mut count)?)).is_ok() {
            return Ok(());
        }
    }
}
