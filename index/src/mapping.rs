//! A verified index file in memory: the only place where bytes of a file become records.
//!
//! Opening goes through length, header, checksum, byte checks and rules, in this order; what comes out can be read
//! without further checks.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use memmap2::{Advice, Mmap, MmapMut};
use rkyv::Portable;
use rkyv::api::high::HighValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use xxhash_rust::xxh3::xxh3_64;

use crate::files::archive::ArchivedFilesArchive;
use crate::header::{GenerationId, HEADER_LENGTH, Header, Kind, UntrustedHeader};
use crate::mirrors::ArchivedMirrorsArchive;
use crate::open::{OpenError, OpenStep};

/// The root record of an index file.
pub(crate) trait Root: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + 'static {
    /// The kind of file that has it.
    const KIND: Kind;

    /// Checks the rules that byte checks know nothing of.
    fn verify(&self, path: &Path) -> Result<(), OpenError>;

    /// Number of files or mirrors.
    fn record_count(&self) -> usize;
}

impl Root for ArchivedFilesArchive {
    const KIND: Kind = Kind::Files;

    fn verify(&self, path: &Path) -> Result<(), OpenError> {
        crate::files::verify::verify(self)
            .map_err(|violation| OpenError::Files { path: path.to_owned(), source: violation })
    }

    fn record_count(&self) -> usize {
        self.rows.len()
    }
}

impl Root for ArchivedMirrorsArchive {
    const KIND: Kind = Kind::Mirrors;

    fn verify(&self, path: &Path) -> Result<(), OpenError> {
        crate::mirrors::verify(self)
            .map_err(|violation| OpenError::Mirrors { path: path.to_owned(), source: violation })
    }

    fn record_count(&self) -> usize {
        self.mirrors.len()
    }
}

/// An index file that passed all checks.
pub(crate) struct Mapping<A: 'static> {
    header: Header,
    length: u64,
    /// Points into `map`, and is only handed out for as long as `self` is borrowed.
    archive: &'static A,
    /// Keeps the memory of `archive`, a private copy of the file; never touched again.
    _map: Mmap,
}

impl<A: Root> Mapping<A> {
    /// Opens a file and checks all of it. Without an expected generation any is accepted.
    pub(crate) fn open(path: &Path, expected_generation: Option<u64>) -> Result<Mapping<A>, OpenError> {
        let failed = |step| move |source| OpenError::Io { step, path: path.to_owned(), source };
        let file = File::open(path).map_err(failed(OpenStep::Open))?;
        let (header, length) = read_header(&file, path)?;
        if header.kind != A::KIND {
            return Err(OpenError::Kind { path: path.to_owned(), expected: A::KIND, found: header.kind });
        }
        if let Some(expected) = expected_generation.filter(|&expected| expected != header.generation) {
            return Err(OpenError::Generation { path: path.to_owned(), expected, found: header.generation });
        }
        let map = copy(&file, path, length)?;
        let payload = map.get(HEADER_LENGTH..).unwrap_or_default();
        if payload.len() as u64 != header.payload_length || xxh3_64(payload) != header.payload_checksum {
            return Err(OpenError::Checksum { path: path.to_owned() });
        }
        let archive = rkyv::access::<A, rancor::Error>(payload)
            .map_err(|reason| OpenError::Archive { path: path.to_owned(), reason: reason.to_string() })?;
        archive.verify(path)?;
        // SAFETY: `archive` lies in the memory of `map`, which stays where it is when `map` moves, is read-only, and is
        // kept by the same struct; `archive()` lends it for no longer than that struct lives.
        let archive = unsafe { &*std::ptr::from_ref(archive) };
        Ok(Mapping { header, length, archive, _map: map })
    }

    pub(crate) fn archive(&self) -> &A {
        self.archive
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Length of the file in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }
}

impl<A> std::fmt::Debug for Mapping<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.header.fmt(f)
    }
}

/// The kind of an index file, by its header.
pub(crate) fn kind_of(path: &Path) -> Result<Kind, OpenError> {
    let file =
        File::open(path).map_err(|source| OpenError::Io { step: OpenStep::Open, path: path.to_owned(), source })?;
    Ok(read_header(&file, path)?.0.kind)
}

/// Which generation a file holds, by its header and its length alone: in microseconds, and without a look at the records.
///
/// # Errors
/// Whatever is wrong with the header or the length; see [`OpenError`].
pub fn identify(path: &Path) -> Result<GenerationId, OpenError> {
    let file =
        File::open(path).map_err(|source| OpenError::Io { step: OpenStep::Open, path: path.to_owned(), source })?;
    Ok(read_header(&file, path)?.0.id())
}

/// Reads the header and checks it against itself and the length of the file, which is returned too.
fn read_header(file: &File, path: &Path) -> Result<(Header, u64), OpenError> {
    let failed = |source| OpenError::Io { step: OpenStep::Read, path: path.to_owned(), source };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file")));
    }
    let length = metadata.len();
    if length < HEADER_LENGTH as u64 {
        return Err(OpenError::Length { path: path.to_owned(), expected: HEADER_LENGTH as u64, found: length });
    }
    let mut bytes = [0; HEADER_LENGTH];
    file.read_exact_at(&mut bytes, 0).map_err(failed)?;
    let header =
        UntrustedHeader::new(bytes).check().map_err(|source| OpenError::Header { path: path.to_owned(), source })?;
    let expected = header.payload_length.saturating_add(HEADER_LENGTH as u64);
    if length != expected {
        return Err(OpenError::Length { path: path.to_owned(), expected, found: length });
    }
    Ok((header, length))
}

/// Copies the file into memory of this process, in the places that its bytes have in the file.
///
/// A mapping of the file itself would end the process (SIGBUS) at the next access after another program truncated the
/// file, or when the disk fails. Of a copy nothing can be taken away, and its huge pages save misses of the TLB.
fn copy(file: &File, path: &Path, length: u64) -> Result<Mmap, OpenError> {
    let failed = |step| move |source| OpenError::Io { step, path: path.to_owned(), source };
    let size = usize::try_from(length).map_err(|_| {
        failed(OpenStep::Map)(io::Error::new(ErrorKind::OutOfMemory, "it is larger than memory can be"))
    })?;
    let mut map = MmapMut::map_anon(size).map_err(failed(OpenStep::Map))?;
    // A kernel without huge pages refuses; small pages do as well, a little slower.
    let _ = map.advise(Advice::HugePage);
    match file.read_exact_at(&mut map, 0) {
        // Truncated since its length was read.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            let found = file.metadata().map_err(failed(OpenStep::Load))?.len();
            return Err(OpenError::Length { path: path.to_owned(), expected: length, found });
        }
        outcome => outcome.map_err(failed(OpenStep::Load))?,
    }
    map.make_read_only().map_err(failed(OpenStep::Map))
}
