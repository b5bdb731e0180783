//! Mirror records as hashes, in the fields and texts of Mirrorbits.
//!
//! Reading never fails: a missing field has its zero value, booleans may be words, and what was observed may have been
//! written by other versions. A setting that cannot be read makes its record invalid, with the reason, and no other.
//! Writing touches the fields that its operation is about, and nobody else's.

use std::cell::RefCell;
use std::collections::HashMap;
use std::str::FromStr;

use crate::mirror::{
    AllowRedirects, Health, InvalidMirror, Mirror, MirrorId, MirrorSettings, MirrorState, ScanProtocol,
    with_closing_slash,
};
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
    let fields = Reader { fields, unreadable: RefCell::new(None) };
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
        latitude: fields.number("latitude"),
        longitude: fields.number("longitude"),
        continent_code: fields.text("continentCode"),
        country_codes: fields.text("countryCodes"),
        excluded_country_codes: fields.text("excludedCountryCodes"),
        asn: fields.number("asnum"),
        comment: fields.text("comment"),
        allow_redirects: match fields.observed::<u8>("allowredirects") {
            1 => AllowRedirects::Allowed,
            2 => AllowRedirects::Disallowed,
            _ => AllowRedirects::Default,
        },
    };
    let state = MirrorState {
        enabled: fields.boolean("enabled"),
        http: Health { up: fields.boolean("httpUp"), down_reason: fields.observed_text("httpDownReason") },
        https: Health { up: fields.boolean("httpsUp"), down_reason: fields.observed_text("httpsDownReason") },
        since: fields.time("stateSince"),
        timezone_offset_ms: fields.observed("tzoffset"),
        last_sync: fields.time("lastSync"),
        last_successful_sync: fields.time("lastSuccessfulSync"),
        last_successful_sync_protocol: scan_protocol(fields.observed("lastSuccessfulSyncProtocol")),
        last_successful_sync_precision_ns: fields.observed("lastSuccessfulSyncPrecision"),
        last_mod_time: fields.time("lastModTime"),
        unreadable: fields.unreadable.into_inner(),
    };
    Mirror { id, settings, state }
}

/// The mirror of a key that is no hash, but of the type `kind`, or of none.
pub(super) fn mirror_without_record(id: MirrorId, name: &[u8], key: &str, kind: &str) -> Mirror {
    let mut mirror = mirror(id, name, &Fields::new());
    let reason = match kind {
        "none" => "is missing: set HttpURL, or remove the mirror".to_owned(),
        kind => format!("is a {kind} and no hash: set HttpURL, which replaces it, or remove the mirror"),
    };
    mirror.state.unreadable = Some(InvalidMirror::new(format!("the key {key}"), reason));
    mirror
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

/// Typed access to the fields of a hash.
struct Reader<'a> {
    fields: &'a Fields,
    /// The first setting that cannot be read.
    unreadable: RefCell<Option<InvalidMirror>>,
}

impl Reader<'_> {
    fn refuse(&self, field: &str, reason: String) {
        self.unreadable.borrow_mut().get_or_insert_with(|| InvalidMirror::new(format!("the field `{field}`"), reason));
    }

    /// A setting.
    fn text(&self, field: &str) -> String {
        let Some(value) = self.fields.get(field.as_bytes()) else { return String::new() };
        match std::str::from_utf8(value) {
            Ok(text) => text.to_owned(),
            Err(_) => {
                self.refuse(field, "is not UTF-8 text".to_owned());
                String::from_utf8_lossy(value).into_owned()
            }
        }
    }

    /// The words that Go's `strconv.ParseBool` takes for true.
    fn boolean(&self, field: &str) -> bool {
        matches!(self.observed_text(field).as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True")
    }

    /// A setting that is a number; zero without one.
    fn number<T: FromStr + Default>(&self, field: &str) -> T {
        let text = self.text(field);
        if text.is_empty() {
            return T::default();
        }
        text.parse().unwrap_or_else(|_| {
            self.refuse(field, "is no number that is allowed there".to_owned());
            T::default()
        })
    }

    fn observed_text(&self, field: &str) -> String {
        self.fields.get(field.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    }

    /// A number that is none of the operator's; zero when it cannot be read.
    fn observed<T: FromStr + Default>(&self, field: &str) -> T {
        self.observed_text(field).parse().unwrap_or_default()
    }

    /// A time before the epoch is Go's zero time.
    fn time(&self, field: &str) -> Timestamp {
        Timestamp(self.observed::<i64>(field).max(0))
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
                ("latitude", ""),
                ("longitude", "2.3387"),
                ("asnum", "0"),
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
    #[test]
    fn a_setting_that_cannot_be_read_makes_its_record_invalid() {
        for (field, value) in
            [("score", &b"many"[..]), ("asnum", b"-1"), ("latitude", b"NaN"), ("latitude", b"1e99"), ("http", b"\xff/")]
        {
            let mut record = fields(&[("name", "m"), ("http", "http://a/")]);
            assert_eq!(mirror(MirrorId(3), b"", &record).invalid(), None);
            record.insert(field.as_bytes().to_vec(), value.to_vec());
            let reason = mirror(MirrorId(3), b"", &record).invalid().expect(field).to_string();
            assert!(reason.to_lowercase().contains(field), "{reason}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_hash_is_a_record_and_what_is_published_of_it_is_valid_or_a_stand_in(
            values in proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..12), 34),
        ) {
            let names = settings_fields(&MirrorSettings::default()).into_iter();
            let names = names.chain(state_fields(&MirrorState::default())).map(|(name, _)| name.as_bytes().to_vec());
            let record: Fields = names.zip(values).collect();
            let published = mirror(MirrorId(3), b"m", &record).publishable();
            proptest::prop_assert!(published.invalid().is_none() || !published.state.enabled);
        }
    }
}
