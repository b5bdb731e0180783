//! A running program whose output goes to a file, and which is killed when dropped, also by a panicking test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::eventually;

/// A program that was started.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Child,
    output: PathBuf,
}

impl Program {
    /// Starts `command` with standard output and error in `folder/NAME.log`, appended to what is there.
    pub(crate) fn start(name: &str, command: &mut Command, folder: &Path) -> Program {
        let log = File::options().create(true).append(true).open(log_file(name, folder)).expect("log of a program");
        Program::start_with_error(name, command, folder, log.into())
    }

    /// The same with standard error elsewhere.
    pub(crate) fn start_with_error(name: &str, command: &mut Command, folder: &Path, error: Stdio) -> Program {
        let output = log_file(name, folder);
        let log = File::options().create(true).append(true).open(&output).expect("log of a program");
        let path = std::env::var("PATH").unwrap_or_default();
        let child = command
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(error)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name} ({command:?}): {e}; `make test` installs what tests need"));
        Program { name: name.to_owned(), child, output }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Its resident anonymous memory in KiB: without the pages of its program file.
    pub(crate) fn anonymous_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("status of a child");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("anonymous memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// The processor time that it has taken.
    pub(crate) fn processor_time(&self) -> std::time::Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("stat of a child");
        let fields = stat.rsplit(')').next().expect("fields").split_whitespace();
        // User and system time are fields 14 and 15 of proc(5), in hundredths of a second on Linux.
        let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        std::time::Duration::from_millis(ticks * 10)
    }

    /// What it wrote so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// Panics with its output when it has ended.
    pub(crate) fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().expect("status of a child") {
            panic!("{} ended with {status}:\n{}", self.name, self.output());
        }
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("status of a child").is_none()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("signal to a child");
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let name = self.name.clone();
        eventually(&format!("end of {name}"), || {
            self.child
                .try_wait()
                .map_err(|e| e.to_string())?
                .ok_or_else(|| format!("still running:\n{}", self.output()))
        })
    }

    /// Waits until its output contains `text`.
    pub(crate) fn wait_for_output(&mut self, text: &str) {
        eventually(&format!("`{text}` in the output of {}", self.name), || {
            let output = self.output();
            if output.contains(text) { Ok(()) } else { Err(output) }
        });
    }
}

/// Makes a FIFO at `path`: opening it blocks until its other end is opened, as opening a file of a disk that hangs does.
pub(crate) fn make_fifo(path: &Path) {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).expect("FIFO");
}

fn log_file(name: &str, folder: &Path) -> PathBuf {
    folder.join(format!("{name}.log"))
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- output of {}:\n{}", self.name, self.output());
        }
    }
}
