//! Old statistics are dropped once a day, as `StatsRetention` says, and by `mirrorbits stats prune`.

use std::sync::Arc;
use std::time::Duration;

use mb_core::config::StatsRetention;
use time::{Date, UtcDateTime};
use tokio::sync::watch;

use super::mirror_table::{MirrorTable, TableError};

/// How often the date is looked at. A store that is away is tried again then.
const LOOK_INTERVAL: Duration = Duration::from_secs(15 * 60);

/// Drops what `retention` lets go of today. Returns how many days and months that were.
///
/// # Errors
/// The store's.
pub async fn prune(table: &Arc<MirrorTable>, retention: StatsRetention) -> Result<usize, TableError> {
    table.read(move |store| store.prune_stats(retention, UtcDateTime::now().date())).await
}

/// Prunes on each new day and whenever `retention` changes, for as long as the returned future is polled.
pub async fn follow(table: Arc<MirrorTable>, mut retention: watch::Receiver<StatsRetention>) {
    let mut pruned: Option<(StatsRetention, Date)> = None;
    loop {
        mb_core::fault::point("retention");
        let due = (*retention.borrow_and_update(), UtcDateTime::now().date());
        if due.0 != StatsRetention::default() && pruned != Some(due) {
            match prune(&table, due.0).await {
                Ok(dropped) => {
                    pruned = Some(due);
                    if dropped > 0 {
                        tracing::info!("statistics of {dropped} days and months were dropped (StatsRetention)");
                    }
                }
                Err(error) => tracing::warn!("old statistics are not dropped: {error}"),
            }
        }
        // Without a sender nothing changes any more, and the daemon is about to end.
        let _ = tokio::time::timeout(LOOK_INTERVAL, retention.changed()).await;
    }
}
