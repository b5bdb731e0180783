//! `mirrorbits demo`: from nothing to a serving redirector on this machine, to be tried out.
//!
//! Everything is real but small: a repository and three mirrors in a temporary folder, served by an rsync daemon and by nginx
//! on loopback addresses; the daemon with its indexer; the mirrors added, scanned and enabled by the same commands that an
//! operator types. Only the geo databases are invented: they place loopback networks and documentation prefixes in cities.
//!
//! - [`folder`]: the files: repository, mirrors, configurations
//! - [`ports`]: the usual ports where they are free
//! - [`stage`]: the programs, and their end
//! - [`examples`]: the commands to try

mod examples;
mod folder;
mod ports;
mod stage;

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use folder::Folder;
use ports::Ports;
use stage::Stage;

/// From adding the mirrors until all of them are used; a scan and a health check each take milliseconds here.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Why the demo cannot run, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    /// A file or folder could not be written.
    #[error("cannot {step} {}: {source}", path.display())]
    File {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The runtime or a signal handler was refused by the system.
    #[error("cannot prepare to run programs: {0}")]
    System(#[from] io::Error),
    /// Too many ports are taken.
    #[error("no free port for {0} on loopback")]
    NoPort(&'static str),
    /// A program is not there.
    #[error(
        "cannot start {program}: {source}; `make demo` installs what the demo needs, or: apt-get install rsync nginx"
    )]
    Start {
        /// Its name.
        program: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A program that was to serve ended.
    #[error("{program} ended with {status}; the end of its output:\n{output}")]
    Ended {
        /// Its name.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// Its last lines.
        output: String,
    },
    /// A command of the set-up failed; it said why.
    #[error("`{command}` failed with {status}")]
    Command {
        /// As one would type it.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// Something that should take milliseconds did not happen.
    #[error("{what} took longer than {READY_WITHIN:?}; the end of the daemon's output:\n{output}")]
    NotReady {
        /// What was waited for.
        what: String,
        /// The daemon's last lines.
        output: String,
    },
}

/// Sets everything up, prints what to try and serves until SIGINT, SIGTERM or SIGHUP; then ends every program that it
/// started and removes the folder.
pub(super) fn run() -> Result<(), DemoError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let folder = Folder::create(Ports::choose()?)?;
        let mut stage = Stage::new(&folder);
        let result = tokio::select! {
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            _ = hang_up.recv() => Ok(()),
            result = perform(&mut stage, &folder) => result,
        };
        stage.end().await;
        folder.remove()?;
        println!("\nEverything that the demo started has ended.");
        result
    })
}

/// Never returns but with an error: the demo ends by a signal.
async fn perform(stage: &mut Stage<'_>, folder: &Folder) -> Result<(), DemoError> {
    println!("The demo lives in {} and is removed with it.", folder.path().display());
    stage.start_mirrors().await?;
    stage.start_daemon().await?;
    stage.mirrorbits(&["refresh"]).await?;
    for mirror in &folder::MIRRORS {
        let (http, rsync) = (mirror.http_url(folder.ports()), mirror.rsync_url(folder.ports()));
        stage.mirrorbits(&["add", "-http", &http, "-rsync", &rsync, mirror.name]).await?;
        stage.mirrorbits(&["scan", "-enable", mirror.name]).await?;
    }
    for mirror in &folder::MIRRORS {
        stage.wait_until_used(mirror).await?;
    }
    stage.mirrorbits(&["list"]).await?;
    println!("{}", examples::text(folder.ports()));
    stage.watch().await
}
