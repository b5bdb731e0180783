//! The methods of the RPC service.

use std::sync::Arc;

use mb_core::link::{Request as LinkRequest, ScanReport};
use mb_core::mirror::{Mirror, MirrorId, ScanProtocol};
use mb_core::store::{LOG_ENTRIES_KEPT, LogEntry, LogEvent, Store, StoreError};
use mb_core::time::Timestamp;
use tonic::{Request, Response, Status};

use super::locate::{self, Locate};
use super::password::PasswordCheck;
use super::proto::scan_mirror_request::Method;
use super::proto::{self, cli_server::Cli};
use super::settings::{self, SettingsError};
use super::{log_text, wire};
use crate::control::indexer::{IndexerLink, LinkError};
use crate::control::mirror_fields;
use crate::control::mirror_table::{MirrorTable, TableError};

type Answer<T> = Result<Response<T>, Status>;

/// What the methods work on.
pub struct Service {
    table: Arc<MirrorTable>,
    indexer: IndexerLink,
    locate: Locate,
    check: PasswordCheck,
}

impl Service {
    /// A service that changes mirrors through `table`, has scans done over `indexer`, finds the place of new mirrors by
    /// `locate` and asks for `password`.
    pub fn new(table: Arc<MirrorTable>, indexer: IndexerLink, locate: Locate, password: &[u8]) -> Service {
        Service { table, indexer, locate, check: PasswordCheck::new(password) }
    }

    pub(super) fn password_check(&self) -> PasswordCheck {
        self.check.clone()
    }

    pub(super) fn mirror_table(&self) -> Arc<MirrorTable> {
        Arc::clone(&self.table)
    }

    async fn mirrors(&self) -> Result<Vec<Mirror>, Status> {
        self.table.read(|store| store.mirrors()).await.map_err(table_status)
    }

    async fn mirror(&self, id: i32) -> Result<Mirror, Status> {
        let id = checked_id(id)?;
        let mut mirrors = self.mirrors().await?;
        let position = mirrors.iter().position(|mirror| mirror.id == id).ok_or_else(invalid_id)?;
        Ok(mirrors.swap_remove(position))
    }

    /// Changes the store, publishes, and lets the indexer know.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&dyn Store) -> Result<(MirrorId, T), StoreError> + Send + 'static,
    ) -> Result<T, Status> {
        let (id, changed) = self.table.change(change).await.map_err(table_status)?;
        self.indexer.mirrors_changed(id).await;
        Ok(changed)
    }
}

#[tonic::async_trait]
impl Cli for Service {
    async fn get_version(&self, _: Request<()>) -> Answer<proto::VersionReply> {
        Ok(Response::new(crate::control::version::version()))
    }

    async fn ping(&self, _: Request<()>) -> Answer<()> {
        Ok(Response::new(()))
    }

    async fn change_status(&self, request: Request<proto::ChangeStatusRequest>) -> Answer<()> {
        let proto::ChangeStatusRequest { id, enabled } = request.into_inner();
        let id = checked_id(id)?;
        self.change(move |store| {
            set_enabled(store, id, enabled)?;
            Ok((id, ()))
        })
        .await?;
        Ok(Response::new(()))
    }

    async fn list(&self, _: Request<()>) -> Answer<proto::MirrorListReply> {
        let mirrors = self.mirrors().await?.iter().map(wire::mirror_to_wire).collect();
        Ok(Response::new(proto::MirrorListReply { mirrors }))
    }

    async fn mirror_info(&self, request: Request<proto::MirrorIdRequest>) -> Answer<proto::Mirror> {
        let mirror = self.mirror(request.into_inner().id).await?;
        Ok(Response::new(wire::mirror_to_wire(&mirror)))
    }

