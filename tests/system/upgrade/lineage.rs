//! A daemon that hands over to new processes, which are no children of the test any more once their parent has ended.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use mb_load::{File, Mode, Plan, Running};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, waitpid};

use crate::harness::http::Connection;
use crate::harness::redirector::{Redirector, get};
use crate::harness::{PATIENCE, eventually};

/// The daemon, started by a link that a test can turn to another program.
#[derive(Debug)]
pub(crate) struct Lineage {
    pub(crate) redirector: Redirector,
    /// Processes that were the daemon, the first one excepted, which the harness looks after.
    descendants: Vec<Pid>,
}

impl Lineage {
    /// A daemon with `shards` shards and a server of last resort, so that every path of the repository is a redirect.
    pub(crate) fn new(shards: usize) -> Lineage {
        let mut redirector = Redirector::new();
        redirector.set("Shards", shards).set("Fallbacks", "[{URL: 'http://fallback.example/'}]");
        let lineage = Lineage { redirector, descendants: Vec::new() };
        fs::create_dir(lineage.program().with_file_name("")).expect("folder of the program");
        lineage.put_program(Path::new(env!("CARGO_BIN_EXE_mirrorbits")));
        // Orphans become our children: a process that is gone for good can then be told from a zombie.
        set_child_subreaper(Some(Pid::INIT)).expect("subreaper");
        lineage
    }

    /// The path that the daemon is started by.
    pub(crate) fn program(&self) -> PathBuf {
        self.redirector.folder().join("bin/mirrorbits")
    }

    /// Puts `program` where an upgrade finds it.
    pub(crate) fn put_program(&self, program: &Path) {
        self.remove_program();
        symlink(program, self.program()).expect("link to the program");
    }

    /// Leaves nothing there.
    pub(crate) fn remove_program(&self) {
        let _ = fs::remove_file(self.program());
    }

