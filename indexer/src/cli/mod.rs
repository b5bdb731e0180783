//! The command line: `mb-indexer [-config PATH] run|scan|build|verify|dump`.
//!
//! Exit status: 0 when all went well, 1 when something failed, 2 for wrong usage.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use mb_core::arguments::normalise;
use mb_core::config::{self, ConfigError};
use mb_core::foreign_text::{Escaping, ForeignText};
use mb_core::log_writer::{self, LogWriter};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::debug_fn;

use crate::build::BuildSettings;
use crate::build::publication::PublicationError;
use crate::indexer::{Indexer, StartError};
use crate::job_panics::{self, JobPanicked};
use crate::lock::LockError;
use crate::serve::ListenError;

mod dump;
mod run;
mod scan;

/// Options that existing scripts write with one dash.
const LONG_OPTIONS: [&str; 10] =
    ["config", "supervised", "all", "source", "enable", "rehash", "force", "timeout", "help", "version"];

/// How long work on other threads may take to end when the program does.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Scans the source repository and the mirrors, checks their health, publishes the index.
#[derive(Debug, Parser)]
#[command(name = "mb-indexer", version, arg_required_else_help = true)]
struct Arguments {
    /// Configuration file
    #[arg(long, value_name = "PATH", default_value = "/etc/mirrorbits.conf", global = true)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Scan, check and publish by the intervals of the configuration, until ended
    Run {
        /// End when standard input does: with the daemon that started this
        #[arg(long)]
        supervised: bool,
    },
    /// Scan once and publish, with or without a running daemon
    Scan(scan::ScanArguments),
    /// Publish an index from what is stored
    Build,
    /// Check an index file in full
    Verify {
        /// The file
        file: PathBuf,
    },
    /// Print an index file as tab-separated text
    Dump {
        /// The file
        file: PathBuf,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Publish(#[from] PublicationError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("another mb-indexer runs for {path}: end it first, or the daemon it belongs to", path = state_dir.display())]
    AlreadyRunning { state_dir: PathBuf },
    #[error("{0}")]
    Open(#[from] mb_index::OpenError),
    #[error("starting: {0}")]
    System(#[source] std::io::Error),
    #[error("writing the output: {0}")]
    Output(#[source] std::io::Error),
    #[error("interrupted; what was stored before stays")]
    Interrupted,
    /// Said already, mirror by mirror.
    #[error("not all scans succeeded")]
    Scans,
    #[error("{0}")]
    NoSuchMirror(String),
    #[error(transparent)]
    Panicked(#[from] JobPanicked),
}

/// Runs the program with its arguments, the program's name included.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(normalise(arguments, &LONG_OPTIONS)) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing is left to be done when the terminal is gone.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    // A one-shot command says what it did itself; what is odd is said in either case.
    let logging = log_to_stderr(if matches!(arguments.command, Command::Run { .. }) { "info" } else { "warn" });
    mb_core::priority::give_way();
    match logging.map_err(CommandError::System).and_then(|()| dispatch(arguments)) {
        Ok(()) => {
            log_writer::flush();
            ExitCode::SUCCESS
        }
        Err(error) => {
            let message = format!("mb-indexer: {}", ForeignText::new(&error.to_string()).with_lines());
            // A daemon that is stopped does not read.
            log_writer::print_with_limit(move || eprintln!("{message}"));
            match error {
                CommandError::Panicked(_) => job_panics::exit_code(),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn dispatch(arguments: Arguments) -> Result<(), CommandError> {
    match arguments.command {
        Command::Run { supervised } => run::run(&arguments.config, supervised),
        Command::Scan(what) => scan::scan(&arguments.config, what),
        Command::Build => {
            let indexer = open(&arguments.config)?;
            let current = indexer.publication.build_and_publish(&BuildSettings::of(&indexer.config()))?;
            if let Some(generation) = current.files {
                println!("Published generation {generation}");
            }
            Ok(())
        }
        Command::Verify { file } => dump::verify(&file),
        Command::Dump { file } => dump::dump(&file),
    }
}

fn open(config_path: &Path) -> Result<Arc<Indexer>, CommandError> {
    let loaded = config::load(config_path)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(Indexer::open(loaded.config)?)
}

/// Runs `future`, which works with `indexer`, on this thread; threads that still block when it is done are not waited for
/// long. No lease outlasts it.
fn block_on<T>(indexer: &Indexer, future: impl Future<Output = T>) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CommandError::System)?;
    // A panic of the main task ends the program, and must not wait for threads that block.
    let value = runtime.block_on(job_panics::catch(future));
    runtime.shutdown_timeout(END_WITHIN);
    indexer.turns.end();
    Ok(value?)
}

/// Waits for SIGTERM or SIGINT and returns its name.
async fn end_signal() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

fn log_to_stderr(default_level: &str) -> io::Result<()> {
    let log = LogWriter::to_standard_error()?;
    log.make_process_log();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_level));
    tracing_subscriber::fmt()
        .fmt_fields(
            debug_fn(|writer, field, value| {
                let mut escaping = Escaping::new(&mut *writer);
                if field.name() == "message" {
                    write!(escaping, "{value:?}")
                } else {
                    write!(escaping, "{field}={value:?}")
                }
            })
            .delimited(" "),
        )
        .with_env_filter(filter)
        .with_writer(move || log.clone())
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
    job_panics::log_panics();
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_long_option_may_have_one_dash() {
        let mut command = Arguments::command();
        command.build();
        let all = std::iter::once(&command).chain(command.get_subcommands());
        for option in all.flat_map(clap::Command::get_arguments).filter_map(clap::Arg::get_long) {
            assert!(LONG_OPTIONS.contains(&option), "{option}");
        }
    }
}
