//! What the mirrors sent lately, as the store knows it: read off the shards, once for all the pages of a few seconds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mb_core::mirror::MirrorId;
use mb_core::store::{DateRange, Store, StoreError, Traffic};
use time::{Date, UtcDateTime};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long counts are shown before they are read again. A page is as good a few seconds later, and however often it is
/// looked at, the store is asked 20 times a minute.
const FRESH_FOR: Duration = Duration::from_secs(3);
/// How long a page waits for counts. They take milliseconds; what takes longer is a store that does not answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Traffic by mirror, up to a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The UTC day.
    pub day: Date,
    /// On that day.
    pub today: BTreeMap<MirrorId, Traffic>,
    /// In its month.
    pub month: BTreeMap<MirrorId, Traffic>,
    /// Since ever.
    pub total: BTreeMap<MirrorId, Traffic>,
}

impl Counted {
    /// Reads the counts up to today from `store`. Blocks.
    ///
    /// # Errors
    /// The store's.
    pub fn read(store: &dyn Store) -> Result<Counted, StoreError> {
        let day = UtcDateTime::now().date();
        let first = day.replace_day(1).unwrap_or(day);
        let last = day.replace_day(day.month().length(day.year())).unwrap_or(day);
        Ok(Counted {
            day,
            today: store.mirror_traffic(Some(DateRange { first: day, last: day }))?,
            month: store.mirror_traffic(Some(DateRange { first, last }))?,
            total: store.mirror_traffic(None)?,
        })
    }
}

/// The counts of the last few seconds.
pub struct RecentTraffic {
    read: Arc<dyn Fn() -> Option<Counted> + Send + Sync>,
    fresh_for: Duration,
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When the store was asked last, and what it had said by then.
    latest: Option<(Instant, Option<Arc<Counted>>)>,
    /// A read that is not over yet. There is never a second one: a store that hangs holds up one thread.
    reading: Option<JoinHandle<Option<Counted>>>,
}

impl RecentTraffic {
    /// Counts that `read` gets, which may block; `None` when it cannot.
    pub fn new(read: impl Fn() -> Option<Counted> + Send + Sync + 'static) -> RecentTraffic {
        RecentTraffic { read: Arc::new(read), fresh_for: FRESH_FOR, patience: PATIENCE, state: Mutex::default() }
    }

    /// The counts; `None` while they cannot be had. Who comes while they are read waits for the same ones.
    pub async fn latest(&self) -> Option<Arc<Counted>> {
        let mut state = self.state.lock().await;
        if let Some((at, counted)) = &state.latest
            && at.elapsed() < self.fresh_for
        {
            return counted.clone();
        }
        let mut reading = state.reading.take().unwrap_or_else(|| {
            let read = Arc::clone(&self.read);
            tokio::task::spawn_blocking(move || read())
        });
        let counted = match timeout(self.patience, &mut reading).await {
            Ok(read) => read.ok().flatten().map(Arc::new),
            Err(_) => {
                state.reading = Some(reading);
                None
            }
        };
        state.latest = Some((Instant::now(), counted.clone()));
        counted
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    fn counted() -> Counted {
        let none = BTreeMap::new();
        Counted { day: Date::MIN, today: none.clone(), month: none.clone(), total: none }
    }

    #[tokio::test]
    async fn many_views_are_one_read() {
        let reads = Arc::new(AtomicUsize::new(0));
        let counting = reads.clone();
        let mut traffic = RecentTraffic::new(move || {
            counting.fetch_add(1, Ordering::Relaxed);
            Some(counted())
        });
        traffic.fresh_for = Duration::MAX;
        for _ in 0..100 {
            assert_eq!(traffic.latest().await.as_deref(), Some(&counted()));
        }
        assert_eq!(reads.load(Ordering::Relaxed), 1);
        traffic.fresh_for = Duration::ZERO;
        assert!(traffic.latest().await.is_some());
        assert_eq!(reads.load(Ordering::Relaxed), 2);
    }

    /// A store that does not answer must not take a thread for each page.
    #[tokio::test]
    async fn a_read_that_hangs_is_waited_for_and_not_repeated() {
        let (go, gate) = mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let reads = Arc::new(AtomicUsize::new(0));
        let counting = reads.clone();
        let mut traffic = RecentTraffic::new(move || {
            counting.fetch_add(1, Ordering::Relaxed);
            gate.lock().unwrap().recv().ok().map(|()| counted())
        });
        traffic.fresh_for = Duration::ZERO;
        traffic.patience = Duration::from_millis(1);
        for _ in 0..3 {
            assert_eq!(traffic.latest().await, None);
        }
        go.send(()).unwrap();
        traffic.patience = Duration::MAX;
        assert!(traffic.latest().await.is_some());
        assert_eq!(reads.load(Ordering::Relaxed), 1);
    }
}
