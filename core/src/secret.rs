//! Passwords: [`Secret`] holds one, [`SecretUrl`] a URL that may hold one; both print without it.
//! [`WithoutPassword`] shows any URL without its password, and [`without_login`] is one for others.

use std::borrow::Cow;
use std::fmt;

use zeroize::Zeroizing;

use crate::foreign_text::ForeignText;

/// What stands for a password in all that is shown.
pub const HIDDEN: &str = "***";

/// A password. `Debug` and `Display` print `***`; its memory is overwritten when it is dropped.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a password over.
    pub fn new(text: String) -> Secret {
        Secret(Zeroizing::new(text))
    }

    /// The password itself: for logging in and for nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no password.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// A URL, or `host:port`, that may hold a password. `Debug` and `Display` print it as
/// [`WithoutPassword`] does; its memory is overwritten when it is dropped.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretUrl(Zeroizing<String>);

impl SecretUrl {
    /// The URL with its password: for connecting and for nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretUrl {
    fn from(url: String) -> SecretUrl {
        SecretUrl(Zeroizing::new(url))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        WithoutPassword(&self.0).fmt(f)
    }
}

/// Whether an unknown key of a document may be named in a message: it has the form of a key,
/// `[A-Za-z][A-Za-z0-9_]*`. Any other may be a line of a password, which a forgotten quote or
/// indentation turned into a key, and is told by its line.
pub fn is_key_like(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A URL without the user's name and the password in it, for others to use. As with
/// [`WithoutPassword`], the login is taken to reach to the last `@`.
pub fn without_login(url: &str) -> Cow<'_, str> {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, rest)), Some((_, host))) if rest.contains('@') => Cow::Owned(format!("{scheme}://{host}")),
        (None, Some((_, host))) => Cow::Borrowed(host),
        _ => Cow::Borrowed(url),
    }
}

/// Shows a URL, or `host:port`, without its password, and escaped as [`ForeignText`].
///
/// The password is taken to reach to the last `@` of the whole text, since one with an unescaped `/` or `@` does: rather too
/// much is hidden than a part of it shown. A user's name without a password is shown.
#[derive(Clone, Copy)]
pub struct WithoutPassword<'a>(pub &'a str);

impl fmt::Display for WithoutPassword<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = match self.0.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None => ("", self.0),
        };
        if !scheme.is_empty() {
            write!(f, "{}://", ForeignText::new(scheme))?;
        }
        match rest.rsplit_once('@').map(|(login, host)| (login.split_once(':'), host)) {
            Some((Some((user, _)), host)) if user.contains('/') => {
                write!(f, "{HIDDEN}@{}", ForeignText::new(host))
            }
            Some((Some((user, _)), host)) => {
                write!(f, "{}:{HIDDEN}@{}", ForeignText::new(user), ForeignText::new(host))
            }
            _ => write!(f, "{}", ForeignText::new(rest)),
        }
    }
}

impl fmt::Debug for WithoutPassword<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_secret_prints_as_stars() {
        let secret = Secret::new("open-sesame".to_owned());
        assert_eq!((format!("{secret} {secret:?}"), secret.expose()), ("*** ***".to_owned(), "open-sesame"));
        assert!(Secret::default().is_empty());
    }

    /// A password with an unescaped slash was shown as a part of the host's path.
    #[test]
    fn a_url_is_shown_without_its_password() {
        for (url, shown) in [
            ("rsync://example.org/module/", "rsync://example.org/module/"),
            ("rsync://example.org:873/module/", "rsync://example.org:873/module/"),
            ("rsync://anna@example.org/module/", "rsync://anna@example.org/module/"),
            ("rsync://anna:pass@example.org/module/", "rsync://anna:***@example.org/module/"),
            ("rsync://anna:pa/ss@example.org/module/", "rsync://anna:***@example.org/module/"),
            ("rsync://anna:pa@/ss@example.org/module/", "rsync://anna:***@example.org/module/"),
            ("rsync://anna:12/ss@example.org/module/", "rsync://anna:***@example.org/module/"),
            ("https://:pass@example.org/", "https://:***@example.org/"),
            ("anna:pass@example.org/", "anna:***@example.org/"),
            ("rsync://host/dir:x@y/", "rsync://***@y/"),
            ("http://h\u{1b}[1m/", "http://h\\x1b[1m/"),
            ("", ""),
        ] {
            assert_eq!(WithoutPassword(url).to_string(), shown, "{url}");
        }
    }

    #[test]
    fn a_url_for_others_has_no_login() {
        for (url, without) in [
            ("rsync://example.org/module/", "rsync://example.org/module/"),
            ("rsync://anna@example.org:873/module/", "rsync://example.org:873/module/"),
            ("rsync://anna:pass@example.org/module/", "rsync://example.org/module/"),
            ("rsync://anna:pa/ss@example.org/module/", "rsync://example.org/module/"),
            ("anna:pass@example.org:1", "example.org:1"),
            ("", ""),
        ] {
            assert_eq!(without_login(url), without, "{url}");
        }
    }

    proptest! {
        #[test]
        fn no_part_of_a_password_is_shown(password in "[A-Z/@:#?%]{1,20}") {
            let shown = WithoutPassword(&format!("rsync://anna:{password}@example.org/module/")).to_string();
            prop_assert_eq!(&shown, "rsync://anna:***@example.org/module/");
            let secret = SecretUrl::from(format!("rsync://anna:{password}@example.org/module/"));
            prop_assert_eq!(format!("{secret}{secret:?}"), shown.repeat(2));
            prop_assert_eq!(without_login(secret.expose()), "rsync://example.org/module/");
        }
    }
}
