//! The daemon's life: everything is checked and opened before the first connection is accepted, then the shards answer
//! and this thread looks after the rest until a signal, or a new process that takes over, ends it.
//!
//! 1. `prepare`: what answers are made from is loaded, off this thread, which looks for the signals that end it
//! 2. `sockets`: listening sockets are made, taken from systemd, or from the process before
//! 3. `begin`: the shards accept; as a successor, only when the process before has stopped to
//! 4. `serve`: signals, orders (`reload`, and the hand-over of `incumbent`), and what belongs to one process at a time
//!    (`belongings`)
//! 5. `serve::end`: requests under way are answered, and everything is let go of

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mb_core::config::{self, Config, ConfigError};
use mb_core::store::StoreError;
use mb_core::supervise;
use tokio::sync::{Mutex, Semaphore, mpsc, watch};

mod belongings;
mod descriptors;
mod incumbent;
mod metrics_server;
mod prepare;
mod reload;
mod reloading;
mod rpc_server;
mod serve;
mod signals;
mod sockets;

use super::control_socket::{BindError, ControlSocket};
use super::logging::{Log, LogFileError};
use super::metrics::{Sources, Watch};
use super::orders::Orders;
use super::pid_file::{PidFile, PidFileError};
use super::tasks::keep_running;
use super::{change_feed, freed_memory, retention, rpc, service_manager};
use crate::pages::templates::TemplateError;
use crate::pages::worker;
use crate::shard::front::Front;
use crate::shard::listener::ListenError;
use crate::shard::pool::{OpenError, Pool, ShardsFailed, StartError, usable_cores};
use crate::shard::question::Questions;
use crate::stats::{self, Statistics, file_statistics};
use crate::upgrade::inherit::{InheritError, Inheritance};
use crate::upgrade::program::Program;
use belongings::Belongings;
use metrics_server::MetricsServer;
use prepare::{Prepared, locate_by};
use rpc_server::RpcServer;
use serve::Daemon;
use signals::Signals;
use sockets::{Given, Sockets};

