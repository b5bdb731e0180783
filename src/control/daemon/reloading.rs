//! Reloads under way: one at a time, beside the control loop, which never waits for one.
//!
//! ```text
//! Idle ──ask──▶ Loading ──loaded, and put in use by the control loop──▶ Completing ──▶ Idle
//!                  └──────────────cannot be loaded, or not in time──────────────────▲
//! ```
//!
//! Whoever asks while one runs gets the next one, together with all others who ask meanwhile: what
//! they want to be read may have been written after the running one read it.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::reload::Reloaded;
use crate::control::control_socket::ControlSocket;
use crate::control::orders::Answer;
use crate::shard::front::Front;

/// How long files may take to be read, names to be resolved, and addresses to be bound: a guess, far
/// more than a slow disk needs for two geo databases.
pub(super) const LOAD_LIMIT: Duration = Duration::from_secs(30);
/// How long the rest may take: leaving an address (5 s), log files, and an indexer that builds the
/// index with the new configuration and still answers.
pub(super) const COMPLETE_LIMIT: Duration = Duration::from_secs(600);

/// What was loaded, and the sockets that it needs. Nothing can fail any more.
pub(super) struct Loaded {
    pub(super) reloaded: Reloaded,
    /// For another `ListenAddress`.
    pub(super) front: Option<Front>,
    /// For another `RPCListenAddress`.
    pub(super) rpc: Option<ControlSocket>,
    /// For another `MetricsListenAddress`, which may be none.
    pub(super) metrics: Option<Option<ControlSocket>>,
}

/// What a reload came to.
pub(super) enum Step {
    /// It is to be put in use.
    Loaded(Result<Box<Loaded>, String>),
    /// It is complete.
    Completed(Answer),
}

enum Running {
    Loading(JoinHandle<Result<Box<Loaded>, String>>),
    Completing(JoinHandle<Answer>),
}

/// Who is told the result, if anybody is.
type Asker = Option<oneshot::Sender<Answer>>;

/// The reload that runs, and the one that follows.
#[derive(Default)]
pub(super) struct Reloads {
    running: Option<Running>,
    askers: Vec<Asker>,
    /// Not empty when another one follows.
    next: Vec<Asker>,
}

impl Reloads {
    /// Whether one runs.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether a reload was asked for and is still to be begun.
    pub(super) fn is_waiting(&self) -> bool {
        !self.is_running() && !self.next.is_empty()
    }

    /// Asks for a reload. Returns whether it is to be begun now.
    pub(super) fn ask(&mut self, asker: Asker) -> bool {
        self.next.push(asker);
        !self.is_running()
    }

    /// Loads by `load` for all who asked until now.
    pub(super) fn begin(&mut self, load: impl Future<Output = Result<Box<Loaded>, String>> + Send + 'static) {
        self.askers = std::mem::take(&mut self.next);
        let limited = async {
            tokio::time::timeout(LOAD_LIMIT, load).await.unwrap_or_else(|_| {
                Err(format!(
                    "the configuration and what it names could not be loaded within {} s: a disk or a name server may not \
                     answer\nNothing was changed",
                    LOAD_LIMIT.as_secs()
                ))
            })
        };
        self.running = Some(Running::Loading(tokio::spawn(limited)));
    }

    /// Completes what was put in use by `complete`.
    pub(super) fn complete(&mut self, complete: impl Future<Output = Answer> + Send + 'static) {
        let limited = async {
            tokio::time::timeout(COMPLETE_LIMIT, complete).await.unwrap_or_else(|_| {
                Ok(vec![format!(
                    "the new configuration is in use; the indexer or log files were not ready within {} s",
                    COMPLETE_LIMIT.as_secs()
                )])
            })
        };
        self.running = Some(Running::Completing(tokio::spawn(limited)));
    }

    /// Waits for the next step of the one that runs. May be cancelled.
    pub(super) async fn step(&mut self) -> Step {
        let step = match &mut self.running {
            Some(Running::Loading(task)) => {
                Step::Loaded(task.await.unwrap_or_else(|error| Err(format!("the reload was aborted: {error}"))))
            }
            Some(Running::Completing(task)) => {
                Step::Completed(task.await.unwrap_or_else(|error| Err(format!("the reload was aborted: {error}"))))
            }
            None => std::future::pending().await,
        };
        self.running = None;
        step
    }

    /// Tells the result to those who asked. Returns whether another one is to be begun.
    pub(super) fn end(&mut self, answer: &Answer) -> bool {
        for asker in self.askers.drain(..).flatten() {
            // Whoever asked may have gone away.
            let _ = asker.send(answer.clone());
        }
        !self.next.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each reload used to be awaited within the control loop, which then took no signal.
    #[tokio::test(start_paused = true)]
    async fn those_who_ask_meanwhile_share_the_next_one() {
        let mut reloads = Reloads::default();
        let (first, first_told) = oneshot::channel();
        assert!(reloads.ask(Some(first)));
        reloads.begin(async { Err("bad file".to_owned()) });
        let (second, mut second_told) = oneshot::channel();
        let (third, mut third_told) = oneshot::channel();
        assert!(!reloads.ask(Some(second)));
        assert!(!reloads.ask(Some(third)));
        let Step::Loaded(Err(reason)) = reloads.step().await else { panic!("loaded") };
        assert!(reloads.end(&Err(reason)), "another one follows");
        assert_eq!(first_told.await.unwrap(), Err("bad file".to_owned()));
        assert!(second_told.try_recv().is_err());
        reloads.begin(async { Err("still bad".to_owned()) });
        let Step::Loaded(Err(reason)) = reloads.step().await else { panic!("loaded") };
        assert!(!reloads.end(&Err(reason)));
        for told in [&mut second_told, &mut third_told] {
            assert_eq!(told.try_recv().unwrap(), Err("still bad".to_owned()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn loading_has_a_limit() {
        let mut reloads = Reloads::default();
        reloads.ask(None);
        reloads.begin(std::future::pending());
        let begun = tokio::time::Instant::now();
        let Step::Loaded(Err(reason)) = reloads.step().await else { panic!("loaded") };
        assert!(reason.contains("within 30 s") && reason.contains("Nothing was changed"), "{reason}");
        assert_eq!(begun.elapsed().as_secs(), LOAD_LIMIT.as_secs());
        assert!(!reloads.is_running());
    }
}
