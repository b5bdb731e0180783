//! Downloads belong to the UTC day of their answer, whatever the clock does. The recorder gets the time from its caller, so
//! the days of these tests need no clock.

use std::time::{Duration, Instant};

use mb_core::store::{DateRange, EmbeddedStore, Store};
use mirrorbits::handle::Handler;
use mirrorbits::stats::recorder::Moment;
use time::{Date, Month};

#[path = "../benches/world/mod.rs"]
mod world;

use world::{Size, World, answer_and_record, statistics};

/// 2026-11-22 00:00 UTC.
const MIDNIGHT: i64 = 1_795_305_600;

#[test]
fn midnight_and_a_clock_that_is_set_back_lose_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let world = World::new(Size { files: 20, mirrors: 3, sets: 1 });
    let requests = world.requests(10, "");
    let statistics = statistics(folder.path(), false);
    let mut recorder = statistics.intake().recorder();
    let mut handler = Handler::new(world.snapshot.clone(), 1);
    let mut out = Vec::new();
    // To the second before midnight, over it, back before it, and on again; handed over now and then.
    for (step, second) in [-1, 0, 1, -100, 86_399, 86_400].into_iter().enumerate() {
        let moment = Moment { second: MIDNIGHT + second, instant: Instant::now() };
        for request in &requests {
            answer_and_record(&mut handler, &mut recorder, moment, request, &mut out);
        }
        if step % 2 == 0 {
            recorder.hand_over();
        }
    }
    drop(recorder);
    statistics.stop(Duration::from_secs(60));

    let store = EmbeddedStore::open(folder.path()).expect("the database");
    let of_day = |day: u8| {
        let day = Date::from_calendar_date(2026, Month::November, day).expect("a date");
        let downloads = store.file_downloads(Some(DateRange { first: day, last: day }), &|_| true).expect("downloads");
        downloads.values().sum::<u64>()
    };
    assert_eq!([21, 22, 23].map(of_day), [20, 30, 10]);
    assert_eq!(store.total_downloads().expect("the total"), 60);
}

/// More than the list of a tally holds, with no hand-over between.
#[test]
fn a_recorder_that_is_not_emptied_for_long_counts_on() {
    const ROUNDS: u64 = 7_000;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let world = World::new(Size { files: 20, mirrors: 3, sets: 1 });
    let requests = world.requests(10, "");
    let statistics = statistics(folder.path(), false);
    let mut recorder = statistics.intake().recorder();
    let mut handler = Handler::new(world.snapshot.clone(), 1);
    let mut out = Vec::new();
    let moment = Moment { second: MIDNIGHT, instant: Instant::now() };
    for _ in 0..ROUNDS {
        for request in &requests {
            answer_and_record(&mut handler, &mut recorder, moment, request, &mut out);
        }
    }
    drop(recorder);
    statistics.stop(Duration::from_secs(60));

    let store = EmbeddedStore::open(folder.path()).expect("the database");
    assert_eq!(store.total_downloads().expect("the total"), 10 * ROUNDS);
}
