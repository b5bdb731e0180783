//! Gathering the facts: tallies from the shards, the store's answers, what the indexer did.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::CreationError;
use mb_core::time::Timestamp;
use tokio::time::{sleep, timeout};

use crate::control::indexer::IndexerLink;
use crate::control::mirror_table::MirrorTable;
use crate::metrics::facts::{Facts, IndexerAnswer, StoreState};
use crate::metrics::hand_over::Collector;
use crate::metrics::totals::Totals;
use crate::snapshot::Publication;
use crate::stats::figures::Figures;

/// Between two collections of tallies: less than a shard takes to fill its spare ones, at a tally every 100 ms.
const COLLECT_INTERVAL: Duration = Duration::from_millis(250);
/// Between two questions to the store.
const STORE_INTERVAL: Duration = Duration::from_secs(2);
/// A store that has not answered in this time is down.
const STORE_PATIENCE: Duration = Duration::from_secs(3);

/// Where the facts come from.
pub struct Sources {
    /// What requests are answered from.
    pub publication: Arc<Publication>,
    /// What the shards count, in the order of their numbers.
    pub collectors: Vec<Collector>,
    /// The store.
    pub table: Arc<MirrorTable>,
    /// The indexer.
    pub indexer: IndexerLink,
    /// What is known of the download counts and the download log.
    pub figures: Arc<Figures>,
    /// Whether the daemon runs the indexer itself.
    pub monitor: bool,
    /// How often the repository is scanned; `None` when that is on request only.
    pub source_interval: Option<Duration>,
}

/// Knows the facts.
pub struct Watch {
    sources: Sources,
    source_interval: Mutex<Option<Duration>>,
    started: Timestamp,
    totals: Mutex<Totals>,
    store: Mutex<StoreState>,
}

impl Watch {
    /// Watches `sources`, for as long as [`Watch::collect`] and [`Watch::ask_store`] run.
    ///
    /// # Errors
    /// See [`Totals::new`].
    pub fn new(mut sources: Sources) -> Result<Watch, CreationError> {
        let totals = Mutex::new(Totals::new(std::mem::take(&mut sources.collectors))?);
        let source_interval = Mutex::new(sources.source_interval);
        Ok(Watch {
            sources,
            source_interval,
            started: Timestamp::now(),
            totals,
            store: Mutex::new(StoreState::Unknown),
        })
    }

    /// The repository is scanned in another interval from now on.
    pub fn configure(&self, source_interval: Option<Duration>) {
        *locked(&self.source_interval) = source_interval;
    }

    /// Collects what the shards count; never returns.
    pub async fn collect(&self) {
        loop {
            mb_core::fault::point("metrics");
            locked(&self.totals).collect(Instant::now());
            sleep(COLLECT_INTERVAL).await;
        }
    }

    /// Asks the store how it is, and logs when that changes; never returns.
    pub async fn ask_store(&self) {
        loop {
            let mut answer = pin!(self.sources.table.read(|store| store.check()));
            let answer = match timeout(STORE_PATIENCE, &mut answer).await {
                Ok(answer) => answer,
                Err(_) => {
                    self.note_store(Err(format!("no answer within {} s", STORE_PATIENCE.as_secs())));
                    answer.await
                }
            };
            self.note_store(answer.map(drop).map_err(|error| error.to_string()));
            sleep(STORE_INTERVAL).await;
        }
    }

    fn note_store(&self, answer: Result<(), String>) {
        let mut store = locked(&self.store);
        match (&*store, &answer) {
            (StoreState::Unknown | StoreState::Up { .. }, Err(reason)) => tracing::warn!("the store is down: {reason}"),
            (StoreState::Down { .. }, Ok(())) => tracing::info!("the store is up again"),
            _ => {}
        }
        *store = store.clone().after(Timestamp::now(), answer);
    }

    /// Shows `show` the facts of this moment. Takes as long as the indexer takes to answer, a second at most.
    pub async fn look<T>(&self, show: impl FnOnce(&Facts<'_>) -> T) -> T {
        let indexer = self.ask_indexer().await;
        let (now, snapshot) = (Instant::now(), self.sources.publication.load());
        let mut totals = locked(&self.totals);
        totals.collect(now);
        show(&Facts {
            now: Timestamp::now(),
            started: self.started,
            recent_durations: totals.recent_durations(now),
            totals: &totals,
            snapshot: &snapshot,
            store: locked(&self.store).clone(),
            indexer,
            figures: &self.sources.figures,
            panics: mb_core::supervise::panics(),
            restarts: mb_core::supervise::restarts(),
            busy: mb_core::supervise::busy_times(),
            dropped_log_lines: mb_core::log_writer::dropped_lines(),
            indexer_ends: self.sources.indexer.ends(),
            source_interval: *locked(&self.source_interval),
        })
    }

    /// An indexer that somebody else runs is asked, too, and not missed.
    async fn ask_indexer(&self) -> IndexerAnswer {
        match self.sources.indexer.activity().await {
            Ok(activity) => IndexerAnswer::Told(activity),
            Err(error) if self.sources.monitor => IndexerAnswer::Silent { reason: error.to_string() },
            Err(_) => IndexerAnswer::NotWanted,
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
