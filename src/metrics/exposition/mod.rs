//! Facts as Prometheus reads them: the text format, version 0.0.4, that all of its versions understand.
//!
//! `family` makes families of samples; here is which there are. `docs/metrics.md` says the same for people, and a test
//! holds the two together.

mod family;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use mb_core::link::{Activity, ScanActivity};
use mb_core::mirror::{DownloadProtocol, Mirror, MirrorId};
use mb_core::time::Timestamp;
use prometheus::{Result, TextEncoder};

use self::family::{Families, Labels};
use super::facts::{Facts, IndexerAnswer, StoreState};
use super::tally::Given;
use crate::handle::outcome::Kind;
use crate::http::response::Status;
use crate::select::TableMirror;

/// The type of the page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of the duration histogram, in seconds: where a request takes microseconds, these are what tells a full
/// cache from an empty one, and a busy core from a stopped one.
const DURATION_BOUNDS: [f64; 16] = [
    0.000_001,
    0.000_002_5,
    0.000_005,
    0.000_01,
    0.000_025,
    0.000_05,
    0.000_1,
    0.000_25,
    0.000_5,
    0.001,
    0.002_5,
    0.005,
    0.01,
    0.05,
    0.25,
    1.0,
];
/// Quantiles of recent durations.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];
/// Answers that are shown before the first of them was given, so that their rate is known from the first one on.
const SHOWN_AT_ZERO: [(Kind, Status); 4] = [
    (Kind::Redirect, Status::Found),
    (Kind::Refusal, Status::NotFound),
    (Kind::Refusal, Status::InternalServerError),
    (Kind::Refusal, Status::ServiceUnavailable),
];

/// The thread and the part of the program that are shown before they panicked, so that the families are there.
const SHOWN_THREAD: &str = "main";
const SHOWN_PART: &str = "statistics";

/// A time that a mirror's record has.
type TimeOf = fn(&Mirror) -> Timestamp;

/// The page of metrics.
///
/// # Errors
/// A family without a sample or without a name, of which there is none.
pub fn page(facts: &Facts<'_>) -> Result<String> {
    let mut families = Families::default();
    program(&mut families, facts);
    requests(&mut families, facts);
    shards(&mut families, facts);
    index(&mut families, facts);
    mirrors(&mut families, facts);
    indexer(&mut families, facts);
    store(&mut families, facts);
    statistics(&mut families, facts);
    geo(&mut families, facts);
    TextEncoder::new().encode_to_string(&families.into_families())
}

fn program(families: &mut Families, facts: &Facts<'_>) {
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    families.gauge("mirrorbits_build_info", "The program's version; always 1.", [(version, 1.0)]);
    families.gauge(
        "mirrorbits_start_time_seconds",
        "When the daemon was started, in Unix time.",
        alone(facts.started.0 as f64),
    );
    families.gauge(
        "mirrorbits_ready",
        "Whether an index is loaded, as /readyz tells.",
        alone(f64::from(u8::from(facts.snapshot.files.is_some()))),
    );
    families.counter(
        "mirrorbits_thread_panics_total",
        "Panics of the program, by the name of the thread.",
        counts("thread", SHOWN_THREAD, &facts.panics),
    );
    families.counter(
        "mirrorbits_part_restarts_total",
        "How often a part of the program was started again after a panic.",
        counts("part", SHOWN_PART, &facts.restarts),
    );
    families.gauge(
        "mirrorbits_part_busy_seconds",
        "For how long a part of the program has been at its current piece of work; 0 while it waits for one.",
        facts.busy.iter().map(|(part, time)| (vec![("part", (*part).to_owned())], time.as_secs_f64())),
    );
    families.counter(
        "mirrorbits_log_dropped_lines_total",
        "Lines of the daemon's own log that were dropped.",
        alone(facts.dropped_log_lines as f64),
    );
}

/// Numbers by name, with that of `shown` also before there was one, so that its rate is known from the first on.
fn counts<'a>(
    label: &'static str,
    shown: &'static str,
    counts: &'a BTreeMap<String, u64>,
) -> impl Iterator<Item = (Labels, f64)> + 'a {
    let first = (!counts.contains_key(shown)).then(|| (vec![(label, shown.to_owned())], 0.0));
    first.into_iter().chain(counts.iter().map(move |(name, count)| (vec![(label, name.clone())], *count as f64)))
}

