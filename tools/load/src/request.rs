//! The sequence of requests: the same seed gives the same one, however many connections it is spread over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use ipnet::IpNet;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::plan::{Mode, Plan};

/// What RFC 3986, section 3.3, lets stand in a path.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

/// Ends the path of a file that no repository has.
const MISSING: &str = ".there-is-no-such-file";

/// A kind of request, with the answer that it must get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `GET`: the file's status, a redirect unless told otherwise.
    Get,
    /// `HEAD`: the same without a body.
    Head,
    /// `GET` that accepts JSON: 200 and a document about the file, whose first mirror is one of those that may be chosen.
    Json,
    /// `GET` of the first hundred bytes: as [`Kind::Get`].
    Range,
    /// `GET` of what changed after the year 2100: 304.
    Conditional,
    /// `GET` of a file that is not there: 404.
    Missing,
}

impl Kind {
    /// All kinds, by their number.
    pub const ALL: [Kind; 6] = [Kind::Get, Kind::Head, Kind::Json, Kind::Range, Kind::Conditional, Kind::Missing];

    /// Its name in a mix and in a report.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Get => "get",
            Kind::Head => "head",
            Kind::Json => "json",
            Kind::Range => "range",
            Kind::Conditional => "conditional",
            Kind::Missing => "missing",
        }
    }

    fn start(self) -> &'static str {
        match self {
            Kind::Head => "HEAD ",
            _ => "GET ",
        }
    }

    fn lines(self) -> &'static str {
        match self {
            Kind::Get | Kind::Head | Kind::Missing => "",
            Kind::Json => "Accept: application/json\r\n",
            Kind::Range => "Range: bytes=0-99\r\n",
            Kind::Conditional => "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n",
        }
    }
}

/// Shares of the kinds, in any unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    shares: [u32; Kind::ALL.len()],
    total: u32,
}

impl Default for Mix {
    fn default() -> Mix {
        Mix::only(Kind::Get)
    }
}

impl Mix {
    /// Requests of one kind.
    pub fn only(kind: Kind) -> Mix {
        let mut shares = [0; Kind::ALL.len()];
        shares[kind as usize] = 1;
        Mix { shares, total: 1 }
    }

    /// Several kinds with their shares.
    ///
    /// # Errors
    /// When the shares add up to nothing, or to more than `u32` holds.
    pub fn new(parts: &[(Kind, u32)]) -> Result<Mix, MixError> {
        let (mut shares, mut total) = ([0; Kind::ALL.len()], 0_u32);
        for &(kind, share) in parts {
            total = total.checked_add(share).ok_or(MixError::Shares)?;
            shares[kind as usize] += share;
        }
        if total == 0 { Err(MixError::Shares) } else { Ok(Mix { shares, total }) }
    }

    fn draw(&self, random: &mut Rng) -> Kind {
        let mut left = random.u32(..self.total);
        for (kind, share) in Kind::ALL.into_iter().zip(self.shares) {
            match left.checked_sub(share) {
                Some(rest) => left = rest,
                None => return kind,
            }
        }
        Kind::Get
    }
}

/// Not a mix of requests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MixError {
    /// No kind has this name.
    #[error("`{0}` is no kind of request; there are get, head, json, range, conditional and missing")]
    Kind(String),
    /// Not a share.
    #[error("`{0}` has no share; write it as get=90")]
    Part(String),
    /// Nothing, or too much.
    #[error("the shares of a mix must add up to 1 or more, and to less than 4 billion")]
    Shares,
}

/// `get=90,json=10`.
impl std::str::FromStr for Mix {
    type Err = MixError;

    fn from_str(text: &str) -> Result<Mix, MixError> {
        let part = |part: &str| {
            let (name, share) = part.split_once('=').ok_or_else(|| MixError::Part(part.to_owned()))?;
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            let kind = kind.ok_or_else(|| MixError::Kind(name.to_owned()))?;
            Ok((kind, share.parse().map_err(|_| MixError::Part(part.to_owned()))?))
        };
        Mix::new(&text.split(',').map(part).collect::<Result<Vec<_>, _>>()?)
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Path in the repository, starting with `/`.
    pub path: String,
    /// `path` as a request line has it.
    pub(crate) target: String,
    /// Status of the answer to `GET`, `HEAD` and `Range`.
    pub status: u16,
}

impl File {
    /// A file that is redirected.
    pub fn new(path: impl Into<String>) -> File {
        File::with_status(path, 302)
    }

    /// A path whose answer has another status.
    pub fn with_status(path: impl Into<String>, status: u16) -> File {
        let path = path.into();
        File { target: utf8_percent_encode(&path, ENCODED).to_string(), path, status }
    }