    async fn add_mirror(&self, request: Request<proto::Mirror>) -> Answer<proto::AddMirrorReply> {
        let message = request.into_inner();
        if message.id != 0 {
            return Err(Status::invalid_argument("a new mirror has no id yet: leave it 0"));
        }
        let mut settings = settings::accept(wire::settings_from_wire(message)).map_err(settings_status)?;
        let name = settings.name.clone();
        if self.mirrors().await?.iter().any(|mirror| mirror.settings.name == name) {
            return Err(name_taken());
        }
        let warnings = locate::fill_in(&mut settings, &self.locate).await;
        let reply = proto::AddMirrorReply {
            latitude: settings.latitude,
            longitude: settings.longitude,
            country: settings.country_codes.clone(),
            continent: settings.continent_code.clone(),
            asn: if settings.asn == 0 { String::new() } else { settings.asn.to_string() },
            warnings,
        };
        self.change(move |store| {
            let id = store.add_mirror(&settings)?;
            log(store, id, LogEvent::Added);
            Ok((id, ()))
        })
        .await?;
        Ok(Response::new(reply))
    }

    async fn update_mirror(&self, request: Request<proto::Mirror>) -> Answer<proto::UpdateMirrorReply> {
        let message = request.into_inner();
        let id = checked_id(message.id)?;
        let enabled = message.enabled;
        let settings = settings::accept(wire::settings_from_wire(message)).map_err(settings_status)?;
        let diff = self
            .change(move |store| {
                let mirrors = store.mirrors()?;
                let old = mirrors.iter().find(|mirror| mirror.id == id).ok_or(StoreError::UnknownMirror(id))?;
                let mut new = Mirror { settings, ..old.clone() };
                if new.settings != old.settings {
                    store.update_settings(id, &new.settings)?;
                    log(store, id, LogEvent::Edited);
                }
                set_enabled(store, id, enabled)?;
                new.state.enabled = enabled;
                Ok((id, mirror_fields::difference(old, &new)))
            })
            .await?;
        Ok(Response::new(proto::UpdateMirrorReply { diff }))
    }

    async fn remove_mirror(&self, request: Request<proto::MirrorIdRequest>) -> Answer<()> {
        let id = checked_id(request.into_inner().id)?;
        self.change(move |store| {
            store.remove_mirror(id)?;
            Ok((id, ()))
        })
        .await?;
        Ok(Response::new(()))
    }

    async fn refresh_repository(&self, request: Request<proto::RefreshRepositoryRequest>) -> Answer<()> {
        let proto::RefreshRepositoryRequest { rehash, force } = request.into_inner();
        self.indexer.run(&LinkRequest::ScanSource { rehash, force }).await.map_err(link_status)?;
        Ok(Response::new(()))
    }

    async fn scan_mirror(&self, request: Request<proto::ScanMirrorRequest>) -> Answer<proto::ScanMirrorReply> {
        let message = request.into_inner();
        let protocol = match message.protocol() {
            Method::All => None,
            Method::Ftp => Some(ScanProtocol::Ftp),
            Method::Rsync => Some(ScanProtocol::Rsync),
            Method::Http => Some(ScanProtocol::Http),
        };
        let mirror = self.mirror(message.id).await?;
        if !self.table.has_files().map_err(|error| Status::internal(error.to_string()))? {
            return Err(Status::failed_precondition(
                "the repository was not scanned yet: run `mirrorbits refresh` first",
            ));
        }
        let scan = LinkRequest::ScanMirror { id: mirror.id, enable: message.auto_enable, protocol };
        let report: ScanReport = self.indexer.run(&scan).await.map_err(link_status)?.scan.unwrap_or_default();
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Ok(Response::new(proto::ScanMirrorReply {
            enabled: report.enabled,
            files_indexed: count(report.files_indexed),
            known_indexed: count(report.known_indexed),
            removed: count(report.removed),
            tz_offset_ms: report.timezone_offset_ms,
        }))
    }

