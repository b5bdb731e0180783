//! The answers about a file: redirect, JSON document, mirror list, checksum, fallback.
//!
//! Mirror lists and long documents are offloaded to the page worker: a shard does nothing that takes longer than a hundred
//! redirects.

use std::io::Write;
use std::net::IpAddr;

use mb_core::mirror::MirrorState;
use mb_core::path;
use mb_index::{FileIndex, FileRef};

use super::document::{self, Listed, Subject};
use super::listing::{About, Mirrors, Plan};
use super::locate::{Location, Origin};
use super::outcome::{Chosen, Kind};
use super::{Exchange, Offloaded};
use crate::http::json::JsonWriter;
use crate::http::response::{self, Status};
use crate::http::target::{Directive, Parameters, Target};
use crate::select::table::Shown;
use crate::select::{Wanted, fallback};

/// Header lines of a redirect that never change.
const REDIRECT_LINES: &str =
    "Cache-Control: private, no-cache\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 0\r\n";
/// Header lines of a JSON answer that never change.
pub const JSON_LINES: &str = "Cache-Control: private, no-cache\r\nContent-Type: application/json; charset=utf-8\r\n";
/// When a client may ask again after a 503: a mirror that comes back is noticed within a health check interval.
const RETRY_AFTER: &str = "Retry-After: 60\r\n";
/// Most mirrors of a document that a shard writes itself.
const WRITTEN_MIRRORS: usize = 64;
/// The same for one that is compressed.
const COMPRESSED_MIRRORS: usize = 8;

impl<'h> Exchange<'h, '_, '_> {
    pub(super) fn redirect_to_clean(&mut self, decoded: &[u8], target: &Target<'_>) {
        let clean = path::clean(decoded);
        self.outcome.kind = Kind::CleanPath;
        self.start(Status::MovedPermanently)
            .header_by("Location", |out| {
                path::percent_encode(&clean, out);
                if let Some(query) = target.query {
                    out.push(b'?');
                    out.extend_from_slice(query);
                }
            })
            .body(b"");
    }

    pub(super) fn checksum(&mut self, file: FileRef<'_>, digest: Option<&[u8]>) {
        let Some(digest) = digest else {
            return response::text(self.start(Status::NotFound), "Hash type not supported");
        };
        self.outcome.kind = Kind::Checksum;
        let name = file.path().rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let mut body = std::mem::take(&mut self.scratch.body);
        body.clear();
        document::append_hex(&mut body, digest);
        body.extend_from_slice(b"  ");
        body.extend_from_slice(name);
        self.start(Status::Ok).lines("Content-Type: text/plain; charset=UTF-8\r\n").body(&body);
        self.scratch.body = body;
    }

