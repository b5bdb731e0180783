//! Geo databases with any bytes changed: loading is refused, or every lookup is answered.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use mb_core::geo::{ASN_FILE, CITY_FILE, GeoDatabase};
use tempfile::TempDir;

use crate::world;

thread_local! {
    static FOLDER: RefCell<TempDir> = RefCell::new(world::folder());
}

/// The file, as the database of places and as that of autonomous systems.
pub fn run(input: &[u8]) {
    FOLDER.with_borrow(|folder| {
        for file in [CITY_FILE, ASN_FILE] {
            std::fs::write(folder.path().join(file), input).expect("space for a file");
        }
        let (geo, errors) = GeoDatabase::load(folder.path());
        for error in &errors {
            let message = error.to_string();
            assert!(message.len() < 4096, "a message of {} bytes", message.len());
        }
        let mut random = fastrand::Rng::with_seed(input.len() as u64);
        let known = ["192.0.2.5", "198.51.100.1", "2001:db8::5", "::", "::ffff:192.0.2.5", "255.255.255.255"];
        let known = known.iter().map(|address| address.parse::<IpAddr>().expect("an address"));
        let random_addresses = (0..8).flat_map(|_| {
            let (v4, v6) = (Ipv4Addr::from_bits(random.u32(..)), Ipv6Addr::from_bits(random.u128(..)));
            [IpAddr::V4(v4), IpAddr::V6(v6)]
        });
        for address in known.chain(random_addresses) {
            let located = geo.locate(address);
            assert_eq!(located.place_key(), geo.locate(address).place_key());
            let place = located.place();
            let system = located.autonomous_system();
            let texts = [&place.country_code, &place.continent_code, &place.city, &place.country, &system.name];
            assert!(texts.iter().all(|text| text.len() <= input.len()), "a text longer than the file");
        }
    });
}

/// The databases of the tests.
pub fn seeds(folder: &Path) {
    for file in [CITY_FILE, ASN_FILE] {
        std::fs::copy(world::geo_folder().join(file), folder.join(file)).expect("space for a seed");
    }
}
