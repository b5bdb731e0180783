//! `mb-soak`: the real daemon under attack beside honest traffic that is verified; `make soak` runs it.
//!
//! - [`world`]: repository, mirrors, daemon
//! - [`attack`]: hostile clients and mirrors
//! - [`disturbance`]: upgrades, reloads, new indexes, a stopped and a killed indexer
//! - [`footprint`]: memory and descriptors
//!
//! Each runtime has its turn: honest traffic alone, the same beside everything hostile, and a look at what is left once the
//! attackers are gone. The soak passes when no honest request failed or was answered wrongly, the 99th percentile of their
//! latency is at most [`LATENCY_FACTOR`] times that without attack, and memory and descriptors are back where they were.

mod attack;
mod disturbance;
mod error;
mod footprint;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Parser;
use mb_load::{File, Mode, Pace, Plan, Report, Running};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, set_child_subreaper, setrlimit};

use attack::Attackers;
use disturbance::Disturbance;
pub(crate) use error::SoakError;
use footprint::Footprint;
use world::World;

/// How much slower the slowest hundredth of the honest requests may be under attack.
const LATENCY_FACTOR: u32 = 5;
/// Honest traffic alone, before the attack.
const CALM: Duration = Duration::from_secs(20);
/// Within which the daemon returns memory that it has freed; it does so every 20 s.
const RETURNED: Duration = Duration::from_secs(25);
/// Between two disturbances.
const DISTURBANCE_INTERVAL: Duration = Duration::from_secs(12);
/// What the daemon gets to be back at its start once the attackers are gone: the longest of its timeouts is 60 s.
const RECOVERY: Duration = Duration::from_secs(120);
/// Requests per second at a fixed rate.
const RATE: f64 = 300.0;

/// Runs the daemon under attack beside honest traffic
#[derive(Debug, Parser)]
#[command(name = "mb-soak")]
struct Arguments {
    /// Minutes under attack, shared by the runtimes
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Runtimes, one after the other
    #[arg(long, value_delimiter = ',', default_values = ["io_uring", "epoll"])]
    runtimes: Vec<String>,
    /// Decides what attackers send
    #[arg(long)]
    seed: Option<u64>,
    /// Folder with mirrorbits and mb-indexer; by default that of this program
    #[arg(long)]
    programs: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mb-soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool, SoakError> {
    let own = std::env::current_exe().map_err(SoakError::at("find", "mb-soak".as_ref()))?;
    let beside = own.parent().map(PathBuf::from).unwrap_or_default();
    let programs = arguments.programs.clone().unwrap_or(beside);
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    // Every hostile connection takes a descriptor of this process, too.
    let limit = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).map_err(SoakError::Descriptors)?;
    // The processes of upgrades are orphans, and become children of this one.
    let _ = set_child_subreaper(Some(Pid::INIT));
    let runtimes = arguments.runtimes.len().max(1) as f64;
    let time = Duration::from_secs_f64((arguments.minutes * 60.0 / runtimes).clamp(5.0, 86_400.0));
    println!("seed {seed}");
    let mut passed = true;
    for runtime in &arguments.runtimes {
        let mut world = World::start(&programs, runtime)?;
        let verdict = soak(&mut world, runtime, time, seed)?;
        passed &= verdict;
        if !verdict {
            println!("{runtime}: the daemon's last lines:\n{}", world.last_lines());
        }
    }
    println!("{}", if passed { "passed" } else { "FAILED" });
    Ok(passed)
}

/// Soaks the daemon of `world` for `time`; whether it passed.
fn soak(world: &mut World, runtime: &str, time: Duration, seed: u64) -> Result<bool, SoakError> {
    // Both measurements are of a process that came by an upgrade, as the last one will have.
    Disturbance::Upgrade.happen(world, 0)?;
    world.use_everything()?;
    let calm = Honest::start(world, seed)?.rest(CALM)?;
    sleep(RETURNED);
    let start = settled(world, Footprint::default());
    println!("{runtime}: calm: {}; {start}", calm.summary());

    let honest = Honest::start(world, seed)?;
    let attackers = Attackers::start(world.ports, seed)?;
    let mirrors = HostileMirrors::start()?;
    world.add_hostile_mirrors(&mirrors.ports)?;
    let (began, mut number, mut peak) = (Instant::now(), 0, Footprint::default());
    let mut died = false;
    while began.elapsed() < time && !died {
        let next = Instant::now() + DISTURBANCE_INTERVAL;
        while Instant::now() < next && began.elapsed() < time && !died {
            if let Some(pid) = world.daemon() {
                let now = Footprint::of(pid).unwrap_or_default();
                peak.memory_kib = peak.memory_kib.max(now.memory_kib);
                peak.descriptors = peak.descriptors.max(now.descriptors);
                died = !disturbance::is_alive(pid);
            }
            sleep(Duration::from_millis(100));
        }
        let disturbance = Disturbance::ALL[number as usize % Disturbance::ALL.len()];
        number += 1;
        if let Err(error) = disturbance.happen(world, number) {
            println!("{runtime}: {disturbance:?}: {error}");
            died |= world.daemon().is_none_or(|pid| !disturbance::is_alive(pid));
        }
    }
    let connections = attackers.connections();
    attackers.stop();
    let hostile = honest.rest(Duration::from_secs(1))?;
    drop(mirrors);
    println!("{runtime}: under attack by {connections} connections, {number} disturbances: {}", hostile.summary());
    println!("{runtime}: at most {peak}");
    // The last process is the one that the attack was on; one that came by an upgrade just now would tell nothing.
    let end = settled(world, start);
    println!("{runtime}: in the end {end}");

    let mut verdicts = vec![
        (!died, "the daemon is alive"),
        (calm.failures() + hostile.failures() == 0, "no honest request failed or was answered wrongly"),
        (hostile.p99() <= calm.p99() * LATENCY_FACTOR, "the 99th percentile is at most 5 times that without attack"),
        (end != Footprint::default() && start.allows(end), "memory and descriptors are back at the start"),
    ];
    let served = Honest::start(world, seed)?.rest(Duration::from_secs(2))?;
    verdicts.push((served.failures() == 0, "it still serves"));
    verdicts.push((!world.log().contains("panicked"), "nothing panicked"));
    for (passed, what) in &verdicts {
        println!("{runtime}: {} {what}", if *passed { "ok    " } else { "FAILED" });
    }
    for example in hostile.reports.iter().flat_map(|report| &report.examples).take(5) {
        println!("{runtime}: {example}");
    }
    Ok(verdicts.iter().all(|(passed, _)| *passed))
}

