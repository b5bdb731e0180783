//! Our answers while the index is exchanged, and how soon a change of a mirror is in them.
//!
//! Unlike in the contest, the daemon may use all cores: only its shard is bound to one. A new generation is opened and
//! verified on a thread that gives way, which must not take the shard's time.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use mb_core::priority::give_way;
use mb_core::store::{EmbeddedStore, Store as _};
use mb_index::Publisher;
use mb_load::{File, Limit, Pace, Plan, Report, Running, start};

use crate::contest::{Daemon, OURS, start_daemon};
use crate::interrupt::Interrupt;
use crate::places::NETWORKS;
use crate::result::{PacedResult, Results};
use crate::world::{ONLY_ON_FIRST, Size, World, mirror_name, path};
use crate::{Arguments, BenchError};

/// Connections of the load.
const CONNECTIONS: usize = 64;

/// Distinct files that are asked for.
const FILES: usize = 100_000;

/// How long an answer may take to change.
const PATIENCE: Duration = Duration::from_secs(10);

/// The load without changes.
const NO_SWAPS: &str = "no swaps";

/// From the start of a daemon to the first load.
pub(crate) const SETTLING: Duration = Duration::from_secs(2);

/// Between two looks.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Measures the load without swaps, with new mirror tables, and with new file indexes.
pub(crate) fn run(
    arguments: &Arguments,
    programs: &Path,
    world: &World,
    interrupt: &Interrupt,
    results: &mut Results,
) -> Result<(), BenchError> {
    for setting in OURS {
        let name = setting.name;
        if !arguments.wants_server(name) {
            continue;
        }
        let daemon = match start_daemon(setting, programs, world, interrupt) {
            Ok(daemon) => daemon,
            // Containers often refuse io_uring.
            Err(BenchError::Silent { output, .. }) => {
                eprintln!("without {name}: {output}");
                continue;
            }
            Err(error) => return Err(error),
        };
        // Its indexer looks at the index once, too.
        std::thread::sleep(SETTLING);
        let duration = arguments.duration() * 2;
        let mut report = |what: &'static str, change: &mut dyn FnMut() -> Result<(), BenchError>| {
            eprintln!("{what}, {name}");
            let (report, swaps) = under_load(arguments, world, daemon.address, duration, interrupt, change)?;
            let swaps = if what == NO_SWAPS { 0 } else { swaps };
            results.swaps.push(PacedResult::new(name, what, swaps, &report));
            Ok::<_, BenchError>(())
        };
        report(NO_SWAPS, &mut || {
            std::thread::sleep(LOOK_AGAIN);
            Ok(())
        })?;
        let mut enabled = true;
        report("new mirror tables", &mut || {
            enabled = !enabled;
            command(programs, daemon.rpc, if enabled { "enable" } else { "disable" })
        })?;
        let mut publication = Publication::of(world);
        report("new file indexes", &mut || {
            publication.revision += 1;
            publication.by_another_process()
        })?;
    }
    Ok(())
}

/// A new index for a world.
#[derive(Clone, Debug, Args)]
pub(crate) struct Publication {
    folder: PathBuf,
    files: usize,
    mirrors: u32,
    sets: usize,
    revision: u64,
}

impl Publication {
    fn of(world: &World) -> Publication {
        let Size { files, mirrors, sets } = world.size;
        Publication { folder: world.folder.clone(), files, mirrors, sets, revision: 0 }
    }

    fn by_another_process(&self) -> Result<(), BenchError> {
        let Publication { folder, files, mirrors, sets, revision } = self;
        let own = std::env::current_exe().map_err(BenchError::at("find", "this program".as_ref()))?;
        let mut command = Command::new(own);
        command.arg("publish").arg(folder);
        command.args([files.to_string(), mirrors.to_string(), sets.to_string(), revision.to_string()]);
        succeed(&mut command, "mb-bench", "publish")
    }

    /// Makes and publishes it.
    pub(crate) fn publish(&self) -> Result<(), BenchError> {
        give_way();
        let Publication { files, mirrors, sets, revision, .. } = *self;
        let world = World { size: Size { files, mirrors, sets }, folder: self.folder.clone() };
        let mirrors = EmbeddedStore::open(&world.state_dir())?.mirrors()?;
        Publisher::new(&world.index_dir()).lock()?.publish(Some(&world.model(revision)?), &mirrors)?;
        Ok(())
    }
}

