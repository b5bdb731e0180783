//! The daemon's life: everything is checked and opened before the first connection is accepted, then the shards answer
//! and this thread looks after the rest until a signal ends it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mb_core::config::{self, Config, ConfigError, StatsRetention};
use mb_core::geo::GeoDatabase;
use mb_core::store::{self, ReopeningStore, Store, StoreError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::change_feed;
use super::index_watch::IndexWatch;
use super::indexer::{self, IndexerLink, SupervisedIndexer};
use super::logging::{self, LogFileError};
use super::mirror_table::MirrorTable;
use super::pid_file::{PidFile, PidFileError};
use super::rpc;
use crate::handle::Settings;
use crate::shard::front::Front;
use crate::shard::listener::ListenError;
use crate::shard::pool::{OpenError, Pool, StartError, usable_cores};
use crate::snapshot::Publication;

/// How long requests under way are waited for after SIGTERM and SIGINT.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same after SIGQUIT, which promises more.
const MORE_PATIENCE: Duration = Duration::from_secs(10);
/// How often the shards are looked after.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How the daemon is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Configuration file.
    pub config: PathBuf,
    /// Run the indexer.
    pub monitor: bool,
    /// File for the process id.
    pub pid_file: Option<PathBuf>,
    /// File for the log; standard error without it.
    pub log_file: Option<PathBuf>,
    /// Log more.
    pub debug: bool,
}

/// Why the daemon does not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each wraps the error that tells")]
pub enum DaemonError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    LogFile(#[from] LogFileError),
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Rpc(#[from] rpc::ServeError),
    #[error(transparent)]
    Shards(#[from] StartError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("a shard ended by itself; the log tells why")]
    ShardDied,
    #[error("the control thread cannot be set up: {0}")]
    Control(#[from] std::io::Error),
}

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// [`DaemonError`].
pub fn run(options: &Options) -> Result<(), DaemonError> {
    let loaded = config::load(&options.config)?;
    logging::start(options.log_file.as_deref(), options.debug)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Daemon { options, config: loaded.config }.run())
}

struct Daemon<'a> {
    options: &'a Options,
    config: Config,
}

impl Daemon<'_> {
    async fn run(self) -> Result<(), DaemonError> {
        let config = &self.config;
        let mut signals = Signals::listen()?;
        warn_of_keys_without_effect(config);
        if !config.repository.is_dir() {
            tracing::error!(
                "Repository {}: is no folder; the last index is served until it is one",
                config.repository.display()
            );
        }
        let table = Arc::new(MirrorTable::new(open_store(config)?, &config.index_dir()));
        if let Err(error) = table.publish_changes().await {
            tracing::error!("{error}; the last mirror table is served");
        }
        let geo = Arc::new(load_geo(config));
        let watch = IndexWatch::open(&config.index_dir(), Arc::new(Settings::from(config)), geo);
        let publication = watch.publication().clone();

        let shards = config.shards.unwrap_or_else(|| usable_cores().len());
        let front = Front::bind(&config.listen_address, shards, &[])?;
        let rpc_listener = rpc::bind(&config.rpc_listen_address).await?;
        let pool = Pool::start(shards, &publication, config.runtime)?;
        pool.attend(front);
        pool.resume()?;
        let _pid_file = self.options.pid_file.as_deref().map(PidFile::write).transpose()?;
        tracing::info!("serving on {} with {} shards on {}", config.listen_address, pool.shards(), pool.runtime());

        let indexer = self
            .options
            .monitor
            .then(|| SupervisedIndexer::start(indexer::program(), &self.options.config, &config.state_dir));
        let link = indexer.as_ref().map_or_else(|| IndexerLink::new(&config.state_dir), SupervisedIndexer::link);
        let (stop_rpc, rpc_stopped) = oneshot::channel::<()>();
        let feed = tokio::spawn(change_feed::follow(Arc::clone(&table), link.clone()));
        let parts = rpc::Parts { table, indexer: link, locate: locate_by(Arc::clone(&publication)), publication };
        let service = rpc::Service::new(parts, config.rpc_password.as_bytes());
        let rpc = tokio::spawn(rpc::serve(rpc_listener, service, async {
            // A sender that is gone means the same.
            let _ = rpc_stopped.await;
        }));
        let following = tokio::spawn(watch.follow());

        let end = tokio::select! {
            patience = signals.end() => Ok(patience),
            () = until_a_shard_dies(&pool) => Err(DaemonError::ShardDied),
        };
        following.abort();
        feed.abort();
        drop(stop_rpc);
        let patience = *end.as_ref().unwrap_or(&PATIENCE);
        let ending = async {
            let drained = tokio::task::spawn_blocking(move || pool.stop(patience));
            if let Some(indexer) = indexer {
                indexer.stop().await;
            }
            // Both have reported their own trouble.
            let _ = drained.await;
            let _ = rpc.await;
        };
        tokio::select! {
            () = ending => {}
            _ = signals.end() => tracing::warn!("told twice to end: requests under way are cut off"),
        }
        tracing::info!("ended");
        end.map(|_| ())
    }
}

