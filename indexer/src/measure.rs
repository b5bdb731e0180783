//! Inputs at size, made without a repository and without mirrors, to measure what depends on their number alone. Run by
//! `examples/measure_build.rs`.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Instant;

use mb_core::mirror::{Mirror, MirrorId, MirrorSettings, MirrorState, ScanProtocol};
use mb_core::store::{EmbeddedStore, FileHashes, SourceChanges, SourceEntry, SourceEntryKind, Store};
use mb_core::time::{FileTime, Timestamp};
use mb_index::Publisher;
use xxhash_rust::xxh3::xxh3_64;

use crate::build::{BuildSettings, build_files};
use crate::scan::listing::Listing;
use crate::scan::results::{ScanFacts, ScanResults};

/// Files of one directory.
const FILES_PER_DIRECTORY: u32 = 25;
/// Of the parts of the repository, a mirror lacks one in this many.
const LACKING: u64 = 10;
/// Source entries stored at once.
const ENTRIES_AT_ONCE: u32 = 100_000;

/// How much is built.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Files of the repository.
    pub files: u32,
    /// Mirrors.
    pub mirrors: u32,
    /// Subtrees that the repository is cut into. With one all mirrors are complete, else each lacks a tenth of them.
    pub parts: u32,
    /// Mirrors, from the first, whose times are all off by a minute, so that each of their copies differs.
    pub late: u32,
    /// Whether a rule of `AllowOutdatedFiles` is for all files, so that each copy that differs is needed.
    pub has_rule: bool,
}

/// Builds and publishes an index of this size in `folder`, which is empty, and prints what it took.
///
/// # Errors
/// Whatever fails.
pub fn build(folder: &Path, size: Size) -> Result<(), Box<dyn std::error::Error>> {
    let Size { files, mirrors, parts, late, has_rule } = size;
    let files_per_part = files.div_ceil(parts.max(1)).max(1);
    let store = EmbeddedStore::open(folder)?;
    for start in (0..files).step_by(ENTRIES_AT_ONCE as usize) {
        let upserts = (start..files.min(start + ENTRIES_AT_ONCE)).map(|number| entry(number, files_per_part)).collect();
        store.apply_source_changes(&SourceChanges { upserts, removals: Vec::new() })?;
    }
    let records: Vec<Mirror> = (1..=mirrors).map(mirror).collect();
    let results = ScanResults::open(folder)?;
    for record in &records {
        results.replace(&facts(record.id), &listing(record.id, files, files_per_part, parts, late)?)?;
    }
    println!(
        "{files} files, {mirrors} mirrors, {parts} parts, {late} late: {} bytes of scan results",
        length(&folder.join("scans.sqlite"))?
    );

    // The kernel counts the peak anew from here on.
    fs::write("/proc/self/clear_refs", "5")?;
    let resident_before = resident("VmRSS:")?;
    let started = Instant::now();
    let outdated_prefixes = if has_rule { vec!["/".to_owned()] } else { Vec::new() };
    let model = build_files(&store, &results.snapshot()?, &records, &BuildSettings::new(true, outdated_prefixes))?;
    let built = started.elapsed();
    let current = Publisher::new(&folder.join("index")).lock()?.publish(Some(&model), &records)?;
    let published = started.elapsed() - built;
    let peak = resident("VmHWM:")?.saturating_sub(resident_before);
    let index = length(&folder.join("index").join(format!("files-{}", current.files.unwrap_or_default())))?;
    println!("build {built:?}, publish {published:?}");
    println!("index {index} bytes; the build took {peak} bytes at most, {:.2} times that", peak as f64 / index as f64);
    Ok(())
}

fn path(number: u32, files_per_part: u32) -> String {
    let part = number / files_per_part;
    format!("/pool/{part:04}/{:06}/package-{number:07}_1.0-1_amd64.deb", number / FILES_PER_DIRECTORY)
}

fn entry(number: u32, files_per_part: u32) -> SourceEntry {
    let hashes = FileHashes { sha256: Some([number as u8; 32]), ..FileHashes::default() };
    let (size, modified) = (u64::from(number), FileTime::from_seconds(i64::from(number)));
    SourceEntry {
        path: path(number, files_per_part).into_bytes(),
        kind: SourceEntryKind::File { size, modified, hashes },
    }
}

fn listing(
    mirror: MirrorId,
    files: u32,
    files_per_part: u32,
    parts: u32,
    late: u32,
) -> Result<Listing, Box<dyn std::error::Error>> {
    let lacks = |part: u32| {
        let place = u64::from(mirror.0) << 32 | u64::from(part);
        parts > 1 && xxh3_64(&place.to_le_bytes()).is_multiple_of(LACKING)
    };
    let mut listing = Listing::default();
    for number in (0..files).filter(|number| !lacks(number / files_per_part)) {
        let seconds = i64::from(number) + if mirror.0 <= late { 60 } else { 0 };
        let modified = Some(FileTime::from_seconds(seconds));
        listing.push(&path(number, files_per_part).as_bytes()[1..], u64::from(number), modified)?;
    }
    listing.sort();
    Ok(listing)
}

fn facts(mirror: MirrorId) -> ScanFacts {
    ScanFacts {
        mirror,
        started: Timestamp(1),
        protocol: ScanProtocol::Rsync,
        precision_ns: 1_000_000_000,
        timezone_offset_ms: 0,
    }
}

fn mirror(number: u32) -> Mirror {
    let name = format!("m{number}.example");
    let settings = MirrorSettings { http_url: format!("http://{name}/"), name, ..MirrorSettings::default() };
    Mirror { id: MirrorId(number), settings, state: MirrorState::default() }
}

fn length(path: &Path) -> io::Result<u64> {
    Ok(fs::metadata(path)?.len())
}

/// A figure of this process in bytes; 0 where the kernel does not give it.
fn resident(what: &str) -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kibibytes =
        status.lines().find_map(|line| line.strip_prefix(what)?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kibibytes.unwrap_or(0) * 1024)
}
