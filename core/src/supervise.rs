//! Parts of a program that work for as long as it runs: a panic is logged and counted, and the part goes on.
//!
//! A part keeps its data outside of the work that is started again, so that a panic loses at most what it had in hand.

use std::backtrace::Backtrace;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::log_writer;

/// Between a panic of a part and its next attempt, so that a lasting defect takes neither the processor nor the log.
pub const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Most characters of a panic's message that are logged.
const MESSAGE_MAX: usize = 500;

static PANICS: Counts = Counts::new();
static RESTARTS: Counts = Counts::new();

/// Numbers by name. The names are those of threads and parts of the program, of which there are few.
struct Counts(Mutex<BTreeMap<String, u64>>);

impl Counts {
    const fn new() -> Counts {
        Counts(Mutex::new(BTreeMap::new()))
    }

    fn add(&self, name: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default() += 1;
    }

    fn all(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Panics by the name of the thread, since [`log_panics`] was called.
pub fn panics() -> BTreeMap<String, u64> {
    PANICS.all()
}

/// How often each part was started again.
pub fn restarts() -> BTreeMap<String, u64> {
    RESTARTS.all()
}

/// Logs and counts every panic of the process from now on, in one line with the thread, the place and the message. With
/// `RUST_BACKTRACE` the backtrace follows.
pub fn log_panics() {
    let has_backtrace = std::env::var_os("RUST_BACKTRACE").is_some_and(|wanted| wanted != "0");
    panic::set_hook(Box::new(move |info| {
        let thread = thread::current().name().unwrap_or("unnamed").to_owned();
        PANICS.add(&thread);
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(thread, place, "panic, please report this: {}", message(info));
        if has_backtrace {
            log_writer::write_text(&format!("{}\n", Backtrace::force_capture()));
        }
        // The process may end by this.
        log_writer::flush_unless_hanging();
    }));
}

fn message(info: &PanicHookInfo<'_>) -> String {
    shortened(info.payload_as_str().unwrap_or("no message"))
}

/// A message as one line of at most [`MESSAGE_MAX`] characters: it may hold what outsiders sent.
fn shortened(message: &str) -> String {
    let mut shortened: String = message.escape_debug().take(MESSAGE_MAX).collect();
    if message.escape_debug().nth(MESSAGE_MAX).is_some() {
        shortened.push('…');
    }
    shortened
}

/// Notes that `part` panicked and is to be started again, after [`RESTART_PAUSE`].
pub fn note_restart(part: &str) {
    RESTARTS.add(part);
    tracing::error!(part, "a part of the program panicked; it is started again");
}

/// Works until `work` returns, on the calling thread. When `work` panics it is called again after [`RESTART_PAUSE`].
pub fn keep_going(part: &str, mut work: impl FnMut()) {
    while catch_unwind(AssertUnwindSafe(&mut work)).is_err() {
        note_restart(part);
        thread::sleep(RESTART_PAUSE);
    }
}

/// Does one step of `part`; `None` when it panicked.
pub fn attempt<T>(part: &str, step: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(step)).inspect_err(|_| note_restart(part)).ok()
}

/// Since when parts are at the piece of work that they have in hand.
static BUSY: Mutex<BTreeMap<&'static str, Option<Instant>>> = Mutex::new(BTreeMap::new());

/// A piece of work under way; see [`busy`].
#[derive(Debug)]
pub struct Busy(&'static str);

/// Says that `part` begins a piece of work, which ends when the returned value is dropped. A part that hangs is known by how long
/// that takes ([`busy_times`]). A part has one piece of work at a time.
pub fn busy(part: &'static str) -> Busy {
    BUSY.lock().unwrap_or_else(PoisonError::into_inner).insert(part, Some(Instant::now()));
    Busy(part)
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.lock().unwrap_or_else(PoisonError::into_inner).insert(self.0, None);
    }
}

/// For how long each part has been at what it has in hand; zero for those that wait for work.
pub fn busy_times() -> BTreeMap<&'static str, Duration> {
    let busy = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
    busy.iter().map(|(part, since)| (*part, since.map_or(Duration::ZERO, |since| since.elapsed()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_panics_goes_on_with_its_data_and_is_counted() {
        let mut done = Vec::new();
        let mut panics = 0;
        keep_going("test-work", || {
            done.push(done.len());
            if panics == 0 {
                panics += 1;
                panic!("provoked");
            }
        });
        assert_eq!(done, [0, 1]);
        assert_eq!(restarts().get("test-work"), Some(&1));
        assert_eq!(attempt("test-step", || 5), Some(5));
        assert_eq!(attempt("test-step", || -> u8 { panic!("provoked") }), None);
        assert_eq!(restarts().get("test-step"), Some(&1));
    }

    #[test]
    fn a_part_is_busy_until_its_work_ends_also_by_a_panic() {
        let time = || busy_times()["test-busy"];
        let _ = attempt("test-busy-step", || {
            let _busy = busy("test-busy");
            thread::sleep(Duration::from_millis(1));
            assert!(time() >= Duration::from_millis(1));
            panic!("provoked");
        });
        assert_eq!(time(), Duration::ZERO);
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        assert_eq!(shortened("a\n\u{1b}[31m"), "a\\n\\u{1b}[31m");
        assert_eq!(shortened(&"x".repeat(MESSAGE_MAX)).chars().count(), MESSAGE_MAX);
        assert_eq!(shortened(&"x".repeat(MESSAGE_MAX + 1)).chars().count(), MESSAGE_MAX + 1);
    }
}
