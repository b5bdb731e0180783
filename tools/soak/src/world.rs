//! The installation under test: a repository, mirrors served by rsync and nginx, and the daemon.
//!
//! Everything is in one temporary folder and on 127.0.0.1. Dropping [`World`] ends every program that it started.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tempfile::TempDir;

use crate::SoakError;

/// Longest wait for something that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Interval between two looks at a condition.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Mirrors with the right files. Enough that `?mirrorlist` is a document of some 50 KB.
const MIRRORS: usize = 40;
/// Connections at a time of honest visitors, before the attack.
const VISITORS: usize = 600;
/// Files of the repository.
const FILES: usize = 200;
/// Descriptors that the daemon may open: few enough that the connection flood uses them up.
pub(crate) const DESCRIPTORS: u64 = 1024;

/// Ports of the programs, all on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) http: u16,
    pub(crate) rpc: u16,
    pub(crate) metrics: u16,
    rsync: u16,
    mirrors: u16,
}

impl Ports {
    fn free() -> Result<Ports, SoakError> {
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(SoakError::Port);
        // All five are bound at a time, so that they differ.
        let sockets = [listen()?, listen()?, listen()?, listen()?, listen()?];
        let mut ports = [0; 5];
        for (port, socket) in ports.iter_mut().zip(&sockets) {
            *port = socket.local_addr().map_err(SoakError::Port)?.port();
        }
        let [http, rpc, metrics, rsync, mirrors] = ports;
        Ok(Ports { http, rpc, metrics, rsync, mirrors })
    }
}

/// A running installation.
pub(crate) struct World {
    folder: TempDir,
    program: PathBuf,
    pub(crate) ports: Ports,
    /// rsync and nginx.
    servers: Vec<Child>,
    /// Every process that was the daemon, the current one last.
    daemons: Vec<Pid>,
}

impl World {
    /// Writes the files, starts the mirrors and the daemon on `runtime`, and waits until the repository is served.
    pub(crate) fn start(programs: &Path, runtime: &str) -> Result<World, SoakError> {
        for name in ["mirrorbits", "mb-indexer"] {
            if !programs.join(name).is_file() {
                return Err(SoakError::MissingProgram { name, folder: programs.to_owned() });
            }
        }
        let folder = tempfile::Builder::new().prefix("mb-soak-").tempdir();
        let folder = folder.map_err(SoakError::at("create a folder in", &std::env::temp_dir()))?;
        let program = programs.join("mirrorbits");
        let mut world = World { folder, program, ports: Ports::free()?, servers: Vec::new(), daemons: Vec::new() };
        world.write_files(runtime)?;
        world.start_mirrors()?;
        world.start_daemon()?;
        world.add_mirrors()?;
        Ok(world)
    }

