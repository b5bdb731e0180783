//! What a mirror record must be before it is used: the one constructor that every record passes, whoever wrote it.
//!
//! Redis and SQLite are written by other programs and by hand, so a record that was stored is no safer than one that is
//! typed. The values of a record end up in `Location` and `Link` headers, on command lines, in JSON, pages and terminals;
//! the rules are what could break one of these. A record that breaks a rule is shown with the reason, is never selected,
//! scanned or checked, and can be repaired.

use std::fmt;

use url::{Host, Url};

use super::{Health, Mirror, MirrorSettings, UrlScheme};

/// Longest URL in bytes. A base of this length and a path of the longest request line fit a response head.
pub const URL_BYTES_MAX: usize = 2_048;
/// Longest name in bytes, as that of a file.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest sponsor or administrator text, or list of codes, in bytes.
pub const TEXT_BYTES_MAX: usize = 4_096;
/// Longest comment or custom data in bytes. A guess: pages that operators keep there are a few kilobytes.
pub const LONG_TEXT_BYTES_MAX: usize = 65_536;
/// Largest score, either way: a factor of 10,000, beyond which every share is 0 or 100 %.
pub const SCORE_MAX: i32 = 1_000_000;

/// Bytes of a refused value that a message shows.
const SHOWN_BYTES_MAX: usize = 200;

/// Why a record or a value is refused. The text names the key and never holds a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct InvalidMirror {
    /// The key, as `show` prints it, or the part of the stored record.
    pub key: String,
    /// What is wrong with it and what is allowed.
    pub reason: String,
}

impl InvalidMirror {
    /// The record breaks a rule in `key`.
    pub fn new(key: impl Into<String>, reason: impl Into<String>) -> InvalidMirror {
        InvalidMirror { key: key.into(), reason: reason.into() }
    }
}

/// Which of a mirror's URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlKind {
    /// `HttpURL`: sent to clients.
    Http,
    /// `RsyncURL`: given to rsync.
    Rsync,
    /// `FtpURL`: given to the FTP client.
    Ftp,
}

impl UrlKind {
    /// The key of it.
    pub fn key(self) -> &'static str {
        match self {
            UrlKind::Http => "HttpURL",
            UrlKind::Rsync => "RsyncURL",
            UrlKind::Ftp => "FtpURL",
        }
    }

    fn schemes(self) -> &'static [&'static str] {
        match self {
            UrlKind::Http => &["http://", "https://"],
            UrlKind::Rsync => &["rsync://", "rsyncs://"],
            UrlKind::Ftp => &["ftp://"],
        }
    }
}

/// A base URL of a mirror that has passed every rule: of a known scheme, with a host, of printable ASCII without spaces,
/// quotes and angle brackets, and at most [`URL_BYTES_MAX`] long; one of HTTP ends in a slash.
#[derive(Clone, PartialEq, Eq)]
pub struct MirrorUrl {
    text: String,
    host: Host,
}

