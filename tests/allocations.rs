//! A warm shard answers without allocating: neither lookup, geo, selection nor rendering takes memory from the heap once
//! their caches and buffers have grown.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Instant;

use mirrorbits::handle::Handler;
use mirrorbits::metrics::hand_over::exchange;
use mirrorbits::stats::recorder::Moment;

#[path = "../benches/world/mod.rs"]
mod world;

use world::{Size, World, answer};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// Counts what each thread allocates.
struct Counting;

fn count() {
    // Gone while the thread ends.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Requests gone through twice: once to warm up, once to count.
const REQUESTS: usize = 1000;

/// Allocations in a second round of random requests with these header lines.
fn second_round(headers: &str) -> usize {
    let world = World::new(Size { files: 2000, mirrors: 40, sets: 20 });
    second_round_of(&world, &world.requests(REQUESTS, headers))
}

fn second_round_of(world: &World, requests: &[Vec<u8>]) -> usize {
    let mut handler = Handler::new(world.snapshot.clone(), 1);
    let mut out = Vec::new();
    let mut longest = 0;
    for request in requests {
        answer(&mut handler, request, &mut out);
        longest = longest.max(out.len());
    }
    // Another draw names other mirrors, whose names may be longer.
    out.reserve(2 * longest);
    let before = ALLOCATIONS.get();
    for request in requests {
        answer(&mut handler, request, &mut out);
    }
    ALLOCATIONS.get() - before
}

#[test]
fn redirects() {
    assert_eq!(second_round(""), 0);
}

#[test]
fn conditional_requests() {
    assert_eq!(second_round("If-Modified-Since: Sun, 22 Nov 2026 12:00:00 GMT\r\n"), 0);
}

#[test]
fn documents() {
    assert_eq!(second_round("Accept: application/json\r\n"), 0);
}

#[test]
fn refusals() {
    let world = World::new(Size { files: 1, mirrors: 1, sets: 1 });
    let targets = ["/missing", "/pool/missing/file", "/pool", "/%00", "/%zz", "*", "/?stats"];
    let requests = targets.map(|target| format!("GET {target} HTTP/1.1\r\nHost: example.org\r\n\r\n").into_bytes());
    assert_eq!(second_round_of(&world, &requests), 0);
}

#[test]
fn what_is_allocated_is_counted() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(vec![0_u8; 100]));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}

/// A third of what a buffer of the log holds, so that it is not handed over meanwhile.
#[test]
fn counting_and_logging() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let statistics = world::statistics(folder.path(), true);
    let mut recorder = statistics.intake().recorder();
    let (mut reporter, _collector) = exchange().expect("counters");
    let world = World::new(Size { files: 2000, mirrors: 40, sets: 20 });
    let requests = world.requests(150, "Range: bytes=5-\r\n");
    let mut handler = Handler::new(world.snapshot(true), 1);
    let mut out = Vec::with_capacity(64 * 1024);
    let moment = Moment { unix_microseconds: 0, instant: Instant::now() };
    let mut round = || {
        let before = ALLOCATIONS.get();
        for request in &requests {
            let outcome = world::answer_and_record(&mut handler, &mut recorder, moment, request, &mut out);
            reporter.tally.count(&outcome);
            reporter.tally.measure(moment.instant.elapsed());
        }
        ALLOCATIONS.get() - before
    };
    round();
    // The list of range requests grows now and then.
    assert!(round() <= 2);
}
