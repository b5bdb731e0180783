//! `daemon`: runs the redirector.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use mb_core::log_writer;

use super::error::CommandError;
use crate::control::daemon;

/// Where the configuration is looked for by default.
pub(super) const DEFAULT_CONFIG: &str = "/etc/mirrorbits.conf";

/// Options of `daemon`.
#[derive(Args, Debug)]
pub(super) struct Daemon {
    /// Configuration file
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Start and watch the indexer, which scans and checks the mirrors
    #[arg(long, default_value_t = true)]
    monitor: bool,
    /// File to write the process id to
    #[arg(short = 'p', value_name = "PIDFILE")]
    pid_file: Option<PathBuf>,
    /// File to log to instead of standard error
    #[arg(long = "log", value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Log details
    #[arg(id = "daemon-debug", long = "debug")]
    debug: bool,
    /// Accepted for existing scripts: profile the running process with perf instead
    #[arg(long = "cpuprofile", value_name = "FILE")]
    cpu_profile: Option<PathBuf>,
}

/// The exit status of a daemon that ended like this, after telling why. Whoever reads standard error may not read on.
pub(super) fn exit_code(ended: Result<(), CommandError>) -> ExitCode {
    match ended {
        Ok(()) => {
            log_writer::flush();
            ExitCode::SUCCESS
        }
        Err(error) => {
            print(error.to_string());
            error.exit_code()
        }
    }
}

fn print(line: String) {
    log_writer::print_with_limit(move || {
        // Nobody is left to be told.
        let _ = writeln!(super::terminal::stderr(), "{line}");
    });
}

impl Daemon {
    /// Runs until a signal ends the daemon; `debug` was given before the command.
    pub(super) fn run(self, debug: bool) -> Result<(), CommandError> {
        if self.cpu_profile.is_some() {
            print("-cpuprofile writes no profile here: use `perf record -p PID`".to_owned());
        }
        let options = daemon::Options {
            config: self.config,
            monitor: self.monitor,
            pid_file: self.pid_file,
            log_file: self.log_file,
            debug: self.debug || debug,
        };
        Ok(daemon::run(&options)?)
    }
}