fn requests(families: &mut Families, facts: &Facts<'_>) {
    let totals = facts.totals;
    let answers = Kind::ALL.into_iter().flat_map(|kind| Status::ALL.into_iter().map(move |status| (kind, status)));
    let answers = answers.map(|(kind, status)| (kind, status, totals.answers[kind as usize][status as usize]));
    families.counter(
        "mirrorbits_requests_total",
        "Requests answered, by the kind of answer and its status.",
        answers.filter(|&(kind, status, count)| count > 0 || SHOWN_AT_ZERO.contains(&(kind, status))).map(
            |(kind, status, count)| {
                (vec![("kind", kind_name(kind).to_owned()), ("status", status.code().to_string())], count as f64)
            },
        ),
    );
    families.counter(
        "mirrorbits_fallback_answers_total",
        "Redirects and JSON documents that name fallbacks, since no mirror was left.",
        alone(totals.fallbacks as f64),
    );
    let given = |id: MirrorId| totals.mirrors.get(&id).copied().unwrap_or_default();
    let by_mirror = |value: fn(Given) -> u64| {
        let rows = facts.snapshot.mirrors.rows().iter();
        rows.map(move |row| (mirror_labels(row), value(given(row.mirror.id)) as f64))
    };
    families.counter(
        "mirrorbits_redirects_total",
        "Redirects to a mirror, of GET and HEAD.",
        by_mirror(|given| given.redirects),
    );
    families.counter(
        "mirrorbits_promised_bytes_total",
        "Sizes of the files that GET was redirected to a mirror for; each in full, also when a part is asked for.",
        by_mirror(|given| given.bytes),
    );
    families.histogram(
        "mirrorbits_request_duration_seconds",
        "From a request's last byte being read until its answer is with the kernel.",
        &totals.durations,
        totals.nanoseconds,
        &DURATION_BOUNDS,
    );
    families.summary(
        "mirrorbits_recent_request_duration_seconds",
        "Quantiles of the same over the last minute; sum and count since the start.",
        &facts.recent_durations,
        (totals.nanoseconds, totals.durations.len()),
        &QUANTILES,
    );
}

fn shards(families: &mut Families, facts: &Facts<'_>) {
    let shards = || facts.totals.shards.iter().enumerate().map(|(n, shard)| (vec![("shard", n.to_string())], shard));
    families.gauge(
        "mirrorbits_open_connections",
        "Connections of clients that are open.",
        shards().map(|(labels, shard)| (labels, shard.open as f64)),
    );
    families.counter(
        "mirrorbits_accepted_connections_total",
        "Connections of clients that were accepted.",
        shards().map(|(labels, shard)| (labels, shard.accepted as f64)),
    );
    families.counter(
        "mirrorbits_accept_errors_total",
        "Failures to accept a connection, such as for want of descriptors.",
        shards().map(|(labels, shard)| (labels, shard.accept_errors as f64)),
    );
    families.counter(
        "mirrorbits_connection_panics_total",
        "Connections closed because the program failed while it served them.",
        shards().map(|(labels, shard)| (labels, shard.panics as f64)),
    );
    families.gauge(
        "mirrorbits_connection_buffer_bytes",
        "Memory held by connections: requests that arrived in part, and answers that clients have not taken.",
        shards().map(|(labels, shard)| (labels, shard.held as f64)),
    );
    families.counter(
        "mirrorbits_connections_closed_for_memory_total",
        "Connections closed because all of the shard held more than ConnectionBuffersPerShard.",
        shards().map(|(labels, shard)| (labels, shard.closed_for_memory as f64)),
    );
    families.counter(
        "mirrorbits_connections_closed_for_room_total",
        "Idle or unfinished connections closed to make room for new ones.",
        shards().map(|(labels, shard)| (labels, shard.closed_for_room as f64)),
    );
    families.counter(
        "mirrorbits_shard_restarts_total",
        "Replacements of the shard because it ended by a failure of the program.",
        shards().map(|(labels, shard)| (labels, shard.restarts as f64)),
    );
    families.counter(
        "mirrorbits_shard_cpu_seconds_total",
        "Processor time of the shard's thread.",
        shards().map(|(labels, shard)| (labels, shard.processor_time.as_secs_f64())),
    );
}

