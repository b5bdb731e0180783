//! Geo databases in the GeoIP2 format, from the list of places.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use maxminddb_writer::metadata::IpVersion;
use maxminddb_writer::paths::IpAddrWithMask;
use maxminddb_writer::{Database, Error};
use serde::Serialize;

use crate::places::{PLACES, Place};
use crate::{GenerateError, at};

/// 2026-01-01: a fixed build time, so that the same list gives the same bytes.
const BUILD_EPOCH: u64 = 1_767_225_600;

#[derive(Serialize)]
struct CityRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    city: Option<Named>,
    continent: Continent,
    country: Country,
    location: Location,
}

#[derive(Serialize)]
struct Named {
    names: BTreeMap<&'static str, &'static str>,
}

#[derive(Serialize)]
struct Continent {
    code: &'static str,
}

#[derive(Serialize)]
struct Country {
    iso_code: &'static str,
    names: BTreeMap<&'static str, &'static str>,
}

#[derive(Serialize)]
struct Location {
    latitude: f64,
    longitude: f64,
}

#[derive(Serialize)]
struct AsnRecord {
    autonomous_system_number: u32,
    autonomous_system_organization: &'static str,
}

/// Writes both databases into `folder`.
pub(crate) fn generate(folder: &Path) -> Result<(), GenerateError> {
    fs::create_dir_all(folder).map_err(at("create", folder))?;
    for (name, encoded) in [("GeoLite2-City", city_database()), ("GeoLite2-ASN", asn_database())] {
        let path = folder.join(format!("{name}.mmdb"));
        match encoded {
            Ok(bytes) => fs::write(&path, bytes).map_err(at("write", &path))?,
            Err(source) => return Err(GenerateError::Database { path, source }),
        }
    }
    Ok(())
}

fn city_database() -> Result<Vec<u8>, Error> {
    encode("GeoLite2-City", |place| CityRecord {
        city: (!place.city.is_empty()).then(|| Named { names: english(place.city) }),
        continent: Continent { code: place.continent_code },
        country: Country { iso_code: place.country_code, names: english(place.country) },
        location: Location { latitude: place.latitude, longitude: place.longitude },
    })
}

fn asn_database() -> Result<Vec<u8>, Error> {
    encode("GeoLite2-ASN", |place| AsnRecord {
        autonomous_system_number: place.asn,
        autonomous_system_organization: place.as_name,
    })
}

fn english(name: &'static str) -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([("en", name)])
}

/// A database with one record for each place.
fn encode<R: Serialize>(kind: &str, record: impl Fn(&Place) -> R) -> Result<Vec<u8>, Error> {
    let mut database = Database::default();
    let metadata = &mut database.metadata;
    metadata.ip_version = IpVersion::V6;
    metadata.database_type = kind.to_owned();
    metadata.languages = vec!["en".to_owned()];
    metadata.binary_format_major_version = 2;
    metadata.build_epoch = BUILD_EPOCH;
    metadata.description.insert("en".to_owned(), "Invented data over documentation and loopback addresses".to_owned());
    for (position, place) in (0..).zip(&PLACES) {
        let data = database.insert_value(record(place))?;
        for network in networks(position, place) {
            database.insert_node(network, data);
        }
    }
    database.write_to(Vec::new())
}

/// The addresses of a place; `position` is at most 15.
fn networks(position: u8, place: &Place) -> [IpAddrWithMask; 4] {
    [
        mapped(Ipv4Addr::new(192, 0, 2, 16 * position), 28),
        mapped(Ipv4Addr::new(198, 51, 100, 16 * position), 28),
        mapped(Ipv4Addr::new(127, place.loopback, 0, 0), 16),
        IpAddrWithMask::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, position.into(), 0, 0, 0, 0, 0)), 48),
    ]
}

/// A database for both families keeps IPv4 below ::/96.
fn mapped(address: Ipv4Addr, prefix_length: u8) -> IpAddrWithMask {
    let [a, b, c, d] = address.octets();
    let low = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
    IpAddrWithMask::new(IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, low[0], low[1])), 96 + prefix_length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn city_of(address: &str) -> Option<String> {
        let reader = maxminddb::Reader::from_source(city_database().expect("database")).expect("reader");
        let result = reader.lookup(address.parse().expect("address")).expect("lookup");
        let city: Option<maxminddb::geoip2::City<'_>> = result.decode().expect("record");
        city.and_then(|record| record.city.names.english.map(str::to_owned))
    }

    #[test]
    fn addresses_lie_in_their_cities() {
        assert_eq!(city_of("192.0.2.1").as_deref(), Some("Paris"));
        assert_eq!(city_of("192.0.2.16").as_deref(), Some("Lyon"));
        assert_eq!(city_of("127.33.7.9").as_deref(), Some("Paris"));
        assert_eq!(city_of("127.1.255.1").as_deref(), Some("New York"));
        assert_eq!(city_of("2001:db8:a::1").as_deref(), Some("Tokyo"));
        assert_eq!(city_of("127.0.0.1"), None);
        assert_eq!(city_of("203.0.113.200"), None);
    }

    #[test]
    fn committed_databases_are_what_the_list_of_places_gives() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/cli/demo/geo");
        for (name, expected) in [("GeoLite2-City", city_database()), ("GeoLite2-ASN", asn_database())] {
            let committed = fs::read(folder.join(format!("{name}.mmdb"))).expect("committed database");
            assert!(
                committed == expected.expect("database"),
                "{name}.mmdb is stale: run `cargo run -p mb-tools -- geo src/cli/demo/geo`"
            );
        }
    }
}
