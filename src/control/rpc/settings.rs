//! What an operator enters about a mirror, brought into the form the store keeps, or refused with the reason.

use mb_core::mirror::{DownloadProtocol, MirrorSettings, UrlScheme, absolute_url};
use url::{Host, Url};

/// What is wrong with the settings of a mirror.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingsError {
    /// No name.
    #[error("a mirror needs a name")]
    NoName,
    /// A name that could not be given on a command line.
    #[error("the name {0:?} contains a space or control character: use letters, digits, dots and dashes")]
    NameNotOneWord(String),
    /// Nothing to redirect to.
    #[error("a mirror needs an HTTP URL")]
    NoHttpUrl,
    /// Not a URL, or one of another kind.
    #[error("{key} {url:?}: {reason}")]
    Url {
        /// Which of the URLs.
        key: &'static str,
        /// As it was given.
        url: String,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// Not a place on earth.
    #[error("{key} {degrees}: must be from -{limit} to {limit} degrees")]
    Coordinate {
        /// Latitude or longitude.
        key: &'static str,
        /// As it was given.
        degrees: String,
        /// The largest value.
        limit: u8,
    },
}

/// The settings as they are stored: URLs end in a slash, codes are upper case and separated by single spaces.
///
/// # Errors
/// The first thing that cannot be stored.
pub(crate) fn accept(settings: MirrorSettings) -> Result<MirrorSettings, SettingsError> {
    if settings.name.is_empty() {
        return Err(SettingsError::NoName);
    }
    if settings.name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(SettingsError::NameNotOneWord(settings.name));
    }
    if settings.http_url.trim().is_empty() {
        return Err(SettingsError::NoHttpUrl);
    }
    check_degrees("Latitude", settings.latitude, 90)?;
    check_degrees("Longitude", settings.longitude, 180)?;
    Ok(MirrorSettings {
        http_url: accept_http_url(&settings.http_url)?,
        rsync_url: accept_url("RsyncURL", &settings.rsync_url, &["rsync://", "rsyncs://"])?,
        ftp_url: accept_url("FtpURL", &settings.ftp_url, &["ftp://"])?,
        continent_code: accept_codes(&settings.continent_code),
        country_codes: accept_codes(&settings.country_codes),
        excluded_country_codes: accept_codes(&settings.excluded_country_codes),
        ..settings
    })
}

/// The host of an accepted `HttpURL`.
pub(super) fn http_host(http_url: &str) -> Option<Host> {
    let url = Url::parse(&absolute_url(http_url, DownloadProtocol::Http)).ok()?;
    url.host().map(|host| host.to_owned())
}

fn accept_http_url(url: &str) -> Result<String, SettingsError> {
    let trimmed = url.trim();
    if UrlScheme::of(trimmed) == UrlScheme::Both && trimmed.contains("://") {
        let reason = "must start with http:// or https://, or have no scheme when both are served".to_owned();
        return Err(SettingsError::Url { key: "HttpURL", url: url.to_owned(), reason });
    }
    check_url("HttpURL", url, &absolute_url(trimmed, DownloadProtocol::Http))?;
    Ok(with_trailing_slash(trimmed))
}

fn accept_url(key: &'static str, url: &str, prefixes: &[&str]) -> Result<String, SettingsError> {
    let trimmed = url.trim();
    if trimmed.is_empty() {
        return Ok(String::new());
    }
    if !prefixes.iter().any(|prefix| trimmed.starts_with(prefix)) {
        let reason = format!("must start with {}", prefixes.join(" or "));
        return Err(SettingsError::Url { key, url: url.to_owned(), reason });
    }
    check_url(key, url, trimmed)?;
    Ok(with_trailing_slash(trimmed))
}

fn check_url(key: &'static str, given: &str, absolute: &str) -> Result<(), SettingsError> {
    let refuse = |reason: String| Err(SettingsError::Url { key, url: given.to_owned(), reason });
    if absolute.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return refuse("contains a space or control character".to_owned());
    }
    match Url::parse(absolute) {
        Ok(url) if url.host_str().is_none_or(str::is_empty) => refuse("names no host".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => refuse(error.to_string()),
    }
}

fn with_trailing_slash(url: &str) -> String {
    if url.ends_with('/') { url.to_owned() } else { format!("{url}/") }
}

fn accept_codes(codes: &str) -> String {
    let separated = codes.to_uppercase().replace(',', " ");
    separated.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn check_degrees(key: &'static str, degrees: f32, limit: u8) -> Result<(), SettingsError> {
    if degrees.abs() <= f32::from(limit) {
        return Ok(());
    }
    Err(SettingsError::Coordinate { key, degrees: degrees.to_string(), limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, http_url: &str) -> MirrorSettings {
        MirrorSettings { name: name.into(), http_url: http_url.into(), ..MirrorSettings::default() }
    }

    #[test]
    fn urls_and_codes_are_brought_into_form() {
        let accepted = accept(MirrorSettings {
            rsync_url: "rsync://user@a.example:8730/module".into(),
            ftp_url: "ftp://a.example/pub/".into(),
            continent_code: "eu".into(),
            country_codes: "fr,de, be".into(),
            excluded_country_codes: " us ".into(),
            ..named("a", "https://a.example/pub")
        })
        .unwrap();
        assert_eq!(accepted.http_url, "https://a.example/pub/");
        assert_eq!(accepted.rsync_url, "rsync://user@a.example:8730/module/");
        assert_eq!(accepted.ftp_url, "ftp://a.example/pub/");
        assert_eq!(accepted.continent_code, "EU");
        assert_eq!(accepted.country_codes, "FR DE BE");
        assert_eq!(accepted.excluded_country_codes, "US");
    }

    #[test]
    fn a_url_without_a_scheme_offers_both() {
        assert_eq!(accept(named("a", "a.example:8080/x")).unwrap().http_url, "a.example:8080/x/");
        assert_eq!(accept(named("a", "127.0.0.1:8080")).unwrap().http_url, "127.0.0.1:8080/");
    }

    #[test]
    fn what_cannot_be_stored_is_refused_with_its_reason() {
        let long_way_north = MirrorSettings { latitude: 91.0, ..named("a", "http://a/") };
        let nowhere = MirrorSettings { longitude: f32::NAN, ..named("a", "http://a/") };
        let refusals = [
            (named("", "http://a/"), "needs a name"),
            (named("a b", "http://a/"), "contains a space"),
            (named("a", " "), "needs an HTTP URL"),
            (named("a", "ftp://a/"), "must start with http:// or https://"),
            (named("a", "http://"), "empty host"),
            (named("a", "http://a b/"), "contains a space"),
            (named("a", "http://a:port/"), "invalid port"),
            (MirrorSettings { rsync_url: "a::module".into(), ..named("a", "http://a/") }, "must start with rsync://"),
            (MirrorSettings { ftp_url: "http://a/".into(), ..named("a", "http://a/") }, "must start with ftp://"),
            (long_way_north, "from -90 to 90"),
            (nowhere, "from -180 to 180"),
        ];
        for (settings, reason) in refusals {
            let message = accept(settings).unwrap_err().to_string();
            assert!(message.contains(reason), "{message}");
        }
    }

    #[test]
    fn the_host_is_told_with_and_without_a_scheme() {
        assert_eq!(http_host("a.example:80/x/"), Some(Host::Domain("a.example".into())));
        assert_eq!(http_host("https://[::1]:80/"), Some(Host::Ipv6(std::net::Ipv6Addr::LOCALHOST)));
    }
}
