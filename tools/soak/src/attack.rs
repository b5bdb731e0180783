//! Hostile clients and hostile mirrors, each an endless loop on the attackers' runtime.
//!
//! Attackers run on one thread at a lower priority, so that honest clients of the same machine get the processor that a client
//! elsewhere would have. Errors of an attacker's connections are what it provokes, and are ignored throughout.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use crate::SoakError;
use crate::world::{DESCRIPTORS, Ports};

/// Steps of priority that attackers run below honest clients.
const PRIORITY_STEPS: i32 = 10;
/// Longest life of one hostile connection.
const HOLD: Duration = Duration::from_secs(8);
/// Pause between two runs of an attack, so that each gets its time.
const PAUSE: Duration = Duration::from_millis(200);

/// What the attackers share.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    connections: AtomicU64,
}

/// Attackers that run on a thread of their own.
pub(crate) struct Attackers {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Attackers {
    /// Starts every attack on the daemon at `ports`.
    pub(crate) fn start(ports: Ports, seed: u64) -> Result<Attackers, SoakError> {
        let shared = Arc::new(Shared::default());
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SoakError::Attackers)?;
        let target = Target { ports, shared: shared.clone() };
        let thread = std::thread::Builder::new().name("attackers".to_owned()).spawn(move || {
            // Without the right to, attackers run at the priority of all others, and latencies are worse.
            let _ = rustix::process::nice(PRIORITY_STEPS);
            fastrand::seed(seed);
            let tasks = LocalSet::new();
            for attack in attacks(&target) {
                tasks.spawn_local(attack);
            }
            runtime.block_on(tasks.run_until(async {
                while !target.shared.stop.load(Ordering::Relaxed) {
                    sleep(PAUSE).await;
                }
            }));
        });
        Ok(Attackers { shared, thread: thread.map_err(SoakError::Attackers)? })
    }

    /// Hostile connections so far.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Closes every hostile connection.
    pub(crate) fn stop(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // A panic of an attacker has been printed; what it means for the daemon is what the verdict tells.
        let _ = self.thread.join();
    }
}

type Attack = Pin<Box<dyn Future<Output = ()>>>;

fn attacks(target: &Target) -> Vec<Attack> {
    let mut all: Vec<Attack> = Vec::new();
    let mut add = |attack: fn(Target) -> Attack| all.push(attack(target.clone()));
    add(|target| Box::pin(repeat(target, 4, heads_at_the_limits)));
    add(|target| Box::pin(repeat(target, 50, endless_chunk_extension)));
    add(|target| Box::pin(repeat(target, 100, answers_never_read)));
    add(|target| Box::pin(repeat(target, 100, dripping_head)));
    add(|target| Box::pin(repeat(target, 8, mutated_requests)));
    add(|target| Box::pin(repeat(target, 4, malformed_bodies)));
    add(|target| Box::pin(repeat(target, 4, resets)));
    add(|target| Box::pin(repeat(target, 4, pipelined_pages)));
    add(|target| Box::pin(repeat(target, 20, control_ports)));
    add(|target| Box::pin(connection_flood(target)));
    all
}

/// Runs `attack` again and again, `parallel` times at once.
async fn repeat<F>(target: Target, parallel: usize, attack: fn(Target) -> F)
where
    F: Future<Output = Option<()>> + 'static,
{
    for _ in 1..parallel {
        let target = target.clone();
        tokio::task::spawn_local(async move {
            loop {
                let _ = timeout(HOLD, attack(target.clone())).await;
                sleep(PAUSE).await;
            }
        });
    }
    loop {
        let _ = timeout(HOLD, attack(target.clone())).await;
        sleep(PAUSE).await;
    }
}

#[derive(Clone)]
struct Target {
    ports: Ports,
    shared: Arc<Shared>,
}

impl Target {
    async fn connect(&self) -> Option<TcpStream> {
        self.connect_to(self.ports.http).await
    }

