//! The methods of the RPC service.

use std::sync::Arc;

use mb_core::config::StatsRetention;
use mb_core::link::{Request as LinkRequest, ScanReport};
use mb_core::mirror::{Found, InvalidMirror, Mirror, MirrorId, ScanProtocol, find_by_name};
use mb_core::secret::Secret;
use mb_core::store::{LOG_ENTRIES_KEPT, LogEntry, LogEvent, MirrorEdit, Store, StoreError};
use mb_core::time::Timestamp;
use time::OffsetDateTime;
use tokio::sync::watch;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::locate::{self, Locate};
use super::password::PasswordCheck;
use super::proto::scan_mirror_request::Method;
use super::proto::{self, cli_server::Cli};
use super::settings;
use super::{batch, downloads, explained, wire};
use crate::control::indexer::{IndexerLink, LinkError};
use crate::control::mirror_fields;
use crate::control::mirror_table::{MirrorTable, TableError};
use crate::control::orders::{self, Orders, Task};
use crate::control::retention::prune;
use crate::snapshot::Publication;

/// The metadata key of what an operator should know about a reload or an upgrade that was done. Values are UTF-8.
pub const NOTICE_KEY: &str = "notice-bin";

type Answer<T> = Result<Response<T>, Status>;

/// What the methods work on.
pub struct Parts {
    /// Changes mirrors and publishes them.
    pub table: Arc<MirrorTable>,
    /// Scans.
    pub indexer: IndexerLink,
    /// Finds the place of mirrors.
    pub locate: Locate,
    /// What requests are answered from.
    pub publication: Arc<Publication>,
    /// Reloads and upgrades.
    pub orders: Orders,
    /// How long statistics are kept, as it is now.
    pub retention: watch::Receiver<StatsRetention>,
}

/// The methods. Copies are the same service.
#[derive(Clone)]
pub struct Service {
    parts: Arc<Parts>,
    check: PasswordCheck,
}

impl Service {
    /// A service on `parts` that asks for `password`.
    pub fn new(parts: Parts, password: Secret) -> Service {
        Service { parts: Arc::new(parts), check: PasswordCheck::new(password) }
    }

    /// The password that calls must carry, which can be changed.
    pub fn password_check(&self) -> PasswordCheck {
        self.check.clone()
    }

    pub(super) fn mirror_table(&self) -> Arc<MirrorTable> {
        Arc::clone(&self.parts.table)
    }

