//! The 64 bytes in front of every index file (`FORMAT.md`, Header).
//!
//! They are encoded by hand, so that a program can tell what a file is, and that it is whole, before it trusts a single
//! offset in it. Bytes from disk are an [`UntrustedHeader`]; only its check yields a [`Header`].

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use mb_core::time::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

/// Length of the header; the archive follows at once, so it starts at a multiple of its alignment.
pub(crate) const HEADER_LENGTH: usize = 64;

/// Format version that this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"mb-index";
/// The reserved bytes, and then the header's own checksum.
const RESERVED_OFFSET: usize = 48;
const HEADER_CHECKSUM_OFFSET: usize = 56;

/// The two kinds of index file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Paths, file facts, mirror sets, exceptions; written after a scan.
    Files,
    /// Mirror records with their state; written on every change of a mirror.
    Mirrors,
}

impl Kind {
    /// The first part of the kind's file names, and its key in `CURRENT`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Files => "files",
            Kind::Mirrors => "mirrors",
        }
    }

    /// Kind in the low half, revision of its archive layout in the high half.
    fn layout(self) -> u32 {
        match self {
            Kind::Files => 1 << 16 | 1,
            Kind::Mirrors => 1 << 16 | 2,
        }
    }

    fn of_layout(layout: u32) -> Option<Kind> {
        [Kind::Files, Kind::Mirrors].into_iter().find(|kind| kind.layout() == layout)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Why the header of a file is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The first eight bytes are not those of an index file.
    #[error("it is not an index file (its first bytes are not `mb-index`)")]
    Magic,
    /// Written by a newer or an unknown version of this program.
    #[error("it has format version {found}, but this program reads version {FORMAT_VERSION}")]
    Version {
        /// The version it says it has.
        found: u32,
    },
    /// The header does not match its own checksum.
    #[error("its header is damaged (checksum mismatch)")]
    Checksum,
    /// Bytes that are zero in this version are not.
    #[error("its header has reserved bytes set")]
    Reserved,
    /// Neither of the known kinds, or a revision of one that this program does not know.
    #[error("it has the unknown layout {found:#010x}")]
    Layout {
        /// The layout id it has.
        found: u32,
    },
}

/// Tells a published generation from every other one, also from one with the same number in an index folder that was made
/// anew, where numbers begin at 1 again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationId {
    /// Its number.
    pub number: u64,
    /// When it was published.
    built: Timestamp,
    payload_checksum: u64,
}

/// What a header says, once its own bytes are known to be as they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) generation: u64,
    /// Bytes after the header, up to the end of the file.
    pub(crate) payload_length: u64,
    /// XXH3, 64 bits, of those bytes.
    pub(crate) payload_checksum: u64,
    pub(crate) built: Timestamp,
}

impl Header {
    pub(crate) fn id(&self) -> GenerationId {
        GenerationId { number: self.generation, built: self.built, payload_checksum: self.payload_checksum }
    }

    pub(crate) fn encode(&self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.kind.layout().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.generation.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.payload_length.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.payload_checksum.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.built.0.to_le_bytes());
        let checksum = xxh3_64(&bytes[..HEADER_CHECKSUM_OFFSET]);
        bytes[HEADER_CHECKSUM_OFFSET..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }
}

/// A header as it was found.
pub(crate) struct UntrustedHeader([u8; HEADER_LENGTH]);

impl UntrustedHeader {
    pub(crate) fn new(bytes: [u8; HEADER_LENGTH]) -> UntrustedHeader {
        UntrustedHeader(bytes)
    }

    /// The version is looked at before the checksum, since another version may keep its checksum elsewhere.
    pub(crate) fn check(&self) -> Result<Header, HeaderError> {
        if self.0[..8] != MAGIC {
            return Err(HeaderError::Magic);
        }
        let version = self.u32_at(8);
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version { found: version });
        }
        if xxh3_64(&self.0[..HEADER_CHECKSUM_OFFSET]) != self.u64_at(HEADER_CHECKSUM_OFFSET) {
            return Err(HeaderError::Checksum);
        }
        if self.u64_at(RESERVED_OFFSET) != 0 {
            return Err(HeaderError::Reserved);
        }
        let layout = self.u32_at(12);
        Ok(Header {
            kind: Kind::of_layout(layout).ok_or(HeaderError::Layout { found: layout })?,
            generation: self.u64_at(16),
            payload_length: self.u64_at(24),
            payload_checksum: self.u64_at(32),
            built: Timestamp(self.u64_at(40).cast_signed()),
        })
    }

    fn u32_at(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.bytes_at(offset))
    }

    fn u64_at(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.bytes_at(offset))
    }

    /// The bytes of a field; zeros beyond the header, where no field is.
    fn bytes_at<const LENGTH: usize>(&self, offset: usize) -> [u8; LENGTH] {
        self.0.get(offset..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; LENGTH])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            kind: Kind::Files,
            generation: 0x0102_0304_0506_0708,
            payload_length: 4096,
            payload_checksum: 0x1122_3344_5566_7788,
            built: Timestamp(-5),
        }
    }

    #[test]
    fn what_was_encoded_is_read_back() {
        for kind in [Kind::Files, Kind::Mirrors] {
            let header = Header { kind, ..header() };
            assert_eq!(UntrustedHeader::new(header.encode()).check(), Ok(header));
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let good = header().encode();
        for byte in 0..HEADER_LENGTH {
            for bit in 0..8 {
                let mut bytes = good;
                bytes[byte] ^= 1 << bit;
                assert!(UntrustedHeader::new(bytes).check().is_err(), "byte {byte}, bit {bit}");
            }
        }
    }

    #[test]
    fn reserved_bytes_and_unknown_layouts_are_refused_even_with_a_valid_checksum() {
        let with_valid_checksum = |offset: usize, value: u8| {
            let mut bytes = header().encode();
            bytes[offset] = value;
            let checksum = xxh3_64(&bytes[..HEADER_CHECKSUM_OFFSET]);
            bytes[HEADER_CHECKSUM_OFFSET..].copy_from_slice(&checksum.to_le_bytes());
            UntrustedHeader::new(bytes).check()
        };
        for offset in RESERVED_OFFSET..HEADER_CHECKSUM_OFFSET {
            assert_eq!(with_valid_checksum(offset, 1), Err(HeaderError::Reserved));
        }
        assert_eq!(with_valid_checksum(12, 7), Err(HeaderError::Layout { found: 1 << 16 | 7 }));
        assert_eq!(with_valid_checksum(14, 2), Err(HeaderError::Layout { found: 2 << 16 | 1 }));
        assert_eq!(with_valid_checksum(8, 2), Err(HeaderError::Version { found: 2 }));
    }
}
