//! Panics of jobs and threads: seen, told, and kept from holding anything up.
//!
//! A job that panics fails as any other error makes it fail: [`catch`] turns the panic into a value, and what the job held
//! (scan locks, leases, places, rsync programs) is released while the panic unwinds. A thread that the indexer cannot do
//! without ends the process instead ([`essential`]); the daemon starts it anew.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::process::ExitCode;
use std::task::Poll;

use mb_core::foreign_text::ForeignText;

/// Exit status after a panic of what the indexer cannot do without, as that of Rust programs whose main thread panicked.
pub(crate) const EXIT_STATUS: u8 = 101;

/// A job ended by a panic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a defect of this program ended it, please report it: {0}")]
pub(crate) struct JobPanicked(String);

impl JobPanicked {
    /// Takes the value that a panic carries.
    pub(crate) fn new(panic: &(dyn Any + Send)) -> JobPanicked {
        let message = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
            (Some(message), _) => message,
            (_, Some(message)) => message.as_str(),
            _ => "without a message",
        };
        JobPanicked(ForeignText::new(message).to_string())
    }
}

/// Runs `job`; a panic of it is its result. What it shares with others must be usable after a panic: locks here recover
/// from poisoning, and store and scan results roll back.
pub(crate) async fn catch<T>(job: impl Future<Output = T>) -> Result<T, JobPanicked> {
    let mut job = pin!(job);
    std::future::poll_fn(move |context| {
        match catch_unwind(AssertUnwindSafe(|| job.as_mut().poll(context))) {
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Ok(Poll::Pending) => Poll::Pending,
            // The job is not polled again: it is dropped with this future.
            Err(panic) => Poll::Ready(Err(JobPanicked::new(&*panic))),
        }
    })
    .await
}

/// Runs the work of a thread that the indexer cannot do without; a panic ends the process.
pub(crate) fn essential(name: &str, work: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
        tracing::error!(thread = name, error = %JobPanicked::new(&*panic), "the indexer ends, to be started anew");
        mb_core::log_writer::flush();
        std::process::exit(EXIT_STATUS.into());
    }
}

/// What a program's exit status is after a panic of its main task.
pub(crate) fn exit_code() -> ExitCode {
    ExitCode::from(EXIT_STATUS)
}

/// Tells panics in the log instead of raw on standard error: their messages may hold text of mirrors.
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = JobPanicked::new(panic.payload());
        tracing::error!(place, "panic: {message}");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_the_result_of_its_job_and_releases_what_it_held() {
        let held = std::sync::Arc::new(());
        let kept = std::sync::Arc::clone(&held);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let panicked = runtime.block_on(catch(async move {
            let _kept = kept;
            tokio::task::yield_now().await;
            assert_eq!(1, 2, "\x1b[2J");
        }));
        let message = panicked.unwrap_err().to_string();
        assert!(message.contains("\\x1b[2J") && !message.contains('\x1b'), "{message}");
        assert_eq!(std::sync::Arc::strong_count(&held), 1);
        assert_eq!(runtime.block_on(catch(async { 7 })), Ok(7));
    }
}