    async fn connect_to(&self, port: u16) -> Option<TcpStream> {
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
        timeout(HOLD, TcpStream::connect(address)).await.ok()?.ok()
    }
}

/// Reads and drops what comes, until the end or `limit`.
async fn drain(stream: &mut TcpStream, limit: Duration) {
    let mut room = [0; 16 * 1024];
    while let Ok(Ok(1..)) = timeout(limit, stream.read(&mut room)).await {}
}

/// Heads of every length around a limit of the parser, whole or cut in two.
async fn heads_at_the_limits(target: Target) -> Option<()> {
    for limit in [8 * 1024, 32 * 1024, 40 * 1024, 16 * 1024] {
        let length = limit - 16 + fastrand::usize(..32);
        let mut head = match fastrand::u8(..3) {
            0 => b"GET /".to_vec(),
            1 => b"GET / HTTP/1.1\r\nHost: a\r\nA: ".to_vec(),
            _ => b"\r\n\r\nGET /".to_vec(),
        };
        head.resize(length, b'a');
        if fastrand::bool() {
            head.extend_from_slice(b"\r\n\r\n");
        }
        let mut stream = target.connect().await?;
        let (first, second) = head.split_at(fastrand::usize(..head.len()));
        let _ = stream.write_all(first).await;
        tokio::task::yield_now().await;
        let _ = stream.write_all(second).await;
        drain(&mut stream, Duration::from_millis(200)).await;
    }
    Some(())
}

/// A chunk-size line that never ends.
async fn endless_chunk_extension(target: Target) -> Option<()> {
    let mut stream = target.connect().await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;").await.ok()?;
    let byte = if fastrand::bool() { b'a' } else { b' ' };
    for _ in 0..64 {
        stream.write_all(&[byte; 16 * 1024]).await.ok()?;
        sleep(Duration::from_millis(50)).await;
    }
    Some(())
}

/// Pipelined requests for large documents, of which no byte is read.
async fn answers_never_read(target: Target) -> Option<()> {
    let mut stream = target.connect().await?;
    let request = "GET /pool/1/file-1.iso?mirrorlist&pretty HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n";
    for _ in 0..4 {
        stream.write_all(request.repeat(50).as_bytes()).await.ok()?;
    }
    sleep(HOLD).await;
    Some(())
}

/// One byte of a head per second.
async fn dripping_head(target: Target) -> Option<()> {
    let mut stream = target.connect().await?;
    for byte in b"GET / HTTP/1.1\r\nHost: example.org\r\n" {
        stream.write_all(&[*byte]).await.ok()?;
        sleep(Duration::from_secs(1)).await;
    }
    Some(())
}

const SEEDS: [&[u8]; 6] = [
    b"GET /pool/1/file-1.iso HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1, 10.0.0.1\r\n\r\n",
    b"HEAD /pool/2/file-2.iso?mirrorlist&fromip=::1 HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET /pool/../%2e%2e/a?stats=2026-11 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET /?mirrorstats HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip;q=0.5, br\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
];

/// Valid requests with some bytes changed, in pieces.
async fn mutated_requests(target: Target) -> Option<()> {
    let mut stream = target.connect().await?;
    for _ in 0..fastrand::usize(1..20) {
        let mut request = SEEDS[fastrand::usize(..SEEDS.len())].to_vec();
        for _ in 0..fastrand::usize(..4) {
            let place = fastrand::usize(..request.len());
            match fastrand::u8(..3) {
                0 => request[place] = fastrand::u8(..),
                1 => drop(request.remove(place)),
                _ => request.insert(place, b" \r\n\0,;:%/\xff"[fastrand::usize(..10)]),
            }
        }
        let mut rest = request.as_slice();
        while !rest.is_empty() {
            let (piece, left) = rest.split_at(fastrand::usize(1..=rest.len()));
            stream.write_all(piece).await.ok()?;
            tokio::task::yield_now().await;
            rest = left;
        }
    }
    drain(&mut stream, Duration::from_millis(100)).await;
    Some(())
}