fn index(families: &mut Families, facts: &Facts<'_>) {
    let snapshot = facts.snapshot;
    let files = snapshot.files.as_ref().map(|files| ("files", files.generation(), files.built()));
    let mirrors = snapshot.mirrors.generation().map(|published| ("mirrors", published.generation, published.at));
    let parts =
        || files.into_iter().chain(mirrors).map(|(part, number, at)| (vec![("part", part.to_owned())], number, at));
    families.gauge(
        "mirrorbits_index_generation",
        "Number of the generation that is in use.",
        parts().map(|(labels, number, _)| (labels, number as f64)),
    );
    families.gauge(
        "mirrorbits_index_build_timestamp_seconds",
        "When that generation was published, in Unix time.",
        parts().map(|(labels, _, at)| (labels, at.0 as f64)),
    );
    let files = || snapshot.files.iter();
    families.gauge(
        "mirrorbits_index_files",
        "Files that are known.",
        files().map(|files| (Labels::new(), files.len() as f64)),
    );
    families.gauge(
        "mirrorbits_index_mirrors",
        "Mirrors whose scans are in the index.",
        files().map(|files| (Labels::new(), files.mirror_count() as f64)),
    );
}

fn mirrors(families: &mut Families, facts: &Facts<'_>) {
    let rows = facts.snapshot.mirrors.rows();
    let of_state = |value: fn(&Mirror) -> f64| rows.iter().map(move |row| (mirror_labels(row), value(&row.mirror)));
    families.gauge(
        "mirrorbits_mirror_enabled",
        "Whether the mirror is enabled.",
        of_state(|mirror| f64::from(u8::from(mirror.state.enabled))),
    );
    let protocols = || {
        let offered = |row: &&TableMirror, protocol| row.scheme.offers(protocol);
        let of = move |protocol| rows.iter().filter(move |row| offered(row, protocol)).map(move |row| (row, protocol));
        of(DownloadProtocol::Http).chain(of(DownloadProtocol::Https))
    };
    families.gauge(
        "mirrorbits_mirror_up",
        "Whether the latest health check found the mirror up, for each protocol that it offers.",
        protocols().map(|(row, protocol)| {
            let up = row.mirror.state.health(protocol).up;
            (protocol_labels(row, protocol), f64::from(u8::from(up)))
        }),
    );
    families.gauge(
        "mirrorbits_mirror_down_info",
        "Why the mirror is down; always 1, and absent while it is up.",
        protocols().filter(|(row, protocol)| !row.mirror.state.health(*protocol).up).map(|(row, protocol)| {
            let mut labels = protocol_labels(row, protocol);
            labels.push(("reason", reason_class(&row.mirror.state.health(protocol).down_reason)));
            (labels, 1.0)
        }),
    );
    let times: [(&str, &str, TimeOf); 3] = [
        (
            "mirrorbits_mirror_state_change_timestamp_seconds",
            "When the mirror was last enabled, disabled, or changed between up and down, in Unix time.",
            |mirror| mirror.state.since,
        ),
        (
            "mirrorbits_mirror_last_scan_timestamp_seconds",
            "When the latest scan of the mirror began, in Unix time.",
            |mirror| mirror.state.last_sync,
        ),
        (
            "mirrorbits_mirror_last_successful_scan_timestamp_seconds",
            "When the latest scan of the mirror that was completed began, in Unix time.",
            |mirror| mirror.state.last_successful_sync,
        ),
    ];
    for (name, help, time) in times {
        let known = rows.iter().filter(|row| !time(&row.mirror).is_never());
        families.gauge(name, help, known.map(|row| (mirror_labels(row), time(&row.mirror).0 as f64)));
    }
}

