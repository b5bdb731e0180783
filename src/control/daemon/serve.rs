//! The daemon at work: it waits for signals and orders, and does them one after the other.

use std::io;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::FutureExt as _;
use mb_core::config::{Config, StatsRetention};
use mb_core::link::Request;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::belongings::Belongings;
use super::incumbent::Incumbent;
use super::metrics_server::MetricsServer;
use super::reload::Reloaded;
use super::reloading::{Loaded, Reloads, Step};
use super::rpc_server::RpcServer;
use super::signals::{PATIENCE, Signal, Signals};
use super::{DaemonError, Options, PID_FILE_LIMIT};
use crate::control::control_socket::ControlSocket;
use crate::control::index_watch::Following;
use crate::control::logging::Log;
use crate::control::orders::{Answer, Order, Task};
use crate::control::pid_file::PidFile;
use crate::control::service_manager;
use crate::handle::Settings;
use crate::shard::front::Front;
use crate::shard::pool::{Pool, ShardsFailed};
use crate::snapshot::{Publication, Snapshot};
use crate::stats::{self, Statistics};
use crate::upgrade::hand_over::{HandedOver, Incumbent as _, TakenBack, hand_over};
use crate::upgrade::message::Role;
use crate::upgrade::program::Program;

/// How often the shards are looked after.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long the store and the download log may take for the last counts and lines; the spool takes what is left.
const LAST_DELIVERY: Duration = Duration::from_secs(3);
/// The same after a second signal.
const LAST_DELIVERY_IN_A_HURRY: Duration = Duration::from_secs(1);
/// How long all of the end may take, apart from requests under way. Each part has a shorter limit of its own.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How long opening the log file may take.
const OPEN_LOG_LIMIT: Duration = Duration::from_secs(5);
/// What is said when it takes longer.
const LOG_FILE_BLOCKS: &str = "the log file cannot be opened again: its disk, or the reader of its pipe, does not answer; the old one is written on";
/// What is said when the files of an earlier reload are still being read.
const EARLIER_RELOAD_BLOCKS: &str = "an earlier reload still waits for a file or an address: see to the disk, or restart the daemon\nNothing was changed";
/// File name of the hand-over's socket in `StateDir`.
const UPGRADE_SOCKET: &str = "upgrade.sock";

/// A daemon that serves.
pub(super) struct Daemon {
    pub(super) options: Options,
    pub(super) program: Program,
    pub(super) log: Log,
    pub(super) pid_file: Option<PidFile>,
    pub(super) config: Config,
    pub(super) missing_geo: Vec<PathBuf>,
    pub(super) pool: Arc<Pool>,
    pub(super) publication: Arc<Publication>,
    pub(super) rpc: RpcServer,
    pub(super) metrics: MetricsServer,
    /// Taken at the end.
    pub(super) following: Option<Following>,
    pub(super) feed: JoinHandle<()>,
    pub(super) pruning: JoinHandle<()>,
    /// Told when `StatsRetention` changes.
    pub(super) retention: watch::Sender<StatsRetention>,
    pub(super) answering: JoinHandle<()>,
    /// Taken at the end.
    pub(super) statistics: Option<Statistics>,
    pub(super) belongings: Belongings,
    pub(super) ordered: mpsc::Receiver<Order>,
    /// One thread at most reads for a reload, and one opens the log: those that a disk blocks do not add up.
    pub(super) loading: Arc<Semaphore>,
    pub(super) opening: Arc<Semaphore>,
}

/// Why the daemon stops serving.
enum End {
    /// It was told to end, and requests under way have so long.
    Stop(Duration),
    /// A new process serves.
    HandedOver(HandedOver),
    /// It cannot go on.
    Failed(DaemonError),
}

/// An upgrade under way.
struct Upgrade {
    /// Notified when this process is told to end.
    stopping: Arc<Notify>,
    task: JoinHandle<Result<HandedOver, TakenBack>>,
}

