//! Why a client is sent where it is sent: the answer to `explain`.
//!
//! The question goes through the same code as a request for `?mirrorlist`, so that the explanation cannot differ from what
//! clients meet. Only the fallbacks are taken away: their answer would hide why no mirror is left.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use mb_core::path;
use serde::Deserialize;

use crate::handle::{Handler, Peer, Settings};
use crate::http::date::http_date;
use crate::http::request::{ForwardedFor, Method, Persistence, Request};
use crate::http::response::{Envelope, Status};
use crate::snapshot::Snapshot;

/// Why a mirror that the answer does not even mention is not chosen. Of a mirror that differs in very many files the index
/// has no more than a sample of its copies, so which of both it is cannot be told.
const ABSENT: &str = "Does not have the file, or has another version of it";

/// Why there is nothing to explain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// No index was ever published.
    #[error("the repository was not scanned yet: run `mirrorbits refresh` first")]
    NoIndex,
    /// The path is of no file.
    #[error("the repository has no such file: give the path as it follows the host in a URL, such as /pub/file.iso")]
    NoFile,
    /// The path leads out of the repository.
    #[error("the path leads out of the repository by a symbolic link: such files are not served")]
    Forbidden,
    /// The answer is not the expected document.
    #[error("the redirector's answer is not understood: {0}")]
    Answer(&'static str),
}

/// Which mirrors a client would be sent to, and why not to the others.
#[derive(Debug)]
pub struct Explanation {
    /// The file, after symbolic links.
    pub path: String,
    /// Country code of the client; empty when unknown.
    pub country_code: String,
    /// Its continent code; empty when unknown.
    pub continent_code: String,
    /// Its autonomous system; 0 when unknown.
    pub asn: u32,
    /// Mirrors that may answer, by falling score.
    pub accepted: Vec<Explained>,
    /// The others, by name.
    pub refused: Vec<Explained>,
}

/// A mirror of an explanation.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Explained {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Base URL that it would answer from; may be empty for refused ones.
    #[serde(rename = "AbsoluteURL")]
    pub url: String,
    /// Kilometres to the client; 0 when its place is not known.
    pub distance: f32,
    /// Selection score.
    #[serde(rename = "ComputedScore")]
    pub score: i64,
    /// Share of the downloads in percent.
    #[serde(default)]
    pub weight: f32,
    /// Why it is refused; empty for accepted ones.
    #[serde(default, rename = "ExcludeReason")]
    pub reason: String,
}

/// The document of `?mirrorlist`, as far as it is needed here.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    file_info: File,
    client_info: Client,
    mirror_list: Vec<Explained>,
    #[serde(default)]
    excluded_list: Vec<Explained>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Client {
    country_code: String,
    continent_code: String,
    #[serde(rename = "ASNum")]
    asn: u32,
}

/// Explains the answer that a client at `from` would get to a request for the file `file` (its plain path, not
/// percent-encoded).
///
/// # Errors
/// There is no such file, or no index.
pub fn explain(snapshot: &Snapshot, file: &[u8], from: IpAddr) -> Result<Explanation, ExplainError> {
    if snapshot.files.is_none() {
        return Err(ExplainError::NoIndex);
    }
    let document = ask(snapshot, file, from)?;
    let mut refused = document.excluded_list;
    for row in snapshot.mirrors.rows() {
        let id = row.mirror.id.0;
        if !document.mirror_list.iter().chain(&refused).any(|known| known.id == id) {
            let name = row.mirror.settings.name.clone();
            let reason = ABSENT.to_owned();
            refused.push(Explained { id, name, url: String::new(), distance: 0.0, score: 0, weight: 0.0, reason });
        }
    }
    refused.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Explanation {
        path: document.file_info.path,
        country_code: document.client_info.country_code,
        continent_code: document.client_info.continent_code,
        asn: document.client_info.asn,
        accepted: document.mirror_list,
        refused,
    })
}

fn ask(snapshot: &Snapshot, file: &[u8], from: IpAddr) -> Result<Document, ExplainError> {
    let settings = Settings { fallbacks: Vec::new(), ..Settings::clone(&snapshot.settings) };
    let snapshot = Snapshot::new(
        Arc::new(settings),
        snapshot.files.clone(),
        Arc::clone(&snapshot.mirrors),
        Arc::clone(&snapshot.geo),
    );
    let mut target = Vec::new();
    path::percent_encode(&path::clean(file), &mut target);
    target.extend_from_slice(format!("?mirrorlist&fromip={from}").as_bytes());
    let request = Request {
        method: Method::Get,
        target: &target,
        persistence: Persistence::Implied,
        forwarded_for: ForwardedFor::default(),
        forwarded_proto: None,
        if_modified_since: None,
        user_agent: b"",
        has_range: false,
        accepts_json: true,
        accepts_gzip: false,
        expects_continue: false,
    };
    let envelope = Envelope { date: &http_date(0), persistence: Persistence::Implied, head_only: false };
    let mut answer = Vec::new();
    // Nothing is drawn for a mirror list, so the seed does not matter.
    let mut handler = Handler::new(Arc::new(snapshot), 0);
    let outcome = handler.handle(&request, Peer::Host(IpAddr::V4(Ipv4Addr::LOCALHOST)), envelope, &mut answer);
    match outcome.status {
        Status::Ok => {}
        Status::Forbidden => return Err(ExplainError::Forbidden),
        // A folder is answered by the fallbacks, of which there are none here.
        Status::NotFound | Status::ServiceUnavailable => return Err(ExplainError::NoFile),
        _ => return Err(ExplainError::Answer("not a status that a mirror list can have")),
    }
    let document = handler.take_document().ok_or(ExplainError::Answer("without a document"))?;
    serde_json::from_slice(&document.write(false))
        .map_err(|_| ExplainError::Answer("not the document of a mirror list"))
}
