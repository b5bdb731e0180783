//! Whether a mirror may answer a request. The rules are tried in order; the first that fails is the reason.

use std::fmt;

use mb_core::mirror::{DownloadProtocol, UrlScheme};
use mb_core::time::FileTime;

use super::{Client, Code, TableMirror};

/// Which schemes may answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// HTTPS where it is up, else HTTP.
    #[default]
    Any,
    /// HTTPS only.
    Https,
    /// HTTP only.
    Http,
}

/// A mirror's copy of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileCopy {
    /// Found equal to the source when the index was built.
    Matches,
    /// Found to differ; the rules for outdated files may still accept it.
    Differs {
        /// Its size in bytes.
        size: u64,
        /// Its modification time, when known.
        modified: Option<FileTime>,
    },
}

/// The source file, as far as the rules need it.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Size in bytes.
    pub size: u64,
    /// Modification time.
    pub modified: FileTime,
    /// Accepted age of copies in minutes, when a rule for outdated files matches the path.
    pub outdated_minutes: Option<u32>,
    /// Whether the mirrors' time zones are corrected.
    pub fix_timezone_offsets: bool,
}

/// Why a mirror may not answer. Its text needs the mirror's down reasons: see [`Reason::describe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not enabled.
    Disabled,
    /// HTTPS is wanted and not offered.
    NotHttps,
    /// HTTP is wanted and not offered.
    NotHttp,
    /// The wanted scheme is down.
    Down(DownloadProtocol),
    /// Either scheme would do and neither is up.
    AllDown,
    /// The copy has another size.
    FileSize,
    /// The copy is newer, or older than allowed: source minus copy in nanoseconds.
    ModTime {
        /// Nanoseconds by which the source is newer.
        delta_ns: i128,
    },
    /// Serves its continent only.
    Continent,
    /// Serves its countries only.
    Country,
    /// Serves its autonomous system only.
    AutonomousSystem,
    /// Does not serve the client's country.
    ExcludedCountry,
}

impl Reason {
    /// The reason in words, for `mirror`.
    pub fn describe(self, mirror: &TableMirror) -> impl fmt::Display + '_ {
        Description { reason: self, mirror }
    }
}

struct Description<'a> {
    reason: Reason,
    mirror: &'a TableMirror,
}

impl Description<'_> {
    /// Why the mirror does not answer over `protocol`.
    fn why_not(&self, protocol: DownloadProtocol) -> &str {
        match (self.mirror.scheme.offers(protocol), protocol) {
            (false, DownloadProtocol::Http) => "Not HTTP",
            (false, DownloadProtocol::Https) => "Not HTTPS",
            (true, _) => match self.mirror.mirror.state.health(protocol).down_reason.as_str() {
                "" => "Down",
                reason => reason,
            },
        }
    }
}

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Disabled => f.write_str("Disabled"),
            Reason::NotHttps => f.write_str("Not HTTPS"),
            Reason::NotHttp => f.write_str("Not HTTP"),
            Reason::Down(protocol) => f.write_str(self.why_not(protocol)),
            Reason::AllDown => {
                let (http, https) = (self.why_not(DownloadProtocol::Http), self.why_not(DownloadProtocol::Https));
                if http == https { f.write_str(http) } else { write!(f, "{http} / {https}") }
            }
            Reason::FileSize => f.write_str("File size mismatch"),
            Reason::ModTime { delta_ns } => write!(f, "Mod time mismatch (diff: {})", GoDuration(delta_ns)),
            Reason::Continent => f.write_str("Continent only"),
            Reason::Country => f.write_str("Country only"),
            Reason::AutonomousSystem => f.write_str("AS only"),
            Reason::ExcludedCountry => f.write_str("User's country restriction"),
        }
    }
}

/// Applies the rules; a mirror that passes answers over the protocol returned.
pub fn check(
    mirror: &TableMirror,
    copy: FileCopy,
    source: &Source,
    client: &Client,
    wanted: Wanted,
) -> Result<DownloadProtocol, Reason> {
    if !mirror.mirror.state.enabled {
        return Err(Reason::Disabled);
    }
    let protocol = check_scheme(mirror, wanted)?;
    check_copy(mirror, copy, source)?;
    check_client(mirror, client)?;
    Ok(protocol)
}