    /// The command that starts the daemon by that path.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(self.program());
        command.args(self.redirector.daemon_command().get_args()).arg("-p").arg(self.pid_file());
        command
    }

    /// Starts the daemon.
    pub(crate) fn start(&mut self) {
        let mut command = self.command();
        self.start_by(&mut command);
    }

    /// Starts the daemon by a command made of [`Lineage::command`].
    pub(crate) fn start_by(&mut self, command: &mut Command) {
        self.redirector.start_with(command);
        eventually("the PID file", || fs::metadata(self.pid_file()).map_err(|error| error.to_string()));
    }

    /// Starts the daemon and has it index `/file.iso`.
    pub(crate) fn start_with_a_file(&mut self) {
        fs::write(self.redirector.repository().join("file.iso"), "content").expect("file");
        self.start();
        self.redirector.scan_repository();
        self.redirector.wait_until_served("/file.iso");
    }

    fn pid_file(&self) -> PathBuf {
        self.redirector.folder().join("mirrorbits.pid")
    }

    /// The process that is the daemon, as the PID file has it.
    pub(crate) fn pid(&self) -> Pid {
        let text = fs::read_to_string(self.pid_file()).expect("PID file");
        Pid::from_raw(text.trim().parse().expect("process id")).expect("process id")
    }

    /// Hands over to a new process, and returns its id.
    pub(crate) fn upgrade(&mut self) -> Pid {
        let old = self.pid();
        self.redirector.mirrorbits(&["upgrade"]);
        self.note_successor(old)
    }

    /// Notes the process that took over from `old`.
    pub(crate) fn note_successor(&mut self, old: Pid) -> Pid {
        let new = self.pid();
        assert_ne!(new, old, "the PID file names the new process when the command has ended");
        self.descendants.push(new);
        new
    }

    /// An upgrade that must fail with status 1 and leave everything as it was; returns the reason.
    pub(crate) fn fail_to_upgrade(&self) -> String {
        let old = self.pid();
        let output = self.redirector.run(&["upgrade"]);
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{reason}");
        assert_eq!(self.pid(), old, "the PID file");
        assert!(is_running(old), "the old process");
        reason
    }

    /// Waits until no process but the current one is left, zombies included.
    pub(crate) fn settle(&self) {
        eventually("one process", || {
            self.reap();
            let left: Vec<String> = self.processes();
            let current = self.pid().as_raw_nonzero().to_string();
            if left.iter().all(|pid| *pid == current) { Ok(()) } else { Err(format!("{left:?}, not only {current}")) }
        });
    }

    /// Waits until no process is left.
    pub(crate) fn wait_for_the_end(&self) {
        eventually("no process", || {
            self.reap();
            let left = self.processes();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }

    /// Ids of all daemons of this folder, running or zombies.
    fn processes(&self) -> Vec<String> {
        let config = self.redirector.folder().join("mirrorbits.conf").display().to_string();
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
            .filter(|pid| {
                let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let ours = || self.descendants.iter().any(|ours| ours.as_raw_nonzero().to_string() == *pid);
                command.contains(&config) && command.contains("daemon") || command.is_empty() && ours()
            })
            .collect()
    }

    /// Takes note of the end of those that are our children by now.
    fn reap(&self) {
        for &pid in &self.descendants {
            // It may be running, or another's child.
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }

    /// What the descriptors of the daemon are, without their numbers, and how many there are of each.
    pub(crate) fn descriptors(&self) -> BTreeMap<String, usize> {
        let folder = format!("/proc/{}/fd", self.pid().as_raw_nonzero());
        let entries = fs::read_dir(folder).expect("descriptors").flatten();
        let mut kinds = BTreeMap::new();
        for link in entries.filter_map(|entry| fs::read_link(entry.path()).ok()) {
            let kind = link.display().to_string();
            *kinds.entry(kind.trim_end_matches(|c: char| "[]0123456789".contains(c)).to_owned()).or_default() += 1;
        }
        kinds
    }

    /// A client that got an answer and keeps its connection.
    pub(crate) fn idle_client(&self) -> Connection {
        let mut idle = Connection::open(self.redirector.address()).expect("connection");
        idle.send(get("/file.iso", &[]).as_bytes()).expect("request");
        assert_eq!(idle.receive().expect("answer").header("Connection"), None);
        idle
    }

    /// Load on `/file.iso` that ends when it is stopped.
    pub(crate) fn load(&self, mode: Mode, connections: usize) -> Running {
        self.load_on("/file.iso", mode, connections)
    }

    /// Load on one path, which is a redirect. A busy machine may take its time.
    pub(crate) fn load_on(&self, path: &str, mode: Mode, connections: usize) -> Running {
        let plan = Plan::new(self.redirector.address(), vec![File::new(path)]);
        mb_load::start(Plan { mode, connections, timeout: PATIENCE, ..plan }).expect("load")
    }

    /// Every kind of client at once.
    pub(crate) fn every_load(&self) -> Vec<Running> {
        [(Mode::KeepAlive, 4), (Mode::PerRequest, 2), (Mode::Pipelined(8), 2)]
            .map(|(mode, connections)| self.load(mode, connections))
            .into()
    }
}

/// Waits until each load got `answers` more answers.
pub(crate) fn wait_for_answers(loads: &[Running], answers: u64) {
    for load in loads {
        let wanted = load.answered() + answers;
        eventually("answers under load", || {
            let got = load.answered();
            if got >= wanted || load.failed() > 0 { Ok(()) } else { Err(format!("{got} of {wanted}")) }
        });
    }
}

/// Ends the loads; nothing must have failed. Returns the number of answers.
pub(crate) fn assert_nothing_failed(loads: Vec<Running>) -> u64 {
    loads.iter().for_each(Running::stop);
    let reports: Vec<_> = loads.into_iter().map(|load| load.wait().expect("report")).collect();
    for report in &reports {
        assert_eq!(report.failures(), 0, "{report}");
        assert!(report.answered() > 0, "{report}");
    }
    reports.iter().map(mb_load::Report::answered).sum()
}

/// Whether a process runs; a zombie does not.
pub(crate) fn is_running(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    status.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

impl Drop for Lineage {
    fn drop(&mut self) {
        for &pid in &self.descendants {
            if is_running(pid) && self.processes().contains(&pid.as_raw_nonzero().to_string()) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        self.reap();
    }
}
