//! Places for health checks under way, so that mirrors that do not answer hold up none that do.
//!
//! A check begins in a prompt place and leaves it after [`PROMPT`]: then it goes on in a slow place, of which there is a
//! number of their own, or waits for one. A mirror whose latest check was slow begins in a slow place. So a prompt place is
//! free again after two seconds, whatever the mirrors do, and the sockets of all checks are bounded.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

/// Checks under way of mirrors that answer. A guess: far fewer than the descriptors a process may have.
const PROMPT_PLACES: usize = 64;

/// Checks under way of mirrors that do not. At 80 s for two requests without an answer, 96 such mirrors a minute.
const SLOW_PLACES: usize = 128;

/// A check that takes longer is slow: a mirror far away with a lost packet answers within it.
const PROMPT: Duration = Duration::from_secs(2);

/// Of a whole check: two requests of 40 s each, and what the store takes.
const LONGEST_CHECK: Duration = Duration::from_secs(100);

/// How a mirror's latest check went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Within [`PROMPT`], or it was never checked.
    #[default]
    Prompt,
    /// Longer.
    Slow,
}

/// The places of both sorts.
#[derive(Debug)]
pub(crate) struct CheckPlaces {
    prompt: Semaphore,
    slow: Semaphore,
    limit: Duration,
}

impl Default for CheckPlaces {
    fn default() -> CheckPlaces {
        CheckPlaces { prompt: Semaphore::new(PROMPT_PLACES), slow: Semaphore::new(SLOW_PLACES), limit: LONGEST_CHECK }
    }
}

impl CheckPlaces {
    /// Runs `check` in a place for `pace`, and returns how it went. A check that does not get a slow place when it needs
    /// one is given up and begun again in the next that is free.
    pub(crate) async fn run<F: Future<Output = ()>>(&self, pace: Pace, check: impl Fn() -> F) -> Pace {
        if pace == Pace::Prompt {
            // The semaphores are never closed.
            let place = self.prompt.acquire().await;
            let mut check = Box::pin(check());
            if timeout(PROMPT, &mut check).await.is_ok() {
                return Pace::Prompt;
            }
            drop(place);
            if let Ok(_place) = self.slow.try_acquire() {
                self.in_time(check).await;
                return Pace::Slow;
            }
        }
        let _place = self.slow.acquire().await;
        let began = Instant::now();
        self.in_time(check()).await;
        if began.elapsed() < PROMPT { Pace::Prompt } else { Pace::Slow }
    }

    async fn in_time(&self, check: impl Future<Output = ()>) {
        if timeout(self.limit, check).await.is_err() {
            tracing::warn!(seconds = self.limit.as_secs(), "a health check took too long and was given up");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    /// Sixty-four mirrors that never answered held all places for 80 s, while those that answer waited.
    #[test]
    fn checks_that_never_end_leave_places_for_others() {
        block_on(async {
            let places = Arc::new(CheckPlaces::default());
            let silent: Vec<_> = (0..PROMPT_PLACES + SLOW_PLACES + 10)
                .map(|_| {
                    let places = Arc::clone(&places);
                    tokio::spawn(async move { places.run(Pace::Slow, std::future::pending).await })
                })
                .collect();
            while places.slow.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
            let pace = timeout(Duration::from_secs(20), places.run(Pace::Prompt, || async {})).await;
            assert_eq!(pace, Ok(Pace::Prompt));
            silent.iter().for_each(tokio::task::JoinHandle::abort);
        });
    }

    #[test]
    fn a_prompt_place_is_left_when_the_check_turns_out_slow() {
        block_on(async {
            let limit = PROMPT + Duration::from_millis(300);
            let places = CheckPlaces { prompt: Semaphore::new(1), slow: Semaphore::new(1), limit };
            let (first, second) =
                tokio::join!(places.run(Pace::Prompt, std::future::pending), places.run(Pace::Prompt, || async {}),);
            assert_eq!((first, second), (Pace::Slow, Pace::Prompt));
            assert_eq!(places.run(Pace::Slow, || async {}).await, Pace::Prompt, "it answers again");
        });
    }
}
