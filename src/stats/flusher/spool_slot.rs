//! The flusher's spool: not there before it is this process's, and left alone for a while when it fails.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use mb_index::FileIndex;

use crate::stats::figures::Figures;
use crate::stats::spool::{BatchId, Spool, SpoolError};

/// The spool, as far as it can be had.
pub(super) struct SpoolSlot {
    state_dir: PathBuf,
    state: SpoolState,
}

enum SpoolState {
    /// Another process owns it, or it cannot be opened; whether the reason was reported.
    NotOurs { reported: bool },
    /// In use.
    Ours(Spool),
    /// It failed; not written to before it is known to have room again.
    Failed(Spool),
}

impl SpoolSlot {
    /// The spool of a state directory, not opened yet.
    pub(super) fn new(state_dir: PathBuf) -> SpoolSlot {
        SpoolSlot { state_dir, state: SpoolState::NotOurs { reported: false } }
    }

    /// Tries to get or to use what could not be used before.
    pub(super) fn open(&mut self, figures: &Figures) {
        self.state = match std::mem::replace(&mut self.state, SpoolState::NotOurs { reported: true }) {
            SpoolState::NotOurs { reported } => match Spool::open(&self.state_dir) {
                Ok(Some(spool)) => {
                    if spool.downloads() > 0 {
                        tracing::info!("the spool holds {} downloads", spool.downloads());
                    }
                    report_success(figures);
                    SpoolState::Ours(spool)
                }
                // The process before this one is ending.
                Ok(None) => SpoolState::NotOurs { reported },
                Err(error) => {
                    if !reported {
                        report_failure(&error, figures);
                    }
                    SpoolState::NotOurs { reported: true }
                }
            },
            SpoolState::Failed(mut spool) => match spool.find_room() {
                Ok(()) => {
                    report_success(figures);
                    SpoolState::Ours(spool)
                }
                // Reported already.
                Err(_) => SpoolState::Failed(spool),
            },
            SpoolState::Ours(spool) => SpoolState::Ours(spool),
        };
    }

    /// Does something with the spool; `None` when that is not possible now.
    pub(super) fn with<T>(
        &mut self,
        figures: &Figures,
        work: impl FnOnce(&mut Spool) -> Result<T, SpoolError>,
    ) -> Option<T> {
        let SpoolState::Ours(spool) = &mut self.state else { return None };
        match work(spool) {
            Ok(done) => Some(done),
            Err(error) => {
                report_failure(&error, figures);
                self.state = match std::mem::replace(&mut self.state, SpoolState::NotOurs { reported: true }) {
                    SpoolState::Ours(spool) => SpoolState::Failed(spool),
                    other => other,
                };
                None
            }
        }
    }

    /// Has what is in the spool counted by row of `files`.
    pub(super) fn follow(&mut self, files: &Arc<FileIndex>) {
        if let Some(spool) = self.owned() {
            spool.follow(files);
        }
    }

    /// Has the spool let go of the files when it needs none.
    pub(super) fn let_go(&mut self) {
        if let Some(spool) = self.owned() {
            spool.let_go();
        }
    }

    /// Forgets a batch that the store has.
    pub(super) fn remove(&mut self, id: BatchId) {
        if let Some(spool) = self.owned() {
            spool.remove(id);
        }
    }

    /// Makes the spool's file as short as it can be.
    pub(super) fn tidy(&mut self, figures: &Figures) {
        self.with(figures, Spool::tidy);
    }

    /// How many downloads are in the spool.
    pub(super) fn downloads(&self) -> u64 {
        match &self.state {
            SpoolState::NotOurs { .. } => 0,
            SpoolState::Ours(spool) | SpoolState::Failed(spool) => spool.downloads(),
        }
    }

    /// The spool, whether it works or not.
    fn owned(&mut self) -> Option<&mut Spool> {
        match &mut self.state {
            SpoolState::NotOurs { .. } => None,
            SpoolState::Ours(spool) | SpoolState::Failed(spool) => Some(spool),
        }
    }
}

fn report_success(figures: &Figures) {
    if figures.spool_has_failed.swap(false, Relaxed) {
        tracing::info!("the spool of the statistics works again");
    }
}

fn report_failure(error: &SpoolError, figures: &Figures) {
    figures.spool_has_failed.store(true, Relaxed);
    tracing::error!("{error}; downloads that the store does not take are kept in memory, and lost with this process");
}