    async fn mirrors(&self) -> Result<Vec<Mirror>, Status> {
        self.parts.table.read(|store| store.mirrors()).await.map_err(table_status)
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
        let (id, changed) = self.parts.table.change(change).await.map_err(table_status)?;
        self.parts.indexer.mirrors_changed(vec![id]).await;
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
        let warnings = locate::fill_in(&mut settings, &self.parts.locate).await;
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
                // A record that could not be read is written also when what was read of it stays.
                if new.settings != old.settings || old.invalid().is_some() {
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

    async fn apply_mirrors(
        &self,
        request: Request<Streaming<proto::ApplyMirrorsRequest>>,
    ) -> Answer<proto::ApplyMirrorsReply> {
        let mut edits = batch::receive(request.into_inner()).await?;
        let added = edits.iter_mut().filter_map(|edit| match edit {
            MirrorEdit::Add { settings, .. } => Some(settings),
            MirrorEdit::Update { .. } | MirrorEdit::Remove(_) => None,
        });
        let warnings = locate::fill_in_all(added.collect(), &self.parts.locate).await;
        if !edits.is_empty() {
            let apply = move |store: &dyn Store| store.apply_mirrors(&edits, Timestamp::now());
            let ids = self.parts.table.change(apply).await.map_err(table_status)?;
            self.parts.indexer.mirrors_changed(ids).await;
        }
        Ok(Response::new(proto::ApplyMirrorsReply { warnings }))
    }

    async fn refresh_repository(&self, request: Request<proto::RefreshRepositoryRequest>) -> Answer<()> {
        let proto::RefreshRepositoryRequest { rehash, force } = request.into_inner();
        self.parts.indexer.run(&LinkRequest::ScanSource { rehash, force }).await.map_err(link_status)?;
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
        // One that was published a moment ago may not be in use yet.
        if self.parts.publication.load().files.is_none() && !self.parts.table.has_files().await.map_err(table_status)? {
            return Err(Status::failed_precondition(
                "the repository was not scanned yet: run `mirrorbits refresh` first",
            ));
        }
        let scan = LinkRequest::ScanMirror { id: mirror.id, enable: message.auto_enable, protocol };
        let report: ScanReport = self.parts.indexer.run(&scan).await.map_err(link_status)?.scan.unwrap_or_default();
        Ok(Response::new(proto::ScanMirrorReply {
            enabled: report.enabled,
            files_indexed: count_to_wire(report.files_indexed),
            known_indexed: count_to_wire(report.known_indexed),
            removed: count_to_wire(report.removed),
            tz_offset_ms: report.timezone_offset_ms,
        }))
    }

    async fn match_mirror(&self, request: Request<proto::MatchRequest>) -> Answer<proto::MatchReply> {
        let mirrors = self.mirrors().await?;
        let fitting = match find_by_name(&mirrors, |mirror| &mirror.settings.name, &request.into_inner().pattern) {
            Found::None => Vec::new(),
            Found::One(mirror) => vec![mirror],
            Found::Several(mirrors) => mirrors,
        };
        let to_wire =
            |mirror: &Mirror| proto::MirrorId { id: wire::id_to_wire(mirror.id), name: mirror.settings.name.clone() };
        Ok(Response::new(proto::MatchReply { mirrors: fitting.into_iter().map(to_wire).collect() }))
    }

    async fn get_mirror_logs(
        &self,
        request: Request<proto::GetMirrorLogsRequest>,
    ) -> Answer<proto::GetMirrorLogsReply> {
        let proto::GetMirrorLogsRequest { id, max_results } = request.into_inner();
        let id = self.mirror(id).await?.id;
        let limit = usize::try_from(max_results).ok().filter(|&limit| limit > 0).unwrap_or(LOG_ENTRIES_KEPT);
        let entries = self.parts.table.read(move |store| store.mirror_log(id, limit)).await.map_err(table_status)?;
        Ok(Response::new(proto::GetMirrorLogsReply { line: entries.iter().map(ToString::to_string).collect() }))
    }

    async fn upgrade(&self, _: Request<()>) -> Answer<()> {
        done(self.parts.orders.give(Task::Upgrade).await)
    }

    async fn reload(&self, _: Request<()>) -> Answer<()> {
        done(self.parts.orders.give(Task::Reload).await)
    }

    async fn geo_update_mirror(&self, request: Request<proto::MirrorIdRequest>) -> Answer<proto::GeoUpdateMirrorReply> {
        let old = self.mirror(request.into_inner().id).await?;
        let mut new = old.clone();
        let warnings = locate::update(&mut new.settings, &self.parts.locate).await;
        let diff = mirror_fields::difference(&old, &new);
        Ok(Response::new(proto::GeoUpdateMirrorReply { mirror: Some(wire::mirror_to_wire(&new)), diff, warnings }))
    }

    async fn explain(&self, request: Request<proto::ExplainRequest>) -> Answer<proto::ExplainReply> {
        let caller = request.remote_addr().map(|address| address.ip());
        let snapshot = self.parts.publication.load();
        explained::answer(request.get_ref(), caller, &snapshot).map(Response::new)
    }

    async fn stats_file(&self, request: Request<proto::StatsFileRequest>) -> Answer<proto::StatsFileReply> {
        let proto::StatsFileRequest { pattern, date_start, date_end } = request.into_inner();
        let range = downloads::days(date_start, date_end, OffsetDateTime::now_utc())?;
        let pattern = downloads::pattern(&pattern)?;
        let read = move |store: &dyn Store| store.file_downloads(Some(range), &|path| pattern.is_match(path));
        let downloads = self.parts.table.read(read).await.map_err(table_status)?;
        let to_wire =
            |(path, count): (Vec<u8>, u64)| (String::from_utf8_lossy(&path).into_owned(), count_to_wire(count));
        Ok(Response::new(proto::StatsFileReply { files: downloads.into_iter().map(to_wire).collect() }))
    }

    async fn prune_stats(&self, _: Request<()>) -> Answer<proto::PruneStatsReply> {
        let retention = *self.parts.retention.borrow();
        if retention == StatsRetention::default() {
            return Err(Status::failed_precondition(
                "StatsRetention is empty, so that statistics are kept for ever: set it, and reload the daemon",
            ));
        }
        let dropped = prune(&self.parts.table, retention).await.map_err(table_status)?;
        Ok(Response::new(proto::PruneStatsReply { dropped: i64::try_from(dropped).unwrap_or(i64::MAX) }))
    }

    async fn stats_mirror(&self, request: Request<proto::StatsMirrorRequest>) -> Answer<proto::StatsMirrorReply> {
        let proto::StatsMirrorRequest { id, date_start, date_end } = request.into_inner();
        let mirror = self.mirror(id).await?;
        let range = downloads::days(date_start, date_end, OffsetDateTime::now_utc())?;
        let read = move |store: &dyn Store| store.mirror_traffic(Some(range));
        let traffic = self.parts.table.read(read).await.map_err(table_status)?;
        let traffic = traffic.get(&mirror.id).copied().unwrap_or_default();
        Ok(Response::new(proto::StatsMirrorReply {
            mirror: Some(wire::mirror_to_wire(&mirror)),
            requests: count_to_wire(traffic.requests),
            bytes: count_to_wire(traffic.bytes),
        }))
    }
}

/// A count on the wire; saturates.
fn count_to_wire(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
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

/// The daemon's answer to an order. What the operator should know travels as metadata, since the reply is empty.
fn done(answer: orders::Answer) -> Answer<()> {
    let notices = answer.map_err(Status::failed_precondition)?;
    let mut response = Response::new(());
    for notice in notices {
        let notice = MetadataValue::from_bytes(notice.as_bytes());
        response.metadata_mut().append_bin(NOTICE_KEY, notice);
    }
    Ok(response)
}

fn settings_status(error: InvalidMirror) -> Status {
    Status::invalid_argument(error.to_string())
}

fn table_status(error: TableError) -> Status {
    match error {
        TableError::Store(StoreError::UnknownMirror(_)) => invalid_id(),
        TableError::Store(StoreError::NameTaken) => name_taken(),
        TableError::Store(error @ StoreError::Batch { .. }) => Status::failed_precondition(error.to_string()),
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
