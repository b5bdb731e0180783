//! From a network address to a place and an autonomous system, by GeoLite2-City and GeoLite2-ASN.
//!
//! A lookup is split in two, since its halves cost very differently: walking the address tree (`tree`) ends at a record
//! ([`Located::place_key`]), and decoding that record gives a [`Place`]. Callers cache what they derive from a
//! record under its key; millions of addresses share a few thousand records.
//!
//! The databases are copied into anonymous memory rather than mapped from their files: operators replace them with `cp`,
//! which truncates the file in use, and a mapped page that is gone ends the process with SIGBUS.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maxminddb::{Reader, geoip2};
use memmap2::{Advice, Mmap, MmapMut};
use serde::Deserialize;

use self::tree::Tree;
use crate::time::Timestamp;

mod tree;

/// File name of the database of places.
pub const CITY_FILE: &str = "GeoLite2-City.mmdb";
/// File name of the database of autonomous systems.
pub const ASN_FILE: &str = "GeoLite2-ASN.mmdb";

/// Why a geo database is not in use.
#[derive(Debug, thiserror::Error)]
pub enum GeoError {
    /// The file cannot be read.
    #[error("geo database {}: cannot be read: {source}; clients will not be located by it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no geo database of the kind expected.
    #[error("geo database {}: {reason}; clients will not be located by it: fetch the file again", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Where an address is. Fields that the database does not tell are empty or 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// ISO 3166-1 code, upper case.
    pub country_code: String,
    /// Two-letter continent code.
    pub continent_code: String,
    /// English name.
    pub city: String,
    /// English name.
    pub country: String,
    /// Degrees north.
    pub latitude: f32,
    /// Degrees east.
    pub longitude: f32,
}

/// The network an address belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AutonomousSystem {
    /// Its number; 0 when unknown.
    pub number: u32,
    /// Its organisation.
    pub name: String,
}

/// Names a record within one loaded database; 0 stands for "no record".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RecordKey(u32);

impl RecordKey {
    /// The key of an address that the database does not know.
    pub const NONE: RecordKey = RecordKey(0);

    /// The key as a number; 0 for [`RecordKey::NONE`].
    pub fn number(self) -> u32 {
        self.0
    }
}

/// One database.
struct Database {
    reader: Reader<Memory>,
    memory: Memory,
    tree: Tree,
}

/// The content of its file.
#[derive(Clone)]
struct Memory(Arc<Mmap>);

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Database {
    fn key(&self, address: IpAddr) -> RecordKey {
        RecordKey(self.tree.record(self.memory.as_ref(), address))
    }

    /// The record of `address`; `None` when there is none, or it is damaged: an answer without a place is better than none.
    fn decode<'d, T: Deserialize<'d>>(&'d self, address: IpAddr) -> Option<T> {
        self.reader.lookup(address).ok()?.decode().ok()?
    }
}

/// Both databases, each of which may be missing.
#[derive(Default)]
pub struct GeoDatabase {
    city: Option<Database>,
    asn: Option<Database>,
}

impl GeoDatabase {
    /// Loads what can be loaded from `folder` and tells why the rest cannot.
    pub fn load(folder: &Path) -> (GeoDatabase, Vec<GeoError>) {
        let mut errors = Vec::new();
        let mut load = |file: &str, kind: &str| match load_database(&folder.join(file), kind) {
            Ok(database) => Some(database),
            Err(error) => {
                errors.push(error);
                None
            }
        };
        let city = load(CITY_FILE, "City");
        let asn = load(ASN_FILE, "ASN");
        (GeoDatabase { city, asn }, errors)
    }

    /// When the database of places, and that of autonomous systems, was built by its maker; `None` for one that is not in
    /// use.
    pub fn built(&self) -> [Option<Timestamp>; 2] {
        [&self.city, &self.asn].map(|database| {
            let epoch = database.as_ref()?.reader.metadata().build_epoch;
            Some(Timestamp(i64::try_from(epoch).unwrap_or(i64::MAX)))
        })
    }

    /// Looks `address` up. An IPv4-mapped IPv6 address counts as IPv4.
    pub fn locate(&self, address: IpAddr) -> Located<'_> {
        self.locate_in_steps(address, |_| ())
    }

    /// The same, and tells `meanwhile` the key of the autonomous system while the place is still to be looked up.
    #[inline]
    pub fn locate_in_steps(&self, address: IpAddr, meanwhile: impl FnOnce(RecordKey)) -> Located<'_> {
        let address = address.to_canonical();
        let key = |database: &Option<Database>| database.as_ref().map_or(RecordKey::NONE, |it| it.key(address));
        let system = key(&self.asn);
        meanwhile(system);
        Located { databases: self, address, place: key(&self.city), system }
    }
}

/// Result of a lookup, not yet decoded.
pub struct Located<'a> {
    databases: &'a GeoDatabase,
    address: IpAddr,
    place: RecordKey,
    system: RecordKey,
}

