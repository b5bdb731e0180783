//! Statistics: the hashes of Mirrorbits, one for each period.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;
use time::Date;

use super::connection::Session;
use super::failure::Failure;
use super::keys;
use super::records::Fields;
use crate::mirror::MirrorId;
use crate::store::stats::{DateRange, FileDownloads, Period, StatsBatch, Traffic, periods};

/// The hashes that each period has.
const HASHES: [&str; 3] = [keys::STATS_FILE, keys::STATS_MIRROR, keys::STATS_MIRROR_BYTES];

/// How long a sequence number is kept after a node's last batch. A node's name is that of one process; a batch of it may be
/// sent again by a later process, which will not start after months.
const SEQUENCE_KEPT: Duration = Duration::from_secs(90 * 86_400);

/// Fields read by one step.
const SCAN_STEP: usize = 2_000;

/// Adds a batch. A key or field that takes no count, since another program has put something else there, hurts no other
/// count; the last such key is returned with whether the batch was added.
/// KEYS: sequence number, STATS_TOTAL. ARGV: sequence number, downloads, seconds to keep the sequence number; then for each day: three suffixes, number of files,
/// number of mirrors, path and downloads of each file, id, downloads and bytes of each mirror.
static ADD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local last = tonumber(redis.call('GET', KEYS[1]) or '0') or 0
        if last >= tonumber(ARGV[1]) then return {0, ''} end
        redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
        local refused = ''
        local function add(command, key, ...)
            if type(redis.pcall(command, key, ...)) == 'table' then refused = key end
        end
        add('INCRBY', KEYS[2], ARGV[2])
        local at = 4
        while at <= #ARGV do
            local suffixes = {'', ARGV[at], ARGV[at + 1], ARGV[at + 2]}
            local files, mirrors = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
            at = at + 5
            for _ = 1, files do
                for _, suffix in ipairs(suffixes) do
                    add('HINCRBY', 'STATS_FILE' .. suffix, ARGV[at], ARGV[at + 1])
                end
                at = at + 2
            end
            for _ = 1, mirrors do
                for _, suffix in ipairs(suffixes) do
                    add('HINCRBY', 'STATS_MIRROR' .. suffix, ARGV[at], ARGV[at + 1])
                    add('HINCRBY', 'STATS_MIRROR_BYTES' .. suffix, ARGV[at], ARGV[at + 2])
                end
                at = at + 3
            end
        end
        return {1, refused}",
    )
});

/// Adds a batch unless it was added before. Returns whether it was added.
pub(super) fn add(session: &mut Session, batch: &StatsBatch) -> Result<bool, Failure> {
    let mut script = ADD.key(keys::sequence(&batch.node));
    script.key(keys::STATS_TOTAL).arg(batch.sequence).arg(batch.downloads()).arg(SEQUENCE_KEPT.as_secs());
    for (day, counts) in &batch.days {
        let [day, month, year, _] = Period::containing(*day).map(Period::suffix);
        script.arg(year).arg(month).arg(day).arg(counts.files.len()).arg(counts.mirrors.len());
        for (path, downloads) in &counts.files {
            script.arg(path).arg(*downloads);
        }
        for (mirror, Traffic { requests, bytes }) in &counts.mirrors {
            script.arg(mirror.0).arg(*requests).arg(*bytes);
        }
    }
    let (added, refused): (bool, String) = session.run(&script)?;
    if !refused.is_empty() {
        super::warn_once(format!(
            "the key {refused} takes no counts: another program has put something else there; rename or remove it"
        ));
    }
    Ok(added)
}

/// The last batch of `node`.
pub(super) fn last_sequence(session: &mut Session, node: &str) -> Result<u64, Failure> {
    count(session, redis::cmd("GET").arg(keys::sequence(node)))
}

/// All downloads.
pub(super) fn total(session: &mut Session) -> Result<u64, Failure> {
    count(session, redis::cmd("GET").arg(keys::STATS_TOTAL))
}

fn count(session: &mut Session, command: &redis::Cmd) -> Result<u64, Failure> {
    Ok(number(&session.query::<Option<Vec<u8>>>(command)?.unwrap_or_default()))
}

/// Downloads of the wanted files.
pub(super) fn file_downloads(
    session: &mut Session,
    range: Option<DateRange>,
    wanted: &dyn Fn(&[u8]) -> bool,
) -> Result<BTreeMap<Vec<u8>, u64>, Failure> {
    let mut downloads = BTreeMap::new();
    for period in periods(range) {
        for (path, requests) in files_of(session, period, wanted)? {
            let sum: &mut u64 = downloads.entry(path).or_default();
            *sum = sum.saturating_add(requests);
        }
    }
    Ok(downloads)
}

