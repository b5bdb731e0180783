//! The time as a shard knows it: read a few times a second, so that requests need not ask every clock.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::http::date::{HTTP_DATE_LENGTH, http_date};
use crate::stats::recorder::Moment;

/// A shard's clock.
pub struct Clock {
    started: Instant,
    now: Cell<Duration>,
    /// Unix time in microseconds at `now`.
    wall: Cell<i64>,
    date: Cell<[u8; HTTP_DATE_LENGTH]>,
}

impl Clock {
    /// A clock that starts now.
    #[expect(clippy::new_without_default, reason = "two clocks are never equal: there is no default one")]
    pub fn new() -> Clock {
        let wall = wall_clock();
        Clock {
            started: Instant::now(),
            now: Cell::new(Duration::ZERO),
            wall: Cell::new(wall),
            date: Cell::new(http_date(second_of(wall))),
        }
    }

    /// Reads the system's clocks.
    pub fn refresh(&self) {
        self.now.set(self.started.elapsed());
        let wall = wall_clock();
        if second_of(wall) != second_of(self.wall.replace(wall)) {
            self.date.set(http_date(second_of(wall)));
        }
    }

    /// Time since the clock was started, as of the latest refresh.
    pub fn now(&self) -> Duration {
        self.now.get()
    }

    /// The moment of `instant`, which is not long after the latest refresh: one clock is read for both of its times. A
    /// wall clock that was set shows with the next refresh.
    pub fn moment(&self, instant: Instant) -> Moment {
        let since = instant.saturating_duration_since(self.started).saturating_sub(self.now.get());
        // Much less than the years that this can hold.
        let microseconds = since.as_micros() as i64;
        Moment { unix_microseconds: self.wall.get().saturating_add(microseconds), instant }
    }

    /// The wall-clock time as an HTTP date, as of the latest refresh.
    pub fn date(&self) -> [u8; HTTP_DATE_LENGTH] {
        self.date.get()
    }
}

/// Unix time in microseconds; 0 for a time before.
fn wall_clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn second_of(microseconds: i64) -> i64 {
    microseconds.div_euclid(1_000_000)
}

/// Processor time of the calling thread since it started.
pub(super) fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    // The kernel counts up from 0.
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
