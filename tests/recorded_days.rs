//! Downloads belong to the UTC day of their answer, whatever the clock does. The recorder gets the time from its caller, so
//! the days of these tests need no clock.

use std::path::Path;
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

/// Records ten answers at each of these seconds since midnight, hands over behind those that say so, and returns the store
/// with everything delivered.
fn record(folder: &Path, steps: impl Iterator<Item = (i64, bool)>) -> EmbeddedStore {
    let world = World::new(Size { files: 20, mirrors: 3, sets: 1 });
    let requests = world.requests(10, "");
    let statistics = statistics(folder, false);
    let mut recorder = statistics.intake().recorder();
    let mut handler = Handler::new(world.snapshot.clone(), 1);
    let mut out = Vec::new();
    let instant = Instant::now();
    for (second, hands_over) in steps {
        for request in &requests {
            let moment = Moment { unix_microseconds: (MIDNIGHT + second) * 1_000_000, instant };
            answer_and_record(&mut handler, &mut recorder, moment, request, &mut out);
        }
        if hands_over {
            recorder.hand_over();
        }
    }
    drop(recorder);
    statistics.stop(Duration::from_secs(60));
    EmbeddedStore::open(folder).expect("the database")
}

#[test]
fn midnight_and_a_clock_that_is_set_back_lose_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // To the second before midnight, over it, back before it, and on again; handed over now and then.
    let seconds = [(-1, true), (0, false), (1, true), (-100, false), (86_399, true), (86_400, false)];
    let store = record(folder.path(), seconds.into_iter());
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
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = record(folder.path(), std::iter::repeat_n((0, false), 7_000));
    assert_eq!(store.total_downloads().expect("the total"), 70_000);
}
