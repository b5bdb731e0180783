//! A mirror as it lies in the file (`FORMAT.md`, Mirrors), from and to [`Mirror`].
//!
//! The record is a type of its own, so that a change of [`Mirror`] is a decision about the format and never an accident.

use mb_core::mirror::{AllowRedirects, Health, Mirror, MirrorId, MirrorSettings, MirrorState, ScanProtocol};
use mb_core::time::Timestamp;
use rkyv::string::ArchivedString;
use rkyv::{Archive, Serialize};

/// Everything in a mirror table.
#[derive(Archive, Serialize, Debug)]
pub(crate) struct MirrorsArchive {
    /// By ascending id.
    pub(crate) mirrors: Vec<MirrorRecord>,
}

/// A mirror; the fields are those of [`Mirror`].
#[derive(Archive, Serialize, Debug)]
pub(crate) struct MirrorRecord {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) http_url: String,
    pub(crate) rsync_url: String,
    pub(crate) ftp_url: String,
    pub(crate) sponsor_name: String,
    pub(crate) sponsor_url: String,
    pub(crate) sponsor_logo_url: String,
    pub(crate) admin_name: String,
    pub(crate) admin_email: String,
    pub(crate) custom_data: String,
    pub(crate) continent_code: String,
    pub(crate) country_codes: String,
    pub(crate) excluded_country_codes: String,
    pub(crate) comment: String,
    pub(crate) http_down_reason: String,
    pub(crate) https_down_reason: String,
    pub(crate) since: i64,
    pub(crate) timezone_offset_ms: i64,
    pub(crate) last_sync: i64,
    pub(crate) last_successful_sync: i64,
    pub(crate) last_successful_sync_precision_ns: u64,
    pub(crate) last_mod_time: i64,
    pub(crate) score: i32,
    pub(crate) latitude: f32,
    pub(crate) longitude: f32,
    pub(crate) asn: u32,
    /// 0 default, 1 allowed, 2 disallowed.
    pub(crate) allow_redirects: u8,
    /// 0 rsync, 1 FTP, 2 HTTP.
    pub(crate) last_successful_sync_protocol: u8,
    pub(crate) continent_only: bool,
    pub(crate) country_only: bool,
    pub(crate) as_only: bool,
    pub(crate) enabled: bool,
    pub(crate) http_up: bool,
    pub(crate) https_up: bool,
}

// As `FORMAT.md` says.
const _: () = {
    assert!(size_of::<ArchivedMirrorRecord>() == 336);
    assert!(std::mem::offset_of!(ArchivedMirrorRecord, name) == 8);
    assert!(std::mem::offset_of!(ArchivedMirrorRecord, since) == 264);
    assert!(std::mem::offset_of!(ArchivedMirrorRecord, score) == 312);
    assert!(std::mem::offset_of!(ArchivedMirrorRecord, allow_redirects) == 328);
    assert!(std::mem::offset_of!(ArchivedMirrorRecord, https_up) == 335);
};

impl From<&Mirror> for MirrorRecord {
    fn from(mirror: &Mirror) -> MirrorRecord {
        let Mirror { id, settings, state } = mirror.clone();
        MirrorRecord {
            id: id.0,
            name: settings.name,
            http_url: settings.http_url,
            rsync_url: settings.rsync_url,
            ftp_url: settings.ftp_url,
            sponsor_name: settings.sponsor_name,
            sponsor_url: settings.sponsor_url,
            sponsor_logo_url: settings.sponsor_logo_url,
            admin_name: settings.admin_name,
            admin_email: settings.admin_email,
            custom_data: settings.custom_data,
            continent_code: settings.continent_code,
            country_codes: settings.country_codes,
            excluded_country_codes: settings.excluded_country_codes,
            comment: settings.comment,
            http_down_reason: state.http.down_reason,
            https_down_reason: state.https.down_reason,
            since: state.since.0,
            timezone_offset_ms: state.timezone_offset_ms,
            last_sync: state.last_sync.0,
            last_successful_sync: state.last_successful_sync.0,
            last_successful_sync_precision_ns: state.last_successful_sync_precision_ns,
            last_mod_time: state.last_mod_time.0,
            score: settings.score,
            latitude: settings.latitude,
            longitude: settings.longitude,
            asn: settings.asn,
            allow_redirects: match settings.allow_redirects {
                AllowRedirects::Default => 0,
                AllowRedirects::Allowed => 1,
                AllowRedirects::Disallowed => 2,
            },
            last_successful_sync_protocol: match state.last_successful_sync_protocol {
                ScanProtocol::Rsync => 0,
                ScanProtocol::Ftp => 1,
                ScanProtocol::Http => 2,
            },
            continent_only: settings.continent_only,
            country_only: settings.country_only,
            as_only: settings.as_only,
            enabled: state.enabled,
            http_up: state.http.up,
            https_up: state.https.up,
        }
    }
}

/// The meaning of an `allow_redirects` byte.
pub(crate) fn allow_redirects(byte: u8) -> Option<AllowRedirects> {
    [AllowRedirects::Default, AllowRedirects::Allowed, AllowRedirects::Disallowed].get(usize::from(byte)).copied()
}

/// The meaning of a `last_successful_sync_protocol` byte.
pub(crate) fn scan_protocol(byte: u8) -> Option<ScanProtocol> {
    [ScanProtocol::Rsync, ScanProtocol::Ftp, ScanProtocol::Http].get(usize::from(byte)).copied()
}

impl From<&ArchivedMirrorRecord> for Mirror {
    fn from(record: &ArchivedMirrorRecord) -> Mirror {
        let text = |text: &ArchivedString| text.as_str().to_owned();
        Mirror {
            id: MirrorId(record.id.to_native()),
            settings: MirrorSettings {
                name: text(&record.name),
                http_url: text(&record.http_url),
                rsync_url: text(&record.rsync_url),
                ftp_url: text(&record.ftp_url),
                sponsor_name: text(&record.sponsor_name),
                sponsor_url: text(&record.sponsor_url),
                sponsor_logo_url: text(&record.sponsor_logo_url),
                admin_name: text(&record.admin_name),
                admin_email: text(&record.admin_email),
                custom_data: text(&record.custom_data),
                continent_only: record.continent_only,
                country_only: record.country_only,
                as_only: record.as_only,
                score: record.score.to_native(),
                latitude: record.latitude.to_native(),
                longitude: record.longitude.to_native(),
                continent_code: text(&record.continent_code),
                country_codes: text(&record.country_codes),
                excluded_country_codes: text(&record.excluded_country_codes),
                asn: record.asn.to_native(),
                comment: text(&record.comment),
                // Unknown bytes were refused when the file was opened.
                allow_redirects: allow_redirects(record.allow_redirects).unwrap_or_default(),
            },
            state: MirrorState {
                enabled: record.enabled,
                http: Health { up: record.http_up, down_reason: text(&record.http_down_reason) },
                https: Health { up: record.https_up, down_reason: text(&record.https_down_reason) },
                since: Timestamp(record.since.to_native()),
                timezone_offset_ms: record.timezone_offset_ms.to_native(),
                last_sync: Timestamp(record.last_sync.to_native()),
                last_successful_sync: Timestamp(record.last_successful_sync.to_native()),
                last_successful_sync_protocol: scan_protocol(record.last_successful_sync_protocol).unwrap_or_default(),
                last_successful_sync_precision_ns: record.last_successful_sync_precision_ns.to_native(),
                last_mod_time: Timestamp(record.last_mod_time.to_native()),
                unreadable: None,
            },
        }
    }
}
