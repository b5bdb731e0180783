//! The time as a shard knows it: refreshed a few times a second, so that requests ask no clock.

use std::cell::Cell;
use std::time::{Duration, Instant};

use mb_core::time::Timestamp;

use crate::http::date::{HTTP_DATE_LENGTH, http_date};

/// A shard's clock.
pub struct Clock {
    started: Instant,
    now: Cell<Duration>,
    second: Cell<Timestamp>,
    date: Cell<[u8; HTTP_DATE_LENGTH]>,
}

impl Clock {
    /// A clock that starts now.
    #[expect(clippy::new_without_default, reason = "two clocks are never equal: there is no default one")]
    pub fn new() -> Clock {
        let second = Timestamp::now();
        Clock {
            started: Instant::now(),
            now: Cell::new(Duration::ZERO),
            second: Cell::new(second),
            date: Cell::new(http_date(second.0)),
        }
    }

    /// Reads the system's clocks.
    pub fn refresh(&self) {
        self.now.set(self.started.elapsed());
        let second = Timestamp::now();
        if second != self.second.replace(second) {
            self.date.set(http_date(second.0));
        }
    }

    /// Time since the clock was started, as of the latest refresh.
    pub fn now(&self) -> Duration {
        self.now.get()
    }

    /// The same as a point in time.
    pub fn instant(&self) -> Instant {
        self.started + self.now.get()
    }

    /// The wall-clock time in seconds, as of the latest refresh.
    pub fn second(&self) -> Timestamp {
        self.second.get()
    }

    /// The wall-clock time as an HTTP date, as of the latest refresh.
    pub fn date(&self) -> [u8; HTTP_DATE_LENGTH] {
        self.date.get()
    }
}

/// Processor time of the calling thread since it started.
pub(super) fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    // The kernel counts up from 0.
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
