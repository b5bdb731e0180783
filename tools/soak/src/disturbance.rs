//! What operators and misfortune do to a running daemon, one after the other.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use crate::SoakError;
use crate::world::World;

/// How long a stopped indexer does not answer.
const STOPPED: Duration = Duration::from_secs(3);

/// A disturbance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disturbance {
    /// A file more in the repository, and a new index.
    Publication,
    /// The configuration is read again.
    Reload,
    /// A new process takes over.
    Upgrade,
    /// The indexer is killed.
    IndexerKilled,
    /// The indexer is stopped for some seconds, and a reload is asked for meanwhile.
    IndexerStopped,
}

impl Disturbance {
    /// All of them, in the order in which they come.
    pub(crate) const ALL: [Disturbance; 5] = [
        Disturbance::Publication,
        Disturbance::Reload,
        Disturbance::IndexerStopped,
        Disturbance::Upgrade,
        Disturbance::IndexerKilled,
    ];

    /// Carries it out; `number` is that of the disturbance in the whole run.
    ///
    /// # Errors
    /// The daemon refuses what it must not refuse.
    pub(crate) fn happen(self, world: &mut World, number: u64) -> Result<(), SoakError> {
        match self {
            Disturbance::Publication => {
                world.add_file(number)?;
                patiently(world, &["refresh"])
            }
            Disturbance::Reload => patiently(world, &["reload"]),
            Disturbance::Upgrade => {
                patiently(world, &["upgrade"])?;
                world.note_daemon();
                Ok(())
            }
            Disturbance::IndexerKilled => {
                if let Some(indexer) = world.indexer() {
                    let _ = kill_process(indexer, Signal::KILL);
                }
                Ok(())
            }
            Disturbance::IndexerStopped => {
                if let (Some(indexer), Some(daemon)) = (world.indexer(), world.daemon()) {
                    let _ = kill_process(indexer, Signal::STOP);
                    let _ = kill_process(daemon, Signal::HUP);
                    sleep(STOPPED);
                    let _ = kill_process(indexer, Signal::CONT);
                }
                Ok(())
            }
        }
    }
}

/// Runs a command until it succeeds: it is refused while the indexer is not back yet, or while another upgrade ends.
fn patiently(world: &World, command: &[&str]) -> Result<(), SoakError> {
    let mut last = Ok(String::new());
    let tried = world.wait_for(&format!("that `mirrorbits {}` succeeds", command.join(" ")), || {
        last = world.command(command);
        last.is_ok()
    });
    match (tried, last) {
        (Err(_), Err(refused)) => Err(refused),
        (tried, _) => tried,
    }
}

/// Whether the kernel still has a process of this id.
pub(crate) fn is_alive(pid: rustix::process::Pid) -> bool {
    fs::metadata(format!("/proc/{}", pid.as_raw_nonzero())).is_ok()
}
