//! Following the store: what another node or an outside tool changes reaches the answers as promptly as a command does.
//!
//! The store also tells of the changes that this node made itself. Those are published when they are made, so that nothing
//! is left to do; the indexer hears of what operators change only, since it would otherwise be woken by its own findings.

use std::collections::HashMap;
use std::sync::Arc;

use mb_core::mirror::{Mirror, MirrorId};
use tokio::sync::Notify;

use super::indexer::IndexerLink;
use super::mirror_table::{MirrorTable, Replaced, TableError};

/// Publishes what changes in the store and lets the indexer know, until the future is dropped.
pub async fn follow(table: Arc<MirrorTable>, indexer: IndexerLink) {
    let changed = Arc::new(Notify::new());
    let notifier = Arc::clone(&changed);
    // Many changes at once are one publication.
    let _watch = table.watch_store(Box::new(move |_| notifier.notify_one()));
    loop {
        changed.notified().await;
        mb_core::fault::point("change-feed");
        match table.publish_changes().await {
            Ok(Some(Replaced { before, after })) => {
                let ids = changed_by_operators(&before, &after);
                if !ids.is_empty() {
                    indexer.mirrors_changed(ids).await;
                }
            }
            Ok(None) => {}
            Err(error @ TableError::Unpublished(_)) => tracing::warn!("mirrors were changed elsewhere: {error}"),
            Err(error) => tracing::warn!("{error}"),
        }
    }
}

/// The mirrors that were added or removed, or whose settings or `enabled` differ.
fn changed_by_operators(before: &[Mirror], after: &[Mirror]) -> Vec<MirrorId> {
    let mut gone: HashMap<MirrorId, &Mirror> = before.iter().map(|mirror| (mirror.id, mirror)).collect();
    let mut ids = Vec::new();
    for mirror in after {
        let is_same = |old: &Mirror| old.settings == mirror.settings && old.state.enabled == mirror.state.enabled;
        if !gone.remove(&mirror.id).is_some_and(is_same) {
            ids.push(mirror.id);
        }
    }
    ids.extend(gone.into_keys());
    ids.sort_unstable();
    ids
}

#[cfg(test)]
mod tests {
    use mb_core::mirror::{MirrorSettings, MirrorState};

    use super::*;

    fn mirror(id: u32) -> Mirror {
        Mirror { id: MirrorId(id), settings: MirrorSettings::default(), state: MirrorState::default() }
    }

    #[test]
    fn findings_of_the_indexer_are_no_news_to_it() {
        let before = [mirror(1), mirror(2), mirror(3), mirror(4)];
        let mut after = [mirror(1), mirror(2), mirror(3), mirror(5)];
        after[0].state.http.up = true;
        after[0].state.last_sync = mb_core::time::Timestamp(7);
        after[1].state.enabled = true;
        after[2].settings.score = 1;
        assert_eq!(changed_by_operators(&before, &after), [2, 3, 4, 5].map(MirrorId));
        assert_eq!(changed_by_operators(&before, &before), []);
    }
}