impl Daemon {
    /// Serves until the end.
    pub(super) async fn serve(mut self, signals: &mut Signals) -> Result<(), DaemonError> {
        let end = self.until_the_end(signals).await;
        self.following = None;
        self.feed.abort();
        self.pruning.abort();
        let mut statistics = self.statistics.take();
        if !matches!(end, End::HandedOver(_)) {
            tracing::info!("ending, after the requests under way");
            service_manager::stopping();
            self.belongings.hurry().await;
        }
        let limit = match &end {
            End::Stop(patience) => Some(*patience + END_LIMIT),
            End::Failed(_) => Some(PATIENCE + END_LIMIT),
            // The process before this one may have connections for hours.
            End::HandedOver(_) => None,
        };
        let has_failed = matches!(end, End::Failed(_));
        let too_late = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let mut watchdog = Watchdog::new();
        let still_alive = async {
            loop {
                watchdog.due().await;
                service_manager::alive();
            }
        };
        tokio::select! {
            result = self.end(end, &mut statistics) => return result,
            () = too_late => tracing::error!("this process has not ended in order in time: a disk may not answer"),
            () = still_alive => {}
            () = signals.end() => tracing::warn!("told twice to end: requests under way are cut off"),
        }
        stop(statistics, LAST_DELIVERY_IN_A_HURRY).await;
        if has_failed { Err(io::Error::other("it failed, and did not end in order").into()) } else { Ok(()) }
    }

    async fn until_the_end(&mut self, signals: &mut Signals) -> End {
        let pool = self.pool.clone();
        let shards_fail = until_shards_fail(&pool);
        tokio::pin!(shards_fail);
        let mut watchdog = Watchdog::new();
        let mut upgrade: Option<Upgrade> = None;
        let mut stop_after: Option<Duration> = None;
        let mut reloads = Reloads::default();
        // Asked for while a reload runs.
        let mut next_upgrade: Option<Option<oneshot::Sender<Answer>>> = None;
        loop {
            if !reloads.is_running()
                && let Some(answer) = next_upgrade.take()
            {
                upgrade = Some(self.start_upgrade(answer));
            }
            tokio::select! {
                signal = signals.next() => match (signal, &upgrade) {
                    (Signal::End(patience), None) => return End::Stop(patience),
                    // The upgrade is given up, or its rest hurried along; either tells itself.
                    (Signal::End(patience), Some(upgrade)) if stop_after.is_none() => {
                        stop_after = Some(patience);
                        upgrade.stopping.notify_one();
                    }
                    (Signal::End(_), Some(_)) => return End::Stop(Duration::ZERO),
                    (Signal::Reload, _) => self.ask_reload(&mut reloads, upgrade.is_some() || next_upgrade.is_some(), None),
                    (Signal::ReopenLogs, _) => self.reopen_logs_and_report(),
                    (Signal::Upgrade, Some(_)) => tracing::warn!("SIGUSR2: {UPGRADING}"),
                    (Signal::Upgrade, None) => next_upgrade = next_upgrade.or(Some(None)),
                },
                Some(Order { task, answer }) = self.ordered.recv() => match (task, &upgrade) {
                    (Task::Reload, _) => {
                        self.ask_reload(&mut reloads, upgrade.is_some() || next_upgrade.is_some(), Some(answer));
                    }
                    (Task::Upgrade, None) if next_upgrade.is_none() => next_upgrade = Some(Some(answer)),
                    (Task::Upgrade, _) => drop(answer.send(Err(UPGRADING.to_owned()))),
                },
                ended = ended(&mut upgrade) => {
                    upgrade = None;
                    match (ended, stop_after) {
                        (Ok(handed_over), _) => return End::HandedOver(handed_over),
                        (Err(TakenBack(reason)), stop_after) => {
                            tracing::error!("the upgrade did not take place, this process serves on: {reason}");
                            if let Some(patience) = stop_after {
                                return End::Stop(patience);
                            }
                            // The new process may have written its own id.
                            self.write_pid_file_again();
                            service_manager::main_process(std::process::id());
                            if reloads.is_waiting() {
                                self.begin_reload(&mut reloads);
                            }
                        }
                    }
                }
                step = reloads.step() => self.go_on_with(&mut reloads, step, next_upgrade.is_some()),
                () = self.belongings.taken() => {}
                error = &mut shards_fail => return End::Failed(error.into()),
                () = watchdog.due() => service_manager::alive(),
            }
        }
    }

