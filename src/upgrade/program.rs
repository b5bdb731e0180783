//! The program that this process runs, to be started again: by then another file may be found at its path.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::stat;

/// Names the socket of the old process to the new one.
pub const SOCKET_VARIABLE: &str = "MIRRORBITS_UPGRADE";
/// What systemd gave to one process, for it alone.
const OF_ONE_PROCESS: [&str; 5] = ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"];

/// How this process was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Where its file was found.
    pub path: PathBuf,
    /// What followed its name.
    pub arguments: Vec<OsString>,
}

impl Program {
    /// The program of this process. To be asked for early: once its file was replaced, the system only knows the old one.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn of_this_process() -> io::Result<Program> {
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_default();
        let path = as_typed(&name, &env::current_exe()?);
        Ok(Program { path, arguments: arguments.collect() })
    }

    /// A command that starts it as a new process that takes over from this one through `socket`.
    pub fn successor(&self, socket: &Path) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).env(SOCKET_VARIABLE, socket).stdin(Stdio::null());
        for name in OF_ONE_PROCESS {
            command.env_remove(name);
        }
        without_our_descriptors(&mut command);
        command
    }
}

/// Keeps everything but the standard streams from a child: the runtime of a shard accepts connections without close-on-exec
/// and sets it a moment later.
pub fn without_our_descriptors(command: &mut Command) {
    // A kernel without this (before 5.11) leaves the moment between the two.
    let close = || {
        // SAFETY: the call takes numbers only, and is safe to make between fork and exec.
        unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) };
        Ok(())
    };
    // SAFETY: `close` makes one system call; it takes no lock and no memory.
    unsafe { command.pre_exec(close) };
}

/// The absolute path by which `executable` was called as `name`, so that a link that is moved to another release is followed;
/// `executable` itself when that cannot be told.
fn as_typed(name: &OsStr, executable: &Path) -> PathBuf {
    let is_it = |path: &Path| match (stat(path), stat(executable)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    };
    let typed = Path::new(name);
    let candidates: Vec<PathBuf> = if typed.components().count() > 1 {
        std::path::absolute(typed).into_iter().collect()
    } else {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).map(|folder| folder.join(typed)).collect()
    };
    candidates.into_iter().find(|path| is_it(path)).unwrap_or_else(|| executable.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_is_kept_as_it_was_typed() {
        let folder = tempfile::tempdir().unwrap();
        let [release, link, other] = ["release-1", "mirrorbits", "other"].map(|name| folder.path().join(name));
        fs::write(&release, "").unwrap();
        fs::write(&other, "").unwrap();
        symlink(&release, &link).unwrap();
        assert_eq!(as_typed(link.as_os_str(), &release), link);
        assert_eq!(as_typed(other.as_os_str(), &release), release, "another file of that name is not it");
        assert_eq!(as_typed(OsStr::new("no such name"), &release), release);
        assert_eq!(as_typed(OsStr::new(""), &release), release);
    }

    #[test]
    fn a_child_gets_the_standard_streams_and_nothing_else() {
        // A number that no program of the test takes by itself.
        let file = rustix::io::fcntl_dupfd_cloexec(File::open("/dev/null").unwrap(), 90).unwrap();
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "ls /proc/self/fd"]);
        without_our_descriptors(&mut command);
        let output = command.output().unwrap();
        let seen = String::from_utf8(output.stdout).unwrap();
        let number = file.as_raw_fd().to_string();
        assert!(seen.contains('0') && !seen.lines().any(|line| line == number), "{seen}");
    }

    #[test]
    fn a_successor_is_started_alike_and_told_where_to_ask() {
        let program = Program { path: "/usr/bin/env".into(), arguments: vec!["-u".into(), "NOTHING".into()] };
        let command = program.successor(Path::new("/run/upgrade.sock"));
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["-u", "NOTHING"]);
        let value = |wanted: &str| command.get_envs().find(|(name, _)| *name == wanted).map(|(_, value)| value);
        assert_eq!(value(SOCKET_VARIABLE), Some(Some(OsStr::new("/run/upgrade.sock"))));
        assert_eq!(value("LISTEN_FDS"), Some(None));
        assert_eq!(value("WATCHDOG_PID"), Some(None));
    }
}
