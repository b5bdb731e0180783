//! Geo databases of many places, so that clients do not all hit the same few cached records: the benchmarking networks of
//! RFC 2544, 198.18.0.0/15, in pieces of 16 addresses, each with a place of its own.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use fastrand::Rng;
use maxminddb_writer::Database;
use maxminddb_writer::metadata::IpVersion;
use maxminddb_writer::paths::IpAddrWithMask;
use serde::Serialize;

use crate::BenchError;

#[path = "../../world/countries.rs"]
mod countries;
pub(crate) use countries::COUNTRIES;

/// First address of the networks.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// Addresses there are.
const ADDRESSES: u32 = 1 << 17;

/// Addresses of one place.
const ADDRESSES_PER_PLACE: u32 = 16;

/// Network prefix of [`ADDRESSES_PER_PLACE`].
const PREFIX: u8 = 28;

/// A client of some place.
pub(crate) fn random_client(random: &mut Rng) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST.to_bits() + random.u32(..ADDRESSES))
}

/// The networks of [`random_client`].
pub(crate) const NETWORKS: &str = "198.18.0.0/15";

#[derive(Serialize)]
struct CityRecord {
    city: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
    continent: BTreeMap<&'static str, &'static str>,
    country: CountryRecord,
    location: LocationRecord,
}

#[derive(Serialize)]
struct CountryRecord {
    iso_code: &'static str,
    names: BTreeMap<&'static str, &'static str>,
}

#[derive(Serialize)]
struct LocationRecord {
    latitude: f64,
    longitude: f64,
}

#[derive(Serialize)]
struct AsnRecord {
    autonomous_system_number: u32,
    autonomous_system_organization: String,
}

/// Writes GeoLite2-City.mmdb and GeoLite2-ASN.mmdb.
pub(crate) fn write(folder: &Path) -> Result<(), BenchError> {
    std::fs::create_dir_all(folder).map_err(BenchError::at("create", folder))?;
    let mut random = Rng::with_seed(3);
    write_database(folder, "GeoLite2-City", |number| {
        let country = &COUNTRIES[random.usize(..COUNTRIES.len())];
        CityRecord {
            city: BTreeMap::from([("names", BTreeMap::from([("en", format!("City {number}"))]))]),
            continent: BTreeMap::from([("code", country.continent)]),
            country: CountryRecord { iso_code: country.code, names: BTreeMap::from([("en", country.code)]) },
            location: LocationRecord {
                latitude: f64::from(country.latitude) + random.f64() * 10.0 - 5.0,
                longitude: f64::from(country.longitude) + random.f64() * 10.0 - 5.0,
            },
        }
    })?;
    write_database(folder, "GeoLite2-ASN", |number| AsnRecord {
        autonomous_system_number: 64_496 + number % 512,
        autonomous_system_organization: format!("Network {}", number % 512),
    })
}

fn write_database<R: Serialize>(folder: &Path, kind: &str, mut record: impl FnMut(u32) -> R) -> Result<(), BenchError> {
    let mut database = Database::default();
    let metadata = &mut database.metadata;
    metadata.ip_version = IpVersion::V4;
    metadata.database_type = kind.to_owned();
    metadata.languages = vec!["en".to_owned()];
    metadata.binary_format_major_version = 2;
    for number in 0..ADDRESSES / ADDRESSES_PER_PLACE {
        let data = database.insert_value(record(number))?;
        let network = Ipv4Addr::from_bits(FIRST.to_bits() + number * ADDRESSES_PER_PLACE);
        database.insert_node(IpAddrWithMask::new(network.into(), PREFIX), data);
    }
    let path = folder.join(format!("{kind}.mmdb"));
    std::fs::write(&path, database.write_to(Vec::new())?).map_err(BenchError::at("write", &path))
}
