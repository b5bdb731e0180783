//! Downloads of very many files are more than a store is asked to take at once: they wait, in memory and then on disk, add
//! up, and are in the store exactly once in the end, whichever process delivers them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use mb_core::store::{EmbeddedStore, Store, Traffic};
use mirrorbits::handle::Handler;
use mirrorbits::handle::outcome::{Chosen, Client, File, Kind, Outcome};
use mirrorbits::http::request::Method;
use mirrorbits::http::response::Status;
use mirrorbits::stats::recorder::Moment;
use mirrorbits::stats::spool::Spool;

#[path = "../benches/world/mod.rs"]
#[allow(dead_code, reason = "nothing is answered here")]
mod world;

use world::{Size, World};

const SIZE: Size = Size { files: 50_000, mirrors: 7, sets: 1 };
/// Size of each file.
const BYTES: u64 = 3;

/// Records a download of each `step`th file, and ends with this patience. Returns how many downloads are then on disk.
fn record(folder: &Path, world: &World, step: usize, patience: Duration) -> u64 {
    let statistics = world::statistics(folder, false);
    let mut recorder = statistics.intake().recorder();
    let handler = Handler::new(world.snapshot.clone(), 1);
    let requests = world.requests(1, "");
    let moment = Moment { unix_microseconds: 0, instant: Instant::now() };
    for (number, row) in (0..SIZE.files as u32).step_by(step).enumerate() {
        let outcome = Outcome {
            kind: Kind::Redirect,
            status: Status::Found,
            method: Method::Get,
            file: Some(File { row, size: BYTES }),
            chosen: Chosen::Mirror { row: row % SIZE.mirrors, distance: 0.0 },
            client: Some(Client { address: Ipv4Addr::LOCALHOST.into(), asn: 0 }),
            is_offloaded: false,
        };
        recorder.record(&outcome, &world::parsed(&requests[0]), &handler, moment);
        if number % 5_000 == 0 {
            recorder.hand_over();
        }
    }
    drop(recorder);
    let figures = statistics.figures();
    statistics.stop(patience);
    let on_disk = spooled(folder);
    assert_eq!(figures.waiting_downloads.load(Relaxed), 0, "nothing is left in memory");
    on_disk
}

/// Downloads that are in the spool when its owner has ended, which is soon after it was told to, or a little later.
fn spooled(folder: &Path) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(spool) = Spool::open(folder).expect("the spool") {
            return spool.downloads();
        }
        assert!(Instant::now() < deadline, "the flusher does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn each_of_very_many_files_is_counted_exactly() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let world = World::new(SIZE);
    let files = world.snapshot.files.as_ref().expect("files");
    let once = record(folder.path(), &world, 1, Duration::ZERO);
    assert!(once > 0, "a store that is given no time has everything");
    let twice = record(folder.path(), &world, 2, Duration::ZERO);
    assert!(twice > 0);
    assert_eq!(record(folder.path(), &world, SIZE.files, Duration::from_secs(120)), 0);

    let store = EmbeddedStore::open(folder.path()).expect("the database");
    let mut expected = BTreeMap::new();
    let mut traffic: BTreeMap<_, Traffic> = BTreeMap::new();
    for row in 0..SIZE.files as u32 {
        let requests = 1 + u64::from(row % 2 == 0) + u64::from(row == 0);
        expected.insert(files.file(row).path().to_vec(), requests);
        let id = world.snapshot.mirrors.row(row % SIZE.mirrors).mirror.id;
        traffic.entry(id).or_default().add(Traffic { requests, bytes: requests * BYTES });
    }
    assert!(store.file_downloads(None, &|_| true).expect("downloads") == expected, "some files are not exact");
    assert_eq!(store.mirror_traffic(None).expect("traffic"), traffic);
    assert_eq!(store.total_downloads().expect("the total"), expected.values().sum::<u64>());
}