    /// Answers what is under way, then lets go of everything.
    async fn end(mut self, end: End, statistics: &mut Option<Statistics>) -> Result<(), DaemonError> {
        self.metrics.stop();
        let patience = match &end {
            End::Stop(patience) => *patience,
            End::HandedOver(_) | End::Failed(_) => PATIENCE,
        };
        let pool = self.pool;
        let drained = tokio::task::spawn_blocking(move || pool.stop(patience));
        let drained = async {
            // Shards report their own trouble.
            let _ = drained.await;
            self.answering.abort();
            stop(statistics.take(), LAST_DELIVERY).await;
        };
        tokio::join!(self.rpc.stop(), self.belongings.let_go(drained));
        let removed = tokio::task::spawn_blocking(move || drop(self.pid_file));
        if tokio::time::timeout(PID_FILE_LIMIT, removed).await.is_err() {
            tracing::error!("the PID file cannot be removed: its disk does not answer");
        }
        match end {
            End::Stop(_) => Ok(()),
            End::HandedOver(handed_over) => {
                tracing::info!("process {} has taken over", handed_over.pid());
                service_manager::all_taken().await;
                handed_over.release().await;
                Ok(())
            }
            End::Failed(error) => Err(error),
        }
    }

    /// Writes the PID file on a thread of its own: what is at its path may block.
    fn write_pid_file_again(&self) {
        if let Some(pid_file) = &self.pid_file {
            let writing = pid_file.writing_again();
            drop(tokio::task::spawn_blocking(move || {
                if let Err(error) = writing() {
                    tracing::error!("{error}");
                }
            }));
        }
    }

    /// Starts handing over to a new process. `answer` is told when that serves, or why it does not.
    fn start_upgrade(&self, answer: Option<oneshot::Sender<Answer>>) -> Upgrade {
        let stopping = Arc::new(Notify::new());
        let metrics = self.metrics.socket().map(|socket| (Role::Metrics, socket.clone()));
        let control = [(Role::Rpc, self.rpc.socket().clone())].into_iter().chain(metrics).collect();
        let incumbent = Incumbent { pool: self.pool.clone(), publication: self.publication.clone(), control };
        let program = self.program.clone();
        let socket = self.config.state_dir.join(UPGRADE_SOCKET);
        let told = stopping.clone();
        let task = tokio::spawn(async move {
            let mut answer = answer;
            let on_serving = |pid| {
                tracing::info!("process {pid} serves; this one ends when its connections have ended");
                service_manager::main_process(pid);
                if let Some(answer) = answer.take() {
                    // Whoever asked may have gone away.
                    let _ = answer.send(Ok(Vec::new()));
                }
            };
            let done = if std::process::id() == 1 {
                Err(TakenBack(FIRST_PROCESS.to_owned()))
            } else {
                let handing_over = hand_over(&program, &socket, &incumbent, &told, on_serving);
                match AssertUnwindSafe(handing_over).catch_unwind().await {
                    Ok(done) => done,
                    // The new process has been ended meanwhile; whatever the acceptors were told is taken back.
                    Err(_) => {
                        incumbent.resume().await;
                        Err(TakenBack(
                            "a defect of this program ended it; the log tells where, please report it".to_owned(),
                        ))
                    }
                }
            };
            if let (Err(TakenBack(reason)), Some(answer)) = (&done, answer) {
                let _ = answer.send(Err(reason.clone()));
            }
            done
        });
        Upgrade { stopping, task }
    }

