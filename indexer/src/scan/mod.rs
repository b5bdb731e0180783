//! Scanning a mirror: list its files, compare them with the source, store the result in one step, publish.
//!
//! A scan that fails leaves the mirror's earlier result as it was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mb_core::foreign_text::ForeignText;
use mb_core::link::ScanReport;
use mb_core::mirror::{DownloadProtocol, Mirror, MirrorId, ScanProtocol, UrlScheme, absolute_url};
use mb_core::secret::WithoutPassword;
use mb_core::store::{LeaseName, LogEvent, StoreError, SyncRecord};
use mb_core::time::Timestamp;
use mb_index::{Entry, FileIndex};

use self::limits::{LimitReached, ListingBudget, ListingLimits};
use self::listing::Listing;
use self::place::ScanPlace;
use self::results::{ResultsError, ScanFacts};
use self::rsync::{RsyncError, RsyncUrl, UrlError};
use self::timezone::{CommonFile, SAMPLE, detect_offset};
use crate::build::publication::PublicationError;
use crate::indexer::{Indexer, ScheduleError};
use crate::job_panics::{self, JobPanicked};
use crate::monitor;
use crate::progress::Progress;
use crate::turn::{Other, TurnError};

mod limits;
pub(crate) mod listing;
pub(crate) mod place;
pub(crate) mod results;
pub(crate) mod rsync;
mod timezone;

/// rsync lists whole seconds.
const RSYNC_PRECISION_NS: u64 = 1_000_000_000;

/// Why a scan has no result in the index.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    /// The mirror is gone, or the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is not known who scanned the mirror.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Another job or node scans the mirror.
    #[error("mirror {mirror} is being scanned by {other}")]
    Busy {
        /// Its name.
        mirror: String,
        /// Who scans it.
        other: Other,
    },
    /// Another node scanned the mirror since the scan became due.
    #[error("mirror {0} was scanned by another node meanwhile")]
    ScannedMeanwhile(String),
    /// Nobody can tell whether another scans it.
    #[error("scanning mirror {mirror}: {cause}")]
    Turn {
        /// Its name.
        mirror: String,
        /// Why not.
        cause: TurnError,
    },
    /// There is nothing to compare with.
    #[error("the repository was not scanned yet: run `mirrorbits refresh` or `mb-indexer scan -source` first")]
    NoSource,
    /// The mirror has no URL for a protocol that is available.
    #[error("mirror {mirror} cannot be scanned: only rsync is available yet, {problem}")]
    NoProtocol {
        /// Its name.
        mirror: String,
        /// What is missing.
        problem: &'static str,
    },
    /// The mirror's URL is none.
    #[error("mirror {mirror} cannot be scanned: its RsyncURL {problem}")]
    Url {
        /// Its name.
        mirror: String,
        /// What is wrong with it.
        problem: UrlError,
    },
    /// A defect of this program.
    #[error("scanning mirror {mirror}: {cause}")]
    Panicked {
        /// Its name.
        mirror: String,
        /// What the panic said.
        cause: JobPanicked,
    },
    /// Listing failed.
    #[error(transparent)]
    Rsync(#[from] RsyncError),
    /// The result cannot be stored.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// The result is stored, and published when that works again.
    #[error("mirror {mirror} was scanned and the result is stored, but not yet in use: {cause}")]
    Publish {
        /// Its name.
        mirror: String,
        /// Why it is not published.
        cause: PublicationError,
    },
}

impl ScanError {
    /// Whether the scan took as long as the configuration allows, or was too slow for its place.
    pub(crate) fn took_too_long(&self) -> bool {
        matches!(self, ScanError::Rsync(RsyncError::Limit { reached: LimitReached::Time(_) | LimitReached::Pace, .. }))
    }
}

/// Which mirror to scan and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScanOrder {
    /// The mirror.
    pub(crate) mirror: MirrorId,
    /// Enable it when the scan succeeds.
    pub(crate) enable: bool,
    /// The only protocol to use.
    pub(crate) protocol: Option<ScanProtocol>,
    /// How long the scan may take, if less than the configuration allows.
    pub(crate) limit: Option<Duration>,
    /// Who wants it.
    pub(crate) occasion: Occasion,
}

/// Who wants a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// A person: another scan of the mirror is waited for.
    Asked,
    /// The schedule: another scan of the mirror, now or since the decision, makes this one needless.
    Due {
        /// The latest attempt at a scan that was known then.
        latest: Timestamp,
    },
}

