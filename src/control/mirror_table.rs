//! Publishing the mirror table: what the store holds becomes what requests are answered from.
//!
//! The store is read inside the publisher's lock, so the table published last is never older than the store, whichever
//! of the two programs published it. A change that is stored but could not be published (a full disk) is not lost: it is
//! reported at once and published by the next change or by [`MirrorTable::keep_published`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mb_core::mirror::Mirror;
use mb_core::store::{Change, ChangeWatch, Store, StoreError};
use mb_index::{OpenError, PublishError, Publisher};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinError;

/// Pause before the first repetition of a failed publish; doubled up to [`LONGEST_RETRY_PAUSE`].
const FIRST_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// A full disk is noticed as emptied within this time.
const LONGEST_RETRY_PAUSE: Duration = Duration::from_secs(60);
/// How long an operation may take: a guess, some times what changing 20,000 mirrors takes. Commands of the store have shorter
/// limits of their own; a disk has none.
const OPERATION_LIMIT: Duration = Duration::from_secs(120);
/// Operations at a time, so that those that a disk blocks leave threads for others.
const OPERATIONS_MAX: usize = 64;

/// Why a store operation was not done, or not done completely.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The store refused; nothing was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The change is stored, but requests do not see it yet.
    #[error("the change is stored, but cannot be published to the answers: {0}; this is tried again until it works")]
    Unpublished(#[from] UnpublishedError),
    /// The index folder cannot be read.
    #[error(transparent)]
    Index(#[from] OpenError),
    /// The operation panicked.
    #[error("a store operation was aborted: {0}; see the daemon's log")]
    Aborted(#[from] JoinError),
    /// The operation goes on, or waits for those that do.
    #[error(
        "no answer within {} s: see to the database and the disk of StateDir; what was asked for may still be done",
        OPERATION_LIMIT.as_secs()
    )]
    Late,
}

/// Why the mirror table was not published.
#[derive(Debug, thiserror::Error)]
pub enum UnpublishedError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index cannot be written.
    #[error(transparent)]
    Index(#[from] PublishError),
}

/// A mirror table that took another's place.
pub struct Replaced {
    /// The mirrors that were published until now.
    pub before: Vec<Mirror>,
    /// Those that are published now.
    pub after: Vec<Mirror>,
}

/// The store, and the published copy of its mirrors.
pub struct MirrorTable {
    store: Arc<dyn Store>,
    index_dir: PathBuf,
    publisher: Publisher,
    publish_failed: Notify,
    operations: Arc<Semaphore>,
}

impl MirrorTable {
    /// Publishes the mirrors of `store` into `index_dir`.
    pub fn new(store: Arc<dyn Store>, index_dir: &Path) -> MirrorTable {
        MirrorTable {
            store,
            index_dir: index_dir.to_owned(),
            publisher: Publisher::new(index_dir),
            publish_failed: Notify::new(),
            operations: Arc::new(Semaphore::new(OPERATIONS_MAX)),
        }
    }

    /// Runs `read` on a thread that may block.
    ///
    /// # Errors
    /// What `read` returns.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, TableError> {
        let table = Arc::clone(self);
        Ok(self.blocking(move || read(&*table.store)).await??)
    }

    /// Does `work` on a thread that may block.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, TableError> {
        let operations = Arc::clone(&self.operations);
        let done = async {
            // It is never closed.
            let permit = operations.acquire_owned().await.ok();
            let work = move || {
                let _permit = permit;
                work()
            };
            Ok(tokio::task::spawn_blocking(work).await?)
        };
        tokio::time::timeout(OPERATION_LIMIT, done).await.unwrap_or(Err(TableError::Late))
    }

    /// Runs `change`, of one mirror or many, on a thread that may block, then publishes once,
    /// unless the change feed was faster.
    ///
    /// # Errors
    /// What `change` returns, or [`TableError::Unpublished`] when the change was made and is not published yet.
    pub async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, TableError> {
        let table = Arc::clone(self);
        let done = self.blocking(move || {
            let changed = change(&*table.store)?;
            table.publish_if_changed().inspect_err(|_| table.publish_failed.notify_one())?;
            Ok(changed)
        });
        done.await?
    }

    /// Publishes what the store holds now. Blocks.
    ///
    /// # Errors
    /// The store's or the publisher's.
    pub fn publish(&self) -> Result<(), UnpublishedError> {
        let mut lock = self.publisher.lock()?;
        lock.publish(None, &self.publishable_mirrors()?)?;
        Ok(())
    }

    /// Publishes what the store holds unless it is published already; `None` means that it was. What fails is repeated by [`MirrorTable::keep_published`].
    ///
    /// # Errors
    /// [`TableError::Unpublished`].
    pub async fn publish_changes(self: &Arc<Self>) -> Result<Option<Replaced>, TableError> {
        let table = Arc::clone(self);
        let published = move || table.publish_if_changed().inspect_err(|_| table.publish_failed.notify_one());
        Ok(self.blocking(published).await??)
    }

    fn publish_if_changed(&self) -> Result<Option<Replaced>, UnpublishedError> {
        let mut lock = self.publisher.lock()?;
        let after = self.publishable_mirrors()?;
        let opened = mb_index::open_newest_mirrors(&self.index_dir);
        let published = opened.index.map(|table| table.mirrors());
        // What the shards use is newer than a generation that was opened in place of a damaged one.
        if opened.refused.is_empty() && published.as_ref() == Some(&after) {
            return Ok(None);
        }
        lock.publish(None, &after)?;
        Ok(Some(Replaced { before: published.unwrap_or_default(), after }))
    }

    /// What is published of the mirrors in the store: a stand-in for each record that is invalid.
    fn publishable_mirrors(&self) -> Result<Vec<Mirror>, StoreError> {
        Ok(self.store.mirrors()?.iter().map(Mirror::publishable).collect())
    }

    /// Has `on_change` called for each change of a mirror in the store, whoever made it, until the watch is dropped.
    pub fn watch_store(&self, on_change: Box<dyn FnMut(Change) + Send>) -> ChangeWatch {
        self.store.watch_changes(on_change)
    }

    /// Whether an index of the source repository was ever published.
    ///
    /// # Errors
    /// The pointer to the newest index cannot be read.
    pub async fn has_files(self: &Arc<Self>) -> Result<bool, TableError> {
        let table = Arc::clone(self);
        let current =
            self.blocking(move || mb_index::read_current(&table.index_dir)).await?.map_err(OpenError::from)?;
        Ok(current.is_some_and(|current| current.files.is_some()))
    }

    /// Repeats failed publishes until they succeed; never returns.
    pub async fn keep_published(self: &Arc<Self>) {
        loop {
            self.publish_failed.notified().await;
            let mut pause = FIRST_RETRY_PAUSE;
            loop {
                tokio::time::sleep(pause).await;
                let table = Arc::clone(self);
                let published = self.blocking(move || table.publish()).await;
                match published.and_then(|published| Ok(published?)) {
                    Ok(()) => break tracing::info!("the mirror table is published again"),
                    Err(error) => tracing::warn!("{error}"),
                }
                pause = (pause * 2).min(LONGEST_RETRY_PAUSE);
            }
        }
    }
}
