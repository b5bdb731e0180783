//! Countries for invented places and mirrors.

/// A country, by roughly its middle.
#[derive(Debug)]
pub struct Country {
    /// ISO 3166-1 alpha-2.
    pub code: &'static str,
    /// Of two letters.
    pub continent: &'static str,
    /// In degrees.
    pub latitude: f32,
    /// In degrees.
    pub longitude: f32,
}

/// Countries of all continents, which places and mirrors are given.
#[rustfmt::skip]
pub const COUNTRIES: [Country; 16] = [
    country("FR", "EU", 46.0, 2.0), country("DE", "EU", 51.0, 9.0), country("GB", "EU", 54.0, -2.0),
    country("ES", "EU", 40.0, -4.0), country("SE", "EU", 62.0, 15.0), country("PL", "EU", 52.0, 20.0),
    country("US", "NA", 38.0, -97.0), country("CA", "NA", 56.0, -106.0), country("BR", "SA", -10.0, -55.0),
    country("AR", "SA", -34.0, -64.0), country("JP", "AS", 36.0, 138.0), country("SG", "AS", 1.4, 103.8),
    country("IN", "AS", 21.0, 78.0), country("AU", "OC", -25.0, 134.0), country("NZ", "OC", -41.0, 174.0),
    country("ZA", "AF", -29.0, 24.0),
];

const fn country(code: &'static str, continent: &'static str, latitude: f32, longitude: f32) -> Country {
    Country { code, continent, latitude, longitude }
}
