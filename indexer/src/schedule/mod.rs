//! `mb-indexer run`: starts scans and checks when they are due, serves requests, ends cleanly.
//!
//! One task decides what is due; jobs are tasks of their own. Ending the scheduler drops them, which ends what they
//! started, rsync programs included.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mb_core::config::{self, ConfigError};
use mb_core::mirror::MirrorId;
use mb_core::store::LogEvent;
use mb_core::time::Timestamp;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use self::plan::{Intervals, Job, Plan};
use crate::build::BuildSettings;
use crate::build::publication::PublicationError;
use crate::indexer::{Indexer, ScanSourceError};
use crate::job_panics::{self, JobPanicked};
use crate::monitor::{self, CheckPlaces, Pace};
use crate::progress::Progress;
use crate::scan::place::{ScanPlace, SharedPlaces};
use crate::scan::{Occasion, ScanError, ScanOrder, scan_mirror};
use crate::sharing::{self, Exchanged};

mod plan;
mod repair;

/// The mirrors are read again this often at least: other processes change them, too.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// How often a node looks whether another scanned a mirror: a question of a few kilobytes to Redis.
const EXCHANGE_INTERVAL: Duration = Duration::from_secs(10);

/// When the source scan is tried again that another node or job was in the way of: this node has published no index before
/// its own first one.
const SOURCE_RETRY: Duration = Duration::from_secs(5);

/// Scans under way of mirrors that are slow: their latest scan took as long as it may, or the one
/// under way lists next to nothing while others wait. They take none of the places of the others.
const ENDLESS_SCANS: usize = 1;

/// The scheduler, as those see it who ask something of it.
pub(crate) struct Scheduler {
    /// What jobs work with.
    pub(crate) indexer: Arc<Indexer>,
    config_path: PathBuf,
    changed: Mutex<HashSet<MirrorId>>,
    wake: Notify,
}

/// A job that ended.
enum Ended {
    /// With whether it took as long as it may.
    Scan(MirrorId, bool),
    Check(MirrorId, Pace),
    Source,
    /// Another node or job scans the source.
    SourceBusy,
    CatchUp,
    Exchange(Exchanged),
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    /// The file is not usable; the configuration in force stays.
    #[error("{0}; the configuration in force stays")]
    Config(#[from] ConfigError),
    /// The index cannot be built with it.
    #[error("the configuration was read, but {0}")]
    Publish(#[from] PublicationError),
}

impl Scheduler {
    /// A scheduler that reads its configuration from `config_path` again when told to.
    pub(crate) fn new(indexer: Arc<Indexer>, config_path: PathBuf) -> Scheduler {
        Scheduler { indexer, config_path, changed: Mutex::default(), wake: Notify::new() }
    }

    /// Notes that mirror records changed: what became due is started at once.
    pub(crate) fn mirrors_changed(&self, ids: &[MirrorId]) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
        self.wake.notify_one();
    }

    /// Reads the configuration again, and builds the index anew if that depends on the change.
    pub(crate) async fn reload(&self) -> Result<(), ReloadError> {
        let path = self.config_path.clone();
        let loaded = self.indexer.blocking(move |_| config::load(&path)).await?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let before = self.indexer.config();
        self.indexer.set_config(loaded.config);
        tracing::info!("configuration read");
        self.wake.notify_one();
        if BuildSettings::of(&before) != BuildSettings::of(&self.indexer.config()) {
            self.indexer.publish_files().await?;
        }
        Ok(())
    }

    /// Starts jobs for ever; drop the future to end them.
    pub(crate) async fn run(&self) {
        let mut work = Work {
            scheduler: self,
            plan: Plan::default(),
            jobs: JoinSet::new(),
            scanning: HashSet::new(),
            scans: Places::new(self.indexer.config().concurrent_sync),
            endless: HashSet::new(),
            endless_scans: Arc::new(Semaphore::new(ENDLESS_SCANS)),
            waiting_scans: Arc::default(),
            checking: HashSet::new(),
            checks: Arc::default(),
            paces: HashMap::new(),
            source: SourceClock::Due(Instant::now()),
            next_catch_up: None,
            exchange: ExchangeClock::Due(Instant::now()),
        };
        work.publish_what_is_stored().await;
        let start_jobs = async {
            loop {
                let sleep = work.start_due_jobs().await;
                tokio::select! {
                    () = tokio::time::sleep(sleep) => {}
                    () = self.wake.notified() => {}
                    Some(ended) = work.jobs.join_next() => work.note_end(ended),
                }
            }
        };
        tokio::join!(start_jobs, repair::keep_published(&self.indexer));
    }
}

/// When the source is scanned next.
enum SourceClock {
    /// Not before this instant.
    Due(Instant),
    /// A scan is under way that began then.
    Running(Instant),
}

/// When scan results are exchanged with the other nodes next.
enum ExchangeClock {
    /// Not before this instant.
    Due(Instant),
    /// An exchange is under way.
    Running,
}

/// Room for a number of scans at a time.
struct Places {
    count: usize,
    semaphore: Arc<Semaphore>,
}

impl Places {
    fn new(count: usize) -> Places {
        Places { count, semaphore: Arc::new(Semaphore::new(count)) }
    }

