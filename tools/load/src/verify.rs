//! Whether an answer is the right one for its request.

use std::borrow::Cow;
use std::collections::HashMap;

use percent_encoding::percent_decode;
use serde::Deserialize;

use crate::answer::Answer;
use crate::plan::Plan;
use crate::request::{Kind, Request};

/// What a right answer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// A redirect, to one of the mirrors unless any was allowed.
    Redirect(Option<usize>),
    /// Anything else.
    Other,
}

/// How an answer is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Another status.
    Status,
    /// Not the file that was asked for.
    Location,
    /// Not a mirror that may be chosen.
    Mirror,
    /// Not a document about the file.
    Body,
}

/// The mirrors that may be chosen.
#[derive(Debug)]
pub struct Mirrors {
    /// By scheme and host; several may be folders of one host.
    by_origin: HashMap<String, Vec<(String, usize)>>,
}

impl Mirrors {
    /// From base URLs that end with a slash.
    pub fn new(bases: &[String]) -> Mirrors {
        let mut by_origin: HashMap<String, Vec<(String, usize)>> = HashMap::new();
        for (number, base) in bases.iter().enumerate() {
            by_origin.entry(origin(base).to_owned()).or_default().push((base.clone(), number));
        }
        Mirrors { by_origin }
    }

    /// The mirror that `url` is a file of, and the file's path there without a leading slash.
    fn split<'u>(&self, url: &'u str) -> Option<(usize, &'u str)> {
        let bases = self.by_origin.get(origin(url))?;
        bases.iter().find_map(|(base, number)| Some((*number, url.strip_prefix(base.as_str())?)))
    }
}

/// `https://host:port` of a URL.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find('/').map_or(url, |length| &url[..host + length])
}

/// Looks at an answer that was received in `bytes`.
///
/// # Errors
/// What is wrong with it.
pub fn verify(
    request: &Request,
    plan: &Plan,
    mirrors: &Mirrors,
    answer: &Answer,
    bytes: &[u8],
) -> Result<Right, Wrong> {
    let file = &plan.files[request.file];
    let expected = match request.kind {
        Kind::Get | Kind::Head | Kind::Range => file.status,
        Kind::Json => 200,
        Kind::Conditional => 304,
        Kind::Missing => 404,
    };
    if answer.status != expected {
        return Err(Wrong::Status);
    }
    if request.kind == Kind::Json {
        return verify_document(&bytes[answer.body.clone()], &file.path, plan, mirrors);
    }
    if expected != 302 {
        return Ok(Right::Other);
    }
    let location = answer.location.clone().and_then(|range| std::str::from_utf8(&bytes[range]).ok());
    let location = location.filter(|url| is_url(url)).ok_or(Wrong::Location)?;
    if plan.mirrors.is_empty() {
        let decoded: Cow<'_, [u8]> = percent_decode(location.as_bytes()).into();
        return if decoded.ends_with(file.path.as_bytes()) { Ok(Right::Redirect(None)) } else { Err(Wrong::Location) };
    }
    let (mirror, rest) = mirrors.split(location).ok_or(Wrong::Mirror)?;
    if is_file(rest, &file.path) { Ok(Right::Redirect(Some(mirror))) } else { Err(Wrong::Location) }
}

/// Whether nothing in `url` that a path may hold is left as it was: it would be cut off, or mean something else.
fn is_url(url: &str) -> bool {
    url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#')
}

/// Whether `encoded`, without a leading slash, is `path`.
fn is_file(encoded: &str, path: &str) -> bool {
    percent_decode(encoded.as_bytes()).eq(path.bytes().skip(1))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document<'a> {
    #[serde(borrow)]
    file_info: FileInfo<'a>,
    #[serde(borrow)]
    mirror_list: Vec<ListedMirror<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct FileInfo<'a> {
    #[serde(borrow)]
    path: Cow<'a, str>,
}

#[derive(Deserialize)]
struct ListedMirror<'a> {
    #[serde(borrow, rename = "AbsoluteURL")]
    absolute_url: Cow<'a, str>,
}

