//! The search tree of an mmdb file (MaxMind DB File Format Specification 2.0, "Binary Search Tree Section"), walked without
//! its first steps.
//!
//! A tree has one level for each bit of an address, and every level is a load that waits for the one before. The first 16
//! are the same few nodes for most clients, so they are walked in advance for all addresses there can be: a lookup starts
//! from a table, and takes the rest of the way, about eight levels for a usual network.

use std::net::IpAddr;

use maxminddb::Metadata;

/// Bits of an address that the tables stand for.
const BITS_AHEAD: u32 = 16;
/// Bits of an IPv6 address in front of an IPv4 one (`::/96`), as in a database of both.
const BITS_BEFORE_IPV4: u32 = 96;

/// Where the tree leads to: a node, or the record of all addresses below; numbered as in the file.
type Place = u32;

/// The tree of one database.
pub(super) struct Tree {
    shape: Shape,
    /// By the first bits of an IPv4 address.
    ipv4: Box<[Place]>,
    /// By the first bits of an IPv6 address; empty for a database without any.
    ipv6: Box<[Place]>,
}

/// What is needed to read the file's nodes.
struct Shape {
    nodes: u32,
    record_bits: u16,
}

impl Tree {
    /// Walks ahead in the file `bytes`. `None` when it is not built as the specification says.
    pub(super) fn new(bytes: &[u8], metadata: &Metadata) -> Option<Tree> {
        let shape = Shape { nodes: metadata.node_count, record_bits: metadata.record_size };
        if !matches!(shape.record_bits, 24 | 28 | 32) {
            return None;
        }
        let mut ipv4_root = 0;
        let has_ipv6 = metadata.ip_version == 6;
        for _ in 0..if has_ipv6 { BITS_BEFORE_IPV4 } else { 0 } {
            ipv4_root = shape.walk(bytes, ipv4_root, 0, 1)?;
        }
        let ahead = |root: Place| {
            let place = |prefix: u32| shape.walk(bytes, root, prefix << (32 - BITS_AHEAD), BITS_AHEAD);
            (0..1 << BITS_AHEAD).map(place).collect::<Option<Box<[Place]>>>()
        };
        let ipv6 = if has_ipv6 { ahead(0)? } else { Box::default() };
        Some(Tree { ipv4: ahead(ipv4_root)?, ipv6, shape })
    }

    /// A number for the record of `address` that no other record of the file `bytes` has; 0 when there is no record, or the
    /// way to it is damaged.
    pub(super) fn record(&self, bytes: &[u8], address: IpAddr) -> u32 {
        let found = match address {
            IpAddr::V4(address) => {
                let bits = address.to_bits();
                self.ipv4
                    .get((bits >> (32 - BITS_AHEAD)) as usize)
                    .and_then(|&place| self.shape.walk(bytes, place, bits << BITS_AHEAD, 32 - BITS_AHEAD))
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                let word = |place: u32| (bits >> (96 - 32 * place)) as u32;
                self.ipv6.get((word(0) >> (32 - BITS_AHEAD)) as usize).and_then(|&place| {
                    let place = self.shape.walk(bytes, place, word(0) << BITS_AHEAD, 32 - BITS_AHEAD);
                    (1..4).fold(place, |place, next| self.shape.walk(bytes, place?, word(next), 32))
                })
            }
        };
        // A node that is not left within the address is no record.
        found.and_then(|place| place.checked_sub(self.shape.nodes)).unwrap_or(0)
    }
}

impl Shape {
    /// Takes `steps` from `place` by the upper bits of `bits`, as far as there are nodes.
    #[inline]
    fn walk(&self, bytes: &[u8], place: Place, bits: u32, steps: u32) -> Option<Place> {
        match self.record_bits {
            24 => self.walk_by(record_of_24_bits, bytes, place, bits, steps),
            28 => self.walk_by(record_of_28_bits, bytes, place, bits, steps),
            _ => self.walk_by(record_of_32_bits, bytes, place, bits, steps),
        }
    }

    #[inline(always)]
    fn walk_by(
        &self,
        record: impl Fn(&[u8], usize, u32) -> Option<Place>,
        bytes: &[u8],
        mut place: Place,
        mut bits: u32,
        steps: u32,
    ) -> Option<Place> {
        for _ in 0..steps {
            if place >= self.nodes {
                break;
            }
            place = record(bytes, place as usize, bits >> 31)?;
            bits <<= 1;
        }
        Some(place)
    }
}

// The records of a node, 0 the left one and 1 the right one. Which of them it is is as random as addresses are, so that nothing
// branches on it. Behind the last node there are more bytes.

#[inline(always)]
fn record_of_24_bits(bytes: &[u8], node: usize, side: u32) -> Option<Place> {
    let start = node * 6 + side as usize * 3;
    let word = bytes.get(start..)?.first_chunk()?;
    Some(u32::from_be_bytes(*word) >> 8)
}

/// The byte in the middle has the upper bits of both.
#[inline(always)]
fn record_of_28_bits(bytes: &[u8], node: usize, side: u32) -> Option<Place> {
    let word = u64::from_be_bytes(*bytes.get(node * 7..)?.first_chunk()?);
    let left = word >> 40 | (word >> 36 & 0xF) << 24;
    let right = word >> 8 & 0x0FFF_FFFF;
    let mask = u64::from(side).wrapping_neg();
    Some((left & !mask | right & mask) as u32)
}

