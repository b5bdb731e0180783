//! What an input may cost: memory, and time linear in its length.
//!
//! Memory is counted by the global allocator: the most that the thread under test has allocated and not freed at once,
//! above what it had before. It is exact, so a limit can be told by one run.
//!
//! Time is the processor time of the thread (`CLOCK_THREAD_CPUTIME_ID`): it does not count what other processes take.
//! Retired instructions would be steadier, but virtual machines and containers often have no counter for them. Caches and
//! interrupts still disturb it, so the bounds are several times what is usual, and an input that exceeds its bound is run
//! again [`REPEATS`] times: only the least counts. A quadratic step over the longest input exceeds a bound by far.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Runs of an input that took too long, before that is a finding.
const REPEATS: usize = 4;

/// What one input may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes that may be allocated at once, whatever the input.
    pub bytes: usize,
    /// The same for each byte of the input.
    pub bytes_per_byte: usize,
    /// Processor time, whatever the input.
    pub time: Duration,
    /// The same for each byte of the input, in nanoseconds.
    pub nanoseconds_per_byte: u64,
}

/// Runs `target` on `input`.
///
/// # Panics
/// It costs more than `limits`.
pub fn run(limits: &Limits, target: fn(&[u8]), input: &[u8]) {
    let time_limit = limits.time + Duration::from_nanos(limits.nanoseconds_per_byte * input.len() as u64);
    // A replay under a sanitizer or valgrind takes many times as long: it looks for other things.
    let is_timed = cfg!(not(feature = "untimed"));
    let mut least = measure(limits, target, input);
    for _ in 0..REPEATS {
        if least <= time_limit || !is_timed {
            return;
        }
        least = least.min(measure(limits, target, input));
    }
    assert!(
        least <= time_limit,
        "an input of {} bytes takes at least {least:?} in {} runs; allowed are {time_limit:?}",
        input.len(),
        REPEATS + 1
    );
}

fn measure(limits: &Limits, target: fn(&[u8]), input: &[u8]) -> Duration {
    let limit = limits.bytes + limits.bytes_per_byte * input.len();
    let before = ALLOCATED.get();
    MOST_ALLOCATED.set(before);
    let began = processor_time();
    target(input);
    let took = processor_time().saturating_sub(began);
    let most = MOST_ALLOCATED.get() - before;
    assert!(
        usize::try_from(most).is_ok_and(|most| most <= limit),
        "an input of {} bytes has {most} bytes allocated at once; allowed are {limit}",
        input.len()
    );
    took
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

thread_local! {
    /// Bytes that this thread has allocated, less those that it has freed.
    static ALLOCATED: Cell<isize> = const { Cell::new(0) };
    /// The most that this has been since an input began.
    static MOST_ALLOCATED: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, which counts.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(change: isize) {
    let now = ALLOCATED.get() + change;
    ALLOCATED.set(now);
    if now > MOST_ALLOCATED.get() {
        MOST_ALLOCATED.set(now);
    }
}

// SAFETY: all calls go to the system's allocator as they come. The counters are thread-local, constant at first and without
// a destructor, so that counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps `alloc_zeroed`'s contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // The old and the new memory may exist at once.
        count(size as isize);
        // SAFETY: the caller keeps `realloc`'s contract.
        let moved = unsafe { System.realloc(pointer, layout, size) };
        count(-(layout.size() as isize));
        moved
    }
}
