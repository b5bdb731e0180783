//! `mb-indexer run`.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{CommandError, block_on, end_signal, open};
use crate::lock::{HeldLock, LockError, indexer_lock, try_lock};
use crate::schedule::Scheduler;
use crate::serve::{listen, serve};

/// How long the indexer of a daemon that was killed may take to end, after the next daemon has started its own.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts to take the lock.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// Runs until SIGTERM or SIGINT, or with `supervised` until standard input ends.
pub(super) fn run(config_path: &Path, supervised: bool) -> Result<(), CommandError> {
    let indexer = open(config_path)?;
    let state_dir = indexer.config().state_dir.clone();
    let patience = if supervised { HANDOVER_PATIENCE } else { Duration::ZERO };
    let _only_one = lock_within(patience, &indexer_lock(&state_dir))?
        .ok_or_else(|| CommandError::AlreadyRunning { state_dir: state_dir.clone() })?;
    let scheduler = Arc::new(Scheduler::new(Arc::clone(&indexer), config_path.to_owned()));
    block_on(&indexer, async move {
        let listener = listen(&state_dir)?;
        let input_ended = supervised.then(watch_input);
        let input_ended = async {
            match input_ended {
                // An error means that the watching thread is gone, and so is the input.
                Some(ended) => drop(ended.await),
                None => std::future::pending().await,
            }
        };
        tracing::info!(state_dir = %state_dir.display(), "indexer started");
        let reason = tokio::select! {
            () = serve(listener, Arc::clone(&scheduler)) => "the socket failed",
            () = scheduler.run() => "the scheduler ended",
            name = end_signal() => name.map_err(CommandError::System)?,
            () = input_ended => "the daemon that started this is gone",
        };
        tracing::info!(reason, "indexer ends");
        Ok(())
    })?
}

/// Takes the lock, for which another may hold it up to `patience` longer.
fn lock_within(patience: Duration, path: &Path) -> Result<Option<HeldLock>, LockError> {
    let deadline = Instant::now() + patience;
    loop {
        let held = try_lock(path)?;
        if held.is_some() || Instant::now() >= deadline {
            return Ok(held);
        }
        std::thread::sleep(LOCK_POLL);
    }
}

/// Reads standard input on a thread of its own, which may stay blocked when the program ends.
fn watch_input() -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut ignored = [0; 256];
        while matches!(std::io::stdin().read(&mut ignored), Ok(1..)) {}
        // Fails when the program ends for another reason.
        let _ = sender.send(());
    });
    receiver
}