/// Repeats `change` while load at a fixed rate is answered. Returns what became of it, and the number of changes.
pub(crate) fn under_load(
    arguments: &Arguments,
    world: &World,
    address: SocketAddr,
    duration: Duration,
    interrupt: &Interrupt,
    change: &mut dyn FnMut() -> Result<(), BenchError>,
) -> Result<(Report, u64), BenchError> {
    let mut random = fastrand::Rng::with_seed(4);
    let files = (0..FILES).map(|_| File::new(path(random.usize(..world.size.files)))).collect();
    let mut plan = Plan::new(address, files);
    plan.connections = CONNECTIONS;
    plan.pace = Pace::Open(arguments.rate);
    plan.limit = Limit::Duration(duration);
    plan.mirrors = world.mirror_urls();
    plan.clients = NETWORKS.parse().into_iter().collect();
    let running = start(plan)?;
    let changes = repeat(&running, interrupt, change);
    running.stop();
    let report = running.wait()?;
    Ok((report, changes?))
}

fn repeat(
    running: &Running,
    interrupt: &Interrupt,
    change: &mut dyn FnMut() -> Result<(), BenchError>,
) -> Result<u64, BenchError> {
    let mut changes = 0;
    while !running.is_over() {
        interrupt.check()?;
        change()?;
        changes += 1;
    }
    Ok(changes)
}

fn command(programs: &Path, rpc: SocketAddr, what: &str) -> Result<(), BenchError> {
    succeed(&mut mirrorbits(programs, rpc, what), "mirrorbits", what)
}

fn succeed(command: &mut Command, program: &'static str, what: &str) -> Result<(), BenchError> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|source| BenchError::Start { program, source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(BenchError::Command(format!("{program} {what}"), String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// `mirrorbits enable` or `disable` of the first mirror.
fn mirrorbits(programs: &Path, rpc: SocketAddr, what: &str) -> Command {
    let mut command = Command::new(programs.join("mirrorbits"));
    command.args(["-h", &rpc.ip().to_string(), "-p", &rpc.port().to_string(), what, &mirror_name(0)]);
    command.stdin(Stdio::null());
    command
}

/// Milliseconds from the start of `mirrorbits disable` to the first changed answer: each of `rounds`.
pub(crate) fn time_changes(
    daemon: &Daemon,
    programs: &Path,
    rounds: usize,
    interrupt: &Interrupt,
) -> Result<Vec<f64>, BenchError> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let mut asking = Asking::open(daemon.address)?;
        asking.until("302", "enable", interrupt)?;
        let started = Instant::now();
        let child = mirrorbits(programs, daemon.rpc, "disable").stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.map_err(|source| BenchError::Start { program: "mirrorbits", source })?;
        let changed = asking.until("503", "disable", interrupt);
        times.push(started.elapsed().as_secs_f64() * 1e3);
        let _ = child.wait();
        changed?;
        command(programs, daemon.rpc, "enable")?;
    }
    Ok(times)
}

/// A client that asks for the same file again and again.
struct Asking(TcpStream);

impl Asking {
    fn open(address: SocketAddr) -> Result<Asking, BenchError> {
        Ok(Asking(TcpStream::connect(address).map_err(BenchError::Idle)?))
    }

    /// Asks until the answer has this status.
    fn until(&mut self, status: &str, command: &str, interrupt: &Interrupt) -> Result<(), BenchError> {
        let deadline = Instant::now() + PATIENCE;
        let request = format!("HEAD {ONLY_ON_FIRST} HTTP/1.1\r\nHost: download.example.org\r\n\r\n");
        let mut answer = [0; 16 * 1024];
        while Instant::now() < deadline {
            interrupt.check()?;
            self.0.write_all(request.as_bytes()).map_err(BenchError::Idle)?;
            let count = self.0.read(&mut answer).map_err(BenchError::Idle)?;
            if answer[..count].get(9..12) == Some(status.as_bytes()) {
                return Ok(());
            }
        }
        Err(BenchError::Unchanged(command.to_owned()))
    }
}