/// Bodies that break the rules of chunks.
async fn malformed_bodies(target: Target) -> Option<()> {
    for body in [
        &b"5\r\nhelloXX0\r\n\r\n"[..],
        b";x\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"0\r\nA: b\r\n",
        b"-1\r\n",
        b"10000\r\n",
    ] {
        let mut stream = target.connect().await?;
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(&[head, body].concat()).await.ok()?;
        stream.write_all(&vec![b'x'; 80_000]).await.ok()?;
        drain(&mut stream, Duration::from_millis(100)).await;
    }
    Some(())
}

/// Requests whose connection is reset before the answer is read.
async fn resets(target: Target) -> Option<()> {
    for _ in 0..20 {
        let mut stream = target.connect().await?;
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        stream.write_all(&SEEDS[0].repeat(fastrand::usize(1..50))).await.ok()?;
    }
    Some(())
}

/// The most expensive documents, as fast as they come.
async fn pipelined_pages(target: Target) -> Option<()> {
    let mut stream = target.connect().await?;
    let pages = ["/pool/1/file-1.iso?mirrorlist", "/?mirrorstats", "/pool/3/file-3.iso?stats"];
    for _ in 0..50 {
        let mut requests = String::new();
        for _ in 0..8 {
            let accept = if fastrand::bool() { "application/json" } else { "text/html" };
            let page = pages[fastrand::usize(..pages.len())];
            requests.push_str(&format!(
                "GET {page} HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\nAccept-Encoding: gzip\r\n\r\n"
            ));
        }
        stream.write_all(requests.as_bytes()).await.ok()?;
        drain(&mut stream, Duration::from_millis(100)).await;
    }
    Some(())
}

/// Garbage and silence where commands and metrics are served.
async fn control_ports(target: Target) -> Option<()> {
    let port = if fastrand::bool() { target.ports.rpc } else { target.ports.metrics };
    let mut stream = target.connect_to(port).await?;
    if fastrand::bool() {
        let garbage: Vec<u8> = (0..fastrand::usize(..5000)).map(|_| fastrand::u8(..)).collect();
        let _ = stream.write_all(&garbage).await;
        drain(&mut stream, Duration::from_millis(100)).await;
    } else {
        sleep(HOLD).await;
    }
    Some(())
}

/// Takes half as many connections again as the daemon may have descriptors, asks once on each and keeps them open.
async fn connection_flood(target: Target) {
    loop {
        let mut held = Vec::new();
        for _ in 0..DESCRIPTORS * 3 / 2 {
            let Some(mut stream) = target.connect().await else { continue };
            let _ = stream.write_all(SEEDS[0]).await;
            held.push(stream);
        }
        sleep(HOLD / 2).await;
        drop(held);
        sleep(HOLD).await;
    }
}

/// Servers of mirrors that do not behave; returns their ports.
pub(crate) async fn hostile_mirrors() -> std::io::Result<Vec<u16>> {
    let behaviours: [fn(TcpStream) -> Attack; 3] = [
        // Silence.
        |stream| {
            Box::pin(async move {
                sleep(Duration::from_secs(300)).await;
                drop(stream);
            })
        },
        // A line that never ends, a byte at a time.
        |mut stream| {
            Box::pin(async move {
                while stream.write_all(b"@").await.is_ok() {
                    sleep(Duration::from_millis(300)).await;
                }
            })
        },
        // Garbage as fast as it is read.
        |mut stream| {
            Box::pin(async move {
                let garbage: Vec<u8> = (0..4096).map(|_| fastrand::u8(..)).collect();
                while stream.write_all(&garbage).await.is_ok() {
                    tokio::task::yield_now().await;
                }
            })
        },
    ];
    let mut ports = Vec::new();
    for behave in behaviours {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        ports.push(listener.local_addr()?.port());
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(behave(stream));
            }
        });
    }
    Ok(ports)
}
