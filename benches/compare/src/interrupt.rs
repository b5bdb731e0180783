//! Ctrl-C: everything that was started is ended and removed on the way out, as after a failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::BenchError;

/// Whether the run was told to end.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes note of SIGINT, SIGTERM and SIGHUP from now on.
    pub(crate) fn listen() -> Result<Interrupt, BenchError> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).map_err(BenchError::Signals)?;
        }
        Ok(Interrupt(flag))
    }

    /// Fails once the run was told to end.
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        if self.0.load(Ordering::Relaxed) { Err(BenchError::Interrupted) } else { Ok(()) }
    }
}