    /// Offloads the counts of a file over `period`, if that can be one.
    pub(super) fn file_statistics(&mut self, period: &[u8]) {
        if !period.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-') {
            return response::text(self.start(Status::BadRequest), "Invalid period");
        }
        self.offload(Kind::FileStatistics);
    }

    /// Redirects to the first of the mirrors drawn and names the others, for the encoded path.
    pub(super) fn redirect(&mut self) {
        let snapshot = self.snapshot;
        self.chose_first_drawn(Kind::Redirect);
        let drawn = std::mem::take(&mut self.scratch.drawn);
        self.redirect_to(drawn.iter().map(|accepted| snapshot.mirrors.shown(accepted.row, accepted.protocol)));
        self.scratch.drawn = drawn;
    }

    fn chose_first_drawn(&mut self, kind: Kind) {
        let chosen = self
            .scratch
            .drawn
            .first()
            .map_or(Chosen::Nobody, |accepted| Chosen::Mirror { row: accepted.row, distance: accepted.distance });
        self.chose(kind, chosen);
    }

    /// Redirects to the first of `servers` and names the others, for the encoded path.
    fn redirect_to<'p>(&mut self, servers: impl Iterator<Item = Shown<'p>> + Clone) {
        let relative = std::mem::take(&mut self.scratch.encoded);
        let with_links = self.snapshot.settings.max_link_headers > 0;
        let mut response = self.start(Status::Found).lines(REDIRECT_LINES);
        if let Some(server) = servers.clone().next() {
            response = response.header_by("Location", |out| append_url(out, server.url, &relative));
        }
        if with_links {
            for (priority, server) in (1..).zip(servers) {
                response = response.header_by("Link", |out| append_link(out, server, &relative, priority));
            }
        }
        response.no_body();
        self.scratch.encoded = relative;
    }

    /// The JSON document of the mirrors drawn. A long one is offloaded.
    pub(super) fn json(
        &mut self,
        files: &FileIndex,
        file: FileRef<'_>,
        location: &Location,
        wanted: Wanted,
        pretty: bool,
    ) {
        self.chose_first_drawn(Kind::Json);
        let about = About { snapshot: self.snapshot, file, location, wanted };
        let mut excluded = std::mem::take(&mut self.scratch.excluded);
        let drawn = std::mem::take(&mut self.scratch.drawn);
        about.exclude(files, &mut excluded);
        if self.is_long(drawn.len().saturating_add(excluded.len())) {
            let (file, address) = (file.row(), location.address);
            let mirrors = Mirrors::Drawn { drawn: drawn.clone(), excluded: excluded.clone() };
            self.offload(Kind::Json);
            self.scratch.offloaded = Some(Offloaded::Listing(Plan { file, address, wanted, mirrors }));
        } else {
            self.write_document(pretty, |json| about.write_drawn(&drawn, &excluded, json));
        }
        self.scratch.drawn = drawn;
        self.scratch.excluded = excluded;
    }

    /// All mirrors, with their weights: an offloaded document, or a page that is made of it. Fallbacks are listed instead when
    /// no mirror may answer.
    pub(super) fn mirror_list(&mut self, files: &FileIndex, file: FileRef<'_>, parameters: &Parameters<'_>) {
        let Some(origin) = self.viewpoint(parameters) else { return self.plain(Status::BadRequest) };
        let wanted = self.wanted(parameters);
        // The draw of a redirect tells whether a mirror may answer, at the cost of a redirect.
        if !self.snapshot.settings.fallbacks.is_empty() && !self.draw(files, file, &origin, wanted, 1) {
            return self.answer_by_fallback(file.path(), Some(file), parameters);
        }
        self.offload_list();
        let plan = Plan { file: file.row(), address: origin.address, wanted, mirrors: Mirrors::All };
        self.scratch.offloaded = Some(Offloaded::Listing(plan));
    }

    /// Answers by the configured fallbacks, or with 503 when there is none.
    pub(super) fn answer_by_fallback(&mut self, path: &[u8], file: Option<FileRef<'_>>, parameters: &Parameters<'_>) {
        let snapshot = self.snapshot;
        let settings = &snapshot.settings;
        let wanted = self.wanted(parameters);
        let Some(origin) = self.viewpoint(parameters) else { return self.plain(Status::BadRequest) };
        let location = self.locator.locate(&origin);
        let mut ranked = std::mem::take(&mut self.scratch.ranked);
        let random = &mut *self.random;
        fallback::rank(&settings.fallbacks, &location.client(), wanted, &mut ranked, |n| random.u64(..n));
        let chosen = ranked.first().map_or(Chosen::Nobody, |&place| Chosen::Fallback(place));
        let is_list = matches!(parameters.directive, Directive::MirrorList { .. });
        if ranked.is_empty() {
            response::text(self.start(Status::ServiceUnavailable).lines(RETRY_AFTER), "Service Unavailable");
        } else if is_list || document::wants_json(settings.output_mode, self.request.accepts_json) {
            self.chose(Kind::Json, chosen);
            let subject = Subject { path, file, location: &location, settings };
            let state = MirrorState { enabled: true, ..MirrorState::default() };
            let write = |json: &mut JsonWriter<'_>| {
                let listed = ranked.iter().filter_map(|&place| {
                    let fallback = settings.fallbacks.get(place)?;
                    Some(Listed {
                        id: (place as i64).wrapping_neg(),
                        settings: &fallback.settings,
                        state: &state,
                        absolute_url: fallback.absolute_url(wanted),
                        distance: 0.0,
                        score: 0,
                        weight: None,
                        excluded: None,
                    })
                });
                document::write(json, &subject, listed, std::iter::empty(), true);
            };
            if is_list {
                self.offload_list();
                let pretty = parameters.pretty && self.request.accepts_json;
                self.offload_document(pretty, write);
            } else if self.is_long(ranked.len()) {
                self.offload(Kind::Json);
                self.offload_document(parameters.pretty, write);
            } else {
                self.write_document(parameters.pretty, write);
            }
        } else {
            self.chose(Kind::Redirect, chosen);
            self.encode(path);
            self.redirect_to(ranked.iter().take(settings.max_link_headers.saturating_add(1)).filter_map(|&place| {
                let fallback = settings.fallbacks.get(place)?;
                Some(Shown { url: fallback.absolute_url(wanted).as_bytes(), geo_label: fallback.geo_label.as_bytes() })
            }));
        }
        self.scratch.ranked = ranked;
    }

    /// Where the client is, or what a mirror list is to be seen from instead; `None` when that is no address.
    fn viewpoint(&mut self, parameters: &Parameters<'_>) -> Option<Origin<'h>> {
        match parameters.directive {
            Directive::MirrorList { from_ip: Some(text) } => Some(self.origin_of(decode_address(text)?)),
            _ => Some(self.origin()),
        }
    }

    /// Offloads a mirror list, as the document or the page that the client wants.
    fn offload_list(&mut self) {
        self.offload(if self.request.accepts_json { Kind::MirrorList } else { Kind::MirrorListPage });
    }

    /// Writes a short document whose answer was offloaded.
    fn offload_document(&mut self, pretty: bool, write: impl FnOnce(&mut JsonWriter<'_>)) {
        let mut document = Vec::new();
        write(&mut JsonWriter::new(&mut document, pretty));
        self.scratch.offloaded = Some(Offloaded::Document(document));
    }

    /// Whether a document of so many mirrors is offloaded.
    fn is_long(&self, mirrors: usize) -> bool {
        mirrors > if self.compresses() { COMPRESSED_MIRRORS } else { WRITTEN_MIRRORS }
    }

    /// Whether documents are compressed for the client.
    fn compresses(&self) -> bool {
        self.snapshot.settings.gzip && self.request.accepts_gzip
    }

    fn write_document(&mut self, pretty: bool, write: impl FnOnce(&mut JsonWriter<'_>)) {
        let mut body = std::mem::take(&mut self.scratch.body);
        body.clear();
        write(&mut JsonWriter::new(&mut body, pretty));
        let response = if self.compresses() {
            body = response::gzip(&body);
            self.start(Status::Ok).lines("Content-Encoding: gzip\r\n")
        } else {
            self.start(Status::Ok)
        };
        response.lines(JSON_LINES).body(&body);
        self.scratch.body = body;
    }
}

fn decode_address(text: &[u8]) -> Option<IpAddr> {
    let mut decoded = Vec::new();
    path::percent_decode(text, &mut decoded).ok()?;
    std::str::from_utf8(&decoded).ok()?.trim().parse().ok()
}

fn append_url(out: &mut Vec<u8>, base: &[u8], relative: &[u8]) {
    out.extend_from_slice(base);
    out.extend_from_slice(relative);
}

/// RFC 6249, section 3.
fn append_link(out: &mut Vec<u8>, server: Shown<'_>, relative: &[u8], priority: usize) {
    out.push(b'<');
    append_url(out, server.url, relative);
    out.extend_from_slice(b">; rel=duplicate; pri=");
    match u8::try_from(priority) {
        Ok(digit @ 0..10) => out.push(b'0' | digit),
        // Writing to a vector cannot fail.
        _ => drop(write!(out, "{priority}")),
    }
    if !server.geo_label.is_empty() {
        out.extend_from_slice(b"; geo=");
        out.extend_from_slice(server.geo_label);
    }
}
