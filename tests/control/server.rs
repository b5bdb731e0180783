//! An RPC server of this program in the test's process, with a real store and index, and the real command line.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mb_core::config;
use mb_core::geo::{AutonomousSystem, GeoDatabase, Place};
use mb_core::mirror::{Mirror, MirrorId};
use mb_core::store::{Counts, EmbeddedStore, FileHashes, StatsBatch, Store, Traffic};
use mb_core::time::FileTime;
use mb_index::{FileRecord, FilesBuilder, Publisher};
use mirrorbits::control::control_socket::ControlSocket;
use mirrorbits::control::index_watch::IndexWatch;
use mirrorbits::control::indexer::IndexerLink;
use mirrorbits::control::mirror_table::MirrorTable;
use mirrorbits::control::orders::{Orders, Task};
use mirrorbits::control::rpc;
use mirrorbits::handle::Settings;
use tempfile::TempDir;
use time::{Date, Month};
use tokio::sync::oneshot;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A server on a free port; ends when it is dropped.
pub(crate) struct Server {
    folder: TempDir,
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What stands for the daemon: it reloads, with something to say about it, and cannot upgrade.
fn orders_that_are_answered() -> Orders {
    let (orders, mut ordered) = Orders::channel();
    tokio::spawn(async move {
        while let Some(order) = ordered.recv().await {
            let answer = match order.task {
                Task::Reload => Ok(vec!["Shards: wait – for a restart".to_owned()]),
                Task::Upgrade => Err("there is no program".to_owned()),
            };
            order.answer.send(answer).unwrap();
        }
    });
    orders
}

impl Server {
    /// Starts a server that asks for `password`.
    pub(crate) fn start(password: &str) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().to_owned();
        let password = password.to_owned();
        let (stop, stopped) = oneshot::channel();
        let (tell_address, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let store = Arc::new(EmbeddedStore::open(&state_dir).unwrap());
                let table = Arc::new(MirrorTable::new(store, &state_dir.join("index")));
                let watch = IndexWatch::open(&state_dir.join("index"), Arc::new(settings()), Arc::new(geo()));
                let parts = rpc::Parts {
                    table,
                    indexer: IndexerLink::new(&state_dir),
                    locate: Arc::new(locate),
                    publication: watch.publication().clone(),
                    orders: orders_that_are_answered(),
                    retention: tokio::sync::watch::channel(mb_core::config::StatsRetention::default()).1,
                };
                let service = rpc::Service::new(parts, mb_core::secret::Secret::new(password.to_owned()));
                let _following = watch.follow().unwrap();
                let socket = ControlSocket::bind("RPCListenAddress", "127.0.0.1:0").await.unwrap();
                tell_address.send(socket.local_addr().unwrap()).unwrap();
                let shutdown = async { drop(stopped.await) };
                rpc::serve(socket, service, shutdown).await.unwrap();
            });
        });
        let address = address.recv_timeout(PATIENCE).unwrap();
        Server { folder, address, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn state_dir(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn index_dir(&self) -> PathBuf {
        self.folder.path().join("index")
    }

    /// Publishes an index of an empty repository, as the first scan of the source does.
    pub(crate) fn publish_source(&self) {
        let files = FilesBuilder::new(&[], false).finish();
        Publisher::new(&self.index_dir()).lock().unwrap().publish(Some(&files), &[]).unwrap();
    }

    /// Publishes an index with one file that `mirrors` have, and a link `/outside` that leaves the repository.
    pub(crate) fn publish_file(&self, path: &str, mirrors: &[MirrorId]) {
        let mut files = FilesBuilder::new(mirrors, false);
        let mut words = vec![0; files.set_words()];
        words[0] = (1 << mirrors.len()) - 1;
        let set = files.intern_set(&words);
        let (modified, hashes) = (FileTime::from_seconds(1_700_000_000), FileHashes::default());
        let file = FileRecord { path: path.as_bytes(), size: 1024, modified, hashes, set, exceptions: &[] };
        files.push_file(file).unwrap();
        files.push_forbidden(b"/outside").unwrap();
        let mirrors = self.store().mirrors().unwrap();
        Publisher::new(&self.index_dir()).lock().unwrap().publish(Some(&files.finish()), &mirrors).unwrap();
    }

    /// The store, opened beside the server.
    pub(crate) fn store(&self) -> EmbeddedStore {
        EmbeddedStore::open(self.state_dir()).unwrap()
    }

    /// Counts downloads of 1 KiB each from the mirror with the id 1: day, path and how many.
    pub(crate) fn count_downloads(&self, downloads: &[(&str, &str, u64)]) {
        let mut days: BTreeMap<Date, Counts> = BTreeMap::new();
        for &(day, path, count) in downloads {
            let [year, month, day] = [&day[..4], &day[5..7], &day[8..]].map(|part| part.parse::<i32>().unwrap());
            let month = Month::try_from(u8::try_from(month).unwrap()).unwrap();
            let day = Date::from_calendar_date(year, month, u8::try_from(day).unwrap()).unwrap();
            let counts = days.entry(day).or_default();
            *counts.files.entry(path.into()).or_default() += count;
            let traffic = Traffic { requests: count, bytes: count * 1024 };
            counts.mirrors.entry(MirrorId(1)).or_default().add(traffic);
        }
        let batch = StatsBatch { node: "test".to_owned(), sequence: 1, days };
        assert!(self.store().add_stats(&batch).unwrap());
    }

    /// The mirrors that requests would be answered with.
    pub(crate) fn published(&self) -> Vec<Mirror> {
        let opened = mb_index::open_newest_mirrors(&self.index_dir());
        opened.index.map(|index| index.mirrors()).unwrap_or_default()
    }

    /// The command line, pointed at this server.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mirrorbits"));
        command.args(["-h", "127.0.0.1", "-p", &self.address.port().to_string()]).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments).output().unwrap())
    }

    /// Runs a command that must succeed; returns what it printed.
    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.status, 0, "{arguments:?}: {ended:?}");
        ended.out
    }

    /// Runs a command that must fail with status 1 and print nothing but a message, which is returned.
    pub(crate) fn fail(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!((ended.status, ended.out.as_str()), (1, ""), "{arguments:?}: {ended:?}");
        ended.err
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the server panicked");
        }
    }
}

/// The configuration that answers are explained by; there are fallbacks, which must not hide the reasons.
fn settings() -> Settings {
    let text = "Repository: /srv\nFallbacks:\n  - URL: http://fallback.example/\n    CountryCode: fr\n";
    Settings::from(&config::parse(text, Path::new("test.conf")).unwrap().config)
}

/// The databases of the demo, which place the documentation prefixes.
fn geo() -> GeoDatabase {
    let (geo, errors) = GeoDatabase::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/demo/geo"));
    assert!(errors.is_empty(), "{errors:?}");
    geo
}

/// 192.0.2.0/24 is Paris, everything else unknown.
fn locate(address: IpAddr) -> (Place, AutonomousSystem) {
    if !address.to_string().starts_with("192.0.2.") {
        return Default::default();
    }
    let place = Place {
        country_code: "FR".into(),
        continent_code: "EU".into(),
        latitude: 48.8566,
        longitude: 2.3522,
        ..Place::default()
    };
    (place, AutonomousSystem { number: 64496, name: "Example".into() })
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    pub(crate) fn of(output: Output) -> Ended {
        Ended {
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Waits until `condition` holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
