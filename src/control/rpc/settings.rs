//! What an operator enters about a mirror, brought into the form the store keeps, or refused with the reason.

use mb_core::mirror::{DownloadProtocol, InvalidMirror, MirrorSettings, UrlKind, absolute_url, accept_url};
use url::{Host, Url};

/// Characters of a refused text that a message shows.
const SHOWN_CHARACTERS_MAX: usize = 200;

/// The settings as they are stored: URLs end in a slash, codes are upper case and separated by single spaces. What a command
/// enters must also have a name that is one word without a slash; records of other programs may have others.
///
/// # Errors
/// The first rule that they break.
pub(crate) fn accept(settings: MirrorSettings) -> Result<MirrorSettings, InvalidMirror> {
    if settings.name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
        let reason = format!(
            "{:?} contains a space, slash or control character: use letters, digits, dots and dashes",
            shown(&settings.name)
        );
        return Err(InvalidMirror::new("Name", reason));
    }
    if settings.http_url.trim().is_empty() {
        return Err(InvalidMirror::new("HttpURL", "is empty: a mirror needs an HTTP URL"));
    }
    let optional_url = |kind, url: &str| if url.trim().is_empty() { Ok(String::new()) } else { accept_url(kind, url) };
    let trimmed = |text: &str| text.trim().to_owned();
    let accepted = MirrorSettings {
        http_url: accept_url(UrlKind::Http, &settings.http_url)?,
        rsync_url: optional_url(UrlKind::Rsync, &settings.rsync_url)?,
        ftp_url: optional_url(UrlKind::Ftp, &settings.ftp_url)?,
        sponsor_name: trimmed(&settings.sponsor_name),
        sponsor_url: trimmed(&settings.sponsor_url),
        sponsor_logo_url: trimmed(&settings.sponsor_logo_url),
        admin_name: trimmed(&settings.admin_name),
        admin_email: trimmed(&settings.admin_email),
        continent_code: accept_codes(&settings.continent_code),
        country_codes: accept_codes(&settings.country_codes),
        excluded_country_codes: accept_codes(&settings.excluded_country_codes),
        ..settings
    };
    accepted.check()?;
    Ok(accepted)
}

/// The start of a refused text.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARACTERS_MAX).collect()
}

/// The host of an accepted `HttpURL`.
pub(super) fn http_host(http_url: &str) -> Option<Host> {
    let url = Url::parse(&absolute_url(http_url, DownloadProtocol::Http)).ok()?;
    url.host().map(|host| host.to_owned())
}

fn accept_codes(codes: &str) -> String {
    let separated = codes.to_uppercase().replace(',', " ");
    separated.split_whitespace().collect::<Vec<_>>().join(" ")
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
            (named("a", "http://"), "names no host"),
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
