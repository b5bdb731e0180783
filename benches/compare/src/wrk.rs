//! One measurement by wrk.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::BenchError;
use crate::interrupt::Interrupt;
use crate::process::{CpuTime, pinned};

/// Sends the requests of a list in order, and prints what it saw as JSON. Arguments: list, requests per write, header lines.
const SCRIPT: &str = include_str!("requests.lua");

/// Between two looks whether wrk has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What wrk sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load<'a> {
    /// List of paths and clients, one request on each line.
    pub(crate) requests: &'a Path,
    pub(crate) connections: usize,
    /// Requests in one write.
    pub(crate) pipelined: usize,
    /// Header lines, separated by `|`.
    pub(crate) headers: &'a str,
    pub(crate) duration: Duration,
}

/// What wrk saw. Latencies are in microseconds, and 0 where wrk does not know: its correction for coordinated omission may put
/// more answers below the least latency than its percentiles count.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Seen {
    /// Share of its core that wrk used while it asked.
    #[serde(default)]
    pub(crate) busy: f64,
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    /// Answers of status 400 and above, and broken connections.
    pub(crate) errors: u64,
}

/// wrk on a core of its own.
#[derive(Debug)]
pub(crate) struct Wrk {
    core: usize,
    script: PathBuf,
    output: PathBuf,
}

impl Wrk {
    pub(crate) fn new(folder: &Path, core: usize) -> Result<Wrk, BenchError> {
        let script = folder.join("requests.lua");
        std::fs::write(&script, SCRIPT).map_err(BenchError::at("write", &script))?;
        Ok(Wrk { core, script, output: folder.join("wrk.out") })
    }

    pub(crate) fn run(&self, address: SocketAddr, load: &Load<'_>, interrupt: &Interrupt) -> Result<Seen, BenchError> {
        let failed = |source| BenchError::Start { program: "wrk", source };
        let output = File::create(&self.output).map_err(BenchError::at("create", &self.output))?;
        let seconds = load.duration.as_secs_f64().ceil().max(1.0);
        let mut child = pinned(Path::new("wrk"), Some(self.core))
            .args(["-t1", "-c", &load.connections.to_string(), "-d", &format!("{seconds}s"), "--timeout", "10s", "-s"])
            .arg(&self.script)
            .arg(format!("http://{address}"))
            .arg("--")
            .arg(load.requests)
            .args([&load.pipelined.to_string(), load.headers])
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(failed)?;
        let started = Instant::now();
        let mut used = None;
        let mut busy = 0.0;
        while child.try_wait().map_err(failed)?.is_none() {
            // At first it reads its list.
            if started.elapsed() > load.duration / 2 {
                let (now, time) = (Instant::now(), CpuTime::of(&child)?.total());
                let (began, before) = *used.get_or_insert((now, time));
                if now > began {
                    busy = (time - before).as_secs_f64() / (now - began).as_secs_f64();
                }
            }
            if let Err(interrupted) = interrupt.check() {
                let _ = child.kill();
                let _ = child.wait();
                return Err(interrupted);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        let mut text = String::new();
        let read = File::open(&self.output).and_then(|mut file| file.read_to_string(&mut text));
        read.map_err(BenchError::at("read", &self.output))?;
        let line = text.lines().find(|line| line.starts_with('{'));
        let seen = line.and_then(|line| serde_json::from_str::<Seen>(line).ok());
        seen.map(|seen| Seen { busy, ..seen }).ok_or(BenchError::Wrk(text))
    }
}