    /// Where downloads are asked for.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.http).into()
    }

    /// Paths of the files.
    pub(crate) fn files() -> Vec<String> {
        (0..FILES).map(|number| format!("/pool/{}/file-{number}.iso", number % 7)).collect()
    }

    /// Base URLs that a redirect may lead to.
    pub(crate) fn mirror_urls(&self) -> Vec<String> {
        (0..MIRRORS).map(|number| format!("http://127.0.0.1:{}/m{number}/", self.ports.mirrors)).collect()
    }

    /// The process that is the daemon now.
    pub(crate) fn daemon(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.path("mirrorbits.pid")).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    /// The indexer of the current daemon.
    pub(crate) fn indexer(&self) -> Option<Pid> {
        let daemon = self.daemon()?.as_raw_nonzero();
        let children = fs::read_dir(format!("/proc/{daemon}/task")).ok()?.filter_map(Result::ok);
        let children = children.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        let children: String = children.collect::<Vec<_>>().join(" ");
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).find_map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            if name.trim() == "mb-indexer" { Pid::from_raw(pid) } else { None }
        })
    }

    /// Runs a command against the daemon.
    pub(crate) fn command(&self, arguments: &[&str]) -> Result<String, SoakError> {
        let mut command = Command::new(&self.program);
        command.args(["-h", "127.0.0.1", "-p", &self.ports.rpc.to_string()]).args(arguments);
        let output = command.stdin(Stdio::null()).output();
        let output = output.map_err(|source| SoakError::Start { program: "mirrorbits", source })?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        let output = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
        Err(SoakError::Command { command: arguments.join(" "), output })
    }

    /// Uses the daemon in every way that users and operators do, so that all its threads and caches are in use: documents of
    /// each kind, commands, metrics, and [`VISITORS`] connections at a time.
    pub(crate) fn use_everything(&self) -> Result<(), SoakError> {
        let mut visitors = Vec::new();
        for _ in 0..VISITORS {
            visitors.push(TcpStream::connect(self.address()).map_err(SoakError::Visit)?);
        }
        let documents = ["?mirrorlist", "?stats", "", "?mirrorlist&pretty"];
        let files = World::files();
        for (number, visitor) in visitors.iter_mut().enumerate() {
            let file = files.get(number % files.len()).map(String::as_str).unwrap_or("/");
            let query = documents[number % documents.len()];
            let accept = if number % 2 == 0 { "application/json" } else { "text/html" };
            visit(visitor, &format!("{file}{query}"), accept)?;
        }
        for _ in 0..4 {
            for page in ["/?mirrorstats", "/"] {
                let mut visitor = TcpStream::connect(self.address()).map_err(SoakError::Visit)?;
                visit(&mut visitor, page, "text/html")?;
            }
            let metrics = (Ipv4Addr::LOCALHOST, self.ports.metrics);
            visit(&mut TcpStream::connect(metrics).map_err(SoakError::Visit)?, "/metrics", "*/*")?;
            for command in [&["list"][..], &["show", "m0"], &["stats", "mirror", "m0"], &["logs", "m0"]] {
                self.command(command)?;
            }
        }
        Ok(())
    }

    /// Puts one more file into the repository, so that the next `refresh` publishes a new index.
    pub(crate) fn add_file(&self, number: u64) -> Result<(), SoakError> {
        let path = self.path(&format!("repository/new-{number}.txt"));
        fs::write(&path, number.to_string()).map_err(SoakError::at("write", &path))
    }

    /// Names the current daemon among those to be ended, after an upgrade.
    pub(crate) fn note_daemon(&mut self) {
        if let Some(pid) = self.daemon().filter(|pid| !self.daemons.contains(pid)) {
            self.daemons.push(pid);
        }
        self.reap();
    }

    /// How many processes that were the daemon are still there.
    pub(crate) fn living_daemons(&mut self) -> usize {
        self.reap();
        self.daemons.iter().filter(|&&pid| rustix::process::test_kill_process(pid).is_ok()).count()
    }

    /// The daemon's log.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(self.path("daemon.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last lines of the daemon's log.
    pub(crate) fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(10)).copied().collect::<Vec<_>>().join("\n")
    }

    /// Waits until `condition` holds.
    pub(crate) fn wait_for(&self, what: &str, mut condition: impl FnMut() -> bool) -> Result<(), SoakError> {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            if Instant::now() >= deadline {
                let (what, seconds) = (what.to_owned(), PATIENCE.as_secs());
                return Err(SoakError::Timeout { what, seconds, log: self.last_lines() });
            }
            sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_files(&self, runtime: &str) -> Result<(), SoakError> {
        let geo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/cli/demo/geo");
        for root in ["repository", "mirror"] {
            for file in World::files() {
                let path = self.path(&format!("{root}{file}"));
                let parent = path.parent().unwrap_or(self.folder.path());
                fs::create_dir_all(parent).map_err(SoakError::at("create", parent))?;
                fs::write(&path, "content").map_err(SoakError::at("write", &path))?;
                let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
                let opened = fs::File::options().append(true).open(&path);
                opened.and_then(|file| file.set_modified(time)).map_err(SoakError::at("date", &path))?;
            }
        }
        let folder = self.folder.path().display();
        let Ports { http, rpc, metrics, .. } = self.ports;
        let config = format!(
            "Repository: {folder}/repository\nStateDir: {folder}/state\nGeoipDatabasePath: {}\nLogDir: {folder}/log\n\
             ListenAddress: 127.0.0.1:{http}\nRPCListenAddress: 127.0.0.1:{rpc}\n\
             MetricsListenAddress: 127.0.0.1:{metrics}\nDatabase: embedded\nShards: 2\nRuntime: {runtime}\nGzip: true\n\
             RepositoryScanInterval: 0\n",
            geo.display()
        );
        self.write("mirrorbits.conf", &config)?;
        let log = self.path("log");
        fs::create_dir(&log).map_err(SoakError::at("create", &log))?;
        let mut rsync = String::from("use chroot = no\nreverse lookup = no\nread only = yes\n");
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            // The temporary folder is closed to the user that the daemon would otherwise read as.
            rsync.push_str("uid = 0\ngid = 0\n");
        }
        let _ = write!(rsync, "[pub]\npath = {folder}/mirror\n");
        self.write("rsyncd.conf", &rsync)?;
        let user = if is_root { "user root;\n" } else { "" };
        let nginx = format!(
            "{user}daemon off;\nmaster_process off;\nerror_log stderr crit;\npid {folder}/nginx.pid;\nevents {{}}\n\
             http {{\naccess_log off;\nclient_body_temp_path {folder}/n1;\nproxy_temp_path {folder}/n2;\n\
             fastcgi_temp_path {folder}/n3;\nuwsgi_temp_path {folder}/n4;\nscgi_temp_path {folder}/n5;\n\
             server {{ listen 127.0.0.1:{}; location ~ ^/m[0-9]+/(.*)$ {{ alias {folder}/mirror/$1; }} }}\n}}\n",
            self.ports.mirrors
        );
        self.write("nginx.conf", &nginx)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), SoakError> {
        let path = self.path(name);
        fs::write(&path, text).map_err(SoakError::at("write", &path))
    }

    fn start_mirrors(&mut self) -> Result<(), SoakError> {
        let mut rsync = Command::new("rsync");
        rsync.args(["--daemon", "--no-detach", "--log-file=/dev/null", "--address=127.0.0.1", "--config"]);
        rsync.arg(self.path("rsyncd.conf")).arg(format!("--port={}", self.ports.rsync));
        self.spawn("rsync", &mut rsync)?;
        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(self.folder.path()).arg("-c").arg(self.path("nginx.conf")).args(["-e", "stderr"]);
        let path = std::env::var("PATH").unwrap_or_default();
        nginx.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        self.spawn("nginx", &mut nginx)?;
        let Ports { rsync, mirrors, .. } = self.ports;
        self.wait_for("a listener of the mirrors", || listens(rsync) && listens(mirrors))
    }

    fn spawn(&mut self, program: &'static str, command: &mut Command) -> Result<u32, SoakError> {
        let path = self.path("servers.log");
        let log = fs::File::options().create(true).append(true).open(&path);
        let log = log.map_err(SoakError::at("open", &path))?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let child = child.map_err(|source| SoakError::Start { program, source })?;
        let id = child.id();
        self.servers.push(child);
        Ok(id)
    }

    fn start_daemon(&mut self) -> Result<(), SoakError> {
        let path = self.path("daemon.log");
        let log = fs::File::options().create(true).append(true).open(&path);
        let log = log.map_err(SoakError::at("open", &path))?;
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}")).arg(&self.program);
        command.args(["daemon", "-config"]).arg(self.path("mirrorbits.conf"));
        command.arg("-p").arg(self.path("mirrorbits.pid"));
        let second = log.try_clone().map_err(SoakError::at("open", &path))?;
        let child = command.stdin(Stdio::null()).stdout(second).stderr(log).spawn();
        let child = child.map_err(|source| SoakError::Start { program: "prlimit", source })?;
        self.daemons.push(Pid::from_child(&child));
        // It is waited for by its process id, like those that follow it in upgrades.
        drop(child);
        let Ports { http, rpc, .. } = self.ports;
        self.wait_for("a listener of the daemon", || listens(http) && listens(rpc))
    }

    fn add_mirrors(&self) -> Result<(), SoakError> {
        self.command(&["refresh"])?;
        let Ports { rsync, mirrors, .. } = self.ports;
        let rsync = format!("rsync://127.0.0.1:{rsync}/pub/");
        for number in 0..MIRRORS {
            let (name, http) = (format!("m{number}"), format!("http://127.0.0.1:{mirrors}/m{number}/"));
            self.command(&["add", "-http", &http, "-rsync", &rsync, &name])?;
            self.command(&["scan", "-enable", &name])?;
        }
        self.wait_for("that every mirror is up", || {
            self.command(&["list"]).is_ok_and(|list| {
                list.lines().filter(|line| line.split_whitespace().nth(1) == Some("up")).count() == MIRRORS
            })
        })
    }

    /// Adds mirrors whose servers do not behave, at these ports.
    pub(crate) fn add_hostile_mirrors(&self, ports: &[u16]) -> Result<(), SoakError> {
        for port in ports {
            let (name, http) = (format!("hostile-{port}"), format!("http://127.0.0.1:{port}/"));
            self.command(&["add", "-http", &http, "-rsync", &format!("rsync://127.0.0.1:{port}/pub/"), &name])?;
            self.command(&["enable", &name])?;
        }
        Ok(())
    }

    /// Takes the exit status of processes that have ended; orphans of upgrades are children of this process.
    fn reap(&mut self) {
        self.daemons.retain(|&pid| !matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(Some(_))));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.note_daemon();
        for &daemon in &self.daemons {
            let _ = kill_process(daemon, Signal::TERM);
        }
        let deadline = Instant::now() + PATIENCE;
        while self.living_daemons() > 0 && Instant::now() < deadline {
            sleep(LOOK_INTERVAL);
        }
        for &daemon in &self.daemons {
            let _ = kill_process(daemon, Signal::KILL);
        }
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// Asks for `target` and reads the answer to its end.
fn visit(stream: &mut TcpStream, target: &str, accept: &str) -> Result<(), SoakError> {
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n"
    );
    stream.set_read_timeout(Some(PATIENCE)).map_err(SoakError::Visit)?;
    stream.write_all(request.as_bytes()).map_err(SoakError::Visit)?;
    std::io::copy(stream, &mut std::io::sink()).map_err(SoakError::Visit)?;
    Ok(())
}

fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}
