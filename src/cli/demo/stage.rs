//! The programs of the demo: started one after the other, watched, and ended together.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::folder::{DemoMirror, EVERYWHERE, Folder, MIRRORS};
use super::ports::USUAL_RPC;
use super::{DemoError, READY_WITHIN};

/// Between two looks at whether something is ready.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a program may take to end when asked to; after that it is killed.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Lines of a program's output that are shown when it fails.
const LINES_SHOWN: usize = 20;

/// A program in the background. Dropped, it is killed.
#[derive(Debug)]
struct Program {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Program {
    fn ended(&mut self) -> Result<(), DemoError> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(DemoError::Ended { program: self.name, status, output: last_lines(&self.log) }),
        }
    }

    async fn end(&mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(END_WITHIN, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// All programs of a demo.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    folder: &'a Folder,
    /// In the order of their start; ended in the opposite one.
    programs: Vec<Program>,
}

impl<'a> Stage<'a> {
    /// Nothing runs yet.
    pub(super) fn new(folder: &'a Folder) -> Stage<'a> {
        Stage { folder, programs: Vec::new() }
    }

    /// Starts the rsync daemon and nginx, and waits until they accept connections.
    pub(super) async fn start_mirrors(&mut self) -> Result<(), DemoError> {
        let (folder, ports) = (self.folder.path(), *self.folder.ports());
        let mut rsync = Command::new("rsync");
        rsync.args(["--daemon", "--no-detach", "--log-file=/dev/stderr", "--config"]).arg(folder.join("rsyncd.conf"));
        rsync.args(["--address=127.0.0.1", &format!("--port={}", ports.rsync)]);
        self.start("rsync", rsync)?;

        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(folder.join("nginx")).arg("-c").arg(folder.join("nginx/nginx.conf")).args(["-e", "stderr"]);
        self.start("nginx", nginx)?;

        self.wait_for_listener("rsync", Ipv4Addr::LOCALHOST, ports.rsync).await?;
        for mirror in &MIRRORS {
            self.wait_for_listener("nginx", mirror.address, ports.mirrors).await?;
        }
        Ok(())
    }

    /// Starts the daemon, which starts the indexer, and waits until it accepts connections and commands.
    pub(super) async fn start_daemon(&mut self) -> Result<(), DemoError> {
        let mut daemon = Command::new(std::env::current_exe()?);
        daemon.args(["daemon", "-config"]).arg(self.folder.configuration());
        self.start("mirrorbits", daemon)?;
        let ports = *self.folder.ports();
        for port in [ports.redirector, ports.rpc] {
            self.wait_for_listener("mirrorbits", Ipv4Addr::LOCALHOST, port).await?;
        }
        Ok(())
    }

    /// Runs a command as an operator would, shown with its output.
    pub(super) async fn mirrorbits(&self, arguments: &[&str]) -> Result<(), DemoError> {
        let rpc = self.folder.ports().rpc.to_string();
        let options: &[&str] = if self.folder.ports().rpc == USUAL_RPC { &[] } else { &["-p", &rpc] };
        let shown = ["mirrorbits"].iter().chain(options).chain(arguments).copied().collect::<Vec<_>>().join(" ");
        println!("$ {shown}");
        let status = Command::new(std::env::current_exe()?)
            .args(["-h", "127.0.0.1", "-p", &rpc])
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .status()
            .await?;
        if status.success() { Ok(()) } else { Err(DemoError::Command { command: shown, status }) }
    }

    /// Waits until a client near `mirror` is sent there: it was scanned, is enabled and up, and that is published.
    pub(super) async fn wait_until_used(&mut self, mirror: &DemoMirror) -> Result<(), DemoError> {
        let port = self.folder.ports().redirector;
        let request = format!(
            "GET /{EVERYWHERE} HTTP/1.1\r\nHost: demo\r\nX-Forwarded-For: {}\r\nConnection: close\r\n\r\n",
            mirror.client
        );
        let expected = format!("Location: {}{EVERYWHERE}\r\n", mirror.http_url(self.folder.ports()));
        self.wait(&format!("the first redirect to {}", mirror.city), async || {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.ok()?;
            String::from_utf8_lossy(&answer).contains(&expected).then_some(())
        })
        .await
    }

    /// Returns when one of the programs has ended.
    pub(super) async fn watch(&mut self) -> Result<(), DemoError> {
        loop {
            self.check()?;
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Ends all programs, the last one first.
    pub(super) async fn end(mut self) {
        while let Some(mut program) = self.programs.pop() {
            program.end().await;
        }
    }

    /// Programs get process groups of their own: Ctrl-C on the terminal reaches the demo, and the demo ends them in order.
    fn start(&mut self, name: &'static str, mut command: Command) -> Result<(), DemoError> {
        let log = self.folder.path().join(format!("{name}.log"));
        let output =
            File::create(&log).map_err(|source| DemoError::File { step: "create", path: log.clone(), source })?;
        let path = std::env::var("PATH").unwrap_or_default();
        let child = command
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| DemoError::Start { program: name, source })?;
        self.programs.push(Program { name, child, log });
        Ok(())
    }

    fn check(&mut self) -> Result<(), DemoError> {
        self.programs.iter_mut().try_for_each(Program::ended)
    }

    async fn wait_for_listener(&mut self, name: &str, address: Ipv4Addr, port: u16) -> Result<(), DemoError> {
        self.wait(&format!("the start of {name}"), async || {
            TcpStream::connect(SocketAddrV4::new(address, port)).await.ok().map(drop)
        })
        .await
    }

    async fn wait(&mut self, what: &str, mut ready: impl AsyncFnMut() -> Option<()>) -> Result<(), DemoError> {
        let deadline = Instant::now() + READY_WITHIN;
        while ready().await.is_none() {
            self.check()?;
            if Instant::now() >= deadline {
                let output = self.programs.last().map(|program| last_lines(&program.log)).unwrap_or_default();
                return Err(DemoError::NotReady { what: what.to_owned(), output });
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
}