fn indexer(families: &mut Families, facts: &Facts<'_>) {
    let (up, activity) = match &facts.indexer {
        IndexerAnswer::Told(activity) => (1.0, activity),
        IndexerAnswer::Silent { .. } => (0.0, &Activity::default()),
        IndexerAnswer::NotWanted => return,
    };
    families.gauge("mirrorbits_indexer_up", "Whether the indexer answers.", alone(up));
    let ends = [("ended", facts.indexer_ends.ended), ("silent", facts.indexer_ends.silent)];
    families.counter(
        "mirrorbits_indexer_restarts_total",
        "How often the indexer was started again, by why: it ended, or was killed since it did not answer.",
        ends.map(|(reason, count)| (vec![("reason", reason.to_owned())], count as f64)),
    );
    if up == 0.0 {
        return;
    }
    scans(families, &SOURCE_SCANS, &[(Labels::new(), &activity.source)]);
    let rows = facts.snapshot.mirrors.rows().iter();
    let scanned: Vec<_> =
        rows.filter_map(|row| Some((mirror_labels(row), activity.of_mirror(row.mirror.id)?))).collect();
    scans(families, &MIRROR_SCANS, &scanned);
    let results = [("up", activity.checks.up), ("down", activity.checks.down)];
    families.counter(
        "mirrorbits_health_checks_total",
        "Health checks, each of one mirror over one protocol, by what they found.",
        results.map(|(result, count)| (vec![("result", result.to_owned())], count as f64)),
    );
    families.counter(
        "mirrorbits_unstored_health_checks_total",
        "Health checks whose result could not be stored.",
        alone(activity.checks.unstored as f64),
    );
    families.counter(
        "mirrorbits_indexer_job_panics_total",
        "Scans, checks and other jobs of the indexer that a defect of the program ended.",
        alone(activity.job_panics as f64),
    );
}

/// The names of the families about scans of one sort: count, time, latest duration, files, end of the latest.
struct ScanNames([(&'static str, &'static str); 5]);

const SOURCE_SCANS: ScanNames = ScanNames([
    ("mirrorbits_source_scans_total", "Scans of the repository, by result."),
    ("mirrorbits_source_scan_seconds_total", "Time spent scanning the repository."),
    ("mirrorbits_source_scan_last_duration_seconds", "How long the latest completed scan of the repository took."),
    ("mirrorbits_source_scan_files", "Files that the latest completed scan of the repository found."),
    (
        "mirrorbits_source_scan_last_completed_timestamp_seconds",
        "When the latest completed scan of the repository ended, in Unix time.",
    ),
]);
const MIRROR_SCANS: ScanNames = ScanNames([
    ("mirrorbits_mirror_scans_total", "Scans of a mirror, by result."),
    ("mirrorbits_mirror_scan_seconds_total", "Time spent scanning a mirror."),
    ("mirrorbits_mirror_scan_last_duration_seconds", "How long the latest completed scan of a mirror took."),
    ("mirrorbits_mirror_scan_files", "Files that the latest completed scan of a mirror found."),
    (
        "mirrorbits_mirror_scan_last_completed_timestamp_seconds",
        "When the latest completed scan of a mirror by this node ended, in Unix time.",
    ),
]);

fn scans(families: &mut Families, names: &ScanNames, scans: &[(Labels, &ScanActivity)]) {
    let [count, time, last, files, completed] = names.0;
    let seconds = |milliseconds: u64| milliseconds as f64 / 1000.0;
    let results = |(labels, scan): &(Labels, &ScanActivity)| {
        [("completed", scan.completed), ("failed", scan.failed)].map(|(result, count)| {
            let mut labels = labels.clone();
            labels.push(("result", result.to_owned()));
            (labels, count as f64)
        })
    };
    families.counter(count.0, count.1, scans.iter().flat_map(results));
    families.counter(time.0, time.1, scans.iter().map(|(labels, scan)| (labels.clone(), seconds(scan.total_ms))));
    let known = || scans.iter().filter(|(_, scan)| scan.completed > 0);
    families.gauge(last.0, last.1, known().map(|(labels, scan)| (labels.clone(), seconds(scan.last_ms))));
    families.gauge(files.0, files.1, known().map(|(labels, scan)| (labels.clone(), scan.files as f64)));
    let ends = known().map(|(labels, scan)| (labels.clone(), scan.last_completed.0 as f64));
    families.gauge(completed.0, completed.1, ends);
}

fn store(families: &mut Families, facts: &Facts<'_>) {
    let (up, since) = match facts.store {
        StoreState::Unknown => return,
        StoreState::Up { since } => (1.0, since),
        StoreState::Down { since, .. } => (0.0, since),
    };
    families.gauge("mirrorbits_store_up", "Whether the database answered when it was last asked.", alone(up));
    families.gauge(
        "mirrorbits_store_state_change_timestamp_seconds",
        "Since when that is so, in Unix time.",
        alone(since.0 as f64),
    );
}

