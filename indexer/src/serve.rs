//! Requests of the daemon and of people, over the unix socket of [`mb_core::link`].

use std::fmt::Display;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mb_core::link::{Event, Request, socket_path};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::job_panics;
use crate::progress::Progress;
use crate::scan::place::ScanPlace;
use crate::scan::{Occasion, ScanOrder, scan_mirror};
use crate::schedule::Scheduler;

/// A request longer than this is refused: room for the ids of 100,000 mirrors.
const REQUEST_LIMIT: u64 = 1 << 20;

/// How often progress is sent at most.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// After a failure to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Why requests cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {path}: {cause}; the state directory must be writable, and its path shorter than 90 bytes", path = path.display())]
pub(crate) struct ListenError {
    path: PathBuf,
    cause: std::io::Error,
}

/// Takes the socket of the state directory. The caller holds the indexer's lock, so one that is there is a leftover.
pub(crate) fn listen(state_dir: &std::path::Path) -> Result<UnixListener, ListenError> {
    let path = socket_path(state_dir);
    let bind = || {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660))?;
        Ok(listener)
    };
    bind().map_err(|cause| ListenError { path: path.clone(), cause })
}

/// Serves requests for ever; drop the future to end them and the work they started.
pub(crate) async fn serve(listener: UnixListener, scheduler: Arc<Scheduler>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(guarded_connection(stream, Arc::clone(&scheduler)));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// A panic costs the connection alone: who asked sees it closed.
async fn guarded_connection(stream: UnixStream, scheduler: Arc<Scheduler>) {
    if let Err(error) = job_panics::catch(connection(stream, Arc::clone(&scheduler))).await {
        scheduler.indexer.ledger.panic();
        tracing::error!(%error, "a request was not answered");
    }
}

async fn connection(stream: UnixStream, scheduler: Arc<Scheduler>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader.take(REQUEST_LIMIT));
    let mut line = Vec::new();
    if let Err(error) = reader.read_until(b'\n', &mut line).await {
        tracing::debug!(%error, "request not read");
        return;
    }
    if line.is_empty() {
        return;
    }
    let mut reader = reader.into_inner().into_inner();
    let (progress, messages) = Progress::channel();
    let last = match serde_json::from_slice(&line) {
        Ok(request) => tokio::select! {
            event = answer(request, &scheduler, &progress) => event,
            () = forward(messages, &mut writer) => return,
            () = closed(&mut reader) => {
                tracing::info!("a request was given up by its sender, its work ends");
                return;
            }
        },
        Err(error) => Event::Failed { message: format!("not a request: {error}") },
    };
    if let Err(error) = send(&mut writer, &last).await {
        tracing::debug!(%error, "answer not sent");
    }
}

async fn answer(request: Request, scheduler: &Arc<Scheduler>, progress: &Progress) -> Event {
    let indexer = &scheduler.indexer;
    match request {
        Request::MirrorsChanged { ids } => {
            scheduler.mirrors_changed(&ids);
            Event::Done { scan: None, source: None }
        }
        Request::ScanMirror { id, enable, protocol } => {
            let order = ScanOrder { mirror: id, enable, protocol, limit: None, occasion: Occasion::Asked };
            match scan_mirror(indexer, order, progress, ScanPlace::kept(None)).await {
                Ok(report) => {
                    scheduler.mirrors_changed(&[id]);
                    Event::Done { scan: Some(report), source: None }
                }
                Err(error) => {
                    tracing::warn!(mirror = %id, %error, "requested scan failed");
                    failed(&error)
                }
            }
        }
        Request::ScanSource { rehash, force } => match indexer.scan_source(rehash, force, true, progress).await {
            Ok(report) => Event::Done { scan: None, source: Some(report) },
            Err(error) => {
                tracing::warn!(%error, "requested source scan failed");
                failed(&error)
            }
        },
        Request::Activity => Event::Activity(indexer.ledger.activity()),
        Request::Reload => match scheduler.reload().await {
            Ok(()) => Event::Done { scan: None, source: None },
            Err(error) => failed(&error),
        },
    }
}

fn failed(error: &dyn Display) -> Event {
    Event::Failed { message: error.to_string() }
}

/// Sends progress messages until the other side cannot be written to.
async fn forward(mut messages: watch::Receiver<String>, writer: &mut OwnedWriteHalf) {
    while messages.changed().await.is_ok() {
        let message = messages.borrow_and_update().clone();
        if send(writer, &Event::Progress { message }).await.is_err() {
            return;
        }
        tokio::time::sleep(PROGRESS_INTERVAL).await;
    }
    std::future::pending().await
}

async fn send(writer: &mut OwnedWriteHalf, event: &Event) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

/// Waits until the other side has closed the connection. What it sends is read and means nothing.
async fn closed(reader: &mut OwnedReadHalf) {
    let mut rest = [0; 256];
    while let Ok(1..) = reader.read(&mut rest).await {}
}