/// Scans a mirror and publishes the result. A mirror that was never checked is checked, too, so that it can be used at
/// once. Dropping the future ends the scan.
///
/// `place`, among the scans that may run at a time, is given up when the result is stored: the next scan goes on while
/// this one is published, and one index serves several. A slow scan leaves it sooner.
pub(crate) async fn scan_mirror(
    indexer: &Arc<Indexer>,
    order: ScanOrder,
    progress: &Progress,
    place: ScanPlace,
) -> Result<ScanReport, ScanError> {
    let mirror = indexer.blocking(move |indexer| find_mirror(indexer, order.mirror)).await?;
    let name = LeaseName::MirrorScan(mirror.id);
    let failed = |cause| ScanError::Turn { mirror: mirror.settings.name.clone(), cause };
    let _turn = match order.occasion {
        Occasion::Asked => indexer.wait_for_turn(name, progress).await.map_err(failed)?,
        Occasion::Due { latest } => {
            let busy = |other| ScanError::Busy { mirror: mirror.settings.name.clone(), other };
            let turn = indexer.attempt_turn(name).await.map_err(failed)?.map_err(busy)?;
            if was_scanned_since(indexer, &mirror, latest).await? {
                return Err(ScanError::ScannedMeanwhile(mirror.settings.name));
            }
            turn
        }
    };
    let began = Instant::now();
    let scanned = match job_panics::catch(scan_locked(indexer, &mirror, order, progress, place)).await {
        Ok(scanned) => scanned,
        Err(cause) => {
            indexer.ledger.panic();
            Err(ScanError::Panicked { mirror: mirror.settings.name.clone(), cause })
        }
    };
    let files = scanned.as_ref().ok().map(|report| report.files_indexed);
    indexer.ledger.mirror_scan(mirror.id, began.elapsed(), files);
    match scanned {
        Ok(report) => Ok(report),
        Err(error) => {
            let text = error.to_string();
            indexer.blocking(move |indexer| indexer.log(mirror.id, LogEvent::Error(text))).await;
            Err(error)
        }
    }
}

/// Whether there was an attempt at a scan since `latest`, by any node. What another node found on the mirror is in use then.
async fn was_scanned_since(indexer: &Arc<Indexer>, mirror: &Mirror, latest: Timestamp) -> Result<bool, ScanError> {
    let (id, name) = (mirror.id, &mirror.settings.name);
    match indexer.blocking(move |indexer| indexer.sharing.catch_up(id)).await {
        Ok(false) => {}
        Ok(true) => {
            indexer.publish_files().await.map_err(|cause| ScanError::Publish { mirror: name.clone(), cause })?;
        }
        Err(error) => tracing::warn!(mirror = name, %error, "cannot see whether another node scanned it"),
    }
    let mirrors = indexer.blocking(Indexer::mirrors_to_schedule).await?;
    Ok(mirrors.iter().any(|mirror| mirror.id == id && mirror.state.last_sync > latest))
}

fn find_mirror(indexer: &Indexer, id: MirrorId) -> Result<Mirror, StoreError> {
    let mirrors = indexer.store.mirrors()?;
    let mirror = mirrors.into_iter().find(|mirror| mirror.id == id).ok_or(StoreError::UnknownMirror(id))?;
    match mirror.invalid() {
        None => Ok(mirror),
        Some(invalid) => {
            Err(StoreError::InvalidMirror { mirror: ForeignText::new(&mirror.settings.name).to_string(), invalid })
        }
    }
}

/// The URL to list, by the protocols that are available.
fn rsync_url(mirror: &Mirror, protocol: Option<ScanProtocol>) -> Result<RsyncUrl, ScanError> {
    let problem = |problem| ScanError::NoProtocol { mirror: mirror.settings.name.clone(), problem };
    match protocol {
        None | Some(ScanProtocol::Rsync) if mirror.settings.rsync_url.is_empty() => {
            Err(problem("and it has no RsyncURL"))
        }
        None | Some(ScanProtocol::Rsync) => RsyncUrl::parse(&mirror.settings.rsync_url)
            .map_err(|problem| ScanError::Url { mirror: mirror.settings.name.clone(), problem }),
        Some(ScanProtocol::Ftp) => Err(problem("not FTP")),
        Some(ScanProtocol::Http) => Err(problem("not HTTP")),
    }
}

