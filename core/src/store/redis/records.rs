//! Mirror records as hashes, in the fields and texts of Mirrorbits.
//!
//! Reading is tolerant: a missing or unreadable field has its zero value, booleans may be words, numbers may have been
//! written by other versions. Writing touches the fields that its operation is about, and nobody else's.

use std::collections::HashMap;
use std::str::FromStr;

use crate::mirror::{AllowRedirects, Health, Mirror, MirrorId, MirrorSettings, MirrorState, ScanProtocol};
use crate::time::Timestamp;

/// A hash as Redis hands it over.
pub(super) type Fields = HashMap<Vec<u8>, Vec<u8>>;

/// Field and text of each setting.
pub(super) fn settings_fields(settings: &MirrorSettings) -> Vec<(&'static str, String)> {
    vec![
        ("name", settings.name.clone()),
        ("http", settings.http_url.clone()),
        ("rsync", settings.rsync_url.clone()),
        ("ftp", settings.ftp_url.clone()),
        ("sponsorName", settings.sponsor_name.clone()),
        ("sponsorURL", settings.sponsor_url.clone()),
        ("sponsorLogo", settings.sponsor_logo_url.clone()),
        ("adminName", settings.admin_name.clone()),
        ("adminEmail", settings.admin_email.clone()),
        ("customData", settings.custom_data.clone()),
        ("continentOnly", boolean(settings.continent_only)),
        ("countryOnly", boolean(settings.country_only)),
        ("asOnly", boolean(settings.as_only)),
        ("score", settings.score.to_string()),
        ("latitude", settings.latitude.to_string()),
        ("longitude", settings.longitude.to_string()),
        ("continentCode", settings.continent_code.clone()),
        ("countryCodes", settings.country_codes.clone()),
        ("excludedCountryCodes", settings.excluded_country_codes.clone()),
        ("asnum", settings.asn.to_string()),
        ("comment", settings.comment.clone()),
        ("allowredirects", allow_redirects_number(settings.allow_redirects).to_owned()),
    ]
}

/// Field and text of everything that is observed.
pub(super) fn state_fields(state: &MirrorState) -> Vec<(&'static str, String)> {
    vec![
        ("enabled", boolean(state.enabled)),
        ("httpUp", boolean(state.http.up)),
        ("httpDownReason", state.http.down_reason.clone()),
        ("httpsUp", boolean(state.https.up)),
        ("httpsDownReason", state.https.down_reason.clone()),
        ("stateSince", state.since.0.to_string()),
        ("tzoffset", state.timezone_offset_ms.to_string()),
        ("lastSync", state.last_sync.0.to_string()),
        ("lastSuccessfulSync", state.last_successful_sync.0.to_string()),
        ("lastSuccessfulSyncProtocol", scan_protocol_number(state.last_successful_sync_protocol).to_string()),
        ("lastSuccessfulSyncPrecision", state.last_successful_sync_precision_ns.to_string()),
        ("lastModTime", state.last_mod_time.0.to_string()),
    ]
}

/// The mirror of a hash; `name` is what `MIRRORS` calls it.
pub(super) fn mirror(id: MirrorId, name: &[u8], fields: &Fields) -> Mirror {
    let fields = Reader(fields);
    let own_name = fields.text("name");
    let settings = MirrorSettings {
        name: if own_name.is_empty() { String::from_utf8_lossy(name).into_owned() } else { own_name },
        http_url: with_closing_slash(fields.text("http")),
        rsync_url: fields.text("rsync"),
        ftp_url: fields.text("ftp"),
        sponsor_name: fields.text("sponsorName"),
        sponsor_url: fields.text("sponsorURL"),
        sponsor_logo_url: fields.text("sponsorLogo"),
        admin_name: fields.text("adminName"),
        admin_email: fields.text("adminEmail"),
        custom_data: fields.text("customData"),
        continent_only: fields.boolean("continentOnly"),
        country_only: fields.boolean("countryOnly"),
        as_only: fields.boolean("asOnly"),
        score: fields.number("score"),
        latitude: fields.degrees("latitude"),
        longitude: fields.degrees("longitude"),
        continent_code: fields.text("continentCode"),
        country_codes: fields.text("countryCodes"),
        excluded_country_codes: fields.text("excludedCountryCodes"),
        asn: fields.number("asnum"),
        comment: fields.text("comment"),
        allow_redirects: match fields.number::<u8>("allowredirects") {
            1 => AllowRedirects::Allowed,
            2 => AllowRedirects::Disallowed,
            _ => AllowRedirects::Default,
        },
    };
    let state = MirrorState {
        enabled: fields.boolean("enabled"),
        http: Health { up: fields.boolean("httpUp"), down_reason: fields.text("httpDownReason") },
        https: Health { up: fields.boolean("httpsUp"), down_reason: fields.text("httpsDownReason") },
        since: fields.time("stateSince"),
        timezone_offset_ms: fields.number("tzoffset"),
        last_sync: fields.time("lastSync"),
        last_successful_sync: fields.time("lastSuccessfulSync"),
        last_successful_sync_protocol: scan_protocol(fields.number("lastSuccessfulSyncProtocol")),
        last_successful_sync_precision_ns: fields.number("lastSuccessfulSyncPrecision"),
        last_mod_time: fields.time("lastModTime"),
    };
    Mirror { id, settings, state }
}