/// Threads for blocking work made at start: one may hang in the store, and a reload or a stop must not wait for it.
const BLOCKING_THREADS: usize = 4;
/// How long an idle thread for blocking work is kept: for good.
const KEEP_THREADS: Duration = Duration::from_secs(100 * 365 * 86_400);
/// How long writing or removing the PID file may take.
const PID_FILE_LIMIT: Duration = Duration::from_secs(2);

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
    Template(#[from] TemplateError),
    #[error(transparent)]
    LogFile(#[from] LogFileError),
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Shards(#[from] StartError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Inherit(#[from] InheritError),
    #[error(transparent)]
    ShardsFailed(#[from] ShardsFailed),
    #[error(
        "the process before answers from an index, and none can be opened in {}: run `mirrorbits refresh`, and upgrade again; \
         a restart gives its index up",
        folder.display()
    )]
    NoIndex {
        /// Where it should be.
        folder: PathBuf,
    },
    #[error("the control thread cannot be set up: {0}")]
    Control(#[from] io::Error),
}

/// Runs the daemon until a signal ends it, or it has handed over to a new process.
///
/// # Errors
/// [`DaemonError`].
pub fn run(options: &Options) -> Result<(), DaemonError> {
    let program = Program::of_this_process()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Some threads for blocking work are made now and kept, so that such work waits in its queue where no further thread can be
        // made; without any thread tokio panics.
        .thread_keep_alive(KEEP_THREADS)
        .build()?;
    std::thread::Builder::new().spawn(|| ())?;
    for _ in 0..BLOCKING_THREADS {
        // Each takes long enough for the next to get a thread of its own.
        drop(runtime.spawn_blocking(|| std::thread::sleep(Duration::from_millis(10))));
    }
    let ended = runtime.block_on(live(options, program));
    // After a second signal something may still be waited for on another thread.
    runtime.shutdown_background();
    ended
}

async fn live(options: &Options, program: Program) -> Result<(), DaemonError> {
    let mut signals = Signals::listen()?;
    let mut inheritance = None;
    let loaded = tokio::select! {
        loaded = load(options, &mut inheritance) => loaded,
        () = signals.told_to_end() => {
            tracing::info!("told to end during the start");
            service_manager::stopping();
            if let Some(inheritance) = inheritance {
                inheritance.fail("the new process was told to end".to_owned()).await;
            }
            return Ok(());
        }
    };
    let begun = match loaded {
        Ok(loaded) => begin(options, program, loaded, &mut inheritance).await,
        Err(error) => Err(error),
    };
    match begun {
        Ok(daemon) => {
            let end = daemon.serve(&mut signals).await;
            tracing::info!("ended");
            end
        }
        Err(error) => {
            if let Some(inheritance) = inheritance {
                inheritance.fail(error.to_string()).await;
            }
            Err(error)
        }
    }
}

/// A daemon that has everything to accept connections. Nobody depends on it yet.
struct Loaded {
    log: Log,
    config: Config,
    prepared: Prepared,
    downloads: Front,
    left: Vec<Front>,
    rpc_socket: ControlSocket,
    metrics_socket: Option<ControlSocket>,
    statistics: Statistics,
    counts_asked: mpsc::Receiver<file_statistics::Question>,
    pages_asked: mpsc::Receiver<crate::pages::Question>,
    maker: Arc<worker::Maker>,
    pool: Arc<Pool>,
}

/// Loads and opens everything, and waits until the process before, if there is one, accepts no more. May be cancelled at any time:
/// what may wait for a disk, the store or a name server does so on another thread.
async fn load(options: &Options, inheritance: &mut Option<Inheritance>) -> Result<Loaded, DaemonError> {
    *inheritance = Inheritance::receive().await?;
    let (file, log_file, debug) = (options.config.clone(), options.log_file.clone(), options.debug);
    let loaded = blocking(move || config::load(&file)).await??;
    let log = blocking(move || Log::start(log_file.as_deref(), debug)).await??;
    supervise::log_panics();
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let config = loaded.config;
    let descriptors = descriptors::raise_limit();
    let prepared = Prepared::load(&config).await?;
    let old_has_index = inheritance.as_ref().is_some_and(Inheritance::has_index);
    if old_has_index && prepared.publication.load().files.is_none() {
        return Err(DaemonError::NoIndex { folder: config.index_dir() });
    }

    let shards = config.shards.unwrap_or_else(|| usable_cores().len());
    let given = Given::to_this_process(inheritance.as_mut(), &config)?;
    let Sockets { downloads, left, rpc: rpc_socket, metrics: metrics_socket } =
        Sockets::open(given, &config, shards).await?;
    let statistics = Statistics::start(&stats::Options::from(&config), Arc::clone(&prepared.store))?;
    let (counts, counts_asked) = mpsc::channel(file_statistics::QUESTIONS_WAITING);
    let (pages, pages_asked) = mpsc::channel(worker::QUESTIONS_WAITING);
    let maker = Arc::new(worker::Maker::start()?);
    let questions = Questions { statistics: counts, pages };
    let connections = descriptors::connections(descriptors, config.max_connections);
    let intake = statistics.intake();
    let pool = Pool::start(shards, &prepared.publication, config.runtime, &intake, &questions, connections)?;
    drop(intake);
    let pool = Arc::new(pool);
    if let Some(inheritance) = inheritance {
        inheritance.wait_for_go().await?;
    }
    Ok(Loaded {
        log,
        config,
        prepared,
        downloads,
        left,
        rpc_socket,
        metrics_socket,
        statistics,
        counts_asked,
        pages_asked,
        maker,
        pool,
    })
}

/// Does what may wait for a disk on another thread, so that signals are seen meanwhile.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// Comes up to the point where every acceptor accepts. `inheritance` is taken when nothing can fail any more.
async fn begin(
    options: &Options,
    program: Program,
    loaded: Loaded,
    inheritance: &mut Option<Inheritance>,
) -> Result<Daemon, DaemonError> {
    let Loaded { log, config, prepared, downloads, left, rpc_socket, metrics_socket, .. } = loaded;
    let Loaded { statistics, counts_asked, pages_asked, maker, pool, .. } = loaded;
    let Prepared { store, table, watch, publication, missing_geo } = prepared;
    let served = accept(&pool, downloads, left).await;
    let pid_file = match (served, &options.pid_file) {
        (Ok(()), Some(path)) => write_pid_file(path.clone(), inheritance.is_some()).await.map(Some),
        (served, _) => served.map(|()| None),
    };
    let pid_file = match (pid_file, inheritance.as_mut()) {
        (Ok(pid_file), Some(inheritance)) => inheritance.serving().await.map(|()| pid_file).map_err(DaemonError::from),
        (pid_file, _) => pid_file,
    };
    // A runtime that is dropped does not wait for shards, and they hold connections.
    let pid_file = pid_file.inspect_err(|_| pool.stop(signals::PATIENCE))?;
    for socket in metrics_socket.iter().chain([&rpc_socket]) {
        socket.open();
    }
    tracing::info!("serving on {} with {} shards on {}", config.listen_address, pool.shards(), pool.runtime());
    service_manager::ready("serving");

    let belongings = Belongings::new(options, &config, inheritance.take());
    let (orders, ordered) = Orders::channel();
    let link = belongings.indexer_link();
    let seen = Watch::new(Sources {
        publication: publication.clone(),
        collectors: pool.collectors(),
        table: table.clone(),
        indexer: link.clone(),
        figures: statistics.figures(),
        monitor: options.monitor,
        source_interval: config.repository_scan_interval,
    })
    .inspect_err(|_| pool.stop(signals::PATIENCE))
    .map_err(StartError::Counters)?;
    if let Err(error) = freed_memory::keep_returning() {
        tracing::warn!("the thread that returns freed memory cannot be started: {error}; memory stays at its peak");
    }
    let (retention, retained) = watch::channel(config.stats_retention);
    let parts = rpc::Parts {
        table: table.clone(),
        indexer: link.clone(),
        locate: locate_by(publication.clone()),
        publication: publication.clone(),
        orders,
        retention: retained.clone(),
    };
    Ok(Daemon {
        log,
        pid_file,
        options: options.clone(),
        program,
        pool,
        publication,
        missing_geo,
        rpc: RpcServer::start(rpc_socket, rpc::Service::new(parts, config.rpc_password.clone())),
        metrics: MetricsServer::start(metrics_socket, seen),
        following: Some(watch.follow()?),
        feed: tokio::spawn({
            let table = table.clone();
            keep_running("change-feed", move || change_feed::follow(table.clone(), link.clone()))
        }),
        pruning: tokio::spawn(keep_running("retention", move || retention::follow(table.clone(), retained.clone()))),
        answering: tokio::spawn(async move {
            let (counts_asked, pages_asked) = (Mutex::new(counts_asked), Mutex::new(pages_asked));
            let counts = keep_running("file-statistics", || async {
                file_statistics::answer_questions(&mut *counts_asked.lock().await, Arc::clone(&store)).await;
            });
            let pages = keep_running("pages", || async {
                worker::answer_questions(&mut *pages_asked.lock().await, Arc::clone(&store), Arc::clone(&maker)).await;
            });
            tokio::join!(counts, pages);
        }),
        retention,
        statistics: Some(statistics),
        belongings,
        ordered,
        loading: Arc::new(Semaphore::new(1)),
        opening: Arc::new(Semaphore::new(1)),
        config,
    })
}

/// Writes the PID file, in place of that of the process before if this one takes over. It may wait for a disk.
async fn write_pid_file(path: PathBuf, takes_over: bool) -> Result<PidFile, DaemonError> {
    let writing = blocking({
        let path = path.clone();
        move || PidFile::write(&path, takes_over)
    });
    match tokio::time::timeout(PID_FILE_LIMIT, writing).await {
        Ok(written) => Ok(written??),
        Err(_) => Err(PidFileError::late(&path).into()),
    }
}

/// Lets the shards accept, and answers what is queued at addresses that are left.
async fn accept(pool: &Arc<Pool>, downloads: Front, left: Vec<Front>) -> Result<(), DaemonError> {
    let kept = downloads.configured().to_owned();
    for front in left.into_iter().chain([downloads]) {
        pool.attend(front);
    }
    let pool = pool.clone();
    let opened = move || {
        pool.resume()?;
        if let Err(error) = pool.leave(|front| front.configured() == kept, signals::PATIENCE) {
            tracing::warn!("{error}");
        }
        Ok(())
    };
    tokio::task::spawn_blocking(opened).await.map_err(io::Error::other)?
}
