//! A server that was started for a comparison: its processor time, its memory, its end.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::BenchError;
use crate::interrupt::Interrupt;

/// How long a server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A running server. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    child: Child,
}

/// A command bound to `core`, or free to use all cores.
pub(crate) fn pinned(program: &Path, core: Option<usize>) -> Command {
    let Some(core) = core else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

impl Server {
    /// Starts `command`, with its output in a file in `folder`, and waits until it accepts connections at `address`.
    pub(crate) fn start(
        name: &'static str,
        command: &mut Command,
        folder: &Path,
        address: SocketAddr,
        interrupt: &Interrupt,
    ) -> Result<Server, BenchError> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).map_err(BenchError::at("create", &log))?;
        let copy = file.try_clone().map_err(BenchError::at("open", &log))?;
        let child = command.stdin(Stdio::null()).stdout(copy).stderr(file).spawn();
        let child = child.map_err(|source| BenchError::Start { program: name, source })?;
        let mut server = Server { name, child };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            interrupt.check()?;
            let ended = server.child.try_wait().map_err(|source| BenchError::Start { program: name, source })?;
            if ended.is_some() || Instant::now() > deadline {
                let output = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(BenchError::Silent { program: name, address, output });
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(server)
    }

    /// Processor time used so far.
    pub(crate) fn cpu_time(&self) -> Result<CpuTime, BenchError> {
        CpuTime::of(&self.child)
    }

    /// How many descriptors each of its epoll instances watches, by the number of the instance's descriptor.
    pub(crate) fn watched(&self) -> Result<BTreeMap<OsString, usize>, BenchError> {
        let folder = PathBuf::from(format!("/proc/{}/fdinfo", self.child.id()));
        let mut watched = BTreeMap::new();
        for entry in std::fs::read_dir(&folder).map_err(BenchError::at("read", &folder))? {
            let entry = entry.map_err(BenchError::at("read", &folder))?;
            // A descriptor may be closed meanwhile.
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            watched.insert(entry.file_name(), text.lines().filter(|line| line.starts_with("tfd:")).count());
        }
        Ok(watched)
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> Result<u64, BenchError> {
        let path = format!("/proc/{}/statm", self.child.id());
        let text = std::fs::read_to_string(&path).map_err(BenchError::at("read", Path::new(&path)))?;
        let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        Ok(pages.ok_or(BenchError::Proc(path))? * rustix::param::page_size() as u64)
    }
}

/// Processor time of all threads of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuTime {
    pub(crate) user: Duration,
    pub(crate) kernel: Duration,
}

impl CpuTime {
    /// What a process that has not been waited for has used so far.
    pub(crate) fn of(process: &Child) -> Result<CpuTime, BenchError> {
        let path = format!("/proc/{}/stat", process.id());
        let text = std::fs::read_to_string(&path).map_err(BenchError::at("read", Path::new(&path)))?;
        let [user, kernel] = ticks(&text).ok_or(BenchError::Proc(path))?;
        let time = |ticks: u64| Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64);
        Ok(CpuTime { user: time(user), kernel: time(kernel) })
    }

    /// What was used since `earlier`.
    pub(crate) fn since(self, earlier: CpuTime) -> CpuTime {
        CpuTime { user: self.user - earlier.user, kernel: self.kernel - earlier.kernel }
    }

    pub(crate) fn total(self) -> Duration {
        self.user + self.kernel
    }
}

/// `utime` and `stime` of proc_pid_stat(5). The name in parentheses before them may hold anything.
fn ticks(stat: &str) -> Option<[u64; 2]> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace().skip(11);
    Some([fields.next()?.parse().ok()?, fields.next()?.parse().ok()?])
}

impl Drop for Server {
    fn drop(&mut self) {
        // The daemon ends its own children when it is asked, not when it is killed.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ticks;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a ) (b) S 1 7 7 0 -1 4194560 100 0 0 0 250 31 0 0 20 0 1 0 100 0 0";
        assert_eq!(ticks(stat), Some([250, 31]));
        assert_eq!(ticks("nonsense"), None);
    }
}