impl MirrorUrl {
    /// Checks a URL as it is stored. An `HttpURL` may lack its scheme: then both HTTP and HTTPS are served.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn new(kind: UrlKind, text: &str) -> Result<MirrorUrl, InvalidMirror> {
        let refuse = |reason: String| InvalidMirror::new(kind.key(), reason);
        if text.is_empty() {
            return Err(refuse("is empty".to_owned()));
        }
        check_length(kind.key(), text, URL_BYTES_MAX)?;
        if let Some(bad) = text.chars().find(|&c| !is_url_character(c)) {
            return Err(refuse(format!("{} contains {}: percent-encode it", shown_url(text), Named(bad))));
        }
        let scheme = kind.schemes().iter().find(|scheme| text.starts_with(**scheme));
        let rest = match (scheme, kind) {
            (Some(scheme), _) => &text[scheme.len()..],
            (None, UrlKind::Http) if !text.contains("://") => text,
            (None, UrlKind::Http) => {
                let reason = "must start with http:// or https://, or have no scheme when both are served";
                return Err(refuse(format!("{} {reason}", shown_url(text))));
            }
            (None, _) => {
                let schemes = kind.schemes().join(" or ");
                return Err(refuse(format!("{} must start with {schemes}", shown_url(text))));
            }
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.is_empty() {
            return Err(refuse(format!("{} names no host", shown_url(text))));
        }
        if kind == UrlKind::Http && rest.contains('@') && authority.contains('@') {
            return Err(refuse("must not hold a user name or password: it is sent to every client".to_owned()));
        }
        if kind != UrlKind::Http && authority.contains(':') && !authority.contains('@') && rest.contains('@') {
            let advice =
                "has a / or @ in its user name or password: write it as %2F or %40, and an @ of the path as %40";
            return Err(refuse(advice.to_owned()));
        }
        if text.contains('#') {
            return Err(refuse(format!("{} contains a #: paths cannot be appended to it", shown_url(text))));
        }
        // Redirects are made by appending to it; rsync and FTP take a folder's name with or without.
        if kind == UrlKind::Http && !text.ends_with('/') {
            return Err(refuse(format!("{} must end in a slash", shown_url(text))));
        }
        let absolute = if scheme.is_some() { text.to_owned() } else { format!("http://{text}") };
        let parsed = Url::parse(&absolute).map_err(|error| refuse(format!("{}: {error}", shown_url(text))))?;
        match parsed.host() {
            Some(Host::Domain("")) | None => Err(refuse(format!("{} names no host", shown_url(text)))),
            Some(host) => Ok(MirrorUrl { text: text.to_owned(), host: host.to_owned() }),
        }
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its host.
    pub fn host(&self) -> &Host {
        &self.host
    }
}

/// Without the user name and password.
impl fmt::Debug for MirrorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MirrorUrl({})", shown_url(&self.text))
    }
}

impl MirrorSettings {
    /// Checks every rule of a record that is stored or about to be stored.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self) -> Result<(), InvalidMirror> {
        check_name(&self.name)?;
        MirrorUrl::new(UrlKind::Http, &self.http_url)?;
        for (kind, url) in [(UrlKind::Rsync, &self.rsync_url), (UrlKind::Ftp, &self.ftp_url)] {
            if !url.is_empty() {
                MirrorUrl::new(kind, url)?;
            }
        }
        let lines = [
            ("SponsorName", &self.sponsor_name),
            ("SponsorURL", &self.sponsor_url),
            ("SponsorLogoURL", &self.sponsor_logo_url),
            ("AdminName", &self.admin_name),
            ("AdminEmail", &self.admin_email),
        ];
        for (key, text) in lines {
            check_length(key, text, TEXT_BYTES_MAX)?;
            check_characters(key, text, char::is_control)?;
        }
        for (key, text) in [("CustomData", &self.custom_data), ("Comment", &self.comment)] {
            check_length(key, text, LONG_TEXT_BYTES_MAX)?;
            check_characters(key, text, |c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))?;
        }
        let codes = [
            ("ContinentCode", &self.continent_code),
            ("CountryCodes", &self.country_codes),
            ("ExcludedCountryCodes", &self.excluded_country_codes),
        ];
        for (key, text) in codes {
            check_length(key, text, TEXT_BYTES_MAX)?;
            check_characters(key, text, |c| !c.is_ascii_alphanumeric() && !matches!(c, ' ' | ',' | '-'))?;
        }
        check_degrees("Latitude", self.latitude, 90)?;
        check_degrees("Longitude", self.longitude, 180)?;
        if !(-SCORE_MAX..=SCORE_MAX).contains(&self.score) {
            let reason = format!("{} must be from -{SCORE_MAX} to {SCORE_MAX}", self.score);
            return Err(InvalidMirror::new("Score", reason));
        }
        Ok(())
    }
}

impl Mirror {
    /// Why the record cannot be used: what was found when it was read, or the first rule that it breaks. `None`: it is valid.
    pub fn invalid(&self) -> Option<InvalidMirror> {
        match &self.state.unreadable {
            Some(unreadable) => Some(unreadable.clone()),
            None => self.settings.check().err(),
        }
    }