fn verify_document(body: &[u8], path: &str, plan: &Plan, mirrors: &Mirrors) -> Result<Right, Wrong> {
    let document: Document<'_> = serde_json::from_slice(body).map_err(|_| Wrong::Body)?;
    if document.file_info.path != path {
        return Err(Wrong::Body);
    }
    let chosen = document.mirror_list.first().ok_or(Wrong::Body)?;
    if plan.mirrors.is_empty() || mirrors.split(&chosen.absolute_url).is_some() {
        return Ok(Right::Other);
    }
    Err(Wrong::Mirror)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::File;

    fn plan(mirrors: &[&str]) -> Plan {
        let files = vec![File::new("/d/a b.iso"), File::with_status("/gone", 503)];
        let mut plan = Plan::new(([127, 0, 0, 1], 80).into(), files);
        plan.mirrors = mirrors.iter().map(|&base| base.to_owned()).collect();
        plan
    }

    fn look(plan: &Plan, kind: Kind, file: usize, text: &str) -> Result<Right, Wrong> {
        let answer = crate::answer::parse(text.as_bytes(), false).expect("well formed").expect("complete");
        let request = Request { kind, file, client: None };
        verify(&request, plan, &Mirrors::new(&plan.mirrors), &answer, text.as_bytes())
    }

    fn redirect(location: &str) -> String {
        format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
    }

    fn document(path: &str, url: &str) -> String {
        let body = format!("{{\"FileInfo\":{{\"Path\":\"{path}\"}},\"MirrorList\":[{{\"AbsoluteURL\":\"{url}\"}}]}}");
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    #[test]
    fn a_redirect_names_the_file_on_a_known_mirror() {
        let two = plan(&["http://a/pub/", "http://a/other/", "https://b:8443/"]);
        let get = |location: &str| look(&two, Kind::Get, 0, &redirect(location));
        assert_eq!(get("http://a/other/d/a%20b.iso"), Ok(Right::Redirect(Some(1))));
        assert_eq!(get("https://b:8443/d/a%20b.iso"), Ok(Right::Redirect(Some(2))));
        assert_eq!(get("http://a/pub/x/d/a%20b.iso"), Err(Wrong::Location));
        assert_eq!(get("http://a/third/d/a%20b.iso"), Err(Wrong::Mirror));
        assert_eq!(get("http://b:8443/d/a%20b.iso"), Err(Wrong::Mirror));
        assert_eq!(get("http://a/pub/d/a b.iso"), Err(Wrong::Location));
        let any = plan(&[]);
        assert_eq!(look(&any, Kind::Range, 0, &redirect("http://x/y/d/a%20b.iso")), Ok(Right::Redirect(None)));
        assert_eq!(look(&any, Kind::Range, 0, &redirect("http://x/y/d/c.iso")), Err(Wrong::Location));
    }

    #[test]
    fn each_kind_has_its_status() {
        let plan = plan(&[]);
        let empty = |status: u16| format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(look(&plan, Kind::Conditional, 0, &empty(304)), Ok(Right::Other));
        assert_eq!(look(&plan, Kind::Missing, 0, &empty(404)), Ok(Right::Other));
        assert_eq!(look(&plan, Kind::Get, 1, &empty(503)), Ok(Right::Other));
        assert_eq!(look(&plan, Kind::Get, 0, &empty(503)), Err(Wrong::Status));
        assert_eq!(look(&plan, Kind::Get, 0, &empty(302)), Err(Wrong::Location));
    }

    #[test]
    fn a_document_is_about_the_file() {
        let plan = plan(&["http://a/"]);
        assert_eq!(look(&plan, Kind::Json, 0, &document("/d/a b.iso", "http://a/")), Ok(Right::Other));
        assert_eq!(look(&plan, Kind::Json, 0, &document("/d/a b.iso", "http://b/")), Err(Wrong::Mirror));
        assert_eq!(look(&plan, Kind::Json, 0, &document("/other", "http://a/")), Err(Wrong::Body));
        assert_eq!(look(&plan, Kind::Json, 0, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{"), Err(Wrong::Body));
    }
}
