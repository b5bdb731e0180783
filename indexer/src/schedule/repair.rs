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

/// Between finding damage and the look that confirms it: a publication at that moment is none.
const CONFIRM: Duration = Duration::from_millis(200);
/// Most time between two publications, when what is published is damaged again and again, or cannot be
/// published. It begins with twice [`LOOK_INTERVAL`].
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Looks for ever; drop the future to end it.
pub(super) async fn keep_published(indexer: &Arc<Indexer>) -> Infallible {
    let mut pause = LOOK_INTERVAL;
    loop {
        tokio::time::sleep(pause).await;
        // Until then there may be nothing to publish, and what was not published is tried again elsewhere.
        if !indexer.publication.published_by_this_process().await {
            continue;
        }
        let check = || {
            let index_dir = indexer.config().index_dir();
            indexer.blocking(move |_| mb_index::check_current(&index_dir))
        };
        if check().await.is_ok() {
            pause = LOOK_INTERVAL;
            continue;
        }
        tokio::time::sleep(CONFIRM).await;
        let Err(damage) = check().await else { continue };
        pause = (pause * 2).min(PAUSE_MAX);
        tracing::warn!(%damage, "what was published is damaged or gone, it is published again");
        match guarded(indexer, "publishing again", indexer.publish_files()).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::error!(%error, "cannot publish again, tried again in {} s", pause.as_secs());
            }
            // The panic was reported.
            None => {}
        }
    }
}
