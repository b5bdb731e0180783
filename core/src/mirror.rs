//! The mirror record: what the operator entered ([`MirrorSettings`]) and what was observed ([`MirrorState`]).
//!
//! The two halves have different writers. Settings change by the operator's commands, states by scans and
//! health checks; keeping them apart lets both happen at once without one overwriting the other.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::secret::WithoutPassword;
use crate::time::Timestamp;

mod find;
mod valid;

pub use find::{Found, find_by_name};
pub use valid::{
    InvalidMirror, LONG_TEXT_BYTES_MAX, MirrorUrl, NAME_BYTES_MAX, SCORE_MAX, TEXT_BYTES_MAX, URL_BYTES_MAX, UrlKind,
    accept_url, is_harmless_url, shown_url, with_closing_slash,
};

/// Identifies a mirror for as long as the database lives; positive and never used again after a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MirrorId(pub u32);

impl fmt::Display for MirrorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a mirror may answer a health check with a redirect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AllowRedirects {
    /// As `DisallowRedirects` of the configuration says (stored as 0).
    #[default]
    Default,
    /// A redirect counts as up (stored as 1).
    Allowed,
    /// A redirect counts as down (stored as 2).
    Disallowed,
}

/// How the files of a mirror are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScanProtocol {
    /// `rsync://` or `rsyncs://` (stored as 0).
    #[default]
    Rsync,
    /// `ftp://` (stored as 1).
    Ftp,
    /// Listings over HTTP (stored as 2).
    Http,
}

/// Over which protocol a mirror answers downloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownloadProtocol {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

/// Which download protocols a mirror's `HttpURL` offers, told by its scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlScheme {
    /// `http://…`
    HttpOnly,
    /// `https://…`
    HttpsOnly,
    /// No scheme: both are offered.
    Both,
}

impl UrlScheme {
    /// The scheme of a mirror's `HttpURL`.
    pub fn of(http_url: &str) -> UrlScheme {
        if http_url.starts_with("http://") {
            UrlScheme::HttpOnly
        } else if http_url.starts_with("https://") {
            UrlScheme::HttpsOnly
        } else {
            UrlScheme::Both
        }
    }

    /// Whether downloads by `protocol` are offered.
    pub fn offers(self, protocol: DownloadProtocol) -> bool {
        !matches!(
            (self, protocol),
            (UrlScheme::HttpOnly, DownloadProtocol::Https) | (UrlScheme::HttpsOnly, DownloadProtocol::Http)
        )
    }
}

/// What the operator entered about a mirror, or geo lookup filled in for them. `Debug` prints URLs
/// without passwords.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MirrorSettings {
    /// Unique name without spaces.
    pub name: String,
    /// Base of all downloads, ending in a slash; see [`UrlScheme`].
    pub http_url: String,
    /// `rsync://` or `rsyncs://` URL; empty when there is none.
    pub rsync_url: String,
    /// `ftp://` URL; empty when there is none.
    pub ftp_url: String,
    /// Name of the sponsor.
    pub sponsor_name: String,
    /// Home page of the sponsor.
    pub sponsor_url: String,
    /// Logo of the sponsor.
    pub sponsor_logo_url: String,
    /// Name of the administrator; private.
    pub admin_name: String,
    /// E-mail address of the administrator; private.
    pub admin_email: String,
    /// Free text that is shown to the public.
    pub custom_data: String,
    /// Serves clients of its continent only.
    pub continent_only: bool,
    /// Serves clients of its countries only.
    pub country_only: bool,
    /// Serves clients of its autonomous system only.
    pub as_only: bool,
    /// Bonus or malus on the selection score, in percent.
    pub score: i32,
    /// Degrees north.
    pub latitude: f32,
    /// Degrees east.
    pub longitude: f32,
    /// Upper-case continent code, or empty.
    pub continent_code: String,
    /// Upper-case country codes, separated by spaces; the first one is where the mirror stands.
    pub country_codes: String,
    /// Upper-case country codes whose clients are never sent here, separated by spaces.
    pub excluded_country_codes: String,
    /// Autonomous system number; 0 when unknown.
    pub asn: u32,
    /// The operator's notes; private.
    pub comment: String,
    /// Whether health checks accept redirects.
    pub allow_redirects: AllowRedirects,
}

