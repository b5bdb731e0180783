//! What an rsync URL makes of the command: program, arguments, password.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use std::fmt;

use mb_core::foreign_text::ForeignText;
use mb_core::path::percent_decode;
use mb_core::secret::Secret;

/// Why a mirror's `RsyncURL` cannot be used; no part of the URL is in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UrlError {
    /// Another kind of URL.
    #[error("is no rsync:// or rsyncs:// URL")]
    Scheme,
    /// Nothing between the scheme or login and the path.
    #[error("has no host")]
    NoHost,
    /// It cannot be told where the password ends.
    #[error(
        "has an `@` after the `/` that ends its host, so that its password may have been cut: write `/` as %2F and `@` as \
         %40 in the password, and `@` as %40 in the path"
    )]
    AmbiguousLogin,
    /// A character that no URL has.
    #[error("has spaces or control characters: write them as %20 in the password")]
    Characters,
}

/// An rsync URL with its password taken out.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RsyncUrl {
    /// Whether the connection is made over TLS by `rsync-ssl`.
    pub(super) tls: bool,
    /// `rsync://[user@]host[:port]/module/…/`, ending in a slash.
    pub(super) url: String,
    /// For the environment variable `RSYNC_PASSWORD`; empty when there is none.
    pub(super) password: Secret,
}

impl fmt::Debug for RsyncUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RsyncUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = ForeignText::new(&self.url);
        match (self.tls, self.url.strip_prefix("rsync")) {
            (true, Some(rest)) => write!(f, "rsyncs{}", ForeignText::new(rest)),
            _ => write!(f, "{shown}"),
        }
    }
}

impl RsyncUrl {
    /// Reads a mirror's URL.
    ///
    /// The login ends at the last `@` before the first `/`. A URL with a `:` there and an `@` later is refused, since it may
    /// be that of a password with an unescaped `/`, a part of which would be taken for the host. `%40` in the path stands
    /// for `@`; rsync knows no other escapes there.
    pub(crate) fn parse(text: &str) -> Result<RsyncUrl, UrlError> {
        let (tls, rest) = match (text.strip_prefix("rsync://"), text.strip_prefix("rsyncs://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Err(UrlError::Scheme),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains(|character: char| character.is_whitespace() || character.is_control())
            || path.contains(char::is_control)
        {
            return Err(UrlError::Characters);
        }
        if authority.contains(':') && path.contains('@') {
            return Err(UrlError::AmbiguousLogin);
        }
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (login, host),
            None => ("", authority),
        };
        if host.is_empty() {
            return Err(UrlError::NoHost);
        }
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let at = if user.is_empty() { "" } else { "@" };
        let path = path.trim_end_matches('/').replace("%40", "@");
        let slash = if path.is_empty() { "" } else { "/" };
        Ok(RsyncUrl {
            tls,
            url: format!("rsync://{user}{at}{host}/{path}{slash}"),
            password: Secret::new(percent_decoded(password)),
        })
    }
}

/// The text with `%xx` decoded; kept as it is where that gives no UTF-8.
fn percent_decoded(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let valid = percent_decode(text.as_bytes(), &mut decoded).is_ok();
    String::from_utf8(decoded).ok().filter(|_| valid).unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_leaves_the_url_and_the_user_stays() {
        let url = RsyncUrl::parse("rsync://anna:s%40cret@example.org:8730/module/sub/").unwrap();
        assert_eq!(url.url, "rsync://anna@example.org:8730/module/sub/");
        assert_eq!(url.password.expose(), "s@cret");
        assert!(!format!("{url} {url:?}").contains("cret"));
    }

    #[test]
    fn a_slash_at_the_end_is_added() {
        assert_eq!(RsyncUrl::parse("rsync://example.org/module").unwrap().url, "rsync://example.org/module/");
        assert_eq!(RsyncUrl::parse("rsync://example.org").unwrap().url, "rsync://example.org/");
    }

    #[test]
    fn tls_is_asked_for_by_the_scheme() {
        let url = RsyncUrl::parse("rsyncs://example.org/m/").unwrap();
        assert!(url.tls);
        assert_eq!(url.to_string(), "rsyncs://example.org/m/");
    }

    #[test]
    fn other_urls_are_refused() {
        for (text, error) in [
            ("", UrlError::Scheme),
            ("http://example.org/", UrlError::Scheme),
            ("example.org::module", UrlError::Scheme),
            ("-e sh", UrlError::Scheme),
            ("rsync:///module", UrlError::NoHost),
            ("rsync://anna:b@/module", UrlError::NoHost),
            ("rsync://exam ple.org/module", UrlError::Characters),
            ("rsync://example.org/mod\nule", UrlError::Characters),
        ] {
            assert_eq!(RsyncUrl::parse(text), Err(error), "{text}");
        }
    }

    /// With `se/cret` as the password, `anna:se` was the host, and the whole of the URL was on rsync's command line and in
    /// its messages.
    #[test]
    fn a_password_with_a_slash_is_refused_and_not_shown() {
        for text in [
            "rsync://anna:se/cret@example.org/module/",
            "rsync://anna:12/cret@example.org/module/",
            "rsyncs://anna:s@e/cret@example.org/module/",
        ] {
            let error = RsyncUrl::parse(text).unwrap_err();
            assert_eq!(error, UrlError::AmbiguousLogin);
            assert!(error.to_string().contains("%2F") && !error.to_string().contains("cret"), "{error}");
        }
        let url = RsyncUrl::parse("rsync://anna:se%2Fcret@example.org:873/mod%40ule/").unwrap();
        assert_eq!((url.url.as_str(), url.password.expose()), ("rsync://anna@example.org:873/mod@ule/", "se/cret"));
        assert_eq!(RsyncUrl::parse("rsync://example.org/a@b").unwrap().url, "rsync://example.org/a@b/");
    }

    proptest::proptest! {
        #[test]
        fn no_url_makes_it_panic_or_shows_its_password(text in ".{0,40}", password in "[A-Z/@:%]{1,12}") {
            let _ = RsyncUrl::parse(&text);
            let url = format!("rsync://anna:0{password}@example.org/module/");
            match RsyncUrl::parse(&url) {
                Ok(parsed) => proptest::prop_assert_eq!(parsed.to_string(), "rsync://anna@example.org/module/"),
                Err(error) => proptest::prop_assert_eq!(error, UrlError::AmbiguousLogin),
            }
        }
    }
}