    /// Opens log files again, on a thread of its own: what is at their path may block.
    fn reopen_logs(&self) -> JoinHandle<Option<String>> {
        self.statistics.iter().for_each(Statistics::reopen_log);
        let log = self.log.clone();
        let Ok(permit) = self.opening.clone().try_acquire_owned() else {
            return tokio::spawn(async { Some(LOG_FILE_BLOCKS.to_owned()) });
        };
        let opening = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            log.reopen()
        });
        tokio::spawn(async {
            match tokio::time::timeout(OPEN_LOG_LIMIT, opening).await {
                Ok(Ok(Ok(()))) => {
                    tracing::info!("log files are opened again");
                    None
                }
                Ok(Ok(Err(error))) => Some(format!("{error}; the old one is written on")),
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(LOG_FILE_BLOCKS.to_owned()),
            }
        })
    }

    fn reopen_logs_and_report(&self) {
        let reopened = self.reopen_logs();
        tokio::spawn(async {
            if let Ok(Some(trouble)) = reopened.await {
                tracing::error!("{trouble}");
            }
        });
    }

    /// Has everything loaded again, now or after the reload that runs.
    fn ask_reload(&self, reloads: &mut Reloads, is_upgrading: bool, asker: Option<oneshot::Sender<Answer>>) {
        if is_upgrading {
            let refusal = Err(UPGRADING.to_owned());
            report("reload", refusal.clone());
            if let Some(asker) = asker {
                // Whoever asked may have gone away.
                let _ = asker.send(refusal);
            }
        } else if reloads.ask(asker) {
            self.begin_reload(reloads);
        }
    }

    fn begin_reload(&self, reloads: &mut Reloads) {
        service_manager::reloading();
        reloads.begin(self.load());
    }

    /// Does what a step of a reload asks for. Either all of a reload takes effect or nothing.
    fn go_on_with(&mut self, reloads: &mut Reloads, step: Step, is_upgrade_next: bool) {
        let answer = match step {
            Step::Loaded(Ok(loaded)) => return reloads.complete(self.put_in_use(*loaded)),
            Step::Loaded(Err(reason)) => Err(reason),
            Step::Completed(answer) => answer,
        };
        service_manager::ready(if answer.is_ok() { "serving" } else { "serving; the latest reload failed" });
        report("reload", answer.clone());
        if reloads.end(&answer) && !is_upgrade_next {
            self.begin_reload(reloads);
        }
    }

    /// Loads everything again and makes the sockets for new addresses.
    fn load(&self) -> impl Future<Output = Result<Box<Loaded>, String>> + Send + 'static {
        let (file, current, missing_geo) = (self.options.config.clone(), self.config.clone(), self.missing_geo.clone());
        let (pool, loading) = (self.pool.clone(), self.loading.clone());
        async move {
            let permit = loading.try_acquire_owned().map_err(|_| EARLIER_RELOAD_BLOCKS.to_owned())?;
            let reading = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                let reloaded = Reloaded::load(&file, &current, &missing_geo).map_err(|error| error.to_string())?;
                let front = new_front(&reloaded.config, &current, &pool)?;
                Ok::<_, String>((reloaded, front, current))
            });
            let (reloaded, front, current) = reading.await.map_err(|error| error.to_string())??;
            let config = &reloaded.config;
            let rpc = if config.rpc_listen_address == current.rpc_listen_address {
                None
            } else {
                Some(new_control_socket("RPCListenAddress", &config.rpc_listen_address).await?)
            };
            let metrics = if config.metrics_listen_address == current.metrics_listen_address {
                None
            } else {
                match &config.metrics_listen_address {
                    Some(address) => Some(Some(new_control_socket("MetricsListenAddress", address).await?)),
                    None => Some(None),
                }
            };
            Ok(Box::new(Loaded { reloaded, front, rpc, metrics }))
        }
    }

    /// Puts what was loaded in use. What waits for others is left to the returned future.
    fn put_in_use(&mut self, loaded: Loaded) -> impl Future<Output = Answer> + Send + 'static {
        let Loaded { reloaded, front, rpc, metrics } = loaded;
        let Reloaded { config, geo, missing_geo, templates, mut notices } = reloaded;
        // The log is there before shards write for it.
        self.statistics.iter().for_each(|statistics| statistics.configure(stats::Options::from(&config)));
        let settings = Settings { templates, ..Settings::from(&config) };
        let (settings, geo) = (Arc::new(settings), Arc::new(geo));
        self.publication.update(|old| Snapshot::new(settings, old.files.clone(), old.mirrors.clone(), geo));
        self.rpc.change_password(&config);
        if let Some(socket) = rpc {
            self.rpc.move_to(socket);
        }
        if let Some(socket) = metrics {
            self.metrics.move_to(socket);
        }
        self.metrics.configure(&config);
        self.retention.send_replace(config.stats_retention);
        let reopened = self.reopen_logs();
        self.config = config;
        self.missing_geo = missing_geo;
        let pool = self.pool.clone();
        // An indexer that is still to be started reads the new configuration by itself. Waiting for it here would be waiting for
        // ourselves.
        let indexer = (self.options.monitor && self.belongings.are_held()).then(|| self.belongings.indexer_link());
        async move {
            if let Some(front) = front {
                notices.extend(move_to(pool, front).await);
            }
            notices.extend(reopened.await.unwrap_or_else(|error| Some(error.to_string())));
            if let Some(indexer) = indexer
                && let Err(error) = indexer.run(&Request::Reload).await
            {
                notices.push(format!("the indexer goes on with the old configuration: {error}"));
            }
            Ok(notices)
        }
    }
}

