//! What counting, measuring and logging add to a request on the shard.
//!
//! The same requests are answered with and without, in short turns one after the other, so that whatever else the machine does
//! meets both alike; what is told is the median of the turns, in processor time of the answering thread. Counts go to an
//! embedded database and lines to a file, by threads of their own, as in the daemon.

use std::time::{Duration, Instant};

use mirrorbits::handle::Handler;
use mirrorbits::handle::Peer;
use mirrorbits::http::response::Envelope;
use mirrorbits::metrics::hand_over::{Collector, Reporter, exchange};
use mirrorbits::stats::Statistics;
use mirrorbits::stats::recorder::{Moment, Recorder};
use rustix::time::{ClockId, clock_gettime};

mod world;

use world::{DATE, Size, World, parsed};

const SIZES: [Size; 3] = [
    Size { files: 10_000, mirrors: 50, sets: 1 },
    Size { files: 1_000_000, mirrors: 400, sets: 1 },
    Size { files: 1_000_000, mirrors: 400, sets: 2000 },
];
/// Distinct requests that are gone round in.
const REQUESTS: usize = 1 << 16;
/// Turns of each variant.
const TURNS: usize = 61;
/// Requests of a turn, after which everything is handed over: a tenth of a second of a busy shard.
const TURN: usize = 10_000;

/// What is done beside the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extra {
    Nothing,
    /// Downloads for the statistics.
    Count,
    /// That, and a line for each answer.
    CountLog,
    /// That, and the metrics, with two readings of the clock.
    CountLogMeasure,
}

impl Extra {
    fn name(self) -> &'static str {
        match self {
            Extra::Nothing => "nothing",
            Extra::Count => "counted",
            Extra::CountLog => "… and logged",
            Extra::CountLogMeasure => "… and measured",
        }
    }
}

/// One way to answer.
struct Variant {
    extra: Extra,
    handler: Handler,
    recorder: Recorder,
    reporter: Reporter,
    collector: Collector,
    statistics: Statistics,
    _folder: tempfile::TempDir,
    nanoseconds: Vec<f64>,
}

impl Variant {
    fn new(world: &World, extra: Extra) -> Variant {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = matches!(extra, Extra::CountLog | Extra::CountLogMeasure);
        let statistics = world::statistics(folder.path(), log);
        let (reporter, collector) = exchange().expect("counters");
        Variant {
            extra,
            handler: Handler::new(world.snapshot(log), 1),
            recorder: statistics.intake().recorder(),
            reporter,
            collector,
            statistics,
            _folder: folder,
            nanoseconds: Vec::new(),
        }
    }

    /// Answers `requests` and takes down how long one took.
    fn take_turn(&mut self, requests: &[Vec<u8>], out: &mut Vec<u8>) {
        let start = processor_time();
        let began = Instant::now();
        for bytes in requests {
            let began = if self.extra == Extra::CountLogMeasure { Instant::now() } else { began };
            let request = parsed(bytes);
            out.clear();
            let envelope = Envelope { date: DATE, persistence: request.persistence, head_only: false };
            let outcome = self.handler.handle(&request, Peer::Local, envelope, out);
            if self.extra != Extra::Nothing {
                let moment = Moment { unix_microseconds: 1_795_305_600_000_000, instant: began };
                self.recorder.record(&outcome, &request, &self.handler, moment);
            }
            if self.extra == Extra::CountLogMeasure {
                self.reporter.tally.count(&outcome);
                self.reporter.tally.measure(began.elapsed());
            }
        }
        self.recorder.hand_over();
        self.reporter.report(&self.handler.snapshot().mirrors);
        let took = processor_time() - start;
        self.collector.collect(|_| {});
        self.nanoseconds.push(took.as_nanos() as f64 / requests.len() as f64);
    }

    fn median(&mut self) -> f64 {
        self.nanoseconds.sort_by(f64::total_cmp);
        self.nanoseconds[self.nanoseconds.len() / 2]
    }
}

/// Of this thread.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn main() {
    // `cargo test` starts benchmarks, too, but not for this.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    for size in SIZES {
        let world = World::new(size);
        let requests = world.requests(REQUESTS, "");
        let mut out = Vec::new();
        let mut variants: Vec<_> = [Extra::Nothing, Extra::Count, Extra::CountLog, Extra::CountLogMeasure]
            .map(|extra| Variant::new(&world, extra))
            .into();
        for variant in &mut variants {
            // The caches are warm before anything is told.
            variant.take_turn(&requests, &mut out);
            variant.nanoseconds.clear();
        }
        for turn in 0..TURNS {
            let start = turn * TURN % (REQUESTS - TURN);
            for variant in &mut variants {
                variant.take_turn(&requests[start..start + TURN], &mut out);
            }
        }
        let alone = variants[0].median();
        println!("{size}: an answer takes {alone:.0} ns");
        for variant in &mut variants[1..] {
            let more = variant.median() - alone;
            println!("{:>20}: {more:+.0} ns", variant.extra.name());
        }
        for variant in variants {
            drop(variant.recorder);
            variant.statistics.stop(Duration::ZERO);
        }
    }
}
