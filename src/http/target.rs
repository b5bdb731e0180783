//! The target of a request: its path and the parameters of its query.

/// A target taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'b> {
    /// Path as received, percent-encoded, starting with a slash.
    pub path: &'b [u8],
    /// Query as received, without its question mark; `None` when there is no question mark.
    pub query: Option<&'b [u8]>,
}

impl<'b> Target<'b> {
    /// Takes a target in origin form (`/path?query`) or absolute form (`http://host/path?query`) apart. `None` for any
    /// other form.
    pub fn parse(target: &'b [u8]) -> Option<Target<'b>> {
        let origin = if target.first() == Some(&b'/') { target } else { after_authority(target)? };
        let (path, query) = match split_at_first(origin, b'?') {
            Some((path, query)) => (path, Some(query)),
            None => (origin, None),
        };
        Some(Target { path: if path.is_empty() { b"/" } else { path }, query })
    }

    /// The parameters of the query as `(name, value)`; a parameter without `=` has an empty value.
    pub fn parameters(&self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> + use<'b> {
        self.query
            .unwrap_or_default()
            .split(|&byte| byte == b'&')
            .filter(|parameter| !parameter.is_empty())
            .map(|parameter| split_at_first(parameter, b'=').unwrap_or((parameter, b"")))
    }
}

/// What is before the first `byte`, and what is behind it.
#[inline]
fn split_at_first(bytes: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let (before, behind) = bytes.split_at_checked(memchr::memchr(byte, bytes)?)?;
    Some((before, behind.get(1..)?))
}

fn after_authority(target: &[u8]) -> Option<&[u8]> {
    let (scheme, behind) = target.split_at_checked(memchr::memmem::find(target, b"://")?)?;
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return None;
    }
    let rest = behind.get(3..)?;
    rest.get(memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len())..)
}

/// What a query asks for in place of a redirect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Directive<'b> {
    /// Nothing else.
    #[default]
    None,
    /// `mirrorlist`: all mirrors of the file, seen from the address in `from_ip` if there is one.
    MirrorList {
        /// Value of `fromip`, percent-encoded.
        from_ip: Option<&'b [u8]>,
    },
    /// `stats`: download counts of the file.
    Stats {
        /// Over which time: its value, as received; empty when it has none.
        period: &'b [u8],
    },
    /// `mirrorstats`: all mirrors.
    MirrorStats,
    /// `md5`
    Md5,
    /// `sha1`
    Sha1,
    /// `sha256`
    Sha256,
}

/// The parameters of a query, interpreted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parameters<'b> {
    /// What is asked for.
    pub directive: Directive<'b>,
    /// `pretty`: indented JSON.
    pub pretty: bool,
    /// `https`: whether HTTPS only (`1`) or HTTP only (`0`) is wanted.
    pub https: Option<bool>,
}

impl<'b> Parameters<'b> {
    /// Interprets the query of `target`.
    pub fn of(target: &Target<'b>) -> Parameters<'b> {
        if target.query.is_none() {
            return Parameters::default();
        }
        let mut parameters = Parameters::default();
        // The places in the order of `DIRECTIVES`; the first that is present decides.
        let mut first = DIRECTIVES.len();
        let mut from_ip = None;
        let mut period = b"".as_slice();
        for (name, value) in target.parameters() {
            match name {
                b"pretty" => parameters.pretty = true,
                b"fromip" => from_ip = Some(value),
                b"https" => {
                    parameters.https = match value {
                        b"1" => Some(true),
                        b"0" => Some(false),
                        _ => parameters.https,
                    }
                }
                _ => {
                    if name == b"stats" {
                        period = value;
                    }
                    first = first.min(DIRECTIVES.iter().position(|known| *known == name).unwrap_or(first));
                }
            }
        }
        parameters.directive = match first {
            0 => Directive::MirrorList { from_ip },
            1 => Directive::Stats { period },
            2 => Directive::MirrorStats,
            3 => Directive::Md5,
            4 => Directive::Sha1,
            5 => Directive::Sha256,
            _ => Directive::None,
        };
        parameters
    }
}

const DIRECTIVES: [&[u8]; 6] = [b"mirrorlist", b"stats", b"mirrorstats", b"md5", b"sha1", b"sha256"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_lead_to_path_and_query() {
        let target = |text: &'static str| Target::parse(text.as_bytes());
        assert_eq!(target("/a?b"), Some(Target { path: b"/a", query: Some(b"b") }));
        assert_eq!(target("http://host:80/a"), Some(Target { path: b"/a", query: None }));
        assert_eq!(target("HTTP://host?b"), Some(Target { path: b"/", query: Some(b"b") }));
        assert_eq!(target("ftp://host/a"), None);
        assert_eq!(target("a/b"), None);
        assert_eq!(target("*"), None);
    }

    #[test]
    fn the_first_directive_of_the_list_decides() {
        let parameters = |text: &'static str| Parameters::of(&Target::parse(text.as_bytes()).unwrap());
        assert_eq!(parameters("/a?sha256&stats=2026").directive, Directive::Stats { period: b"2026" });
        assert_eq!(parameters("/a?stats").directive, Directive::Stats { period: b"" });
        assert_eq!(
            parameters("/a?stats&mirrorlist&fromip=::1").directive,
            Directive::MirrorList { from_ip: Some(b"::1") }
        );
        assert_eq!(parameters("/a?md5=").directive, Directive::Md5);
        assert_eq!(parameters("/a?unknown&&=x").directive, Directive::None);
        assert!(parameters("/a?pretty").pretty);
        assert_eq!(parameters("/a?https=0").https, Some(false));
        assert_eq!(parameters("/a?https=yes").https, None);
    }
}
