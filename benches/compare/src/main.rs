//! `mb-bench`: what a redirect costs with us, with nginx, and with nothing but the kernel; `make bench` runs it.
//!
//! - [`world`], [`places`]: what is served: files, mirrors, geo databases, up to a million files on 400 mirrors
//! - [`contest`]: the servers side by side, on one core in turns
//! - [`workload`]: what they are asked
//! - [`wrk`], [`idle`]: who asks
//! - [`swap`]: our answers while the index is exchanged, every one verified
//! - [`lists`]: redirects beside clients that ask for mirror lists all the time
//! - [`spread`]: connections over two shards
//! - [`index`]: times and sizes of the index itself
//! - [`process`], [`interrupt`]: servers and their end
//! - [`result`]: medians, as JSON and as the table of docs/performance.md
//!
//! Everything happens in one temporary folder beside the programs, on loopback, and is gone afterwards.

mod contest;
mod error;
mod idle;
mod index;
mod interrupt;
mod lists;
mod places;
mod process;
mod result;
mod spread;
mod swap;
mod workload;
mod world;
mod wrk;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

pub(crate) use error::BenchError;
use interrupt::Interrupt;
use result::Results;
use workload::Workload;
use world::{Size, World};

/// Compares the redirector with a raw epoll loop and with nginx.
#[derive(Debug, Parser)]
#[command(name = "mb-bench")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Rounds; the table has the medians
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Only these workloads
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Workload>,
    /// Only these servers, by a part of their names: floor, nginx, io_uring, epoll
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// Folder with another build of ours, to be measured in turns with this one
    #[arg(long)]
    before: Option<PathBuf>,
    /// Files of the large repository
    #[arg(long, default_value_t = 1_000_000)]
    files: usize,
    /// Mirrors of the large repository
    #[arg(long, default_value_t = 400)]
    mirrors: u32,
    /// Connections that do nothing, in the workload that has them
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Requests per second while the index is exchanged, and beside mirror lists
    #[arg(long, default_value_t = 5_000.0)]
    rate: f64,
    /// Core of the servers; by default the first one that this process may use
    #[arg(long)]
    server_core: Option<usize>,
    /// Core of wrk; by default the second one
    #[arg(long)]
    client_core: Option<usize>,
    /// Also write everything as JSON to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What another process of this program does for the comparison.
#[derive(Debug, Subcommand)]
enum Part {
    /// Publishes a new index as the indexer does: from a process of its own, which gives way to the redirector
    #[command(hide = true)]
    Publish(swap::Publication),
}

impl Arguments {
    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.max(1))
    }

    fn wants(&self, workload: Workload) -> bool {
        self.only.is_empty() || self.only.contains(&workload)
    }

    fn wants_server(&self, name: &str) -> bool {
        self.servers.is_empty() || self.servers.iter().any(|part| name.contains(part.as_str()))
    }

    /// Server core and client core.
    fn cores(&self) -> Result<(usize, usize), BenchError> {
        let allowed = rustix::thread::sched_getaffinity(None)?;
        let cores: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
        let server = self.server_core.unwrap_or_else(|| cores.first().copied().unwrap_or(0));
        let other = cores.iter().copied().find(|&core| core != server);
        Ok((server, self.client_core.or(other).unwrap_or(server)))
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.part {
        Some(Part::Publish(publication)) => publication.publish(),
        None => run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mb-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let interrupt = Interrupt::listen()?;
    idle::raise_descriptor_limit(arguments.idle)?;
    let programs = programs()?;
    let temporary = tempfile::Builder::new().prefix("mb-bench-").tempdir_in(&programs);
    let temporary = temporary.map_err(BenchError::at("create a folder in", &programs))?;
    let mut results = Results::new(arguments)?;

    let Arguments { files, mirrors, .. } = *arguments;
    let small = Size { files: (files / 100).max(1), mirrors: (mirrors / 8).max(1), sets: 1 };
    let complete = Size { files, mirrors, sets: 1 };
    let sets = Size { files, mirrors, sets: (files / 500).max(2) };
    for (name, size) in [("small", small), ("complete", complete), ("sets", sets)] {
        let workloads: Vec<Workload> = Workload::of(name).filter(|workload| arguments.wants(*workload)).collect();
        if workloads.is_empty() {
            continue;
        }
        eprintln!("{name}: {} files, {} mirrors, {} sets of mirrors", size.files, size.mirrors, size.sets);
        let world = World::create(temporary.path().join(name), size)?;
        if workloads.contains(&Workload::Index) {
            results.index = Some(index::measure(&world, temporary.path())?);
        }
        contest::run(arguments, &programs, &world, &workloads, &interrupt, &mut results)?;
        if workloads.contains(&Workload::Lists) {
            lists::run(arguments, &programs, &world, &interrupt, &mut results)?;
        }
        if workloads.contains(&Workload::Swap) {
            swap::run(arguments, &programs, &world, &interrupt, &mut results)?;
        }
        std::fs::remove_dir_all(&world.folder).map_err(BenchError::at("remove", &world.folder))?;
    }
    print!("{}", results.markdown());
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&results).map_err(BenchError::Json)?;
        std::fs::write(path, text).map_err(BenchError::at("write", path))?;
    }
    Ok(())
}

/// The folder of this program, where cargo puts the others, too.
fn programs() -> Result<PathBuf, BenchError> {
    let own = std::env::current_exe().map_err(BenchError::at("find", "this program".as_ref()))?;
    let folder = own.parent().unwrap_or(&own).to_owned();
    for name in ["mirrorbits", "mb-floor"] {
        if !folder.join(name).is_file() {
            return Err(BenchError::Missing { name, folder });
        }
    }
    Ok(folder)
}
