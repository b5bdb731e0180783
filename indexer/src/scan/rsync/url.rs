//! What an rsync URL makes of the command: program, arguments, password.

use std::fmt;

use mb_core::path::percent_decode;

/// An rsync URL with its password taken out.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RsyncUrl {
    /// Whether the connection is made over TLS by `rsync-ssl`.
    pub(super) tls: bool,
    /// `rsync://[user@]host[:port]/module/…/`, ending in a slash.
    pub(super) url: String,
    /// For the environment variable `RSYNC_PASSWORD`.
    pub(super) password: Option<String>,
}

impl fmt::Debug for RsyncUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RsyncUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tls { write!(f, "rsyncs{}", &self.url["rsync".len()..]) } else { f.write_str(&self.url) }
    }
}

impl RsyncUrl {
    /// Reads a mirror's URL; `None` when it is no `rsync://` or `rsyncs://` URL with a host.
    pub(crate) fn parse(text: &str) -> Option<RsyncUrl> {
        let (tls, rest) = match text.strip_prefix("rsync://") {
            Some(rest) => (false, rest),
            None => (true, text.strip_prefix("rsyncs://")?),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, authority),
        };
        if host.is_empty() {
            return None;
        }
        let (user, password) = match login {
            Some(login) => match login.split_once(':') {
                Some((user, password)) => (Some(user), Some(percent_decoded(password))),
                None => (Some(login), None),
            },
            None => (None, None),
        };
        let user = user.filter(|user| !user.is_empty()).map(|user| format!("{user}@")).unwrap_or_default();
        let path = path.trim_end_matches('/');
        let slash = if path.is_empty() { "" } else { "/" };
        Some(RsyncUrl { tls, url: format!("rsync://{user}{host}/{path}{slash}"), password })
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
        assert_eq!(url.password.as_deref(), Some("s@cret"));
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
        for text in ["", "http://example.org/", "rsync:///module", "example.org::module", "-e sh"] {
            assert_eq!(RsyncUrl::parse(text), None, "{text}");
        }
    }
}
