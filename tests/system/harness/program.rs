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
        let output = folder.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&output).expect("log of a program");
        let path = std::env::var("PATH").unwrap_or_default();
        let child = command
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("second handle of a log"))
            .stderr(log)
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

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- output of {}:\n{}", self.name, self.output());
        }
    }
}