fn statistics(families: &mut Families, facts: &Facts<'_>) {
    let figures = facts.figures;
    let counters = [
        (
            "mirrorbits_delivered_downloads_total",
            "Downloads whose counts the database took.",
            &figures.delivered_downloads,
        ),
        (
            "mirrorbits_failed_deliveries_total",
            "Attempts to deliver counts to the database that failed.",
            &figures.failed_deliveries,
        ),
        ("mirrorbits_log_lines_total", "Lines of the download log that were written.", &figures.logged_lines),
        ("mirrorbits_dropped_log_lines_total", "Lines of the download log that were dropped.", &figures.dropped_lines),
    ];
    for (name, help, number) in counters {
        families.counter(name, help, alone(number.load(Ordering::Relaxed) as f64));
    }
    let gauges = [
        (
            "mirrorbits_spooled_downloads",
            "Downloads whose counts are on disk and wait for the database.",
            figures.spooled_downloads.load(Ordering::Relaxed),
        ),
        (
            "mirrorbits_waiting_downloads",
            "Downloads whose counts are in memory alone and wait for the database.",
            figures.waiting_downloads.load(Ordering::Relaxed),
        ),
        (
            "mirrorbits_spool_failed",
            "Whether counts that wait for the database cannot be written to disk.",
            u64::from(figures.spool_has_failed.load(Ordering::Relaxed)),
        ),
    ];
    for (name, help, number) in gauges {
        families.gauge(name, help, alone(number as f64));
    }
}

fn geo(families: &mut Families, facts: &Facts<'_>) {
    let databases: BTreeMap<_, _> = ["city", "asn"].into_iter().zip(facts.snapshot.geo.built()).collect();
    let labels = |database: &str| vec![("database", database.to_owned())];
    families.gauge(
        "mirrorbits_geo_database_loaded",
        "Whether the geo database is in use.",
        databases.iter().map(|(database, built)| (labels(database), f64::from(u8::from(built.is_some())))),
    );
    families.gauge(
        "mirrorbits_geo_database_build_timestamp_seconds",
        "When the geo database was built by its maker, in Unix time.",
        databases.iter().filter_map(|(database, built)| Some((labels(database), (*built)?.0 as f64))),
    );
}

fn alone(value: f64) -> [(Labels, f64); 1] {
    [(Labels::new(), value)]
}

/// The id tells mirrors apart whose names an outside tool made equal, or which are equal in what is shown of them.
fn mirror_labels(row: &TableMirror) -> Labels {
    vec![("mirror", family::bounded(&row.mirror.settings.name)), ("id", row.mirror.id.to_string())]
}

fn protocol_labels(row: &TableMirror, protocol: DownloadProtocol) -> Labels {
    let name = match protocol {
        DownloadProtocol::Http => "http",
        DownloadProtocol::Https => "https",
    };
    let mut labels = mirror_labels(row);
    labels.push(("protocol", name.to_owned()));
    labels
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Redirect => "redirect",
        Kind::Json => "json",
        Kind::MirrorList => "mirror_list",
        Kind::MirrorListPage => "mirror_list_page",
        Kind::MirrorStatistics => "mirror_statistics",
        Kind::Checksum => "checksum",
        Kind::FileStatistics => "file_statistics",
        Kind::NotModified => "not_modified",
        Kind::CleanPath => "clean_path",
        Kind::Options => "options",
        Kind::Refusal => "refusal",
    }
}

/// The reasons that health checks give, without the path that some of them name: each check asks for another file, and a
/// series for each would be kept for ever.
fn reason_class(reason: &str) -> String {
    const STATUS: &str = "Got status code ";
    match reason {
        "" => "not checked yet".to_owned(),
        "Unreachable" | "Unauthorized redirect" => reason.to_lowercase(),
        _ if reason.starts_with("File not found") => "file not found".to_owned(),
        _ => match reason.strip_prefix(STATUS).map(str::parse::<u16>) {
            Some(Ok(status @ 100..=999)) => format!("status {status}"),
            _ => "other".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_few() {
        let reasons = [
            ("File not found /a/b (error 404)", "file not found"),
            ("Got status code 503", "status 503"),
            ("Got status code 99999", "other"),
            ("Unreachable", "unreachable"),
            ("Unauthorized redirect", "unauthorized redirect"),
            ("", "not checked yet"),
            ("dial tcp 192.0.2.1: i/o timeout", "other"),
        ];
        for (reason, class) in reasons {
            assert_eq!(reason_class(reason), class);
        }
    }

    #[test]
    fn bounds_ascend() {
        assert!(DURATION_BOUNDS.is_sorted_by(|a, b| a < b));
    }
}