    /// Follows the configuration. Scans that wait already keep to the earlier number.
    fn resize(&mut self, count: usize) {
        if count != self.count {
            *self = Places::new(count);
        }
    }

    fn shared(&self) -> Arc<Semaphore> {
        Arc::clone(&self.semaphore)
    }
}

/// What the scheduling task keeps to itself.
struct Work<'a> {
    scheduler: &'a Scheduler,
    plan: Plan,
    jobs: JoinSet<Ended>,
    /// Mirrors being scanned or waiting for a place.
    scanning: HashSet<MirrorId>,
    scans: Places,
    /// Mirrors whose latest scan took as long as it may, or was too slow for its place.
    endless: HashSet<MirrorId>,
    endless_scans: Arc<Semaphore>,
    /// Scans that wait for one of the other places.
    waiting_scans: Arc<AtomicUsize>,
    checking: HashSet<MirrorId>,
    checks: Arc<CheckPlaces>,
    /// Mirrors whose latest check was slow.
    paces: HashMap<MirrorId, Pace>,
    source: SourceClock,
    next_catch_up: Option<Instant>,
    exchange: ExchangeClock,
}

impl Work<'_> {
    /// Brings the index up to what is stored: a process before this one may have ended between storing and publishing, and
    /// what it published may be damaged or gone. Before the first source scan there is nothing to publish.
    async fn publish_what_is_stored(&self) {
        let indexer = &self.scheduler.indexer;
        let is_known = indexer.blocking(|indexer| match indexer.published.files() {
            Some(_) => Ok(true),
            None => indexer.knows_the_source(),
        });
        let published = match is_known.await {
            Ok(true) => indexer.publish_files().await,
            Ok(false) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = published {
            tracing::error!(%error, "cannot publish what is stored, tried again later");
        }
    }

    /// Starts what is due and returns how long nothing else will be.
    async fn start_due_jobs(&mut self) -> Duration {
        let now = Instant::now();
        let scheduler = self.scheduler;
        let config = scheduler.indexer.config();
        let mut sleep = self.start_exchange(now);
        for id in scheduler.changed.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            self.plan.make_due(id, now);
        }
        if let Some(wait) = self.start_source_scan(now) {
            sleep = sleep.min(wait);
        }
        self.catch_up(now, config.check_interval);

        let mirrors = scheduler
            .indexer
            .blocking(|indexer| {
                let has_source = indexer.published.files().is_some();
                indexer.mirrors_to_schedule().map(|mirrors| (mirrors, has_source))
            })
            .await;
        let mirrors = match mirrors {
            Ok((mirrors, true)) => mirrors,
            // Until the source is known there is nothing to compare mirrors with.
            Ok((_, false)) => return sleep,
            Err(error) => {
                tracing::error!(%error, "cannot read the mirrors");
                return sleep;
            }
        };
        self.scans.resize(config.concurrent_sync);
        let intervals = Intervals { scan: config.scan_interval, check: config.check_interval };
        let (due, next) = self.plan.take_due(&mirrors, intervals, now, Timestamp::now());
        for job in due {
            match job {
                Job::Scan(id) if self.scanning.insert(id) => {
                    let mirror = mirrors.iter().find(|mirror| mirror.id == id);
                    self.start_scan(id, mirror.map_or(Timestamp::NEVER, |mirror| mirror.state.last_sync));
                }
                Job::Check(id) if self.checking.insert(id) => self.start_check(id),
                Job::Scan(_) | Job::Check(_) => {}
            }
        }
        next.map_or(sleep, |next| sleep.min(next))
    }

    /// Returns how long until the next source scan, unless that depends on something else.
    fn start_source_scan(&mut self, now: Instant) -> Option<Duration> {
        self.scheduler.indexer.config().repository_scan_interval?;
        let SourceClock::Due(at) = self.source else {
            return None;
        };
        if at > now {
            return Some(at - now);
        }
        self.source = SourceClock::Running(now);
        let indexer = Arc::clone(&self.scheduler.indexer);
        self.jobs.spawn(async move {
            match indexer.scan_source(false, false, false, &Progress::unwatched()).await {
                Err(busy @ ScanSourceError::Busy(_)) => {
                    tracing::debug!("source scan put off: {busy}");
                    return Ended::SourceBusy;
                }
                Err(error) => tracing::error!(%error, "source scan failed"),
                Ok(_) => {}
            }
            Ended::Source
        });
        None
    }

    /// Returns how long until something else may be due.
    fn start_exchange(&mut self, now: Instant) -> Duration {
        match self.exchange {
            _ if !self.scheduler.indexer.shares_its_store() => {}
            ExchangeClock::Running => {}
            ExchangeClock::Due(at) if at > now => return LONGEST_SLEEP.min(at - now),
            ExchangeClock::Due(_) => {
                self.exchange = ExchangeClock::Running;
                let indexer = Arc::clone(&self.scheduler.indexer);
                self.jobs.spawn(async move {
                    let exchange = async {
                        let exchanged = sharing::exchange(&indexer).await;
                        if !exchanged.imported.is_empty() {
                            publish_imported(&indexer, exchanged.imported.len()).await;
                        }
                        exchanged
                    };
                    let exchanged = guarded(&indexer, "the exchange with other nodes", exchange).await;
                    Ended::Exchange(exchanged.unwrap_or_default())
                });
            }
        }
        LONGEST_SLEEP
    }

    /// Publishes again what could not be published, for instance because the disk was full.
    fn catch_up(&mut self, now: Instant, interval: Duration) {
        if self.next_catch_up.is_some_and(|at| at > now) {
            return;
        }
        self.next_catch_up = Some(now + interval);
        let indexer = Arc::clone(&self.scheduler.indexer);
        self.jobs.spawn(async move {
            let settings = BuildSettings::of(&indexer.config());
            let catch_up = indexer.publication.catch_up(settings);
            if let Some(Err(error)) = guarded(&indexer, "publishing again", catch_up).await {
                tracing::error!(%error, "still not published");
            }
            Ended::CatchUp
        });
    }

    /// Scans a mirror unless it was scanned after `latest`.
    fn start_scan(&mut self, mirror: MirrorId, latest: Timestamp) {
        let indexer = Arc::clone(&self.scheduler.indexer);
        let is_endless = self.endless.contains(&mirror);
        let shared = SharedPlaces {
            places: self.scans.shared(),
            apart: Arc::clone(&self.endless_scans),
            waiting: Arc::clone(&self.waiting_scans),
        };
        self.jobs.spawn(async move {
            let order =
                ScanOrder { mirror, enable: false, protocol: None, limit: None, occasion: Occasion::Due { latest } };
            let place = if is_endless {
                // The semaphore is never closed.
                ScanPlace::kept(shared.apart.acquire_owned().await.ok())
            } else {
                shared.take().await
            };
            let mut endless = false;
            match scan_mirror(&indexer, order, &Progress::unwatched(), place).await {
                Ok(_) => {}
                Err(needless @ (ScanError::Busy { .. } | ScanError::ScannedMeanwhile(_))) => {
                    tracing::debug!("scan skipped: {needless}");
                }
                Err(error) => {
                    endless = error.took_too_long();
                    tracing::warn!(%mirror, %error, "scan failed");
                }
            }
            Ended::Scan(mirror, endless)
        });
    }

    fn start_check(&mut self, mirror: MirrorId) {
        let indexer = Arc::clone(&self.scheduler.indexer);
        let checks = Arc::clone(&self.checks);
        let pace = self.paces.get(&mirror).copied().unwrap_or_default();
        self.jobs.spawn(async move {
            let check = checks.run(pace, || monitor::check_mirror(&indexer, mirror));
            let pace = match job_panics::catch(check).await {
                Ok(pace) => pace,
                Err(cause) => {
                    note_check_panic(&indexer, mirror, cause).await;
                    pace
                }
            };
            Ended::Check(mirror, pace)
        });
    }

    fn note_end(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        match ended {
            Ok(Ended::Scan(id, endless)) => {
                self.scanning.remove(&id);
                if endless {
                    self.endless.insert(id);
                } else {
                    self.endless.remove(&id);
                }
            }
            Ok(Ended::Check(id, pace)) => {
                self.checking.remove(&id);
                match pace {
                    Pace::Prompt => self.paces.remove(&id),
                    Pace::Slow => self.paces.insert(id, pace),
                };
            }
            Ok(Ended::Source) => {
                if let SourceClock::Running(began) = self.source {
                    let interval = self.scheduler.indexer.config().repository_scan_interval.unwrap_or_default();
                    self.source = SourceClock::Due(began + interval);
                }
            }
            Ok(Ended::SourceBusy) => self.source = SourceClock::Due(Instant::now() + SOURCE_RETRY),
            Ok(Ended::CatchUp) => {}
            Ok(Ended::Exchange(exchanged)) => {
                let now = Instant::now();
                self.exchange = ExchangeClock::Due(now + EXCHANGE_INTERVAL);
                for id in exchanged.refused {
                    self.plan.make_due(id, now);
                }
            }
            // The scheduler cannot know what that job held any more: the process is started anew.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => tracing::error!(%error, "a job was cancelled"),
            },
        }
    }
}

