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
/// Ten seconds, for which figures are printed.
const HAND_OVERS: u32 = 100;
/// By the end of them every file waits to be delivered, and has a name in the spool.
const ROUNDS: u32 = 6;
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

    println!("{SIZE}");
    let started = Instant::now();
    let (mut before, mut began) = (processor_times(), started);
    for number in 1..=HAND_OVERS * ROUNDS {
        for _ in 0..DOWNLOADS_PER_HAND_OVER {
            let outcome = Outcome {
                kind: Kind::Redirect,
                status: Status::Found,
                method: Method::Get,
                file: Some(File { row: random.u32(..SIZE.files as u32), size: 1 }),
                chosen: Chosen::Mirror { row: random.u32(..SIZE.mirrors), distance: 0.0 },
                client: Some(Client { address: Ipv4Addr::LOCALHOST.into(), asn: 0 }),
                is_offloaded: false,
            };
            recorder.record(&outcome, &request, &handler, Moment { unix_microseconds: 0, instant: started });
        }
        recorder.hand_over();
        std::thread::sleep((started + HAND_OVER * number).saturating_duration_since(Instant::now()));
        if number % HAND_OVERS == 0 {
            let (after, now) = (processor_times(), Instant::now());
            print(before, after, now - began);
            (before, began) = (after, now);
        }
    }
    println!("{figures:?}");
}

/// Prints what the threads took for the downloads of this time.
fn print(before: [Duration; THREADS.len()], after: [Duration; THREADS.len()], took: Duration) {
    let downloads = DOWNLOADS_PER_HAND_OVER * u64::from(HAND_OVERS);
    let of_thread = |((name, before), after): ((&str, Duration), Duration)| {
        let (nanoseconds, part) = ((after - before).as_nanos() as f64, (after - before).as_secs_f64());
        let (each, of_core) = (nanoseconds / downloads as f64, 100.0 * part / took.as_secs_f64());
        format!("{name} {each:.0} ns per download, {of_core:.1} % of a core")
    };
    let threads: Vec<String> = THREADS.into_iter().zip(before).zip(after).map(of_thread).collect();
    println!("{:.1} s: {}", took.as_secs_f64(), threads.join("; "));
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
