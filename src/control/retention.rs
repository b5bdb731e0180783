//! Old statistics are dropped once a day, as `StatsRetention` says, and by `mirrorbits stats prune`.

use std::sync::Arc;
use std::time::Duration;

use mb_core::config::StatsRetention;
use time::{Date, UtcDateTime};

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

/// Prunes on each new day, for as long as the returned future is polled.
pub async fn follow(table: Arc<MirrorTable>, retention: StatsRetention) {
    if retention == StatsRetention::default() {
        return;
    }
    let mut pruned: Option<Date> = None;
    loop {
        let today = UtcDateTime::now().date();
        if pruned != Some(today) {
            match prune(&table, retention).await {
                Ok(dropped) => {
                    pruned = Some(today);
                    if dropped > 0 {
                        tracing::info!("statistics of {dropped} days and months were dropped (StatsRetention)");
                    }
                }
                Err(error) => tracing::warn!("old statistics are not dropped: {error}"),
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
