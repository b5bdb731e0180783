//! The signals that the daemon knows, as what they ask for.

use std::time::Duration;

use tokio::signal::unix::{Signal as Source, SignalKind, signal};

/// How long requests under way are waited for after SIGTERM and SIGINT.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The same after SIGQUIT, which promises more.
const MORE_PATIENCE: Duration = Duration::from_secs(10);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// End, after requests under way for at most this long.
    End(Duration),
    /// Reload.
    Reload,
    /// Open log files again.
    ReopenLogs,
    /// Hand over to a new process.
    Upgrade,
}

/// All of them.
pub(super) struct Signals {
    terminate: Source,
    interrupt: Source,
    quit: Source,
    hangup: Source,
    user1: Source,
    user2: Source,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next one. May be cancelled.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::End(PATIENCE),
            _ = self.interrupt.recv() => Signal::End(PATIENCE),
            _ = self.quit.recv() => Signal::End(MORE_PATIENCE),
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.user1.recv() => Signal::ReopenLogs,
            _ = self.user2.recv() => Signal::Upgrade,
        }
    }

    /// Waits for one that ends the daemon, and leaves the others for later. May be cancelled.
    pub(super) async fn told_to_end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
        }
    }

    /// Waits for one that ends the daemon.
    pub(super) async fn end(&mut self) {
        while !matches!(self.next().await, Signal::End(_)) {}
    }
}