impl fmt::Debug for MirrorSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No `..`: a field that is added to the settings and not here does not compile.
        let MirrorSettings {
            name,
            http_url,
            rsync_url,
            ftp_url,
            sponsor_name,
            sponsor_url,
            sponsor_logo_url,
            admin_name,
            admin_email,
            custom_data,
            continent_only,
            country_only,
            as_only,
            score,
            latitude,
            longitude,
            continent_code,
            country_codes,
            excluded_country_codes,
            asn,
            comment,
            allow_redirects,
        } = self;
        f.debug_struct("MirrorSettings")
            .field("name", name)
            .field("http_url", &WithoutPassword(http_url))
            .field("rsync_url", &WithoutPassword(rsync_url))
            .field("ftp_url", &WithoutPassword(ftp_url))
            .field("sponsor_name", sponsor_name)
            .field("sponsor_url", &WithoutPassword(sponsor_url))
            .field("sponsor_logo_url", &WithoutPassword(sponsor_logo_url))
            .field("admin_name", admin_name)
            .field("admin_email", admin_email)
            .field("custom_data", custom_data)
            .field("continent_only", continent_only)
            .field("country_only", country_only)
            .field("as_only", as_only)
            .field("score", score)
            .field("latitude", latitude)
            .field("longitude", longitude)
            .field("continent_code", continent_code)
            .field("country_codes", country_codes)
            .field("excluded_country_codes", excluded_country_codes)
            .field("asn", asn)
            .field("comment", comment)
            .field("allow_redirects", allow_redirects)
            .finish()
    }
}

/// Result of the latest health checks over one protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether the mirror answers.
    pub up: bool,
    /// Why it is down; empty while it is up or was never checked.
    pub down_reason: String,
}

/// What scans and health checks found out about a mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorState {
    /// Whether the operator, or an automatic rule, lets it be selected.
    pub enabled: bool,
    /// State over plain HTTP.
    pub http: Health,
    /// State over HTTPS.
    pub https: Health,
    /// When `enabled` or one of the health states last changed.
    pub since: Timestamp,
    /// What to add to the mirror's file times to get UTC, in milliseconds.
    pub timezone_offset_ms: i64,
    /// Start of the latest scan, whatever became of it.
    pub last_sync: Timestamp,
    /// Start of the latest scan that was complete.
    pub last_successful_sync: Timestamp,
    /// Protocol of that scan.
    pub last_successful_sync_protocol: ScanProtocol,
    /// Resolution of the file times of that scan, in nanoseconds; 0 when there was none.
    pub last_successful_sync_precision_ns: u64,
    /// Content of the mirror's trace file.
    pub last_mod_time: Timestamp,
    /// What of the stored record could not be read; such a record is not used. Is neither stored nor published.
    #[serde(skip)]
    pub unreadable: Option<InvalidMirror>,
}

impl MirrorState {
    /// The health over `protocol`.
    pub fn health(&self, protocol: DownloadProtocol) -> &Health {
        match protocol {
            DownloadProtocol::Http => &self.http,
            DownloadProtocol::Https => &self.https,
        }
    }
}

/// A mirror as the store knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mirror {
    /// Its number.
    pub id: MirrorId,
    /// What the operator entered.
    pub settings: MirrorSettings,
    /// What was observed.
    pub state: MirrorState,
}

/// A mirror's `HttpURL` with the scheme put in front where it had none.
pub fn absolute_url(http_url: &str, protocol: DownloadProtocol) -> String {
    match (UrlScheme::of(http_url), protocol) {
        (UrlScheme::Both, DownloadProtocol::Http) => format!("http://{http_url}"),
        (UrlScheme::Both, DownloadProtocol::Https) => format!("https://{http_url}"),
        _ => http_url.to_owned(),
    }
}
