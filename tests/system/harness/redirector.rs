//! The daemon under test: its folder, its configuration, its command line.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::eventually;
use super::host::{Host, Place};
use super::http::{Connection, Response};
use super::program::Program;
use super::servers::{MirrorSite, MirrorSites};
use super::tree::{self, USUAL_TIME};

const HTTP_PORT: u16 = 8080;
const RPC_PORT: u16 = 3390;
const METRICS_PORT: u16 = 9390;

/// Names the runtime that daemons run on where a test does not choose one itself: `make test` runs the tests of what a
/// client sees once more with `epoll`.
const RUNTIME_VARIABLE: &str = "MIRRORBITS_TEST_RUNTIME";

/// A folder with a repository and a configuration, and the daemon that may run on them.
#[derive(Debug)]
pub(crate) struct Redirector {
    daemon: Option<Program>,
    folder: TempDir,
    host: Host,
    settings: BTreeMap<String, String>,
}

impl Redirector {
    /// A folder with an empty repository; no program runs yet.
    pub(crate) fn new() -> Redirector {
        let folder = tempfile::Builder::new().prefix("mirrorbits-test-").tempdir().expect("temporary folder");
        fs::create_dir(folder.path().join("repository")).expect("repository");
        let host = Host::claim(Place::Nowhere);
        let geo = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/demo/geo");
        let settings = [
            ("Repository", folder.path().join("repository").display().to_string()),
            ("StateDir", folder.path().join("state").display().to_string()),
            ("GeoipDatabasePath", geo.display().to_string()),
            ("ListenAddress", host.port(HTTP_PORT).to_string()),
            ("RPCListenAddress", host.port(RPC_PORT).to_string()),
            ("MetricsListenAddress", "''".to_owned()),
            ("Database", "embedded".to_owned()),
            ("Shards", "1".to_owned()),
            ("RepositoryScanInterval", "0".to_owned()),
            ("Runtime", std::env::var(RUNTIME_VARIABLE).unwrap_or_else(|_| "auto".to_owned())),
        ];
        let settings = settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Redirector { daemon: None, folder, host, settings }
    }

    /// Sets a key of the configuration to a YAML value; takes effect at the next start.
    pub(crate) fn set(&mut self, key: &str, value: impl ToString) -> &mut Redirector {
        self.settings.insert(key.to_owned(), value.to_string());
        self
    }

    /// Leaves a key of the configuration out.
    pub(crate) fn unset(&mut self, key: &str) -> &mut Redirector {
        self.settings.remove(key);
        self
    }

    /// The temporary folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The source repository.
    pub(crate) fn repository(&self) -> PathBuf {
        self.folder().join("repository")
    }