/// Rule 2 alone: which protocol the mirror would answer over.
pub fn check_scheme(mirror: &TableMirror, wanted: Wanted) -> Result<DownloadProtocol, Reason> {
    use DownloadProtocol::{Http, Https};
    match wanted {
        Wanted::Https if mirror.scheme == UrlScheme::HttpOnly => Err(Reason::NotHttps),
        Wanted::Https if mirror.is_up(Https) => Ok(Https),
        Wanted::Https => Err(Reason::Down(Https)),
        Wanted::Http if mirror.scheme == UrlScheme::HttpsOnly => Err(Reason::NotHttp),
        Wanted::Http if mirror.is_up(Http) => Ok(Http),
        Wanted::Http => Err(Reason::Down(Http)),
        Wanted::Any if mirror.is_up(Https) => Ok(Https),
        Wanted::Any if mirror.is_up(Http) => Ok(Http),
        Wanted::Any => Err(Reason::AllDown),
    }
}

fn check_copy(mirror: &TableMirror, copy: FileCopy, source: &Source) -> Result<(), Reason> {
    let FileCopy::Differs { size, modified } = copy else { return Ok(()) };
    if size != source.size && source.outdated_minutes.is_none() {
        return Err(Reason::FileSize);
    }
    let Some(modified) = modified else { return Ok(()) };
    let state = &mirror.mirror.state;
    let offset_ms = if source.fix_timezone_offsets { state.timezone_offset_ms } else { 0 };
    let delta_ns =
        mb_core::time::age_of_copy(source.modified, modified, offset_ms, state.last_successful_sync_precision_ns);
    let allowed_ns = i128::from(source.outdated_minutes.unwrap_or(0)).saturating_mul(60_000_000_000);
    if delta_ns < 0 || delta_ns > allowed_ns { Err(Reason::ModTime { delta_ns }) } else { Ok(()) }
}

fn check_client(mirror: &TableMirror, client: &Client) -> Result<(), Reason> {
    let settings = &mirror.mirror.settings;
    if settings.continent_only && (!client.is_located() || client.continent != mirror.continent) {
        return Err(Reason::Continent);
    }
    if settings.country_only && !contains(&mirror.countries, client.country) {
        return Err(Reason::Country);
    }
    // The reference's recorded answers also refuse a client that is not located but whose network is known.
    if settings.as_only && !(client.is_located() && same_asn(settings.asn, client.asn)) {
        return Err(Reason::AutonomousSystem);
    }
    if contains(&mirror.excluded_countries, client.country) {
        return Err(Reason::ExcludedCountry);
    }
    Ok(())
}

/// Whether `code` is among `codes`; no code is among none.
pub(super) fn contains(codes: &[Code], code: Code) -> bool {
    code != Code::NONE && codes.contains(&code)
}

/// Whether both are the same known autonomous system. 0 means unknown and never equals anything.
pub(super) fn same_asn(a: u32, b: u32) -> bool {
    a == b && a != 0
}

/// A span of nanoseconds as Go's `time.Duration.String` prints it: `1h0m0s`, `-1.5s`, `20ms`, `0s`.
struct GoDuration(i128);

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let decimal = |f: &mut fmt::Formatter<'_>, value: u128, unit: u128, name: &str| {
            write!(f, "{}", value.checked_div(unit).unwrap_or(0))?;
            if !value.is_multiple_of(unit) {
                let width = unit.ilog10() as usize;
                let fraction = format!("{:0width$}", value.checked_rem(unit).unwrap_or(0));
                write!(f, ".{}", fraction.trim_end_matches('0'))?;
            }
            f.write_str(name)
        };
        match nanoseconds {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanoseconds}ns"),
            1_000..1_000_000 => decimal(f, nanoseconds, 1_000, "µs"),
            1_000_000..1_000_000_000 => decimal(f, nanoseconds, 1_000_000, "ms"),
            _ => {
                let minutes = nanoseconds / 60_000_000_000;
                if minutes >= 60 {
                    write!(f, "{}h", minutes / 60)?;
                }
                if minutes > 0 {
                    write!(f, "{}m", minutes % 60)?;
                }
                decimal(f, nanoseconds % 60_000_000_000, 1_000_000_000, "s")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_in_go() {
        let cases: [(i128, &str); 10] = [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (20_000_000, "20ms"),
            (-1_000_000_000, "-1s"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (86_400_000_000_000, "24h0m0s"),
            (-3_661_000_000_001, "-1h1m1.000000001s"),
        ];
        for (nanoseconds, text) in cases {
            assert_eq!(GoDuration(nanoseconds).to_string(), text);
        }
    }

    #[test]
    fn unknown_networks_and_countries_equal_nothing() {
        assert!(!same_asn(0, 0));
        assert!(same_asn(64496, 64496));
        assert!(!contains(&[Code::NONE], Code::NONE));
    }
}