/// Tells the operator who switched something on that this version does not have.
fn warn_of_keys_without_effect(config: &Config) {
    let keys = [
        ("LogDir", config.log_dir.is_some()),
        ("Templates", config.templates.is_some()),
        ("StatsRetention", config.stats_retention != StatsRetention::default()),
    ];
    for (key, _) in keys.iter().filter(|(_, is_set)| *is_set) {
        tracing::warn!("{key} is set and has no effect: this version does not have what it is for");
    }
}

/// Opens the store. When that fails and there is an index, it is served all the same: commands fail with the reason until
/// the store is mended.
fn open_store(config: &Config) -> Result<Arc<dyn Store>, StoreError> {
    let has_index = || mb_index::read_current(&config.index_dir()).is_ok_and(|current| current.is_some());
    match store::open(config) {
        Err(error) if has_index() => {
            tracing::error!("{error}; the last index is served, and commands fail until this is mended");
            Ok(Arc::new(ReopeningStore::new(config.clone())))
        }
        opened => opened,
    }
}

/// Looks addresses up in the databases that requests are answered with.
fn locate_by(publication: Arc<Publication>) -> rpc::Locate {
    Arc::new(move |address| {
        let snapshot = publication.load();
        let located = snapshot.geo.locate(address);
        (located.place(), located.autonomous_system())
    })
}

fn load_geo(config: &Config) -> GeoDatabase {
    let (geo, errors) = GeoDatabase::load(&config.geoip_database_path);
    for error in &errors {
        tracing::warn!("{error}");
    }
    geo
}

async fn until_a_shard_dies(pool: &Pool) {
    while !pool.has_died() {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The signals that the daemon knows.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    /// Those that belong to parts which this version does not have. They must not end the process, as they would by
    /// default.
    ignored: [Signal; 3],
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            ignored: [
                signal(SignalKind::hangup())?,
                signal(SignalKind::user_defined1())?,
                signal(SignalKind::user_defined2())?,
            ],
        })
    }

    /// Waits for a signal that ends the daemon, and tells how long requests under way may take.
    async fn end(&mut self) -> Duration {
        loop {
            let [hangup, user1, user2] = &mut self.ignored;
            tokio::select! {
                _ = self.terminate.recv() => return PATIENCE,
                _ = self.interrupt.recv() => return PATIENCE,
                _ = self.quit.recv() => return MORE_PATIENCE,
                _ = hangup.recv() => tracing::warn!("SIGHUP: this version does not reload; restart it"),
                _ = user1.recv() => {}
                _ = user2.recv() => tracing::warn!("SIGUSR2: this version does not upgrade in place; restart it"),
            }
        }
    }
}
