//! The place of a scan among those that may run at a time. A mirror that lists next to nothing must
//! not keep it from others until its time is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::{ENTRIES_PER_SECOND_MIN, LimitReached, ListingBudget};

/// How long a listing is looked at before it is called slow: at most this, and at most a part of
/// the time that the scan may take.
const LOOK: Duration = Duration::from_secs(120);
const LOOKS_PER_LIMIT: u32 = 20;

/// A place; dropping it frees it.
pub(crate) struct ScanPlace {
    _permit: Option<OwnedSemaphorePermit>,
    /// Where a slow scan may be asked to leave its place.
    shared: Option<SharedPlaces>,
}

/// Places that are to recover from slow scans.
#[derive(Clone)]
pub(crate) struct SharedPlaces {
    /// All places.
    pub(crate) places: Arc<Semaphore>,
    /// The few apart from them, for scans that are slow.
    pub(crate) apart: Arc<Semaphore>,
    /// Scans that wait for a place.
    pub(crate) waiting: Arc<AtomicUsize>,
}

impl SharedPlaces {
    /// Waits for a place. May be cancelled.
    pub(crate) async fn take(self) -> ScanPlace {
        let waiting = Waiting::begin(&self.waiting);
        // The semaphore is never closed.
        let permit = Arc::clone(&self.places).acquire_owned().await.ok();
        drop(waiting);
        ScanPlace { _permit: permit, shared: Some(self) }
    }

    fn are_wanted(&self) -> bool {
        self.places.available_permits() == 0 && self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// A scan that waits for a place, counted.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn begin(count: &AtomicUsize) -> Waiting<'_> {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ScanPlace {
    /// A place that is kept until the scan ends, or none, where the number of scans has no limit.
    pub(crate) fn kept(permit: Option<OwnedSemaphorePermit>) -> ScanPlace {
        ScanPlace { _permit: permit, shared: None }
    }

    /// Watches the listing that `budget` is charged for. While it is slow and others wait for
    /// a place, the scan moves to a place apart. Returns only when that is taken, too: the scan is to end
    /// then, and to be begun apart from the others next time.
    pub(crate) async fn leave_if_slow(&mut self, budget: &ListingBudget) -> LimitReached {
        let look = LOOK.min(budget.time() / LOOKS_PER_LIMIT);
        let enough = look.as_secs().max(1).saturating_mul(ENTRIES_PER_SECOND_MIN);
        loop {
            let before = budget.charged_lines();
            tokio::time::sleep(look).await;
            let Some(shared) = &self.shared else { return std::future::pending().await };
            let is_slow = budget.charged_lines().saturating_sub(before) < enough;
            if !is_slow || !shared.are_wanted() {
                continue;
            }
            let Ok(apart) = Arc::clone(&shared.apart).try_acquire_owned() else { return LimitReached::Pace };
            *self = ScanPlace::kept(Some(apart));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> SharedPlaces {
        let waiting = Arc::new(AtomicUsize::new(1));
        SharedPlaces { places: Arc::new(Semaphore::new(1)), apart: Arc::new(Semaphore::new(1)), waiting }
    }

    fn place(shared: &SharedPlaces) -> ScanPlace {
        let permit = Arc::clone(&shared.places).try_acquire_owned().ok();
        ScanPlace { _permit: permit, shared: Some(shared.clone()) }
    }

    /// Lists `entries` in each second of an hour; returns how long the scan could go on, and why it
    /// could not longer.
    async fn listed(place: &mut ScanPlace, entries: u64) -> (Duration, Option<LimitReached>) {
        // Of an hour, so that the listing is looked at every two minutes.
        let (budget, start) = (ListingBudget::ample(), tokio::time::Instant::now());
        let listing = async {
            for _ in 0..3_599 {
                (0..entries).for_each(|_| budget.take_entry().unwrap());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let reached = tokio::select! {
            () = listing => None,
            reached = place.leave_if_slow(&budget) => Some(reached),
        };
        (start.elapsed(), reached)
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_scan_moves_apart_and_the_next_one_ends() {
        let shared = shared();
        let mut first = place(&shared);
        assert_eq!(listed(&mut first, 3).await.1, None);
        assert_eq!((shared.places.available_permits(), shared.apart.available_permits()), (1, 0));
        let mut second = place(&shared);
        assert_eq!(listed(&mut second, 3).await, (Duration::from_secs(120), Some(LimitReached::Pace)));
        drop((first, second));
        assert_eq!((shared.places.available_permits(), shared.apart.available_permits()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_scan_keeps_its_place_while_it_lists_or_no_other_waits_or_it_is_apart() {
        let shared = shared();
        let mut fast = place(&shared);
        assert_eq!(listed(&mut fast, 5).await.1, None);
        assert_eq!((shared.places.available_permits(), shared.apart.available_permits()), (0, 1));
        drop(fast);
        let mut beside_a_free_one = ScanPlace { _permit: None, shared: Some(shared.clone()) };
        assert_eq!(listed(&mut beside_a_free_one, 0).await.1, None);
        shared.waiting.store(0, Ordering::Relaxed);
        let mut unwanted = place(&shared);
        assert_eq!(listed(&mut unwanted, 0).await.1, None);
        drop(unwanted);
        let mut apart = ScanPlace::kept(Arc::clone(&shared.apart).try_acquire_owned().ok());
        assert_eq!(listed(&mut apart, 0).await.1, None);
        assert_eq!((shared.places.available_permits(), shared.apart.available_permits()), (1, 0));
    }
}
