//! What systemd is told, where it started the daemon (`NOTIFY_SOCKET`); nothing elsewhere.

use std::time::Duration;

use sd_notify::NotifyState;

/// The daemon serves. `reason` goes into `systemctl status`.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload begins; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!("systemd is not told of the reload: {error}"),
    }
}

/// The daemon ends, and no other process takes its place.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Process `pid` is the service from now on. systemd believes this from the process that was it until now.
pub fn main_process(pid: u32) {
    notify(&[NotifyState::MainPid(pid)]);
}

/// All is well.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How often [`alive`] is to be said, if at all: twice in the time after which systemd ends a silent service.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|time| time / 2)
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("systemd cannot be told {state:?}: {error}");
    }
}
