//! Everything that is loaded and opened before the first connection is accepted.

use std::path::PathBuf;
use std::sync::Arc;

use mb_core::config::Config;
use mb_core::geo::{GeoDatabase, GeoError};
use mb_core::store::{self, ReopeningStore, Store, StoreError};

use super::{DaemonError, blocking};
use crate::control::index_watch::IndexWatch;
use crate::control::mirror_table::MirrorTable;
use crate::control::rpc;
use crate::handle::Settings;
use crate::pages::templates::{Loaded, Templates};
use crate::snapshot::Publication;

/// What the daemon works with.
pub(super) struct Prepared {
    pub(super) store: Arc<dyn Store>,
    pub(super) table: Arc<MirrorTable>,
    pub(super) watch: IndexWatch,
    pub(super) publication: Arc<Publication>,
    /// Geo databases that are not there: their absence is no news on a reload.
    pub(super) missing_geo: Vec<PathBuf>,
}

impl Prepared {
    /// Loads what `config` names, on threads that may block. May be cancelled.
    pub(super) async fn load(config: &Config) -> Result<Prepared, DaemonError> {
        let config = Arc::new(config.clone());
        let (templates, store) = blocking({
            let config = Arc::clone(&config);
            move || load_templates_and_store(&config)
        })
        .await??;
        let table = Arc::new(MirrorTable::new(Arc::clone(&store), &config.index_dir()));
        if let Err(error) = table.publish_changes().await {
            tracing::error!("{error}; the last mirror table is served");
        }
        let (watch, missing_geo) = blocking(move || open_index_and_geo(&config, templates)).await?;
        let publication = watch.publication().clone();
        Ok(Prepared { store, table, watch, publication, missing_geo })
    }
}

/// Blocks.
fn load_templates_and_store(config: &Config) -> Result<(Arc<Templates>, Arc<dyn Store>), DaemonError> {
    if !config.repository.is_dir() {
        tracing::error!(
            "Repository {}: is no folder; the last index is served until it is one",
            config.repository.display()
        );
    }
    let Loaded { templates, notices } = Templates::load(config.templates.as_deref())?;
    for notice in notices {
        tracing::warn!("{notice}");
    }
    Ok((templates, open_store(config)?))
}

/// Opens the index, to be served with the geo databases, and returns which of these could not be read. Blocks.
fn open_index_and_geo(config: &Config, templates: Arc<Templates>) -> (IndexWatch, Vec<PathBuf>) {
    let (geo, errors) = GeoDatabase::load(&config.geoip_database_path);
    for error in &errors {
        tracing::warn!("{error}");
    }
    let settings = Settings { templates, ..Settings::from(config) };
    let watch = IndexWatch::open(&config.index_dir(), Arc::new(settings), Arc::new(geo));
    (watch, missing(&errors))
}

/// The databases that could not be read, for whatever reason.
pub(super) fn missing(errors: &[GeoError]) -> Vec<PathBuf> {
    errors
        .iter()
        .map(|error| match error {
            GeoError::Unreadable { path, .. } | GeoError::Invalid { path, .. } => path.clone(),
        })
        .collect()
}

/// Opens the store. When that fails and there is an index, it is served all the same: commands fail with the reason until
/// the store is mended.
fn open_store(config: &Config) -> Result<Arc<dyn Store>, StoreError> {
    let has_index = || mb_index::read_current(&config.index_dir()).is_ok_and(|current| current.is_some());
    match store::open(config) {
        Err(error) if has_index() => {
            tracing::error!("{error}; the last index is served, and commands fail until this is mended");
            Ok(Arc::new(ReopeningStore::new(config.clone())))
        }
        opened => opened,
    }
}

/// Looks addresses up in the databases that requests are answered with.
pub(super) fn locate_by(publication: Arc<Publication>) -> rpc::Locate {
    Arc::new(move |address| {
        let snapshot = publication.load();
        let located = snapshot.geo.locate(address);
        (located.place(), located.autonomous_system())
    })
}