async fn scan_locked(
    indexer: &Arc<Indexer>,
    mirror: &Mirror,
    order: ScanOrder,
    progress: &Progress,
    mut place: ScanPlace,
) -> Result<ScanReport, ScanError> {
    let (id, name) = (mirror.id, &mirror.settings.name);
    let url = rsync_url(mirror, order.protocol)?;
    let index = indexer.blocking(|indexer| indexer.published.files()).await.ok_or(ScanError::NoSource)?;
    let source_files = u64::try_from(index.len()).unwrap_or(u64::MAX);
    let budget = ListingBudget::new(ListingLimits::new(&indexer.config(), source_files, order.limit));
    let started = Timestamp::now();
    indexer
        .blocking(move |indexer| {
            indexer.store.record_sync_attempt(id, started)?;
            indexer.log(id, LogEvent::ScanStarted(ScanProtocol::Rsync));
            Ok::<_, StoreError>(())
        })
        .await?;
    tracing::info!(mirror = name, %url, "scan started");

    mb_core::fault::point("mirror-scan");
    let found = tokio::select! {
        found = rsync::list(&url, &budget, progress) => found?,
        reached = place.leave_if_slow(&budget) => return Err(RsyncError::Limit { url: url.to_string(), reached }.into()),
    };
    if let Some(warning) = &found.warning {
        tracing::warn!(mirror = name, warning, "partial listing");
    }
    if found.unparsable_lines > 0 {
        tracing::warn!(mirror = name, lines = found.unparsable_lines, "lines of the listing were not understood");
    }
    let last_mod_time = budget.in_time(fetch_trace(indexer, mirror)).await.unwrap_or_else(|reached| {
        tracing::warn!(mirror = name, %reached, "trace file not read");
        None
    });

    progress.report(format!("{} files listed, storing them", found.listing.len()));
    let (log_name, sync) = (
        name.clone(),
        SyncRecord {
            started,
            protocol: ScanProtocol::Rsync,
            precision_ns: RSYNC_PRECISION_NS,
            timezone_offset_ms: 0,
            last_mod_time,
        },
    );
    let listing = found.listing;
    let report = indexer
        .blocking(move |indexer| store_result(indexer, id, &log_name, sync, &index, &listing, order.enable))
        .await?;

    drop(place);

    progress.report("Publishing".to_owned());
    indexer.publish_files().await.map_err(|cause| ScanError::Publish { mirror: name.clone(), cause })?;
    tracing::info!(
        mirror = name,
        files = report.files_indexed,
        known = report.known_indexed,
        removed = report.removed,
        "scan completed"
    );
    if mirror.state.last_successful_sync.is_never() {
        progress.report("Checking whether the mirror answers".to_owned());
        monitor::check_mirror(indexer, id).await;
    }
    Ok(report)
}

fn store_result(
    indexer: &Indexer,
    mirror: MirrorId,
    name: &str,
    mut sync: SyncRecord,
    index: &FileIndex,
    listing: &Listing,
    enable: bool,
) -> Result<ScanReport, ScanError> {
    let (known_indexed, sample) = compare_with_source(index, listing);
    if indexer.config().fix_timezone_offsets {
        match detect_offset(&sample, sync.precision_ns) {
            Ok(offset) => sync.timezone_offset_ms = offset,
            Err(why) => tracing::warn!(mirror = name, %why, "time zone offset not determined, 0 is used"),
        }
    }
    let facts = ScanFacts {
        mirror,
        started: sync.started,
        protocol: sync.protocol,
        precision_ns: sync.precision_ns,
        timezone_offset_ms: sync.timezone_offset_ms,
    };
    let removed = indexer.results.replace(&facts, listing)?;
    // Before the record says that there is a new result.
    if indexer.shares_its_store()
        && let Err(error) = indexer.sharing.share(mirror)
    {
        tracing::warn!(mirror = name, %error, "the other nodes do not have the scan result yet, tried again");
    }
    indexer.store.record_sync(mirror, &sync)?;
    let report = ScanReport {
        enabled: enable,
        files_indexed: listing.len() as u64,
        known_indexed,
        removed,
        timezone_offset_ms: sync.timezone_offset_ms,
    };
    indexer.log(
        mirror,
        LogEvent::ScanCompleted {
            files_indexed: report.files_indexed,
            known_indexed,
            removed,
            timezone_offset_ms: report.timezone_offset_ms,
        },
    );
    if enable && indexer.store.set_enabled(mirror, true, Timestamp::now())? {
        indexer.log(mirror, LogEvent::Enabled);
    }
    Ok(report)
}

/// Counts the files that the source has, too, and draws a random sample of them.
fn compare_with_source(index: &FileIndex, listing: &Listing) -> (u64, Vec<CommonFile>) {
    let mut known = 0_u64;
    let mut sample = Vec::with_capacity(SAMPLE);
    for copy in listing.iter() {
        let Entry::File(source) = index.lookup(copy.path) else {
            continue;
        };
        let pair = CommonFile { source: (source.size(), source.modified()), copy: (copy.size, copy.modified) };
        if sample.len() < SAMPLE {
            sample.push(pair);
        } else {
            // Reservoir sampling: the n-th file replaces one of the sample with probability SAMPLE / n.
            let at = fastrand::u64(..=known);
            if let Some(place) = usize::try_from(at).ok().and_then(|at| sample.get_mut(at)) {
                *place = pair;
            }
        }
        known = known.saturating_add(1);
    }
    (known, sample)
}

/// The time in the mirror's trace file, if the configuration names one.
async fn fetch_trace(indexer: &Indexer, mirror: &Mirror) -> Option<Timestamp> {
    let config = indexer.config();
    let location = config.trace_file_location.trim_start_matches('/');
    let base = &mirror.settings.http_url;
    if location.is_empty() || base.is_empty() {
        return None;
    }
    let protocol = if UrlScheme::of(base).offers(DownloadProtocol::Http) {
        DownloadProtocol::Http
    } else {
        DownloadProtocol::Https
    };
    let url = format!("{}/{location}", absolute_url(base, protocol).trim_end_matches('/'));
    match indexer.http.trace(&url).await {
        Ok(seconds) => Some(Timestamp(seconds)),
        Err(error) => {
            let url = WithoutPassword(&url);
            tracing::warn!(mirror = mirror.settings.name, %url, %error, "trace file not read");
            None
        }
    }
}