/// Sockets for a `ListenAddress` that is not the current one. Blocks.
fn new_front(config: &Config, current: &Config, pool: &Pool) -> Result<Option<Front>, String> {
    if config.listen_address == current.listen_address {
        return Ok(None);
    }
    let ours: Vec<_> = pool.fronts().iter().flat_map(|front| front.local_addresses()).collect();
    let front = Front::bind(&config.listen_address, pool.shards(), &ours);
    front.map(Some).map_err(|error| format!("{error}\nNothing was changed"))
}

/// Accepts on `front`, then answers what is queued at the address before and leaves it. What an operator should know of
/// that is returned.
async fn move_to(pool: Arc<Pool>, front: Front) -> Option<String> {
    let address = front.configured().to_owned();
    tracing::info!("moving to {address}");
    pool.attend(front);
    let moving = tokio::task::spawn_blocking(move || {
        pool.resume().map_err(|error| error.to_string())?;
        pool.leave(|front| front.configured() == address, PATIENCE).map_err(|error| error.to_string())
    });
    match moving.await {
        Ok(moved) => moved.err(),
        Err(error) => Some(error.to_string()),
    }
}

async fn new_control_socket(key: &'static str, address: &str) -> Result<ControlSocket, String> {
    ControlSocket::bind(key, address).await.map_err(|error| format!("{error}\nNothing was changed"))
}

/// The answer to whoever asks for something that must wait for the end of an upgrade.
const UPGRADING: &str = "an upgrade is under way, or this process has already handed over; try again in a moment";

/// The answer where no process can outlive this one.
const FIRST_PROCESS: &str =
    "this process is the first one of its container, which ends with it: start a new container instead";

fn report(what: &str, done: Answer) {
    match done {
        Ok(notices) => {
            for notice in notices {
                tracing::warn!("{notice}");
            }
            tracing::info!("{what}: done");
        }
        Err(reason) => tracing::error!("{what}: {reason}"),
    }
}

/// Waits for the end of an upgrade, if there is one.
async fn ended(upgrade: &mut Option<Upgrade>) -> Result<HandedOver, TakenBack> {
    match upgrade {
        Some(upgrade) => (&mut upgrade.task).await.unwrap_or_else(|error| Err(TakenBack(error.to_string()))),
        None => std::future::pending().await,
    }
}

/// Delivers what was counted and logged.
async fn stop(statistics: Option<Statistics>, patience: Duration) {
    if let Some(statistics) = statistics {
        // It reports its own trouble.
        let _ = tokio::task::spawn_blocking(move || statistics.stop(patience)).await;
    }
}

/// Replaces shards that fail, until that does not help any more.
async fn until_shards_fail(pool: &Arc<Pool>) -> ShardsFailed {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if pool.have_failed() {
            let pool = pool.clone();
            // A panic has been logged by its hook; the next look tries again.
            if let Ok(Err(error)) = tokio::task::spawn_blocking(move || pool.replace_failed()).await {
                tracing::error!("{error}; this process ends, to be started anew");
                return error;
            }
        }
    }
}

/// When systemd is to hear that all is well.
struct Watchdog(Option<tokio::time::Interval>);

impl Watchdog {
    fn new() -> Watchdog {
        Watchdog(service_manager::watchdog_interval().map(tokio::time::interval))
    }

    /// Waits for the next time. May be cancelled.
    async fn due(&mut self) {
        match &mut self.0 {
            Some(interval) => drop(interval.tick().await),
            None => std::future::pending().await,
        }
    }
}
