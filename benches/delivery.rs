//! What delivering statistics costs when nearly every download is of another file: processor time of the flusher's and of
//! the store's thread per download, with the embedded database on the disk of the temporary folder.
//!
//! Wall time says little here, since both threads mostly wait. No shard and no request is part of it.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use fastrand::Rng;
use mirrorbits::handle::Handler;
use mirrorbits::handle::outcome::{Chosen, Client, File, Kind, Outcome};
use mirrorbits::http::request::Method;
use mirrorbits::http::response::Status;
use mirrorbits::stats::recorder::Moment;

#[allow(dead_code, reason = "nothing is answered here")]
mod world;

use world::{Size, World};

const SIZE: Size = Size { files: 1_000_000, mirrors: 400, sets: 1 };
/// As often as a shard hands over.
const HAND_OVER: Duration = Duration::from_millis(100);
/// 90,000 downloads per second.
const DOWNLOADS_PER_HAND_OVER: u64 = 9_000;
/// Half a minute: by then a good part of the files waits to be delivered, as it will from then on.
const HAND_OVERS: u32 = 300;
/// The threads, by what the kernel keeps of their names.
const THREADS: [&str; 2] = ["statistics", "statistics-stor"];

fn main() {
    // `cargo test --all-targets` runs benchmarks without this argument.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let world = World::new(SIZE);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let statistics = world::statistics(folder.path(), false);
    let mut recorder = statistics.intake().recorder();
    let handler = Handler::new(world.snapshot.clone(), 1);
    let requests = world.requests(1, "");
    let request = world::parsed(&requests[0]);
    let mut random = Rng::with_seed(3);
    let figures = statistics.figures();

    let started = Instant::now();
    let before = processor_times();
    for number in 1..=HAND_OVERS {
        for _ in 0..DOWNLOADS_PER_HAND_OVER {
            let outcome = Outcome {
                kind: Kind::Redirect,
                status: Status::Found,
                method: Method::Get,
                file: Some(File { row: random.u32(..SIZE.files as u32), size: 1 }),
                chosen: Chosen::Mirror { row: random.u32(..SIZE.mirrors), distance: 0.0 },
                client: Some(Client { address: Ipv4Addr::LOCALHOST.into(), asn: 0 }),
            };
            recorder.record(&outcome, &request, &handler, Moment { second: 0, instant: started });
        }
        recorder.hand_over();
        std::thread::sleep((started + HAND_OVER * number).saturating_duration_since(Instant::now()));
    }
    let took = started.elapsed();
    let spent = processor_times();
    let downloads = DOWNLOADS_PER_HAND_OVER * u64::from(HAND_OVERS);

    println!("{SIZE}; {downloads} downloads in {:.1} s", took.as_secs_f64());
    for ((name, before), after) in THREADS.iter().zip(before).zip(spent) {
        let time = after - before;
        println!(
            "{name}: {:.0} ns per download, {:.1} % of a core",
            time.as_nanos() as f64 / downloads as f64,
            100.0 * time.as_secs_f64() / took.as_secs_f64()
        );
    }
    println!("{figures:?}");
}

/// Processor time of each of [`THREADS`] so far, by the scheduler's count, which is in nanoseconds.
fn processor_times() -> [Duration; THREADS.len()] {
    let mut times = [Duration::ZERO; THREADS.len()];
    for task in fs::read_dir("/proc/self/task").expect("the threads").flatten() {
        // A thread may have ended meanwhile.
        let Ok(name) = fs::read_to_string(task.path().join("comm")) else { continue };
        let Some(place) = THREADS.iter().position(|thread| *thread == name.trim_end()) else { continue };
        let spent = fs::read_to_string(task.path().join("schedstat")).expect("a kernel that counts processor time");
        let nanoseconds = spent.split(' ').next().and_then(|first| first.parse().ok()).expect("a number");
        times[place] += Duration::from_nanos(nanoseconds);
    }
    times
}
