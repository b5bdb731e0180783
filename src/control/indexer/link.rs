//! Asking the indexer for work over its socket; the messages are those of [`mb_core::link`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mb_core::link::{Activity, Event, MAX_LINE, Request, ScanReport, SourceReport, socket_path};
use mb_core::mirror::MirrorId;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::IndexerState;
use crate::metrics::facts::IndexerEnds;

/// A notice of a change must not hold up the command that made it; the indexer answers within a millisecond.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(1);
/// An indexer opens the store and listens within milliseconds; this is for a slow disk.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Work may take hours and say nothing meanwhile, so that its time has no limit. Instead the indexer
/// is asked this often whether it still answers.
const ALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// How long the answer to that may take. It comes from a task that does no other work.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a line that is not understood which a message shows.
const SHOWN_OF_A_LINE: usize = 200;

/// Why the indexer did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody listens.
    #[error(
        "the indexer is not running ({}: {source}): the daemon starts it unless it runs with -monitor=false; see its log",
        socket.display()
    )]
    NotRunning {
        /// Where it should listen.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke, most likely since the indexer ended.
    #[error("the connection to the indexer broke before it was done: {0}; see the daemon's log")]
    Broken(#[source] io::Error),
    /// It listens, but does not answer.
    #[error("the indexer (pid {pid}) does not answer: it may be stopped, or wait for a disk; see the daemon's log")]
    Unresponsive {
        /// Its process id; 0 when that is unknown.
        pid: i32,
    },
    /// A line that is too long.
    #[error("the indexer answered more than {MAX_LINE} bytes in one line; do both programs have the same version?")]
    TooLong,
    /// An answer that is no [`Event`].
    #[error(
        "the indexer answered {line:?}, which is not understood: {source}; do both programs have the same version?"
    )]
    Answer {
        /// What it sent.
        line: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The work failed; the text is the indexer's.
    #[error("{0}")]
    Failed(String),
}

/// The figures of work that is done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Of a mirror scan.
    pub scan: Option<ScanReport>,
    /// Of a source scan.
    pub source: Option<SourceReport>,
    /// Of everything since the indexer's start, when asked for.
    pub activity: Option<Activity>,
}

/// A way to the indexer of a state directory, whether it runs or not.
#[derive(Clone, Debug)]
pub struct IndexerLink {
    socket: PathBuf,
    /// Of the indexer that the daemon runs itself.
    supervised: Option<watch::Receiver<IndexerState>>,
    ends: Arc<Ends>,
}

/// Ends of the indexer after which it is started again.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) ended: AtomicU64,
    pub(super) silent: AtomicU64,
}

impl IndexerLink {
    /// The link to the indexer of `state_dir`.
    pub fn new(state_dir: &Path) -> IndexerLink {
        IndexerLink { socket: socket_path(state_dir), supervised: None, ends: Arc::default() }
    }

    /// The same link, which knows whether the indexer is about to listen.
    pub(super) fn supervised(self, state: watch::Receiver<IndexerState>) -> IndexerLink {
        IndexerLink { supervised: Some(state), ..self }
    }

    /// Has `request` done and waits for its end. Dropping the future cancels the work. An indexer that is just starting is
    /// waited for: commands that follow the start of the daemon must not fail. Those that are under way while the indexer
    /// changes hands in an upgrade are given to the next one.
    ///
    /// # Errors
    /// The indexer does not run, ended meanwhile, or failed.
    pub async fn run(&self, request: &Request) -> Result<Outcome, LinkError> {
        let Some(mut state) = self.supervised.clone() else { return self.ask(request).await };
        if *state.borrow() == IndexerState::Awaited {
            match self.ask(request).await {
                Err(LinkError::NotRunning { .. } | LinkError::Broken(_)) => {}
                done => return done,
            }
        }
        let started = state.wait_for(|state| !matches!(state, IndexerState::Awaited | IndexerState::Starting));
        // Whatever it came to, connecting tells.
        let _ = tokio::time::timeout(START_TIMEOUT, started).await;
        self.ask(request).await
    }

    /// Asks, and gives up when the indexer stops answering at all.
    async fn ask(&self, request: &Request) -> Result<Outcome, LinkError> {
        tokio::select! {
            outcome = self.converse(request) => outcome,
            error = self.until_unresponsive() => Err(error),
        }
    }

    /// Returns when the indexer listens and does not answer. One that is gone breaks the conversation itself.
    async fn until_unresponsive(&self) -> LinkError {
        loop {
            tokio::time::sleep(ALIVE_INTERVAL).await;
            if let Err(error @ LinkError::Unresponsive { .. }) = self.answers_within(ALIVE_TIMEOUT).await {
                return error;
            }
        }
    }