/// Downloads of the wanted files in one period.
pub(super) fn files_of(
    session: &mut Session,
    period: Period,
    wanted: &dyn Fn(&[u8]) -> bool,
) -> Result<HashMap<Vec<u8>, u64>, Failure> {
    // A field may come more than once, so the parts are not just added up.
    let mut files = HashMap::new();
    session
        .scan("HSCAN", keys::stats(keys::STATS_FILE, period), SCAN_STEP, &mut |part: Vec<(Vec<u8>, Vec<u8>)>| {
            for (path, requests) in part {
                let requests = number(&requests);
                if requests > 0 && wanted(&path) {
                    files.insert(path, requests);
                }
            }
        })
        .map_err(|failure| failure.about_key(keys::stats(keys::STATS_FILE, period).as_bytes(), "hash"))?;
    Ok(files)
}

/// Downloads of one file.
pub(super) fn downloads_of_file(session: &mut Session, path: &[u8], day: Date) -> Result<FileDownloads, Failure> {
    let mut pipeline = redis::pipe();
    for period in Period::containing(day) {
        pipeline.cmd("HGET").arg(keys::stats(keys::STATS_FILE, period)).arg(path);
    }
    let counts: Vec<Option<Vec<u8>>> = session.query_all(&pipeline)?;
    let mut counts = counts.into_iter().map(|count| number(&count.unwrap_or_default()));
    let mut next = || counts.next().unwrap_or_default();
    Ok(FileDownloads { day: next(), month: next(), year: next(), all_time: next() })
}

/// Downloads of one file in one period.
pub(super) fn downloads_in(session: &mut Session, path: &[u8], period: Period) -> Result<u64, Failure> {
    count(session, redis::cmd("HGET").arg(keys::stats(keys::STATS_FILE, period)).arg(path))
}

/// Every period that has counts.
pub(super) fn all_periods(session: &mut Session) -> Result<BTreeSet<Period>, Failure> {
    let mut periods = BTreeSet::new();
    session.scan_keys("STATS_*", &mut |key| {
        periods.extend(HASHES.into_iter().filter_map(|hash| Period::from_suffix(key.strip_prefix(hash)?)));
    })?;
    Ok(periods)
}

/// Forgets what was counted in one period. Returns how many periods that were, which is 1.
pub(super) fn drop_counts(session: &mut Session, period: Period) -> Result<usize, Failure> {
    let hashes = HASHES.map(|hash| keys::stats(hash, period));
    session.query::<i64>(redis::cmd("UNLINK").arg(&hashes))?;
    Ok(1)
}

/// Traffic of all mirrors.
pub(super) fn mirror_traffic(
    session: &mut Session,
    range: Option<DateRange>,
) -> Result<BTreeMap<MirrorId, Traffic>, Failure> {
    let mut traffic: BTreeMap<MirrorId, Traffic> = BTreeMap::new();
    for period in periods(range) {
        for (mirror, counted) in mirrors_of(session, period)? {
            traffic.entry(mirror).or_default().add(counted);
        }
    }
    Ok(traffic)
}

/// Traffic of all mirrors in one period.
pub(super) fn mirrors_of(session: &mut Session, period: Period) -> Result<BTreeMap<MirrorId, Traffic>, Failure> {
    let mut pipeline = redis::pipe();
    pipeline.cmd("HGETALL").arg(keys::stats(keys::STATS_MIRROR, period));
    pipeline.cmd("HGETALL").arg(keys::stats(keys::STATS_MIRROR_BYTES, period));
    let (requests, bytes): (Fields, Fields) = session.query_all(&pipeline)?;
    let mut traffic: BTreeMap<MirrorId, Traffic> = BTreeMap::new();
    for (id, count) in requests {
        if let Some(id) = mirror_id(&id) {
            traffic.entry(id).or_default().requests = number(&count);
        }
    }
    for (id, count) in bytes {
        if let Some(id) = mirror_id(&id) {
            traffic.entry(id).or_default().bytes = number(&count);
        }
    }
    traffic.retain(|_, traffic| *traffic != Traffic::default());
    Ok(traffic)
}

fn mirror_id(text: &[u8]) -> Option<MirrorId> {
    std::str::from_utf8(text).ok()?.parse().ok().map(MirrorId)
}

/// A count; 0 for what is none.
pub(super) fn number(text: &[u8]) -> u64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}