/// The footprint of the daemon once it is back at `start`, or after [`RECOVERY`].
fn settled(world: &mut World, start: Footprint) -> Footprint {
    let deadline = Instant::now() + RECOVERY;
    loop {
        let now = world.daemon().and_then(Footprint::of).unwrap_or_default();
        let is_alone = world.living_daemons() <= 1;
        if is_alone && (start == Footprint::default() || start.allows(now)) || Instant::now() >= deadline {
            return now;
        }
        sleep(Duration::from_millis(500));
    }
}

/// Honest clients of every kind.
struct Honest {
    loads: Vec<Running>,
}

impl Honest {
    fn start(world: &World, seed: u64) -> Result<Honest, SoakError> {
        let files: Vec<File> = World::files().into_iter().map(File::new).collect();
        let plan = |mode, rate: f64, connections| {
            let mut plan = Plan::new(world.address(), files.clone());
            plan.mode = mode;
            plan.pace = Pace::Open(rate);
            plan.connections = connections;
            plan.timeout = Duration::from_secs(10);
            plan.mirrors = world.mirror_urls();
            plan.seed = seed;
            if let Ok(mix) = "get=10,head=2,json=2,range=2,conditional=1,missing=1".parse() {
                plan.mix = mix;
            }
            plan
        };
        // The first one's latencies are those that count.
        let plans =
            [plan(Mode::KeepAlive, RATE, 8), plan(Mode::PerRequest, RATE / 10.0, 8), plan(Mode::Pipelined(8), RATE, 2)];
        Ok(Honest { loads: plans.into_iter().map(mb_load::start).collect::<Result<_, _>>()? })
    }

    /// Lets them go on for `time`, then waits for their last answers.
    fn rest(self, time: Duration) -> Result<Answered, SoakError> {
        sleep(time);
        for load in &self.loads {
            load.stop();
        }
        let reports = self.loads.into_iter().map(Running::wait).collect::<Result<_, _>>()?;
        Ok(Answered { reports })
    }
}

/// What honest clients got.
struct Answered {
    reports: Vec<Report>,
}

impl Answered {
    fn failures(&self) -> u64 {
        self.reports.iter().map(Report::failures).sum()
    }

    /// 99th percentile of those who keep their connection.
    fn p99(&self) -> Duration {
        self.reports.first().map(|report| report.latency(0.99)).unwrap_or_default()
    }

    fn summary(&self) -> String {
        let right: u64 = self.reports.iter().map(Report::answered).sum();
        let per_connection = self.reports.get(1).map(|report| report.latency(0.99)).unwrap_or_default();
        let failures: Vec<_> = self.reports.iter().flat_map(|report| &report.failures).collect();
        format!(
            "{right} honest requests, {} failures {failures:?}, p99 {:.1?}, with a connection for each {per_connection:.1?}",
            self.failures(),
            self.p99()
        )
    }
}

/// Mirrors whose servers do not behave, on a thread of their own.
struct HostileMirrors {
    ports: Vec<u16>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl HostileMirrors {
    fn start() -> Result<HostileMirrors, SoakError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SoakError::Attackers)?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (sender, ports) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("hostile mirrors".to_owned()).spawn(move || {
            runtime.block_on(tokio::task::LocalSet::new().run_until(async {
                // The receiver waits for exactly this.
                let _ = sender.send(attack::hostile_mirrors().await);
                let _ = stopped.await;
            }));
        });
        let thread = thread.map_err(SoakError::Attackers)?;
        let ports = ports.recv().unwrap_or_else(|_| Ok(Vec::new())).map_err(SoakError::Port)?;
        Ok(HostileMirrors { ports, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for HostileMirrors {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
