//! `mb-indexer verify` and `mb-indexer dump`.
//!
//! A dump has one line per record, tab separated, with paths and names escaped as in Rust source, so that a line stays a
//! line: for `files-…`: `file`, path, size, modification time (Unix seconds with nanoseconds), SHA-256, SHA-1, MD5 (`-`
//! where unknown), mirror ids of the set, exceptions (`id:size:time`); then `directory`, `alias` with its target,
//! `forbidden`. For `mirrors-…`: `mirror`, id, name, HTTP URL, `enabled` or `disabled`, `up` or its down reason over HTTP
//! and over HTTPS, last successful scan.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use mb_core::mirror::{Health, Mirror};
use mb_core::time::FileTime;
use mb_index::{Entry, FileIndex, FileRef, Kind, MirrorIndex};

use super::CommandError;

/// Checks an index file in full and prints what it is.
pub(super) fn verify(file: &Path) -> Result<(), CommandError> {
    let report = mb_index::verify(file)?;
    println!(
        "{}: sound; {:?} generation {}, {} records, {} bytes, built at {}",
        report.path.display(),
        report.kind,
        report.generation,
        report.records,
        report.bytes,
        report.built.0
    );
    Ok(())
}

/// Prints an index file.
pub(super) fn dump(file: &Path) -> Result<(), CommandError> {
    let report = mb_index::verify(file)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let written = match report.kind {
        Kind::Files => write_files(&mut out, &FileIndex::open(file, report.generation)?),
        Kind::Mirrors => write_mirrors(&mut out, &MirrorIndex::open(file, report.generation)?.mirrors()),
    };
    match written.and_then(|()| out.flush()) {
        // Whoever read the output has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(CommandError::Output),
    }
}

fn write_files(out: &mut impl Write, index: &FileIndex) -> io::Result<()> {
    for file in index.files() {
        write_file(out, index, file)?;
    }
    for (path, entry) in index.entries() {
        let path = path.escape_ascii();
        match entry {
            Entry::Directory => writeln!(out, "directory\t{path}")?,
            Entry::Alias(target) => writeln!(out, "alias\t{path}\t{}", target.escape_ascii())?,
            Entry::Forbidden => writeln!(out, "forbidden\t{path}")?,
            Entry::File(_) | Entry::Missing => {}
        }
    }
    Ok(())
}

fn write_file(out: &mut impl Write, index: &FileIndex, file: FileRef<'_>) -> io::Result<()> {
    write!(out, "file\t{}\t{}\t{}", file.path().escape_ascii(), file.size(), time(file.modified()))?;
    write_hash(out, file.sha256())?;
    write_hash(out, file.sha1())?;
    write_hash(out, file.md5())?;
    let separated = |at: usize| if at == 0 { "\t" } else { "," };
    let set = index.set(file.set());
    if set.is_empty() {
        write!(out, "\t-")?;
    }
    for (at, ordinal) in set.ordinals().enumerate() {
        write!(out, "{}{}", separated(at), index.mirror_id(ordinal))?;
    }
    if file.exceptions().len() == 0 {
        write!(out, "\t-")?;
    }
    for (at, copy) in file.exceptions().enumerate() {
        let modified = copy.modified.map_or_else(|| "-".to_owned(), time);
        write!(out, "{}{}:{}:{modified}", separated(at), index.mirror_id(copy.mirror), copy.size)?;
    }
    writeln!(out)
}

fn write_hash<const N: usize>(out: &mut impl Write, hash: Option<&[u8; N]>) -> io::Result<()> {
    match hash {
        Some(hash) => {
            out.write_all(b"\t")?;
            hash.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
        }
        None => out.write_all(b"\t-"),
    }
}

fn time(time: FileTime) -> String {
    format!("{}.{:09}", time.seconds(), time.subsecond_nanoseconds())
}

fn write_mirrors(out: &mut impl Write, mirrors: &[Mirror]) -> io::Result<()> {
    for mirror in mirrors {
        let (settings, state) = (&mirror.settings, &mirror.state);
        writeln!(
            out,
            "mirror\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
            mirror.id,
            settings.name.escape_debug(),
            settings.http_url.escape_debug(),
            if state.enabled { "enabled" } else { "disabled" },
            health(&state.http),
            health(&state.https),
            state.last_successful_sync.0
        )?;
    }
    Ok(())
}

fn health(health: &Health) -> String {
    if health.up { "up".to_owned() } else { format!("down ({})", health.down_reason.escape_debug()) }
}