/// Tells of a health check that a panic ended, in the log of its mirror, too.
async fn note_check_panic(indexer: &Arc<Indexer>, mirror: MirrorId, cause: JobPanicked) {
    indexer.ledger.panic();
    tracing::error!(%mirror, %cause, "a health check ended");
    let text = format!("health check: {cause}");
    indexer.blocking(move |indexer| indexer.log(mirror, LogEvent::Error(text))).await;
}

/// Runs a job that has no result; a panic of it is told, and the next one comes anyway.
async fn guarded<T>(indexer: &Arc<Indexer>, what: &str, job: impl Future<Output = T>) -> Option<T> {
    match job_panics::catch(job).await {
        Ok(value) => Some(value),
        Err(cause) => {
            indexer.ledger.panic();
            tracing::error!(%cause, "{what} ended");
            None
        }
    }
}

/// Publishes what other nodes scanned, unless the source, with which it is compared, is still unknown: its scan publishes both.
async fn publish_imported(indexer: &Arc<Indexer>, mirrors: usize) {
    if indexer.blocking(|indexer| indexer.published.files().is_none()).await {
        return;
    }
    match indexer.publish_files().await {
        Ok(()) => tracing::info!(mirrors, "scan results of other nodes are in use"),
        Err(error) => tracing::error!(%error, "cannot publish what other nodes scanned, tried again later"),
    }
}