    /// The files of a list: on each line a path and, after a tab, a status other than 302.
    ///
    /// # Errors
    /// A line without a leading slash, or with a status that is no number.
    pub fn list(text: &str) -> Result<Vec<File>, ListError> {
        let line = |line: &str| {
            let (path, status) = line.split_once('\t').unwrap_or((line, "302"));
            match status.parse() {
                Ok(status) if path.starts_with('/') => Ok(File::with_status(path, status)),
                _ => Err(ListError(line.to_owned())),
            }
        };
        text.lines().filter(|line| !line.is_empty()).map(line).collect()
    }
}

/// A line that is not a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no line of a list of files; write a path from / on and, after a tab, a status other than 302")]
pub struct ListError(String);

/// A request to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub kind: Kind,
    /// Which file, by its position.
    pub file: usize,
    /// Who is said to ask.
    pub client: Option<IpAddr>,
}

/// Draws requests.
#[derive(Debug)]
pub(crate) struct Sequence {
    random: Rng,
}

impl Sequence {
    pub(crate) fn new(seed: u64) -> Sequence {
        Sequence { random: Rng::with_seed(seed) }
    }

    pub(crate) fn next(&mut self, plan: &Plan) -> Request {
        let kind = plan.mix.draw(&mut self.random);
        let file = self.random.usize(..plan.files.len());
        let network = (!plan.clients.is_empty()).then(|| plan.clients[self.random.usize(..plan.clients.len())]);
        Request { kind, file, client: network.map(|network| address_in(network, &mut self.random)) }
    }
}

fn address_in(network: IpNet, random: &mut Rng) -> IpAddr {
    match network {
        IpNet::V4(network) => {
            let hosts = network.hostmask().to_bits();
            IpAddr::V4(Ipv4Addr::from_bits(network.network().to_bits() | (random.u32(..) & hosts)))
        }
        IpNet::V6(network) => {
            let hosts = network.hostmask().to_bits();
            IpAddr::V6(Ipv6Addr::from_bits(network.network().to_bits() | (random.u128(..) & hosts)))
        }
    }
}

/// Appends the bytes of a request.
pub(crate) fn write(request: &Request, plan: &Plan, out: &mut Vec<u8>) {
    use std::io::Write as _;

    let Request { kind, file, client } = *request;
    let ending = if kind == Kind::Missing { MISSING } else { "" };
    out.extend_from_slice(kind.start().as_bytes());
    out.extend_from_slice(plan.files[file].target.as_bytes());
    out.extend_from_slice(ending.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    out.extend_from_slice(plan.host.as_bytes());
    out.extend_from_slice(b"\r\nUser-Agent: mb-load\r\n");
    if let Some(client) = client {
        // Writing to a vector cannot fail.
        let _ = write!(out, "X-Forwarded-For: {client}\r\n");
    }
    out.extend_from_slice(kind.lines().as_bytes());
    out.extend_from_slice(if plan.mode == Mode::PerRequest { b"Connection: close\r\n\r\n" } else { b"\r\n" });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let mut plan = Plan::new(([127, 0, 0, 1], 80).into(), vec![File::new("/a b#ü+.iso"), File::new("/c")]);
        plan.mix = "get=1,json=1".parse().expect("mix");
        plan.clients = vec!["192.0.2.16/28".parse().expect("network")];
        plan
    }

    fn drawn(seed: u64) -> Vec<Request> {
        let mut sequence = Sequence::new(seed);
        (0..100).map(|_| sequence.next(&plan())).collect()
    }

    #[test]
    fn the_seed_decides_the_sequence() {
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        assert!(drawn(1).iter().all(|request| matches!(request.kind, Kind::Get | Kind::Json)));
        let network: IpNet = "192.0.2.16/28".parse().expect("network");
        assert!(drawn(1).iter().all(|request| network.contains(&request.client.expect("client"))));
    }

    #[test]
    fn paths_are_encoded() {
        let mut bytes = Vec::new();
        write(&Request { kind: Kind::Range, file: 0, client: None }, &plan(), &mut bytes);
        let text = String::from_utf8(bytes).expect("ASCII");
        assert!(text.starts_with("GET /a%20b%23%C3%BC+.iso HTTP/1.1\r\n"), "{text}");
        assert!(text.ends_with("\r\nRange: bytes=0-99\r\n\r\n"), "{text}");
    }

    #[test]
    fn mixes_and_lists_are_read() {
        assert_eq!("get=1".parse(), Ok(Mix::default()));
        assert_eq!("get=0".parse::<Mix>(), Err(MixError::Shares));
        assert_eq!("put=1".parse::<Mix>(), Err(MixError::Kind("put".into())));
        assert_eq!("get".parse::<Mix>(), Err(MixError::Part("get".into())));
        assert_eq!(File::list("/a\n/b\t503\n"), Ok(vec![File::new("/a"), File::with_status("/b", 503)]));
        assert!(File::list("a").is_err());
    }
}
