//! Scan results as the nodes of a store hand them to each other: facts, and the files as blocks named by their content.
//!
//! What is in a block is the indexer's business. Mirrors that have the same files have the same blocks, so a store keeps,
//! and a node fetches, each block once, whatever number of mirrors have it.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

use crate::mirror::ScanProtocol;
use crate::time::Timestamp;

/// Names a block: the XXH3-128 hash, little-endian, of its bytes before compression.
pub type ScanBlockKey = [u8; 16];

/// Names a shared scan result: the XXH3-64 hash of its facts and of the keys of its blocks. Different results have different
/// ones, and a result that does not fit its own is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScanGeneration(pub u64);

impl fmt::Display for ScanGeneration {
    /// Sixteen hexadecimal digits.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// What one scan of a mirror found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedScan {
    /// When the scan started, by the clock of the node that scanned.
    pub started: Timestamp,
    /// How the files were listed.
    pub protocol: ScanProtocol,
    /// Resolution of the file times, in nanoseconds.
    pub precision_ns: u64,
    /// Correction of the file times, in milliseconds.
    pub timezone_offset_ms: i64,
    /// Number of files.
    pub files: u64,
    /// The blocks in path order.
    pub blocks: Vec<ScanBlockKey>,
}

impl SharedScan {
    /// The name of this result.
    pub fn generation(&self) -> ScanGeneration {
        let protocol = match self.protocol {
            ScanProtocol::Rsync => 0_u64,
            ScanProtocol::Ftp => 1,
            ScanProtocol::Http => 2,
        };
        let facts = [
            self.started.0.to_le_bytes(),
            protocol.to_le_bytes(),
            self.precision_ns.to_le_bytes(),
            self.timezone_offset_ms.to_le_bytes(),
            self.files.to_le_bytes(),
        ];
        ScanGeneration(xxh3_64(&[facts.as_flattened(), self.blocks.as_flattened()].concat()))
    }
}

/// What tells whether a shared scan result is another than the one at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedScanHead {
    /// Its name.
    pub generation: ScanGeneration,
    /// When the scan started.
    pub started: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_result_is_in_its_generation() {
        let scan = SharedScan {
            started: Timestamp(1),
            protocol: ScanProtocol::Rsync,
            precision_ns: 1,
            timezone_offset_ms: 1,
            files: 1,
            blocks: vec![[1; 16], [2; 16]],
        };
        let others = [
            SharedScan { started: Timestamp(2), ..scan.clone() },
            SharedScan { protocol: ScanProtocol::Http, ..scan.clone() },
            SharedScan { precision_ns: 2, ..scan.clone() },
            SharedScan { timezone_offset_ms: -1, ..scan.clone() },
            SharedScan { files: 2, ..scan.clone() },
            SharedScan { blocks: vec![[2; 16], [1; 16]], ..scan.clone() },
            SharedScan { blocks: vec![[1; 16]], ..scan.clone() },
        ];
        for other in others {
            assert_ne!(other.generation(), scan.generation(), "{other:?}");
        }
        assert_eq!(scan.clone().generation(), scan.generation());
    }
}
