//! What every job of the indexer works with: configuration, store, scan results, the index, an HTTP client.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use mb_core::config::{Config, DatabaseKind};
use mb_core::foreign_text::ForeignText;
use mb_core::link::SourceReport;
use mb_core::mirror::{Mirror, MirrorId};
use mb_core::store::{self, LeaseName, LogEntry, LogEvent, Store, StoreError};
use mb_core::time::Timestamp;

use crate::build::BuildSettings;
use crate::build::publication::{Publication, PublicationError};
use crate::http::{HttpClient, HttpClientError};
use crate::job_panics::{self, JobPanicked};
use crate::ledger::Ledger;
use crate::progress::{Cancellation, Progress};
use crate::published::Published;
use crate::scan::results::{ResultsError, ScanResults};
use crate::sharing::{self, Sharing};
use crate::source::{self, SourceError, SourceOptions};
use crate::turn::{self, Other, Turn, TurnError, Turns};

/// Why the indexer cannot work at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The scan results cannot be opened.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// The state directory cannot be created.
    #[error("cannot create the folder {path}: {cause}; check `StateDir` in the configuration", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// No thread for leases.
    #[error("starting a thread: {0}")]
    Thread(#[source] std::io::Error),
    /// There is no HTTP client.
    #[error(transparent)]
    Http(#[from] HttpClientError),
}

/// Why a source scan has no result in the index.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanSourceError {
    /// The scan failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Another job or node scans it, and the caller does not wait.
    #[error("the repository is being scanned by {0}")]
    Busy(Other),
    /// Nobody can tell whether another scans it.
    #[error("scanning the repository: {0}")]
    Turn(#[from] TurnError),
    /// A defect of this program.
    #[error("scanning the repository: {0}")]
    Panicked(JobPanicked),
    /// It is stored, and published when that works again.
    #[error("the repository was scanned and the result is stored, but not yet in use: {0}")]
    Publish(#[from] PublicationError),
}

/// Why it is not known what is due.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScheduleError {
    /// The mirrors cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This node's scan results cannot be read.
    #[error(transparent)]
    Results(#[from] ResultsError),
}

/// The shared state of all jobs.
pub(crate) struct Indexer {
    config: RwLock<Arc<Config>>,
    /// Mirrors, source files, logs.
    pub(crate) store: Arc<dyn Store>,
    /// What each mirror has.
    pub(crate) results: Arc<ScanResults>,
    /// What other nodes scanned, and get from this one.
    pub(crate) sharing: Sharing,
    /// Who may scan now.
    pub(crate) turns: Turns,
    /// The way into the index.
    pub(crate) publication: Arc<Publication>,
    /// What is in the index now.
    pub(crate) published: Arc<Published>,
    /// For health checks and trace files.
    pub(crate) http: HttpClient,
    /// What was done since the start.
    pub(crate) ledger: Ledger,
}

impl Indexer {
    /// Opens everything that `config` names.
    pub(crate) fn open(config: Config) -> Result<Arc<Indexer>, StartError> {
        let (state_dir, index_dir) = (config.state_dir.clone(), config.index_dir());
        let store = store::open(&config)?;
        std::fs::create_dir_all(&index_dir).map_err(|cause| StartError::Folder { path: index_dir.clone(), cause })?;
        let results = Arc::new(ScanResults::open(&state_dir)?);
        let turns = match config.database {
            DatabaseKind::Embedded => Turns::of_one_node(state_dir.clone()),
            DatabaseKind::Redis => {
                Turns::of_several_nodes(state_dir.clone(), Arc::clone(&store)).map_err(StartError::Thread)?
            }
        };
        let sharing = Sharing::new(Arc::clone(&store), Arc::clone(&results));
        let publication = Publication::new(state_dir, index_dir.clone(), Arc::clone(&store), Arc::clone(&results));
        Ok(Arc::new(Indexer {
            config: RwLock::new(Arc::new(config)),
            store,
            results,
            sharing,
            turns,
            publication: Arc::new(publication),
            published: Arc::new(Published::new(index_dir)),
            http: HttpClient::new()?,
            ledger: Ledger::default(),
        }))
    }

    /// The configuration in force.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether other nodes use the store, too.
    pub(crate) fn shares_its_store(&self) -> bool {
        self.config().database == DatabaseKind::Redis
    }

    /// Whether a source scan was stored, so that there is something to publish. Reads the whole stored source.
    pub(crate) fn knows_the_source(&self) -> Result<bool, StoreError> {
        let mut known = false;
        self.store.source_entries(&mut |_| known = true)?;
        Ok(known)
    }

    /// All mirrors, as the schedule sees them: with the time of the latest attempt at a scan that counts for this node.
    pub(crate) fn mirrors_to_schedule(&self) -> Result<Vec<Mirror>, ScheduleError> {
        let mut mirrors = self.store.mirrors()?;
        // An invalid record is neither scanned nor checked.
        mirrors.retain(|mirror| mirror.invalid().is_none());
        let held = self.results.held()?;
        for mirror in &mut mirrors {
            let held = held.get(&mirror.id).map_or(Timestamp::NEVER, |held| held.started);
            mirror.state.last_sync = sharing::latest_attempt(&mirror.state, held);
        }
        Ok(mirrors)
    }

    /// Puts another configuration in force, except for where things are stored, which takes a restart.
    pub(crate) fn set_config(&self, mut config: Config) {
        let mut current = self.config.write().unwrap_or_else(PoisonError::into_inner);
        if config.state_dir != current.state_dir || config.database != current.database {
            tracing::warn!("StateDir and Database changed: that takes a restart");
            config.state_dir.clone_from(&current.state_dir);
            config.database = current.database;
        }
        *current = Arc::new(config);
    }

    /// Runs work that blocks, such as all of the store's, on a thread for it.
    ///
    /// # Panics
    /// When the work panicked.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Indexer) -> T + Send + 'static,
    ) -> T {
        let this = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&this)).await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down: whoever waits here is about to be dropped.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Publishes the whole index with the configuration in force.
    pub(crate) async fn publish_files(&self) -> Result<(), PublicationError> {
        self.publication.publish_files(BuildSettings::of(&self.config())).await
    }

    /// Appends to a mirror's log; what a mirror wrote is escaped and cut before it is stored. A failure is logged and no more: it never stops a scan or check.
    pub(crate) fn log(&self, mirror: MirrorId, event: LogEvent) {
        let shown = |text: String| ForeignText::new(&text).to_string();
        let event = match event {
            LogEvent::Error(cause) => LogEvent::Error(shown(cause)),
            LogEvent::StateChanged { protocol, up, reason } => {
                LogEvent::StateChanged { protocol, up, reason: shown(reason) }
            }
            other => other,
        };
        let entry = LogEntry { mirror, at: Timestamp::now(), event };
        if let Err(error) = self.store.append_log(&entry) {
            tracing::warn!(%mirror, %error, "cannot write the mirror's log");
        }
    }

    /// Takes the turn for a scan, or says whose it is.
    pub(crate) async fn attempt_turn(self: &Arc<Self>, name: LeaseName) -> Result<Result<Turn, Other>, TurnError> {
        self.blocking(move |indexer| indexer.turns.attempt(name)).await
    }

    /// Waits for the turn for a scan, without holding a thread.
    pub(crate) async fn wait_for_turn(
        self: &Arc<Self>,
        name: LeaseName,
        progress: &Progress,
    ) -> Result<Turn, TurnError> {
        loop {
            match self.attempt_turn(name).await? {
                Ok(turn) => return Ok(turn),
                Err(other) => turn::pause(other, progress).await,
            }
        }
    }

    /// Scans the source repository and publishes the result. While another job or node scans it, this waits if `wait`, and
    /// else fails with [`ScanSourceError::Busy`].
    pub(crate) async fn scan_source(
        self: &Arc<Self>,
        rehash: bool,
        force: bool,
        wait: bool,
        progress: &Progress,
    ) -> Result<SourceReport, ScanSourceError> {
        let config = self.config();
        let turn = if wait {
            self.wait_for_turn(LeaseName::SourceScan, progress).await?
        } else {
            self.attempt_turn(LeaseName::SourceScan).await?.map_err(ScanSourceError::Busy)?
        };
        let began = Instant::now();
        let options = SourceOptions { hashes: config.hashes, rehash, force };
        let scanned = match job_panics::catch(self.scan_source_in_turn(turn, options, progress)).await {
            Ok(scanned) => scanned,
            Err(cause) => {
                self.ledger.panic();
                Err(ScanSourceError::Panicked(cause))
            }
        };
        self.ledger.source_scan(began.elapsed(), scanned.as_ref().ok().map(|report| report.files));
        scanned
    }

    async fn scan_source_in_turn(
        self: &Arc<Self>,
        turn: Turn,
        options: SourceOptions,
        progress: &Progress,
    ) -> Result<SourceReport, ScanSourceError> {
        let config = self.config();
        tracing::info!(repository = %config.repository.display(), "source scan started");
        let cancellation = Cancellation::default();
        let _cancel = cancellation.on_drop();
        let job_progress = progress.clone();
        let outcome = self
            .blocking(move |indexer| {
                let _turn = turn;
                mb_core::fault::point("source-scan");
                let mut publish_early = || {
                    job_progress.report("Publishing new files before hashing them".to_owned());
                    let settings = BuildSettings::of(&indexer.config());
                    if let Err(error) = indexer.publication.build_and_publish(&settings) {
                        tracing::warn!(%error, "new files are published when they are hashed");
                    }
                };
                source::scan(
                    &config.repository,
                    options,
                    &*indexer.store,
                    &job_progress,
                    &cancellation,
                    &mut publish_early,
                )
            })
            .await?;
        let never_published = self.blocking(|indexer| indexer.published.files().is_none()).await;
        // Another node may have stored what this scan found nothing new in.
        let shared = self.shares_its_store();
        if outcome.unpublished || shared || never_published || !self.publication.published_by_this_process().await {
            progress.report("Publishing".to_owned());
            self.publish_files().await?;
        }
        let SourceReport { files, hashed, removed, unreadable } = outcome.report;
        tracing::info!(files, hashed, removed, unreadable, "source scan completed");
        Ok(outcome.report)
    }
}
