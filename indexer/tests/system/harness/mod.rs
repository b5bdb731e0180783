//! Real servers and the real program, on loopback, in a temporary folder; everything ends with the value that started it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use mb_core::link::{Event, Request, socket_path};
use mb_core::mirror::{Mirror, MirrorId, MirrorSettings};
use mb_core::store::{EmbeddedStore, Store};
use mb_index::{FileIndex, open_newest_files};

pub mod redis;

/// How long a condition may take to come true on a slow machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `condition` gives a value.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < DEADLINE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process that is killed with the value, unless it was waited for.
pub struct Server(pub Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn wait_for_port(port: u16) {
    wait_for("a server to listen", || TcpStream::connect(("127.0.0.1", port)).ok());
}

/// A repository, a state directory and folders of mirrors.
pub struct Site {
    folder: tempfile::TempDir,
    extra_configuration: String,
}

/// Where no server listens (the port of the discard service): for a mirror whose downloads do not matter.
pub const NOBODY: &str = "http://127.0.0.1:9/";

impl Site {
    /// A site with an empty repository.
    pub fn new() -> Site {
        Site::with_configuration("")
    }

    /// A site with more lines in its configuration.
    pub fn with_configuration(extra: &str) -> Site {
        let site = Site { folder: tempfile::tempdir().unwrap(), extra_configuration: extra.to_owned() };
        fs::create_dir_all(site.repository()).unwrap();
        site.write_configuration();
        site
    }

    fn write_configuration(&self) {
        let text = format!(
            "Repository: {}\nStateDir: {}\nDatabase: {}\nScanInterval: 30\nCheckInterval: 1\n{}\n",
            self.repository().display(),
            self.state_dir().display(),
            if self.extra_configuration.contains("RedisAddress") { "redis" } else { "embedded" },
            self.extra_configuration
        );
        fs::write(self.configuration(), text).unwrap();
    }

    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("mirrorbits.conf")
    }

    pub fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn mirror_dir(&self, name: &str) -> PathBuf {
        self.folder.path().join("mirrors").join(name)
    }

    /// Writes a file of the repository, with a modification time in Unix seconds.
    pub fn write(&self, path: &str, content: &str, modified: u64) {
        write_file(&self.repository().join(path), content, modified);
    }

    pub fn link(&self, path: &str, target: &str) {
        symlink(target, self.repository().join(path)).unwrap();
    }

    /// Makes a mirror that equals the repository as it is now.
    pub fn copy_to_mirror(&self, name: &str) -> PathBuf {
        let folder = self.mirror_dir(name);
        fs::create_dir_all(&folder).unwrap();
        let copied = Command::new("cp").arg("-a").arg(self.repository().join(".")).arg(&folder).status().unwrap();
        assert!(copied.success());
        folder
    }

    pub fn store(&self) -> EmbeddedStore {
        EmbeddedStore::open(&self.state_dir()).unwrap()
    }

    pub fn add_mirror(&self, name: &str, rsync_url: &str, http_url: &str) -> MirrorId {
        let settings = MirrorSettings {
            name: name.to_owned(),
            rsync_url: rsync_url.to_owned(),
            http_url: if http_url.is_empty() { NOBODY.to_owned() } else { http_url.to_owned() },
            ..MirrorSettings::default()
        };
        self.store().add_mirror(&settings).unwrap()
    }

    pub fn mirror(&self, id: MirrorId) -> Mirror {
        self.store().mirrors().unwrap().into_iter().find(|mirror| mirror.id == id).unwrap()
    }

    /// The files that are published now.
    pub fn index(&self) -> FileIndex {
        open_newest_files(&self.state_dir().join("index")).index.expect("nothing usable is published")
    }

    /// The program with its configuration.
    pub fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mb-indexer"));
        command.arg("-config").arg(self.configuration()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.program(arguments).output().unwrap()
    }

    /// Runs the program and expects success; returns its output.
    pub fn run_ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (stdout, stderr) = texts(&output);
        assert!(output.status.success(), "{arguments:?} ended with {}: {stdout}{stderr}", output.status);
        stdout
    }

    /// Starts `mb-indexer run` and waits until it answers.
    pub fn start_indexer(&self, arguments: &[&str]) -> Server {
        let child = self.program(&[&["run"], arguments].concat()).stdin(Stdio::piped()).spawn().unwrap();
        let server = Server(child);
        wait_for("the indexer to listen", || UnixStream::connect(socket_path(&self.state_dir())).ok());
        server
    }

    /// Sends a request to the running indexer.
    pub fn send(&self, request: &Request) -> UnixStream {
        let mut stream = UnixStream::connect(socket_path(&self.state_dir())).unwrap();
        let line = serde_json::to_string(request).unwrap();
        writeln!(stream, "{line}").unwrap();
        stream
    }

    /// Sends a request and waits for its last event.
    pub fn request(&self, request: &Request) -> Event {
        let stream = self.send(request);
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        for line in BufReader::new(stream).lines() {
            match serde_json::from_str(&line.unwrap()).unwrap() {
                Event::Progress { .. } => {}
                last => return last,
            }
        }
        panic!("the indexer closed the connection");
    }

    /// Starts an rsync daemon with a module for each mirror folder, and one, `secret`, that wants a password.
    pub fn start_rsync(&self) -> (Server, u16) {
        let port = free_port();
        let folder = self.folder.path();
        let secrets = folder.join("rsyncd.secrets");
        fs::write(&secrets, "anna:open-sesame\n").unwrap();
        fs::set_permissions(&secrets, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let mut configuration = format!(
            "port = {port}\naddress = 127.0.0.1\nuse chroot = no\npid file = {0}/rsyncd.pid\nlog file = {0}/rsyncd.log\n",
            folder.display()
        );
        for entry in fs::read_dir(folder.join("mirrors")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            configuration += &format!("[{name}]\npath = {}\nread only = yes\n", path.display());
            if name == "secret" {
                configuration += &format!("auth users = anna\nsecrets file = {}\n", secrets.display());
            }
        }
        let file = folder.join("rsyncd.conf");
        fs::write(&file, configuration).unwrap();
        let child = Command::new("rsync")
            .args(["--daemon", "--no-detach", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .expect("these tests need rsync");
        let server = Server(child);
        wait_for_port(port);
        (server, port)
    }

    /// Starts nginx over the mirror folders: `http://127.0.0.1:PORT/NAME/`. `/redirect/` redirects, `/broken/` answers 503.
    pub fn start_http(&self) -> (Server, u16) {
        let port = free_port();
        let folder = self.folder.path();
        let configuration = format!(
            "daemon off; master_process off; pid {0}/nginx.pid; error_log {0}/nginx.log;\n\
             events {{}}\n\
             http {{ access_log {0}/access.log; client_body_temp_path {0}; proxy_temp_path {0}; fastcgi_temp_path {0};\n\
             uwsgi_temp_path {0}; scgi_temp_path {0};\n\
             server {{ listen 127.0.0.1:{port}; root {0}/mirrors;\n\
             location /redirect/ {{ return 302 http://127.0.0.1:{port}/complete/; }}\n\
             location /broken/ {{ return 503; }} }} }}\n",
            folder.display()
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, configuration).unwrap();
        let child = Command::new("nginx")
            .args(["-e", "stderr", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .expect("these tests need nginx");
        let server = Server(child);
        wait_for_port(port);
        (server, port)
    }

    /// The requests that the HTTP server has seen.
    pub fn http_log(&self) -> String {
        fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default()
    }
}

/// Writes a file with a modification time in Unix seconds.
pub fn write_file(path: &Path, content: &str, modified: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(modified);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// Standard output and standard error as text.
pub fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}
