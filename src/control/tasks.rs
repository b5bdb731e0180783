//! Tasks of the control thread that run for as long as the daemon does.

use std::panic::AssertUnwindSafe;

use futures_lite::FutureExt as _;
use mb_core::supervise::{RESTART_PAUSE, note_restart};

/// Runs the future that `start` makes until it ends. When it panics, another is made after [`RESTART_PAUSE`].
pub async fn keep_running<F: Future<Output = ()>>(part: &'static str, mut start: impl FnMut() -> F) {
    while AssertUnwindSafe(start()).catch_unwind().await.is_err() {
        note_restart(part);
        tokio::time::sleep(RESTART_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_started_again() {
        let mut starts = 0;
        keep_running("test-task", || {
            starts += 1;
            let number = starts;
            async move { assert!(number > 1, "provoked") }
        })
        .await;
        assert_eq!(starts, 2);
    }
}