/// `1` or `0`.
pub(super) fn boolean(value: bool) -> String {
    if value { "1" } else { "0" }.to_owned()
}

/// The number that stands for a way to scan, here and in logs.
pub(super) fn scan_protocol_number(protocol: ScanProtocol) -> u8 {
    match protocol {
        ScanProtocol::Rsync => 0,
        ScanProtocol::Ftp => 1,
        ScanProtocol::Http => 2,
    }
}

/// The way to scan that a number stands for; rsync when it is none of ours.
pub(super) fn scan_protocol(number: u8) -> ScanProtocol {
    match number {
        1 => ScanProtocol::Ftp,
        2 => ScanProtocol::Http,
        _ => ScanProtocol::Rsync,
    }
}

fn allow_redirects_number(allow_redirects: AllowRedirects) -> &'static str {
    match allow_redirects {
        AllowRedirects::Default => "0",
        AllowRedirects::Allowed => "1",
        AllowRedirects::Disallowed => "2",
    }
}

fn with_closing_slash(url: String) -> String {
    if url.is_empty() || url.ends_with('/') { url } else { url + "/" }
}

/// Typed access to the fields of a hash.
struct Reader<'a>(&'a Fields);

impl Reader<'_> {
    fn text(&self, field: &str) -> String {
        self.0.get(field.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    }

    /// The words that Go's `strconv.ParseBool` takes for true.
    fn boolean(&self, field: &str) -> bool {
        matches!(self.text(field).as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True")
    }

    fn number<T: FromStr + Default>(&self, field: &str) -> T {
        self.text(field).parse().unwrap_or_default()
    }

    fn degrees(&self, field: &str) -> f32 {
        let degrees: f32 = self.number(field);
        if degrees.is_finite() { degrees } else { 0.0 }
    }

    /// A time before the epoch is Go's zero time.
    fn time(&self, field: &str) -> Timestamp {
        Timestamp(self.number::<i64>(field).max(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&str, &str)]) -> Fields {
        fields.iter().map(|(field, value)| (field.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn missing_fields_are_zero() {
        let mirror = mirror(MirrorId(3), b"name in MIRRORS", &fields(&[]));
        let settings = MirrorSettings { name: "name in MIRRORS".into(), ..MirrorSettings::default() };
        assert_eq!(mirror, Mirror { id: MirrorId(3), settings, state: MirrorState::default() });
    }

    #[test]
    fn what_other_versions_wrote_is_understood() {
        let mirror = mirror(
            MirrorId(3),
            b"",
            &fields(&[
                ("name", "m"),
                ("http", "mirror.example/pub"),
                ("enabled", "true"),
                ("httpUp", "1"),
                ("httpsUp", "false"),
                ("latitude", "NaN"),
                ("longitude", "2.3387"),
                ("score", "many"),
                ("asnum", "-1"),
                ("stateSince", "-62135596800"),
                ("lastSync", "1700000000"),
                ("lastSuccessfulSyncProtocol", "9"),
                ("allowredirects", "7"),
            ]),
        );
        assert_eq!(mirror.settings.http_url, "mirror.example/pub/");
        assert_eq!((mirror.settings.latitude, mirror.settings.longitude), (0.0, 2.3387));
        assert_eq!((mirror.settings.score, mirror.settings.asn), (0, 0));
        assert_eq!(mirror.settings.allow_redirects, AllowRedirects::Default);
        assert!(mirror.state.enabled && mirror.state.http.up && !mirror.state.https.up);
        assert_eq!((mirror.state.since, mirror.state.last_sync), (Timestamp::NEVER, Timestamp(1_700_000_000)));
    }
}