    /// What may be published of the record: itself when it is valid, else a disabled stand-in with its id, its name without
    /// control characters, and the reason; no other value of it.
    pub fn publishable(&self) -> Mirror {
        let Some(invalid) = self.invalid() else { return self.clone() };
        let mut name: String = self.settings.name.chars().filter(|c| !c.is_control()).collect();
        truncate(&mut name, NAME_BYTES_MAX);
        let mut stand_in = Mirror { id: self.id, settings: MirrorSettings::default(), state: Default::default() };
        stand_in.settings.name = name;
        let down = Health { up: false, down_reason: format!("Invalid record: {invalid}") };
        stand_in.state.http = down.clone();
        stand_in.state.https = down;
        stand_in.state.since = self.state.since;
        stand_in
    }
}

/// Whether every character of `text` may stand in a URL: none of them ends a header line, a `Link` target or an attribute.
pub fn is_harmless_url(text: &str) -> bool {
    text.chars().all(is_url_character)
}

fn check_name(name: &str) -> Result<(), InvalidMirror> {
    if name.is_empty() {
        return Err(InvalidMirror::new("Name", "is empty: a mirror needs a name"));
    }
    check_length("Name", name, NAME_BYTES_MAX)?;
    check_characters("Name", name, |c| c.is_control() || is_invisible(c))
}

fn check_length(key: &str, text: &str, max: usize) -> Result<(), InvalidMirror> {
    if text.len() <= max {
        return Ok(());
    }
    Err(InvalidMirror::new(key, format!("has {} bytes, at most {max} are allowed", text.len())))
}

fn check_characters(key: &str, text: &str, bad: impl Fn(char) -> bool) -> Result<(), InvalidMirror> {
    match text.chars().find(|&c| bad(c)) {
        None => Ok(()),
        Some(c) => Err(InvalidMirror::new(key, format!("contains {}, which is not allowed there", Named(c)))),
    }
}

fn check_degrees(key: &str, degrees: f32, limit: u8) -> Result<(), InvalidMirror> {
    // A NaN is within no range.
    if degrees.abs() <= f32::from(limit) {
        return Ok(());
    }
    Err(InvalidMirror::new(key, format!("{degrees} must be from -{limit} to {limit} degrees")))
}

/// Printable ASCII without what ends a URL in `Link` (RFC 8288, section 3), HTML or a terminal, or is none of RFC 3986's.
fn is_url_character(c: char) -> bool {
    c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}')
}

/// Format characters that change the order or look of the text around them.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A refused character, by its name where it has no shape.
struct Named(char);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            '\r' => f.write_str("a CR"),
            '\n' => f.write_str("an LF"),
            '\0' => f.write_str("a NUL"),
            '\t' => f.write_str("a tab"),
            ' ' => f.write_str("a space"),
            c if c.is_ascii_graphic() => write!(f, "`{c}`"),
            c => write!(f, "U+{:04X}", u32::from(c)),
        }
    }
}

/// A URL for a message: quoted and escaped, without what may be a user name or password, and not long.
pub fn shown_url(url: &str) -> String {
    // Up to the last @, since a password may hold a slash that should have been encoded.
    let mut shown = match url.rsplit_once('@') {
        Some((before, rest)) => {
            let scheme = before.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
            format!("{scheme}***@{rest}")
        }
        None => url.to_owned(),
    };
    if shown.len() > SHOWN_BYTES_MAX {
        truncate(&mut shown, SHOWN_BYTES_MAX);
        shown.push('…');
    }
    format!("{shown:?}")
}

fn truncate(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
    }
}