#[inline(always)]
fn record_of_32_bits(bytes: &[u8], node: usize, side: u32) -> Option<Place> {
    let start = node * 8 + side as usize * 4;
    Some(u32::from_be_bytes(*bytes.get(start..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::path::Path;

    use maxminddb::Reader;
    use maxminddb_writer::Database;
    use maxminddb_writer::metadata::IpVersion;
    use maxminddb_writer::paths::IpAddrWithMask;
    use proptest::prelude::*;

    use super::*;

    /// The library's word: which record an address has.
    fn offset(reader: &Reader<Vec<u8>>, address: IpAddr) -> Option<usize> {
        reader.lookup(address).ok().and_then(|found| found.offset())
    }

    /// Both say of any two addresses whether they share a record.
    fn agree(bytes: &[u8], addresses: &[IpAddr]) -> Result<(), TestCaseError> {
        let reader = Reader::from_source(bytes.to_vec()).unwrap();
        let tree = Tree::new(bytes, reader.metadata()).unwrap();
        let mut offsets = std::collections::HashMap::new();
        for &address in addresses {
            let (record, offset) = (tree.record(bytes, address), offset(&reader, address));
            prop_assert_eq!(record == 0, offset.is_none(), "{}", address);
            prop_assert_eq!(*offsets.entry(record).or_insert(offset), offset, "{}", address);
        }
        Ok(())
    }

    fn database(networks: &[(IpAddr, u8)]) -> Vec<u8> {
        let mut database = Database::default();
        database.metadata.ip_version = IpVersion::V4;
        database.metadata.binary_format_major_version = 2;
        for (number, &(address, prefix)) in networks.iter().enumerate() {
            let data = database.insert_value(number as u32).unwrap();
            database.insert_node(IpAddrWithMask::new(address, prefix), data);
        }
        database.write_to(Vec::new()).unwrap()
    }

    #[test]
    fn nodes_of_all_sizes_are_read() {
        let (left, right) = (0x0123_4567_u32, 0x0FED_CBA9_u32);
        let node = |bits: u16| match bits {
            24 => [&left.to_be_bytes()[1..], &right.to_be_bytes()[1..]].concat(),
            28 => vec![0x23, 0x45, 0x67, 0x1F, 0xED, 0xCB, 0xA9],
            _ => [left.to_be_bytes(), right.to_be_bytes()].concat(),
        };
        for record_bits in [24, 28, 32] {
            let bytes = [node(record_bits), node(record_bits), vec![0]].concat();
            let shape = Shape { nodes: 2, record_bits };
            let mask = if record_bits == 24 { 0x00FF_FFFF } else { u32::MAX };
            let step = |bytes: &[u8], place: Place, side: u32| shape.walk(bytes, place, side << 31, 1);
            assert_eq!(step(&bytes, 1, 0), Some(left & mask), "{record_bits}");
            assert_eq!(step(&bytes, 1, 1), Some(right & mask), "{record_bits}");
            assert_eq!(step(&bytes, 2, 1), Some(2), "no node");
            assert_eq!(step(&bytes[2..], 1, 1), None, "the file ends");
        }
    }

    #[test]
    fn the_fixtures_are_read_as_the_library_reads_them() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/geo");
        for file in [super::super::CITY_FILE, super::super::ASN_FILE] {
            let bytes = std::fs::read(folder.join(file)).unwrap();
            let ipv4 = (0..=u16::MAX).map(|low| IpAddr::V4(Ipv4Addr::from_bits(0xC000_0000 | u32::from(low))));
            let ipv6 = (0..64).map(|low| IpAddr::V6(Ipv6Addr::from_bits(0x2001_0DB8 << 96 | low)));
            agree(&bytes, &ipv4.chain(ipv6).collect::<Vec<_>>()).unwrap();
        }
    }

    #[test]
    fn a_file_that_ends_in_the_tree_knows_nothing() {
        let bytes = database(&[("192.0.2.0".parse().unwrap(), 24)]);
        let reader = Reader::from_source(bytes.clone()).unwrap();
        let tree = Tree::new(&bytes, reader.metadata()).unwrap();
        assert_ne!(tree.record(&bytes, "192.0.2.1".parse().unwrap()), 0);
        assert_eq!(tree.record(&bytes[..60], "192.0.2.1".parse().unwrap()), 0);
        assert!(Tree::new(&bytes[..60], reader.metadata()).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn any_tree_is_read_as_the_library_reads_it(
            networks in prop::collection::vec((any::<u32>(), 1..=32_u8), 1..40), others in prop::collection::vec(any::<u32>(), 40)
        ) {
            let address = |bits: u32| IpAddr::V4(Ipv4Addr::from_bits(bits));
            let start = |&(bits, prefix): &(u32, u8)| (bits >> (32 - prefix) << (32 - prefix), prefix);
            let mut starts: Vec<_> = networks.iter().map(start).collect();
            // A network inside another one has to be inserted behind it.
            starts.sort_unstable_by_key(|&(_, prefix)| prefix);
            let starts: Vec<_> = starts.into_iter().map(|(bits, prefix)| (address(bits), prefix)).collect();
            let bytes = database(&starts);
            let inside = networks.iter().flat_map(|&(bits, _)| [bits, bits.wrapping_add(1), bits ^ 1 << 15]);
            let addresses: Vec<_> = inside.chain(others).map(address).collect();
            agree(&bytes, &addresses)?;
        }
    }
}
