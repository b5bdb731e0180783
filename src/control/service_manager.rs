//! What systemd is told, where it started the daemon (`NOTIFY_SOCKET`); nothing elsewhere.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// Messages that the service manager has not taken, in their order.
static UNTAKEN: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());
/// Most of these.
const UNTAKEN_MAX: usize = 16;
/// How long the service manager may take for one. It takes microseconds when it runs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at whether all messages are taken.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Sends `state`. A service manager that does not read, since it is stopped or busy, is waited for by another thread, and signs
/// of life are not repeated.
fn notify(state: &[NotifyState<'_>]) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let message: String = state.iter().map(|state| format!("{state}\n")).collect();
    let mut untaken = untaken();
    let sent = if untaken.is_empty() { send(&path, &message, None) } else { Err(io::ErrorKind::WouldBlock.into()) };
    match sent {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            if !matches!(state, [NotifyState::Watchdog]) && untaken.len() < UNTAKEN_MAX {
                untaken.push_back(message);
                if untaken.len() == 1 && !start_sending(path) {
                    untaken.clear();
                }
            }
        }
        Err(error) => tracing::warn!("systemd cannot be told {state:?}: {error}"),
    }
}

/// Waits until the service manager has taken every message, for as long as a message may take. A process
/// that has handed over must not end before its manager knows the new one: it would end that, too.
pub async fn all_taken() {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !untaken().is_empty() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn untaken() -> MutexGuard<'static, VecDeque<String>> {
    UNTAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends the messages that were not taken, on a thread that may wait. Returns whether there is one.
fn start_sending(path: OsString) -> bool {
    let work = move || {
        let mut next = untaken().front().cloned();
        while let Some(message) = next {
            if let Err(error) = send(&path, &message, Some(PATIENCE)) {
                tracing::warn!("systemd cannot be told {:?}: {error}", message.trim_end());
            }
            // Under one lock, since a message that is added to an empty queue starts a thread.
            let mut untaken = untaken();
            untaken.pop_front();
            next = untaken.front().cloned();
        }
    };
    if let Err(error) = std::thread::Builder::new().name("notify".to_owned()).spawn(work) {
        tracing::warn!("systemd does not read what it is told, and no thread can be made that waits for it: {error}");
        return false;
    }
    true
}

/// Sends a message to the socket that systemd named: a path, or an abstract name after `@`. Without `patience` it does not block.
fn send(path: &OsStr, message: &str, patience: Option<Duration>) -> io::Result<()> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    match patience {
        Some(_) => socket.set_write_timeout(patience)?,
        None => socket.set_nonblocking(true)?,
    }
    socket.send_to_addr(message.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The control loop waited for a service manager that was stopped, for ever.
    #[test]
    fn a_reader_that_stops_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let reader = UnixDatagram::bind(&path).unwrap();
        let mut sent = 0_u32;
        let error = loop {
            match send(path.as_os_str(), "WATCHDOG=1\n", None) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert!(sent > 0 && error.kind() == io::ErrorKind::WouldBlock, "{error}");
        let patience = Some(Duration::from_millis(1));
        assert!(send(path.as_os_str(), "READY=1\n", patience).is_err(), "a thread that may wait has a limit, too");
        let mut message = [0; 64];
        reader.recv(&mut message).unwrap();
        send(path.as_os_str(), "READY=1\n", None).unwrap();
    }
}