    /// Asks the indexer for a sign of life.
    ///
    /// # Errors
    /// [`LinkError::Unresponsive`] when it listens and gives none within `limit`; else what went wrong.
    pub(super) async fn answers_within(&self, limit: Duration) -> Result<(), LinkError> {
        match tokio::time::timeout(limit, self.converse(&Request::Activity)).await {
            Ok(answered) => answered.map(drop),
            Err(_) => Err(LinkError::Unresponsive { pid: self.listener().await }),
        }
    }

    /// The process that listens; 0 when that cannot be told.
    async fn listener(&self) -> i32 {
        let Ok(stream) = self.connect().await else { return 0 };
        stream.peer_cred().ok().and_then(|peer| peer.pid()).unwrap_or_default()
    }

    async fn converse(&self, request: &Request) -> Result<Outcome, LinkError> {
        let mut stream = self.connect().await?;
        let mut line = serde_json::to_string(request).map_err(|error| LinkError::Broken(error.into()))?;
        line.push('\n');
        stream.write_all(line.as_bytes()).await.map_err(LinkError::Broken)?;
        let mut answers = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut bounded = (&mut answers).take(MAX_LINE as u64);
            let length = bounded.read_until(b'\n', &mut line).await.map_err(LinkError::Broken)?;
            if length == 0 {
                return Err(LinkError::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
            if length == MAX_LINE {
                return Err(LinkError::TooLong);
            }
            match serde_json::from_slice(&line) {
                Ok(Event::Progress { message }) => tracing::debug!("indexer: {message}"),
                Ok(Event::Done { scan, source }) => return Ok(Outcome { scan, source, activity: None }),
                Ok(Event::Activity(activity)) => {
                    return Ok(Outcome { activity: Some(activity), ..Outcome::default() });
                }
                Ok(Event::Failed { message }) => return Err(LinkError::Failed(message)),
                Err(source) => {
                    let shown = &line[..length.min(SHOWN_OF_A_LINE)];
                    let line = String::from_utf8_lossy(shown).trim_end().to_owned();
                    return Err(LinkError::Answer { line, source });
                }
            }
        }
    }

    /// Tells the indexer that the records of the mirrors `ids` changed. An indexer that does not run reads the store when it
    /// starts, so nothing is lost when it cannot be told.
    pub async fn mirrors_changed(&self, ids: Vec<MirrorId>) {
        let count = ids.len();
        let notice = Request::MirrorsChanged { ids };
        match tokio::time::timeout(NOTICE_TIMEOUT, self.converse(&notice)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!("the change of {count} mirrors was not told to the indexer: {error}"),
            Err(_) => tracing::debug!("the indexer did not take notice of the change of {count} mirrors in time"),
        }
    }

    /// What the indexer did since it was started, without waiting for one that is starting.
    ///
    /// # Errors
    /// The indexer does not run, or does not answer in time.
    pub async fn activity(&self) -> Result<Activity, LinkError> {
        match tokio::time::timeout(NOTICE_TIMEOUT, self.converse(&Request::Activity)).await {
            Ok(outcome) => Ok(outcome?.activity.unwrap_or_default()),
            Err(_) => Err(LinkError::Unresponsive { pid: self.listener().await }),
        }
    }

    /// How often the daemon's own indexer ended.
    pub fn ends(&self) -> IndexerEnds {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        IndexerEnds { ended: read(&self.ends.ended), silent: read(&self.ends.silent) }
    }

    /// Where that is counted.
    pub(super) fn counts(&self) -> &Ends {
        &self.ends
    }

    /// Whether process `pid` listens.
    pub(super) async fn is_up(&self, pid: u32) -> bool {
        let Ok(stream) = self.connect().await else { return false };
        let listener = stream.peer_cred().ok().and_then(|peer| u32::try_from(peer.pid()?).ok());
        listener == Some(pid)
    }

    async fn connect(&self) -> Result<UnixStream, LinkError> {
        UnixStream::connect(&self.socket)
            .await
            .map_err(|source| LinkError::NotRunning { socket: self.socket.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixListener;

    use super::*;

    /// Answers one connection with `answers` and returns the request line.
    async fn answer(listener: UnixListener, answers: &'static str) -> String {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut request = String::new();
        stream.read_line(&mut request).await.unwrap();
        stream.write_all(answers.as_bytes()).await.unwrap();
        request
    }

    async fn run_against(answers: &'static str) -> Result<Outcome, LinkError> {
        let state_dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(socket_path(state_dir.path())).unwrap();
        let server = tokio::spawn(answer(listener, answers));
        let request = Request::ScanSource { rehash: true, force: false };
        let outcome = IndexerLink::new(state_dir.path()).run(&request).await;
        let sent: Request = serde_json::from_str(&server.await.unwrap()).unwrap();
        assert_eq!(sent, request);
        outcome
    }

    #[tokio::test]
    async fn events_are_read_until_the_end_of_the_work() {
        let outcome = run_against(concat!(
            r#"{"event":"progress","message":"10 files"}"#,
            "\n",
            r#"{"event":"done","source":{"files":10,"hashed":2,"removed":0,"unreadable":0}}"#,
            "\n"
        ));
        let source = SourceReport { files: 10, hashed: 2, removed: 0, unreadable: 0 };
        assert_eq!(outcome.await.unwrap(), Outcome { source: Some(source), ..Outcome::default() });
    }

    #[tokio::test]
    async fn a_failure_keeps_its_reason() {
        let error = run_against("{\"event\":\"failed\",\"message\":\"no such module\"}\n").await.unwrap_err();
        assert_eq!(error.to_string(), "no such module");
    }

    #[tokio::test]
    async fn an_indexer_that_dies_or_babbles_is_told() {
        assert!(matches!(run_against("").await, Err(LinkError::Broken(_))));
        assert!(matches!(run_against("what?\n").await, Err(LinkError::Answer { .. })));
    }

    /// A stopped indexer accepts connections, by its kernel, and answers nothing: commands waited for ever.
    #[tokio::test(start_paused = true)]
    async fn an_indexer_that_does_not_answer_is_told_with_its_process() {
        let state_dir = tempfile::tempdir().unwrap();
        let _listener = UnixListener::bind(socket_path(state_dir.path())).unwrap();
        let begun = tokio::time::Instant::now();
        let error = IndexerLink::new(state_dir.path()).run(&Request::Reload).await.unwrap_err();
        assert!(begun.elapsed() <= ALIVE_INTERVAL + ALIVE_TIMEOUT + Duration::from_millis(10));
        let expected = format!("the indexer (pid {}) does not answer", std::process::id());
        assert!(error.to_string().contains(&expected), "{error}");
    }

    #[tokio::test]
    async fn without_an_indexer_the_error_says_so() {
        let state_dir = tempfile::tempdir().unwrap();
        let link = IndexerLink::new(state_dir.path());
        let error = link.run(&Request::Reload).await.unwrap_err();
        assert!(error.to_string().contains("the indexer is not running"), "{error}");
        link.mirrors_changed(vec![MirrorId(1)]).await;
    }

    #[tokio::test]
    async fn a_starting_indexer_is_waited_for() {
        let state_dir = tempfile::tempdir().unwrap();
        let (state, states) = watch::channel(IndexerState::Starting);
        let link = IndexerLink::new(state_dir.path()).supervised(states);
        let call = tokio::spawn(async move { link.run(&Request::Reload).await });
        tokio::task::yield_now().await;
        assert!(!call.is_finished(), "nobody listens yet");
        let listener = UnixListener::bind(socket_path(state_dir.path())).unwrap();
        state.send_replace(IndexerState::Running { pid: 1 });
        answer(listener, "{\"event\":\"done\"}\n").await;
        call.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn work_that_an_indexer_leaves_when_it_changes_hands_is_done_by_the_next() {
        let state_dir = tempfile::tempdir().unwrap();
        let socket = socket_path(state_dir.path());
        let (state, states) = watch::channel(IndexerState::Awaited);
        let old = UnixListener::bind(&socket).unwrap();
        let link = IndexerLink::new(state_dir.path()).supervised(states);
        let call = tokio::spawn(async move { link.run(&Request::Reload).await });
        answer(old, "").await;
        std::fs::remove_file(&socket).unwrap();
        state.send_replace(IndexerState::Starting);
        let new = UnixListener::bind(&socket).unwrap();
        state.send_replace(IndexerState::Running { pid: 2 });
        answer(new, "{\"event\":\"done\"}\n").await;
        call.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn dropping_the_call_closes_the_connection() {
        let state_dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(socket_path(state_dir.path())).unwrap();
        let link = IndexerLink::new(state_dir.path());
        let call = tokio::spawn(async move { link.run(&Request::Reload).await });
        let (mut stream, _) = listener.accept().await.unwrap();
        call.abort();
        let mut received = String::new();
        stream.read_to_string(&mut received).await.unwrap();
    }
}