    async fn match_mirror(&self, request: Request<proto::MatchRequest>) -> Answer<proto::MatchReply> {
        let pattern = request.into_inner().pattern.to_lowercase();
        let fits = |mirror: &Mirror| mirror.settings.name.to_lowercase().contains(&pattern);
        let mirrors = self.mirrors().await?.into_iter().filter(fits);
        let mirrors =
            mirrors.map(|mirror| proto::MirrorId { id: wire::id_to_wire(mirror.id), name: mirror.settings.name });
        Ok(Response::new(proto::MatchReply { mirrors: mirrors.collect() }))
    }

    async fn get_mirror_logs(
        &self,
        request: Request<proto::GetMirrorLogsRequest>,
    ) -> Answer<proto::GetMirrorLogsReply> {
        let proto::GetMirrorLogsRequest { id, max_results } = request.into_inner();
        let id = self.mirror(id).await?.id;
        let limit = usize::try_from(max_results).ok().filter(|&limit| limit > 0).unwrap_or(LOG_ENTRIES_KEPT);
        let entries = self.table.read(move |store| store.mirror_log(id, limit)).await.map_err(table_status)?;
        Ok(Response::new(proto::GetMirrorLogsReply { line: entries.iter().map(log_text::line).collect() }))
    }

    async fn upgrade(&self, _: Request<()>) -> Answer<()> {
        Err(not_offered("seamless upgrades: restart the daemon"))
    }

    async fn reload(&self, _: Request<()>) -> Answer<()> {
        Err(not_offered("reloading: restart the daemon"))
    }

    async fn geo_update_mirror(&self, _: Request<proto::MirrorIdRequest>) -> Answer<proto::GeoUpdateMirrorReply> {
        Err(not_offered("updates of a mirror's location: set it by `mirrorbits set`"))
    }

    async fn stats_file(&self, _: Request<proto::StatsFileRequest>) -> Answer<proto::StatsFileReply> {
        Err(not_offered("file statistics"))
    }

    async fn stats_mirror(&self, _: Request<proto::StatsMirrorRequest>) -> Answer<proto::StatsMirrorReply> {
        Err(not_offered("mirror statistics"))
    }
}

/// Enables or disables and logs it; does nothing when that is no change.
fn set_enabled(store: &dyn Store, id: MirrorId, enabled: bool) -> Result<(), StoreError> {
    if store.set_enabled(id, enabled, Timestamp::now())? {
        log(store, id, if enabled { LogEvent::Enabled } else { LogEvent::Disabled });
    }
    Ok(())
}

/// Appends to the mirror's log. The change that it tells of is made; an entry that cannot be written does not undo it.
fn log(store: &dyn Store, id: MirrorId, event: LogEvent) {
    if let Err(error) = store.append_log(&LogEntry { mirror: id, at: Timestamp::now(), event }) {
        tracing::warn!("the log of mirror {id} lacks an entry: {error}");
    }
}

fn checked_id(id: i32) -> Result<MirrorId, Status> {
    wire::id_from_wire(id).ok_or_else(invalid_id)
}

fn invalid_id() -> Status {
    Status::failed_precondition("invalid mirror id")
}

fn name_taken() -> Status {
    Status::already_exists("name already taken")
}

fn not_offered(what: &str) -> Status {
    Status::unimplemented(format!("this daemon does not offer {what}"))
}

fn settings_status(error: SettingsError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn table_status(error: TableError) -> Status {
    match error {
        TableError::Store(StoreError::UnknownMirror(_)) => invalid_id(),
        TableError::Store(StoreError::NameTaken) => name_taken(),
        error => {
            tracing::warn!("RPC: {error}");
            Status::internal(error.to_string())
        }
    }
}

fn link_status(error: LinkError) -> Status {
    match error {
        LinkError::NotRunning { .. } => Status::failed_precondition(error.to_string()),
        LinkError::Failed(reason) => Status::aborted(reason),
        error => Status::internal(error.to_string()),
    }
}
