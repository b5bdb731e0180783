//! The places of the invented geo data.
//!
//! Each place has the addresses 192.0.2.N/28 and 198.51.100.N/28 (N = 16 × its position) and 2001:db8:N::/48 (N = its
//! position) for clients, as the recorded vectors have them, and 127.CODE.0.0/16, the country's calling code, for servers
//! on this machine: a mirror on such an address is located when it is added, by the same lookup as a mirror elsewhere.

/// A city with its country.
#[derive(Debug)]
pub(crate) struct Place {
    /// Empty when only the country is known.
    pub(crate) city: &'static str,
    /// ISO 3166 code.
    pub(crate) country_code: &'static str,
    pub(crate) country: &'static str,
    pub(crate) continent_code: &'static str,
    /// Degrees north.
    pub(crate) latitude: f64,
    /// Degrees east.
    pub(crate) longitude: f64,
    /// From the range that RFC 5398 sets aside for documentation.
    pub(crate) asn: u32,
    pub(crate) as_name: &'static str,
    /// Second octet of its loopback addresses.
    pub(crate) loopback: u8,
}

#[rustfmt::skip]
pub(crate) const PLACES: [Place; 16] = [
    place("Paris", "FR", "France", "EU", 48.8566, 2.3522, 64496, "Example Telecom FR", 33),
    place("Lyon", "FR", "France", "EU", 45.764, 4.8357, 64497, "Rhone Net", 133),
    place("Berlin", "DE", "Germany", "EU", 52.52, 13.405, 64498, "Beispiel DE", 49),
    place("London", "GB", "United Kingdom", "EU", 51.5074, -0.1278, 64499, "Sample UK", 44),
    place("Madrid", "ES", "Spain", "EU", 40.4168, -3.7038, 64500, "Ejemplo ES", 34),
    place("Stockholm", "SE", "Sweden", "EU", 59.3293, 18.0686, 64501, "Exempel SE", 46),
    place("New York", "US", "United States", "NA", 40.7128, -74.006, 64502, "Example US East", 1),
    place("San Francisco", "US", "United States", "NA", 37.7749, -122.4194, 64503, "Example US West", 101),
    place("Toronto", "CA", "Canada", "NA", 43.6532, -79.3832, 64504, "Example CA", 102),
    place("Sao Paulo", "BR", "Brazil", "SA", -23.5505, -46.6333, 64505, "Exemplo BR", 55),
    place("Tokyo", "JP", "Japan", "AS", 35.6762, 139.6503, 64506, "Example JP", 81),
    place("Singapore", "SG", "Singapore", "AS", 1.3521, 103.8198, 64507, "Example SG", 65),
    place("Mumbai", "IN", "India", "AS", 19.076, 72.8777, 64508, "Example IN", 91),
    place("Sydney", "AU", "Australia", "OC", -33.8688, 151.2093, 64509, "Example AU", 61),
    place("Cape Town", "ZA", "South Africa", "AF", -33.9249, 18.4241, 64510, "Example ZA", 27),
    place("", "FJ", "Fiji", "OC", -18.1248, 178.4501, 64511, "Example FJ", 67),
];

#[expect(clippy::too_many_arguments, reason = "the columns of the table above")]
const fn place(
    city: &'static str,
    country_code: &'static str,
    country: &'static str,
    continent_code: &'static str,
    latitude: f64,
    longitude: f64,
    asn: u32,
    as_name: &'static str,
    loopback: u8,
) -> Place {
    Place { city, country_code, country, continent_code, latitude, longitude, asn, as_name, loopback }
}