impl Located<'_> {
    /// Names the record that [`Located::place`] decodes.
    pub fn place_key(&self) -> RecordKey {
        self.place
    }

    /// Names the record that [`Located::autonomous_system`] decodes.
    pub fn autonomous_system_key(&self) -> RecordKey {
        self.system
    }

    /// Decodes the place; empty when it is not known or its record is damaged.
    pub fn place(&self) -> Place {
        let city = self.databases.city.as_ref();
        let Some(record) = city.and_then(|city| city.decode::<geoip2::City<'_>>(self.address)) else {
            return Place::default();
        };
        let owned = |text: Option<&str>| text.unwrap_or_default().to_owned();
        Place {
            country_code: owned(record.country.iso_code),
            continent_code: owned(record.continent.code),
            city: owned(record.city.names.english),
            country: owned(record.country.names.english),
            latitude: record.location.latitude.unwrap_or_default() as f32,
            longitude: record.location.longitude.unwrap_or_default() as f32,
        }
    }

    /// Decodes the autonomous system; number 0 when it is not known or its record is damaged.
    pub fn autonomous_system(&self) -> AutonomousSystem {
        let asn = self.databases.asn.as_ref();
        let Some(record) = asn.and_then(|asn| asn.decode::<geoip2::Asn<'_>>(self.address)) else {
            return AutonomousSystem::default();
        };
        AutonomousSystem {
            number: record.autonomous_system_number.unwrap_or_default(),
            name: record.autonomous_system_organization.unwrap_or_default().to_owned(),
        }
    }
}

fn load_database(path: &Path, kind: &str) -> Result<Database, GeoError> {
    let invalid = |reason: String| GeoError::Invalid { path: path.to_owned(), reason };
    let memory = copy_into_memory(path).map_err(|source| GeoError::Unreadable { path: path.to_owned(), source })?;
    let memory = Memory(Arc::new(memory));
    let reader = Reader::from_source(memory.clone()).map_err(|error| invalid(error.to_string()))?;
    let found = &reader.metadata().database_type;
    if !found.contains(kind) {
        return Err(invalid(format!("holds {found} data, not {kind} data")));
    }
    let tree = Tree::new(memory.as_ref(), reader.metadata());
    let tree = tree.ok_or_else(|| invalid("its search tree is damaged".to_owned()))?;
    Ok(Database { reader, memory, tree })
}

/// The file's content in anonymous read-only pages, huge ones where the kernel has them: a lookup touches some 20 pages.
fn copy_into_memory(path: &Path) -> io::Result<Mmap> {
    let mut file = File::open(path)?;
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut memory = MmapMut::map_anon(length.max(1))?;
    let _ = memory.advise(Advice::HugePage);
    file.read_exact(&mut memory[..length])?;
    if length == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty"));
    }
    memory.make_read_only()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixtures() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/geo")
    }

    #[test]
    fn an_address_has_its_place_and_network_over_both_protocols() {
        let (geo, errors) = GeoDatabase::load(&fixtures());
        assert!(errors.is_empty(), "{errors:?}");
        assert!(geo.built().iter().all(Option::is_some));
        for address in ["192.0.2.5", "::ffff:192.0.2.5", "2001:db8::5"] {
            let located = geo.locate(address.parse().unwrap());
            let place = located.place();
            assert_eq!((place.country_code.as_str(), place.city.as_str()), ("FR", "Paris"), "{address}");
            assert_eq!((place.latitude, place.longitude), (48.8566, 2.3522));
            assert_eq!(located.autonomous_system().number, 64496);
        }
    }

    #[test]
    fn addresses_of_one_record_share_their_key() {
        let (geo, _) = GeoDatabase::load(&fixtures());
        let key = |address: &str| geo.locate(address.parse().unwrap()).place_key();
        assert_eq!(key("192.0.2.1"), key("192.0.2.14"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.33"));
        assert_eq!(key("10.0.0.1"), RecordKey::NONE);
    }

    #[test]
    fn what_is_not_in_the_databases_is_unknown() {
        let (geo, _) = GeoDatabase::load(&fixtures());
        let located = geo.locate("10.0.0.1".parse().unwrap());
        assert_eq!(located.place(), Place::default());
        assert_eq!(located.autonomous_system(), AutonomousSystem::default());
    }

    #[test]
    fn a_missing_an_empty_and_a_wrong_file_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(fixtures().join(ASN_FILE), folder.path().join(CITY_FILE)).unwrap();
        let (geo, errors) = GeoDatabase::load(folder.path());
        assert_eq!(geo.locate("192.0.2.5".parse().unwrap()).place(), Place::default());
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert!(texts[0].contains("not City data"), "{texts:?}");
        assert_eq!(geo.built(), [None, None]);
        assert!(texts[1].contains("cannot be read"), "{texts:?}");

        std::fs::write(folder.path().join(ASN_FILE), b"").unwrap();
        let (_, errors) = GeoDatabase::load(folder.path());
        assert!(errors[1].to_string().contains("empty"), "{errors:?}");
    }
}
