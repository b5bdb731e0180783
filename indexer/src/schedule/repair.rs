//! What was published stays published: files that another program deletes or truncates are published again.
//!
//! Daemons go on from memory meanwhile, but one that is started then would have nothing to answer from until the next scan.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::guarded;
use crate::indexer::Indexer;

/// Between two looks at what is published: three small files are opened, which takes some microseconds.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Before another attempt, when the index could not be published again.
const RETRY: Duration = Duration::from_secs(10);

/// Looks for ever; drop the future to end it.
pub(super) async fn keep_published(indexer: &Arc<Indexer>) -> Infallible {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        // Until then there may be nothing to publish, and what was not published is tried again elsewhere.
        if !indexer.publication.published_by_this_process().await {
            continue;
        }
        let index_dir = indexer.config().index_dir();
        let Err(damage) = indexer.blocking(move |_| mb_index::check_current(&index_dir)).await else { continue };
        tracing::warn!(%damage, "what was published is damaged or gone, it is published again");
        match guarded(indexer, "publishing again", indexer.publish_files()).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::error!(%error, "cannot publish again, tried again in {} s", RETRY.as_secs());
                tokio::time::sleep(RETRY).await;
            }
            None => tokio::time::sleep(RETRY).await,
        }
    }
}