    /// `StateDir`.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.folder().join("state")
    }

    /// Where downloads are served.
    pub(crate) fn address(&self) -> SocketAddr {
        self.host.port(HTTP_PORT)
    }

    /// Where commands are served.
    pub(crate) fn rpc_address(&self) -> SocketAddr {
        self.host.port(RPC_PORT)
    }

    /// Where metrics are served, once [`Redirector::with_metrics`] said so.
    pub(crate) fn metrics_address(&self) -> SocketAddr {
        self.host.port(METRICS_PORT)
    }

    /// Has metrics served; takes effect at the next start.
    pub(crate) fn with_metrics(&mut self) -> &mut Redirector {
        let address = self.metrics_address();
        self.set("MetricsListenAddress", address)
    }

    /// The configuration file, written with the settings of this moment.
    pub(crate) fn config_file(&self) -> PathBuf {
        let path = self.folder().join("mirrorbits.conf");
        let text: String = self.settings.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
        fs::write(&path, text).expect("configuration");
        path
    }

    /// The command that starts the daemon.
    pub(crate) fn daemon_command(&self) -> Command {
        self.daemon_command_with(&self.config_file())
    }

    /// The same with a configuration file of the test's own.
    pub(crate) fn daemon_command_with(&self, config: &Path) -> Command {
        indexer_program();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mirrorbits"));
        command.args(["daemon", "-config"]).arg(config);
        command
    }

    /// Starts the daemon with its indexer and waits until it accepts connections and commands.
    pub(crate) fn start(&mut self) {
        let mut command = self.daemon_command();
        self.start_with(&mut command);
    }

    /// Starts the daemon without an indexer.
    pub(crate) fn start_without_indexer(&mut self) {
        let mut command = self.daemon_command();
        command.arg("-monitor=false");
        self.start_with(&mut command);
    }

    /// Starts the daemon with a mirror `only`, of Paris; see [`Redirector::start_with_mirrors`].
    pub(crate) fn start_with_one_mirror(&mut self) -> MirrorSites {
        self.start_with_mirrors(&[("only", Place::Paris)])
    }

    /// Starts the daemon with mirrors that have what is in the repository, and waits until `/file.iso`, which is added to it,
    /// is served and each mirror is up.
    pub(crate) fn start_with_mirrors(&mut self, mirrors: &[(&str, Place)]) -> MirrorSites {
        tree::write(&self.repository(), "file.iso", b"content", USUAL_TIME);
        let mirrors = MirrorSites::start(self.folder(), mirrors);
        for site in &mirrors.sites {
            tree::copy(&self.repository(), &site.root);
        }
        self.start();
        self.scan_repository();
        for site in &mirrors.sites {
            self.use_mirror(site);
        }
        self.wait_until_served("/file.iso");
        mirrors
    }

    /// Starts the daemon by a command made of [`Redirector::daemon_command`].
    pub(crate) fn start_with(&mut self, command: &mut Command) {
        assert!(self.daemon.is_none(), "the daemon runs already");
        let mut daemon = Program::start("mirrorbits", command, self.folder.path());
        for address in [self.address(), self.rpc_address()] {
            eventually("the daemon's listeners", || {
                daemon.assert_running();
                std::net::TcpStream::connect(address).map_err(|e| format!("{address}: {e}\n{}", daemon.output()))
            });
        }
        self.daemon = Some(daemon);
    }

    /// Starts an indexer that is not the daemon's, and waits until it takes requests.
    pub(crate) fn start_indexer(&self) -> Program {
        let mut command = Command::new(indexer_program());
        command.arg("-config").arg(self.config_file()).arg("run");
        let mut indexer = Program::start("mb-indexer", &mut command, self.folder());
        let socket = mb_core::link::socket_path(&self.state_dir());
        eventually("the indexer's socket", || {
            indexer.assert_running();
            UnixStream::connect(&socket).map_err(|e| format!("{}: {e}", socket.display()))
        });
        indexer
    }

    /// The running daemon.
    pub(crate) fn daemon(&mut self) -> &mut Program {
        self.daemon.as_mut().expect("a started daemon")
    }

    /// The daemon was killed and may be started again.
    pub(crate) fn forget(&mut self) {
        self.daemon = None;
    }

    /// Ends the daemon by SIGTERM and waits for it.
    pub(crate) fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("a started daemon");
        daemon.signal(rustix::process::Signal::TERM);
        let status = daemon.wait();
        assert!(status.success(), "SIGTERM ended the daemon with {status}:\n{}", daemon.output());
    }

    /// A command against the daemon.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let rpc = self.rpc_address();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mirrorbits"));
        command.args(["-h", &rpc.ip().to_string(), "-p", &rpc.port().to_string()]).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command against the daemon.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("mirrorbits")
    }

    /// Runs a command that must succeed, and returns its standard output.
    pub(crate) fn mirrorbits(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "mirrorbits {arguments:?}: {}\nstdout: {}\nstderr: {}\ndaemon: {}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.daemon.as_ref().map(Program::output).unwrap_or_default()
        );
        String::from_utf8(output.stdout).expect("output in UTF-8")
    }

    /// Scans the repository.
    pub(crate) fn scan_repository(&self) {
        self.mirrorbits(&["refresh"]);
    }

    /// Adds a mirror, scans and enables it, and waits until it is up.
    pub(crate) fn use_mirror(&self, site: &MirrorSite) {
        self.mirrorbits(&["add", "-http", &site.http_url(), "-rsync", &site.rsync_url(), &site.name]);
        self.mirrorbits(&["scan", "-enable", &site.name]);
        self.wait_until_up(&site.name);
    }

    /// Waits until a mirror's health check found it up.
    pub(crate) fn wait_until_up(&self, name: &str) {
        eventually(&format!("{name} is up"), || {
            let list = self.mirrorbits(&["list"]);
            let up = list.lines().any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some(name) && words.next() == Some("up")
            });
            if up { Ok(()) } else { Err(list) }
        });
    }

    /// Waits until a file is redirected.
    pub(crate) fn wait_until_served(&self, target: &str) {
        eventually(&format!("{target} is served"), || {
            let answer = self.get(target, &[]);
            if answer.status == 302 { Ok(()) } else { Err(format!("{answer:?}")) }
        });
    }

    /// Sends exact bytes on a new connection and reads one answer.
    pub(crate) fn request(&self, bytes: &[u8]) -> Response {
        let mut connection = Connection::open(self.address()).expect("connection to the daemon");
        connection.send(bytes).expect("request");
        connection.receive().unwrap_or_else(|e| panic!("{e} after {:?}", String::from_utf8_lossy(bytes)))
    }

    /// GET with header fields given as `Name: value` lines.
    pub(crate) fn get(&self, target: &str, headers: &[&str]) -> Response {
        self.request(get(target, headers).as_bytes())
    }
}

/// The bytes of a GET request.
pub(crate) fn get(target: &str, headers: &[&str]) -> String {
    let mut request = format!("GET {target} HTTP/1.1\r\nHost: download.example.org\r\n");
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request
}

/// The indexer, which cargo builds beside the daemon, but not for the tests of another package.
pub(crate) fn indexer_program() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_mirrorbits")).with_file_name("mb-indexer");
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build -p mb-indexer`, or all tests by `make test`",
        path.display()
    );
    path
}
