//! A run on a thread and a runtime of its own, so that a test can do to the server what it wants to meanwhile.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::Builder;
use tokio::task::{JoinSet, LocalSet};

use crate::client::{Client, Shared};
use crate::plan::{Pace, Plan, PlanError};
use crate::report::Report;
use crate::schedule::Schedule;
use crate::verify::Mirrors;

/// What is known while it runs.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) answered: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) stop: AtomicBool,
}

/// A run that goes on.
#[derive(Debug)]
pub struct Running {
    progress: Arc<Progress>,
    thread: JoinHandle<std::io::Result<Report>>,
}

/// A run that broke down, which says nothing about the server.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The system refused the timer.
    #[error("the load ended early: {0}")]
    System(#[from] std::io::Error),
    /// A defect of this program.
    #[error("the load ended early by a panic; what it printed says why")]
    Panicked,
}

impl Running {
    /// Right answers so far.
    pub fn answered(&self) -> u64 {
        self.progress.answered.load(Ordering::Relaxed)
    }

    /// Failures so far.
    pub fn failed(&self) -> u64 {
        self.progress.failed.load(Ordering::Relaxed)
    }

    /// Whether it has come to its end by itself.
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Sends nothing more. Requests under way are still answered or fail: [`Running::wait`] for them.
    pub fn stop(&self) {
        self.progress.stop.store(true, Ordering::Relaxed);
    }

    /// The result, once every request was answered or failed.
    ///
    /// # Errors
    /// When the run itself broke down.
    pub fn wait(self) -> Result<Report, RunError> {
        Ok(self.thread.join().map_err(|_| RunError::Panicked)??)
    }
}

/// Starts a run.
///
/// # Errors
/// When the plan cannot be carried out.
pub fn start(plan: Plan) -> Result<Running, PlanError> {
    plan.check()?;
    let report = Report::new(&plan)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let progress = Arc::new(Progress::default());
    let plan = Arc::new(plan);
    let thread = {
        let progress = Arc::clone(&progress);
        let work = move || {
            let schedule = Schedule::new(Arc::clone(&plan), Arc::clone(&progress));
            let mirrors = Mirrors::new(&plan.mirrors);
            let shared = Rc::new(Shared { plan, mirrors, schedule, progress, report: RefCell::new(report) });
            runtime.block_on(LocalSet::new().run_until(carry_out(Rc::clone(&shared))))?;
            let elapsed = shared.schedule.elapsed();
            Ok(Report { elapsed, ..shared.report.borrow().clone() })
        };
        std::thread::Builder::new().name("mb-load".to_owned()).spawn(work)?
    };
    Ok(Running { progress, thread })
}

async fn carry_out(shared: Rc<Shared>) -> std::io::Result<()> {
    let mut clients = JoinSet::new();
    for _ in 0..shared.plan.connections {
        clients.spawn_local(Client::new(Rc::clone(&shared)).run());
    }
    if let Pace::Open(rate) = shared.plan.pace {
        shared.schedule.release(rate).await?;
    }
    clients.join_all().await;
    Ok(())
}
