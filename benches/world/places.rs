//! Geo databases of many places, so that clients do not share a few cached records: the benchmarking networks of RFC 2544,
//! 198.18.0.0/15, in pieces of 16 addresses, each with a place of its own.

use std::net::Ipv4Addr;
use std::path::Path;

use fastrand::Rng;
use maxminddb_writer::Database;
use maxminddb_writer::metadata::IpVersion;
use maxminddb_writer::paths::IpAddrWithMask;
use serde::Serialize;
use serde_json::json;

#[path = "countries.rs"]
mod countries;
pub use countries::COUNTRIES;

const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const ADDRESSES: u32 = 1 << 17;
const ADDRESSES_PER_PLACE: u32 = 16;
/// Prefix length of [`ADDRESSES_PER_PLACE`].
const PREFIX: u8 = 28;

/// A client of some place.
pub fn random_client(random: &mut Rng) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST.to_bits() + random.u32(..ADDRESSES))
}

/// Writes GeoLite2-City.mmdb and GeoLite2-ASN.mmdb.
pub fn write(folder: &Path) {
    let mut random = Rng::with_seed(3);
    write_database(folder, "GeoLite2-City", |number| {
        let country = random.choice(COUNTRIES).expect("some countries");
        json!({
            "city": { "names": { "en": format!("City {number}") } },
            "continent": { "code": country.continent },
            "country": { "iso_code": country.code, "names": { "en": country.code } },
            "location": {
                "latitude": f64::from(country.latitude) + random.f64() * 10.0 - 5.0,
                "longitude": f64::from(country.longitude) + random.f64() * 10.0 - 5.0,
            },
        })
    });
    write_database(folder, "GeoLite2-ASN", |number| AsnRecord {
        autonomous_system_number: 64_496 + number % 512,
        autonomous_system_organization: format!("Network {}", number % 512),
    });
}

/// Not by `json!`, whose numbers are of 64 bits, and this one is of 32.
#[derive(Serialize)]
struct AsnRecord {
    autonomous_system_number: u32,
    autonomous_system_organization: String,
}

fn write_database<R: Serialize>(folder: &Path, kind: &str, mut record: impl FnMut(u32) -> R) {
    let mut database = Database::default();
    database.metadata.ip_version = IpVersion::V4;
    database.metadata.database_type = kind.to_owned();
    database.metadata.languages = vec!["en".to_owned()];
    database.metadata.binary_format_major_version = 2;
    for number in 0..ADDRESSES / ADDRESSES_PER_PLACE {
        let data = database.insert_value(record(number)).expect("a record");
        let network = Ipv4Addr::from_bits(FIRST.to_bits() + number * ADDRESSES_PER_PLACE);
        database.insert_node(IpAddrWithMask::new(network.into(), PREFIX), data);
    }
    let bytes = database.write_to(Vec::new()).expect("a database");
    std::fs::write(folder.join(format!("{kind}.mmdb")), bytes).expect("space on the disk");
}
