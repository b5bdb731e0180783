//! Publishing: every request gets an index that holds what was stored before the request, and requests that come close
//! together share one build.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use mb_core::mirror::Mirror;
use mb_core::store::{Store, StoreError};
use mb_index::{Current, PublishError, Publisher};
use tokio::sync::Mutex;

use super::{BuildError, BuildSettings, build_files};
use crate::lock::{LockError, build_lock, wait_for_lock};
use crate::scan::results::{ResultsError, ScanResults};

/// Why nothing was published; the index in use stays.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublicationError {
    /// The index could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The mirrors could not be read.
    #[error("publishing the index: {0}")]
    Store(#[from] StoreError),
    /// The scan results could not be read.
    #[error("publishing the index: {0}")]
    Results(#[from] ResultsError),
    /// Another process could not be waited for.
    #[error("publishing the index: {0}")]
    Lock(#[from] LockError),
    /// The files could not be written.
    #[error("publishing the index: {0}")]
    Publish(#[from] PublishError),
    /// The work was stopped.
    #[error("publishing the index was interrupted")]
    Interrupted,
}

/// Work whose results are the same for all who ask for it while it waits to start: one run serves them all.
#[derive(Debug, Default)]
struct Coalesced {
    requested: AtomicU64,
    /// Requests, counted from the first, that are served.
    served: Mutex<u64>,
}

impl Coalesced {
    /// Counts a request and returns its number.
    fn request(&self) -> u64 {
        self.requested.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Waits until request `number` is served, by running `work` on a blocking thread unless a run of another caller that
    /// started after the request did it.
    async fn serve<W>(&self, number: u64, work: W) -> Result<(), PublicationError>
    where
        W: FnOnce() -> Result<Current, PublicationError> + Send + 'static,
    {
        let mut served = self.served.lock().await;
        if *served >= number {
            return Ok(());
        }
        let upto = self.requested.load(Ordering::SeqCst);
        tokio::task::spawn_blocking(work).await.map_err(|_| PublicationError::Interrupted)??;
        *served = upto;
        Ok(())
    }
}

/// Where the index is published and what it is built from.
pub(crate) struct Publication {
    state_dir: PathBuf,
    index_dir: PathBuf,
    store: Arc<dyn Store>,
    results: Arc<ScanResults>,
    files: Coalesced,
    mirrors: Coalesced,
}

impl Publication {
    /// Publishes into `index_dir`, under locks in `state_dir`.
    pub(crate) fn new(
        state_dir: PathBuf,
        index_dir: PathBuf,
        store: Arc<dyn Store>,
        results: Arc<ScanResults>,
    ) -> Publication {
        let (files, mirrors) = (Coalesced::default(), Coalesced::default());
        Publication { state_dir, index_dir, store, results, files, mirrors }
    }

    /// Builds and publishes the whole index from what is stored now.
    pub(crate) async fn publish_files(self: &Arc<Self>, settings: BuildSettings) -> Result<(), PublicationError> {
        let this = Arc::clone(self);
        self.files.serve(self.files.request(), move || this.build_and_publish(&settings)).await
    }

    /// Whether the index holds at least what was stored when this process started. Until it has published once that is not
    /// known: a process before it may have ended between storing and publishing, or found the disk full.
    pub(crate) async fn published_by_this_process(&self) -> bool {
        *self.files.served.lock().await > 0
    }

    /// Publishes the mirror table from what is stored now.
    pub(crate) async fn publish_mirrors(self: &Arc<Self>) -> Result<(), PublicationError> {
        let this = Arc::clone(self);
        self.mirrors.serve(self.mirrors.request(), move || this.publish_mirror_table()).await
    }

    /// Publishes again what earlier requests failed to.
    pub(crate) async fn catch_up(self: &Arc<Self>, settings: BuildSettings) -> Result<(), PublicationError> {
        let (files, mirrors) = (Arc::clone(self), Arc::clone(self));
        let number = self.files.requested.load(Ordering::SeqCst);
        self.files.serve(number, move || files.build_and_publish(&settings)).await?;
        let number = self.mirrors.requested.load(Ordering::SeqCst);
        self.mirrors.serve(number, move || mirrors.publish_mirror_table()).await
    }

    /// As [`Publication::publish_files`], on the calling thread.
    pub(crate) fn build_and_publish(&self, settings: &BuildSettings) -> Result<Current, PublicationError> {
        let _build = wait_for_lock(&build_lock(&self.state_dir))?;
        let started = Instant::now();
        let mirrors = || Ok::<_, PublicationError>(self.store.mirrors()?.iter().map(|mirror| mirror.id).collect());
        self.results.forget_removed(mirrors)?;
        let snapshot = self.results.snapshot()?;
        let files = build_files(&*self.store, &snapshot, &self.store.mirrors()?, settings)?;
        drop(snapshot);
        let built_in = started.elapsed();
        let mut publishing = Publisher::new(&self.index_dir).lock()?;
        let current = publishing.publish(Some(&files), &self.publishable_mirrors()?)?;
        tracing::info!(
            generation = current.files,
            build_ms = built_in.as_millis() as u64,
            publish_ms = (started.elapsed() - built_in).as_millis() as u64,
            "index published"
        );
        Ok(current)
    }

    fn publish_mirror_table(&self) -> Result<Current, PublicationError> {
        let mut publishing = Publisher::new(&self.index_dir).lock()?;
        Ok(publishing.publish(None, &self.publishable_mirrors()?)?)
    }

    /// What is published of the mirrors in the store: a stand-in for each record that is invalid.
    fn publishable_mirrors(&self) -> Result<Vec<Mirror>, StoreError> {
        Ok(self.store.mirrors()?.iter().map(Mirror::publishable).collect())
    }
}