/// The stored form of a typed `HttpURL`, `RsyncURL` or `FtpURL`: without surrounding spaces, with its closing slash, and in
/// ASCII: a host name of other letters is encoded (RFC 5891), as are other letters of the path.
///
/// # Errors
/// The first rule that it breaks.
pub fn accept_url(kind: UrlKind, typed: &str) -> Result<String, InvalidMirror> {
    let mut url = with_closing_slash(typed.trim().to_owned());
    let is_international = !url.is_ascii() && !url.chars().any(|c| c.is_whitespace() || c.is_control());
    if kind == UrlKind::Http && is_international {
        let without_scheme = UrlScheme::of(&url) == UrlScheme::Both;
        let absolute = if without_scheme { format!("http://{url}") } else { url.clone() };
        if let Ok(parsed) = Url::parse(&absolute) {
            let encoded = parsed.as_str();
            url = if without_scheme { encoded.trim_start_matches("http://").to_owned() } else { encoded.to_owned() };
        }
    }
    MirrorUrl::new(kind, &url)?;
    Ok(url)
}

/// `url` with a slash at its end; an empty one stays.
pub fn with_closing_slash(url: String) -> String {
    if url.is_empty() || url.ends_with('/') { url } else { url + "/" }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mirror::{MirrorId, MirrorState};

    fn valid() -> MirrorSettings {
        MirrorSettings { name: "a".into(), http_url: "http://a.example/".into(), ..MirrorSettings::default() }
    }

    #[test]
    fn what_mirrors_have_is_accepted() {
        for url in [
            "http://a/",
            "https://a.example:8443/pub/x/",
            "a.example/",
            "127.0.0.1:8080/",
            "http://[::1]:80/",
            "https://xn--mller-kva.example/~a/b%20c/",
        ] {
            assert!(MirrorUrl::new(UrlKind::Http, url).is_ok(), "{url}");
        }
        assert!(MirrorUrl::new(UrlKind::Rsync, "rsync://user:pass@a.example:8730/module/").is_ok());
        assert!(MirrorUrl::new(UrlKind::Ftp, "ftp://a.example/pub/").is_ok());
        let full = MirrorSettings {
            sponsor_name: "Größe & Söhne".into(),
            custom_data: "{\"a\":\n\t1}".into(),
            country_codes: "FR DE".into(),
            latitude: -90.0,
            longitude: 180.0,
            ..valid()
        };
        assert_eq!(full.check(), Ok(()));
    }

    #[test]
    fn urls_that_break_an_answer_are_refused_with_the_reason() {
        for (kind, url, reason) in [
            (UrlKind::Http, "", "is empty"),
            (UrlKind::Http, "http://a/\r\nSet-Cookie: x=y/", "contains a CR"),
            (UrlKind::Http, "http://a/\n/", "contains an LF"),
            (UrlKind::Http, "http://a/\0/", "contains a NUL"),
            (UrlKind::Http, "http://a b/", "contains a space"),
            (UrlKind::Http, "http://a/\">/", "contains `\"`"),
            (UrlKind::Http, "http://a/<x/", "contains `<`"),
            (UrlKind::Http, "http://a/\u{202e}/", "contains U+202E"),
            (UrlKind::Http, "javascript://a/", "must start with http://"),
            (UrlKind::Http, "http:///x/", "names no host"),
            (UrlKind::Http, "/x/", "names no host"),
            (UrlKind::Http, "http://user:pw@a/", "must not hold a user name"),
            (UrlKind::Http, "http://a/#/", "contains a #"),
            (UrlKind::Http, "http://a", "must end in a slash"),
            (UrlKind::Http, "http://a:99999/", "invalid port"),
            (UrlKind::Rsync, "http://a/", "must start with rsync:// or rsyncs://"),
            (UrlKind::Rsync, "--rsh=x/", "must start with rsync://"),
            (UrlKind::Ftp, "gopher://a/", "must start with ftp://"),
        ] {
            let error = MirrorUrl::new(kind, url).expect_err(url).to_string();
            assert!(error.contains(reason) && error.starts_with(kind.key()), "{url:?}: {error}");
        }
        let long = format!("http://a/{}/", "x".repeat(URL_BYTES_MAX - 10));
        assert_eq!(long.len(), URL_BYTES_MAX);
        assert!(MirrorUrl::new(UrlKind::Http, &long).is_ok());
        assert!(MirrorUrl::new(UrlKind::Http, &format!("{long}/")).is_err());
    }

    #[test]
    fn no_message_holds_a_password() {
        for url in [
            "rsync://u:se/cret@a b/",
            "u:secret@a/",
            "rsync://u:secret@a/\"m",
            "rsync://u:secret@:x/",
            "rsync://u:se/cret@a/",
        ] {
            let error = MirrorUrl::new(UrlKind::Rsync, url).expect_err(url).to_string();
            assert!(!error.contains("cret"), "{error}");
        }
        let url = MirrorUrl::new(UrlKind::Rsync, "rsync://u:secret@a/m/").unwrap();
        assert!(!format!("{url:?}").contains("secret"), "{url:?}");
    }

    #[test]
    fn every_other_value_has_its_rule() {
        for (settings, key) in [
            (MirrorSettings { name: String::new(), ..valid() }, "Name"),
            (MirrorSettings { name: "a\x1b[2J".into(), ..valid() }, "Name"),
            (MirrorSettings { name: "x".repeat(NAME_BYTES_MAX + 1), ..valid() }, "Name"),
            (MirrorSettings { sponsor_url: "http://a/\n".into(), ..valid() }, "SponsorURL"),
            (MirrorSettings { comment: "\x07".into(), ..valid() }, "Comment"),
            (MirrorSettings { custom_data: "x".repeat(LONG_TEXT_BYTES_MAX + 1), ..valid() }, "CustomData"),
            (MirrorSettings { country_codes: "F<R".into(), ..valid() }, "CountryCodes"),
            (MirrorSettings { latitude: f32::NAN, ..valid() }, "Latitude"),
            (MirrorSettings { latitude: 90.1, ..valid() }, "Latitude"),
            (MirrorSettings { longitude: f32::INFINITY, ..valid() }, "Longitude"),
            (MirrorSettings { score: SCORE_MAX + 1, ..valid() }, "Score"),
            (MirrorSettings { score: i32::MIN, ..valid() }, "Score"),
        ] {
            assert_eq!(settings.check().unwrap_err().key, key);
        }
        assert_eq!(MirrorSettings { score: -SCORE_MAX, name: "x".repeat(NAME_BYTES_MAX), ..valid() }.check(), Ok(()));
    }

    #[test]
    fn typed_urls_are_brought_into_form() {
        for (typed, stored) in [
            (" http://a ", "http://a/"),
            ("https://müller.example/ä", "https://xn--mller-kva.example/%C3%A4/"),
            ("müller.example", "xn--mller-kva.example/"),
        ] {
            assert_eq!(accept_url(UrlKind::Http, typed).as_deref(), Ok(stored));
        }
        assert!(accept_url(UrlKind::Http, "http://a b").is_err());
    }

    proptest! {
        /// Whatever is stored, what is published of it breaks no header, page or terminal.
        #[test]
        fn what_is_published_is_harmless(
            http_url in "(http://|https://)?[a-z]{0,3}(\\PC|[\r\n\0 \"<>/@#?:]|[a-z]){0,12}/?",
            name in "(\\PC|[\r\n\0\x1b]){0,8}",
            score: i32,
            latitude: f32,
        ) {
            let settings = MirrorSettings { name, http_url, score, latitude, ..MirrorSettings::default() };
            let state = MirrorState { enabled: true, ..MirrorState::default() };
            let mirror = Mirror { id: MirrorId(1), settings, state };
            let published = mirror.publishable();
            prop_assert!(published.settings.http_url.chars().all(is_url_character));
            prop_assert!(!published.settings.name.contains(char::is_control));
            prop_assert!(published.settings.latitude.is_finite());
            match mirror.invalid() {
                None => prop_assert_eq!(published, mirror),
                Some(reason) => {
                    prop_assert!(!published.state.enabled && published.settings.http_url.is_empty());
                    prop_assert!(!reason.to_string().contains(char::is_control), "{}", reason);
                }
            }
        }

        #[test]
        fn what_is_accepted_is_stored_as_it_is(typed in "[a-z:/.@#?\u{e4} ]{0,20}") {
            if let Ok(stored) = accept_url(UrlKind::Http, &typed) {
                prop_assert_eq!(accept_url(UrlKind::Http, &stored), Ok(stored));
            }
        }
    }
}
