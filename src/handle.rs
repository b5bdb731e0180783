//! A request and a snapshot make an answer: synchronous, without a clock, a socket or a lock, and without allocating once
//! the caches are warm.
//!
//! [`Handler`] holds what a shard keeps between requests. [`address`](self) and place of the client, the candidates among
//! the mirrors, and the JSON document are files of their own.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use mb_core::geo::RecordKey;
use mb_core::mirror::MirrorState;
use mb_core::path;
use mb_core::time::FileTime;
use mb_index::{Entry, FileIndex, FileRef};

use crate::http::date::{http_date, parse_http_date};
use crate::http::json::JsonWriter;
use crate::http::request::{Method, Request};
use crate::http::response::{self, Envelope, Response, Status};
use crate::http::target::{Directive, Parameters, Target};
use crate::select::cache::Cache;
use crate::select::draw::Candidates;
use crate::select::filter::{self, FileCopy, Source};
use crate::select::score::Query;
use crate::select::{Accepted, Client, Evaluation, Reason, Wanted, fallback};
use crate::snapshot::Snapshot;

mod address;
mod document;
mod locate;
mod settings;

pub use address::Peer;
pub use settings::Settings;

use document::{Listed, Subject};
use locate::{Location, Locator};

/// Most bytes of candidates that a shard keeps.
const CANDIDATES_BUDGET: usize = 16 * 1024 * 1024;

/// Header lines of a redirect that never change.
const REDIRECT_LINES: &str =
    "Cache-Control: private, no-cache\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 0\r\n";
/// Header lines of a JSON answer that never change.
const JSON_LINES: &str = "Cache-Control: private, no-cache\r\nContent-Type: application/json; charset=utf-8\r\n";
/// When a client may ask again after a 503: a mirror that comes back is noticed within a health check interval.
const RETRY_AFTER: &str = "Retry-After: 60\r\n";

/// What makes candidates differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct CandidatesKey {
    set: u32,
    place: RecordKey,
    asn: u32,
    wanted: Wanted,
}

/// Answers the requests of one shard.
pub struct Handler {
    snapshot: Arc<Snapshot>,
    locator: Locator,
    candidates: Cache<CandidatesKey, Rc<Candidates>>,
    random: fastrand::Rng,
    scratch: Scratch,
}

/// Memory that is used again from request to request.
#[derive(Default)]
struct Scratch {
    path: Vec<u8>,
    alias: Vec<u8>,
    body: Vec<u8>,
    drawn: Vec<Accepted>,
    excluded: Vec<(u32, Reason)>,
    ranked: Vec<usize>,
    evaluation: Evaluation,
}

impl Handler {
    /// A handler that answers from `snapshot` and draws by the random numbers of `seed`.
    pub fn new(snapshot: Arc<Snapshot>, seed: u64) -> Handler {
        Handler {
            snapshot,
            locator: Locator::new(),
            candidates: Cache::new(CANDIDATES_BUDGET),
            random: fastrand::Rng::with_seed(seed),
            scratch: Scratch::default(),
        }
    }

    /// Answers from `snapshot` from now on.
    pub fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        let same_places =
            Arc::ptr_eq(&snapshot.mirrors, &self.snapshot.mirrors) && Arc::ptr_eq(&snapshot.geo, &self.snapshot.geo);
        if !same_places {
            self.locator.clear();
        }
        self.candidates.clear();
        self.snapshot = snapshot;
    }

    /// Appends the answer to `request` to `out`. `envelope.head_only` must say whether its method is `HEAD`.
    pub fn handle(&mut self, request: &Request<'_>, peer: Peer, envelope: Envelope<'_>, out: &mut Vec<u8>) {
        // The parts are borrowed one by one, so that the answer may read the snapshot while it fills the scratch memory.
        let Handler { snapshot, locator, candidates, random, scratch } = self;
        let mut path = std::mem::take(&mut scratch.path);
        let mut alias = std::mem::take(&mut scratch.alias);
        path.clear();
        let mut exchange = Exchange { snapshot, locator, candidates, random, scratch, request, peer, envelope, out };
        exchange.answer(&mut path, &mut alias);
        self.scratch.path = path;
        self.scratch.alias = alias;
    }
}

/// One request being answered.
struct Exchange<'h, 'r, 'o> {
    snapshot: &'h Snapshot,
    locator: &'h mut Locator,
    candidates: &'h mut Cache<CandidatesKey, Rc<Candidates>>,
    random: &'h mut fastrand::Rng,
    scratch: &'h mut Scratch,
    request: &'r Request<'r>,
    peer: Peer,
    envelope: Envelope<'r>,
    out: &'o mut Vec<u8>,
}

impl<'h> Exchange<'h, '_, '_> {
    fn answer(&mut self, decoded: &mut Vec<u8>, alias: &mut Vec<u8>) {
        match self.request.method {
            Method::Get | Method::Head => {}
            Method::Options => return self.start(Status::NoContent).lines("Allow: GET, HEAD\r\n").no_body(),
            Method::Other => {
                let refusal = self.start(Status::MethodNotAllowed).lines("Allow: GET, HEAD\r\n");
                return response::text(refusal, "Method Not Allowed");
            }
        }
        let Some(target) = Target::parse(self.request.target) else { return self.plain(Status::BadRequest) };
        if path::percent_decode(target.path, decoded).is_err() {
            return self.plain(Status::BadRequest);
        }
        if decoded.contains(&0) {
            return self.plain(Status::NotFound);
        }
        if !path::is_clean(decoded) {
            return self.redirect_to_clean(decoded, &target);
        }
        let parameters = Parameters::of(&target);
        if matches!(parameters.directive, Directive::Stats | Directive::MirrorStats) {
            return response::text(self.start(Status::NotImplemented), "Statistics are not available");
        }
        let Some(files) = &self.snapshot.files else { return self.answer_by_fallback(decoded, None, &parameters) };
        match files.resolve(without_trailing_slash(decoded), alias) {
            Entry::Missing | Entry::Alias(_) => self.plain(Status::NotFound),
            Entry::Forbidden => self.plain(Status::Forbidden),
            Entry::Directory => self.answer_by_fallback(decoded, None, &parameters),
            Entry::File(_) if decoded.ends_with(b"/") => self.plain(Status::NotFound),
            Entry::File(file) => self.answer_for_file(files, file, &parameters),
        }
    }

    fn answer_for_file(&mut self, files: &'h FileIndex, file: FileRef<'h>, parameters: &Parameters<'_>) {
        match parameters.directive {
            Directive::Md5 => return self.checksum(file, file.md5().map(|digest| digest.as_slice())),
            Directive::Sha1 => return self.checksum(file, file.sha1().map(|digest| digest.as_slice())),
            Directive::Sha256 => return self.checksum(file, file.sha256().map(|digest| digest.as_slice())),
            Directive::MirrorList { from_ip } => return self.mirror_list(files, file, parameters, from_ip),
            Directive::None | Directive::Stats | Directive::MirrorStats => {}
        }
        if self.is_unmodified(file.modified()) {
            let last_modified = http_date(file.modified().seconds());
            return self.start(Status::NotModified).header("Last-Modified", last_modified).no_body();
        }
        let wanted = self.wanted(parameters);
        let location = self.locate(None);
        let candidates = self.candidates(files, file, &location, wanted);
        if candidates.is_empty() {
            return self.answer_by_fallback(file.path(), Some(file), parameters);
        }
        let random = &mut *self.random;
        if document::wants_json(self.snapshot.settings.output_mode, self.request.accepts_json) {
            candidates.draw(usize::MAX, &mut self.scratch.drawn, |n| random.u64(..n));
            self.json(files, file, &location, wanted, parameters.pretty);
        } else {
            let wanted_mirrors = self.snapshot.settings.max_link_headers.saturating_add(1);
            candidates.draw(wanted_mirrors, &mut self.scratch.drawn, |n| random.u64(..n));
            self.redirect(file.path());
        }
    }

    // What is known of the request

    fn is_unmodified(&self, modified: FileTime) -> bool {
        let since = self.request.if_modified_since.and_then(parse_http_date);
        since.is_some_and(|since| modified.seconds() <= since)
    }

    fn wanted(&self, parameters: &Parameters<'_>) -> Wanted {
        match (parameters.https, self.request.forwarded_proto) {
            (Some(true), _) => Wanted::Https,
            (Some(false), _) => Wanted::Http,
            (None, Some(b"https")) => Wanted::Https,
            (None, Some(b"http")) if !self.snapshot.settings.allow_http_to_https_redirects => Wanted::Http,
            (None, _) => Wanted::Any,
        }
    }

    /// Where the client is, or where `instead` is.
    fn locate(&mut self, instead: Option<IpAddr>) -> Location {
        let trusted = &self.snapshot.settings.trusted_proxies;
        let address =
            instead.unwrap_or_else(|| address::client_address(self.peer, &self.request.forwarded_for, trusted));
        self.locator.locate(self.snapshot, address)
    }

    // Selection

    fn candidates(
        &mut self,
        files: &FileIndex,
        file: FileRef<'_>,
        location: &Location,
        wanted: Wanted,
    ) -> Rc<Candidates> {
        let client = self.comparable(location.client());
        let exceptional =
            file.exceptions().len() > 0 && self.snapshot.settings.rules.outdated_minutes(file.path()).is_some();
        if exceptional {
            // Copies that differ may be accepted: this file is unlike the others of its set.
            self.evaluate(files, file, location, client, wanted);
            return Rc::new(Candidates::of(&self.scratch.evaluation));
        }
        let key = CandidatesKey { set: file.set().number(), place: location.place_key, asn: client.asn, wanted };
        if let Some(candidates) = self.candidates.get(&key, |candidates| candidates.bytes()) {
            return candidates;
        }
        self.evaluate(files, file, location, client, wanted);
        let candidates = Rc::new(Candidates::of(&self.scratch.evaluation));
        self.candidates.insert(key, candidates.clone(), candidates.bytes());
        candidates
    }

    /// The client without a network that no mirror stands in, so that clients which are alike share their candidates.
    fn comparable(&self, client: Client) -> Client {
        Client { asn: if self.snapshot.mirrors.has_asn(client.asn) { client.asn } else { 0 }, ..client }
    }

    fn source(&self, file: FileRef<'_>) -> Source {
        let rules = &self.snapshot.settings.rules;
        Source {
            size: file.size(),
            modified: file.modified(),
            outdated_minutes: rules.outdated_minutes(file.path()),
            fix_timezone_offsets: rules.fix_timezone_offsets,
        }
    }

    fn evaluate(&mut self, files: &FileIndex, file: FileRef<'_>, location: &Location, client: Client, wanted: Wanted) {
        let query = Query {
            source: self.source(file),
            client,
            distances: &location.place.distances,
            wanted,
            weight_distribution_range: self.snapshot.settings.rules.weight_distribution_range,
        };
        let copies = copies(self.snapshot, files, file);
        self.scratch.evaluation.evaluate(&self.snapshot.mirrors, &query, copies);
    }

    // Answers

    fn start<'s>(&'s mut self, status: Status) -> Response<'s, 's> {
        Response::new(self.out, status, self.envelope)
    }

    fn plain(&mut self, status: Status) {
        response::plain(self.out, status, self.envelope);
    }

    fn redirect_to_clean(&mut self, decoded: &[u8], target: &Target<'_>) {
        let clean = path::clean(decoded);
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

    fn checksum(&mut self, file: FileRef<'_>, digest: Option<&[u8]>) {
        let Some(digest) = digest else {
            return response::text(self.start(Status::NotFound), "Hash type not supported");
        };
        let name = file.path().rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let mut body = std::mem::take(&mut self.scratch.body);
        body.clear();
        append_hex(&mut body, digest);
        body.extend_from_slice(b"  ");
        body.extend_from_slice(name);
        self.start(Status::Ok).lines("Content-Type: text/plain; charset=UTF-8\r\n").body(&body);
        self.scratch.body = body;
    }

    /// Redirects to the first of the mirrors drawn and names the others.
    fn redirect(&mut self, path: &[u8]) {
        let snapshot = self.snapshot;
        let drawn = std::mem::take(&mut self.scratch.drawn);
        let places = drawn.iter().map(|accepted| {
            let mirror = snapshot.mirrors.row(accepted.row);
            (mirror.url(accepted.protocol), mirror.geo_label.as_str())
        });
        self.redirect_to(path, places);
        self.scratch.drawn = drawn;
    }

    /// Redirects to the first of `places`, base URLs with their country labels.
    fn redirect_to<'p>(&mut self, path: &[u8], places: impl Iterator<Item = (&'p str, &'p str)> + Clone) {
        let relative = path.strip_prefix(b"/").unwrap_or(path);
        let with_links = self.snapshot.settings.max_link_headers > 0;
        let mut response = self.start(Status::Found).lines(REDIRECT_LINES);
        if let Some((url, _)) = places.clone().next() {
            response = response.header_by("Location", |out| append_url(out, url, relative));
        }
        if with_links {
            for (priority, (url, label)) in (1u32..).zip(places) {
                response = response.header_by("Link", |out| append_link(out, url, relative, priority, label));
            }
        }
        response.no_body();
    }

    /// The JSON document of the mirrors drawn.
    fn json(&mut self, files: &FileIndex, file: FileRef<'_>, location: &Location, wanted: Wanted, pretty: bool) {
        let snapshot = self.snapshot;
        let (source, client) = (self.source(file), self.comparable(location.client()));
        let refused = copies(snapshot, files, file).filter_map(|(row, copy)| {
            filter::check(snapshot.mirrors.row(row), copy, &source, &client, wanted).err().map(|reason| (row, reason))
        });
        let mut excluded = std::mem::take(&mut self.scratch.excluded);
        excluded.clear();
        excluded.extend(refused);
        excluded.sort_unstable_by_key(|&(row, _)| row);
        let drawn = std::mem::take(&mut self.scratch.drawn);
        let subject = Subject { path: file.path(), file: Some(file), location, settings: &snapshot.settings };
        self.write_document(pretty, |json| {
            let listed = drawn.iter().map(|accepted| listed_accepted(snapshot, accepted, None));
            let refused = excluded.iter().map(|&refused| listed_refused(snapshot, location, wanted, refused));
            document::write(json, &subject, listed, refused, false);
        });
        self.scratch.drawn = drawn;
        self.scratch.excluded = excluded;
    }

    /// The JSON document of all mirrors, with their weights.
    fn mirror_list(
        &mut self,
        files: &FileIndex,
        file: FileRef<'_>,
        parameters: &Parameters<'_>,
        from_ip: Option<&[u8]>,
    ) {
        let instead = match from_ip.map(decode_address) {
            Some(None) => return self.plain(Status::BadRequest),
            Some(instead) => instead,
            None => None,
        };
        let location = self.locate(instead);
        let wanted = self.wanted(parameters);
        self.evaluate(files, file, &location, location.client(), wanted);
        if self.scratch.evaluation.accepted.is_empty() && !self.snapshot.settings.fallbacks.is_empty() {
            return self.answer_by_fallback(file.path(), Some(file), parameters);
        }
        let snapshot = self.snapshot;
        let mut evaluation = std::mem::take(&mut self.scratch.evaluation);
        evaluation.excluded.sort_unstable_by_key(|&(row, _)| row);
        let subject =
            Subject { path: file.path(), file: Some(file), location: &location, settings: &snapshot.settings };
        self.write_document(parameters.pretty, |json| {
            let listed =
                evaluation.accepted.iter().enumerate().map(|(place, accepted)| {
                    listed_accepted(snapshot, accepted, Some(evaluation.weight_percent(place)))
                });
            let refused =
                evaluation.excluded.iter().map(|&refused| listed_refused(snapshot, &location, wanted, refused));
            document::write(json, &subject, listed, refused, false);
        });
        self.scratch.evaluation = evaluation;
    }

    /// Answers by the configured fallbacks, or with 503 when there is none.
    fn answer_by_fallback(&mut self, path: &[u8], file: Option<FileRef<'_>>, parameters: &Parameters<'_>) {
        let snapshot = self.snapshot;
        let settings = &snapshot.settings;
        let wanted = self.wanted(parameters);
        let location = self.locate(None);
        let mut ranked = std::mem::take(&mut self.scratch.ranked);
        let random = &mut *self.random;
        fallback::rank(&settings.fallbacks, &location.client(), wanted, &mut ranked, |n| random.u64(..n));
        if ranked.is_empty() {
            response::text(self.start(Status::ServiceUnavailable).lines(RETRY_AFTER), "Service Unavailable");
        } else if matches!(parameters.directive, Directive::MirrorList { .. })
            || document::wants_json(settings.output_mode, self.request.accepts_json)
        {
            let subject = Subject { path, file, location: &location, settings };
            let state = MirrorState { enabled: true, ..MirrorState::default() };
            self.write_document(parameters.pretty, |json| {
                let listed = ranked.iter().map(|&place| {
                    let fallback = &settings.fallbacks[place];
                    Listed {
                        id: -(place as i64),
                        settings: &fallback.settings,
                        state: &state,
                        absolute_url: fallback.absolute_url(wanted),
                        distance: 0.0,
                        score: 0,
                        weight: None,
                        excluded: None,
                    }
                });
                document::write(json, &subject, listed, std::iter::empty(), true);
            });
        } else {
            let places = ranked.iter().take(settings.max_link_headers.saturating_add(1)).map(|&place| {
                let fallback = &settings.fallbacks[place];
                (fallback.absolute_url(wanted), fallback.geo_label.as_str())
            });
            self.redirect_to(path, places);
        }
        self.scratch.ranked = ranked;
    }

    fn write_document(&mut self, pretty: bool, write: impl FnOnce(&mut JsonWriter<'_>)) {
        let mut body = std::mem::take(&mut self.scratch.body);
        body.clear();
        write(&mut JsonWriter::new(&mut body, pretty));
        self.start(Status::Ok).lines(JSON_LINES).body(&body);
        self.scratch.body = body;
    }
}

/// The mirrors that have `file`, by their rows, with their copies.
fn copies<'a>(
    snapshot: &'a Snapshot,
    files: &'a FileIndex,
    file: FileRef<'a>,
) -> impl Iterator<Item = (u32, FileCopy)> + 'a {
    let matching = files.set(file.set()).ordinals().map(|ordinal| (ordinal, FileCopy::Matches));
    let differing = file
        .exceptions()
        .map(|exception| (exception.mirror, FileCopy::Differs { size: exception.size, modified: exception.modified }));
    matching.chain(differing).filter_map(|(ordinal, copy)| Some((snapshot.row(ordinal)?, copy)))
}

fn listed_accepted<'a>(snapshot: &'a Snapshot, accepted: &Accepted, weight: Option<f32>) -> Listed<'a> {
    let row = snapshot.mirrors.row(accepted.row);
    Listed {
        id: i64::from(row.mirror.id.0),
        settings: &row.mirror.settings,
        state: &row.mirror.state,
        absolute_url: row.url(accepted.protocol),
        distance: accepted.distance,
        score: accepted.score,
        weight,
        excluded: None,
    }
}

fn listed_refused<'a>(
    snapshot: &'a Snapshot,
    location: &Location,
    wanted: Wanted,
    (row, reason): (u32, Reason),
) -> Listed<'a> {
    let mirror = snapshot.mirrors.row(row);
    Listed {
        id: i64::from(mirror.mirror.id.0),
        settings: &mirror.mirror.settings,
        state: &mirror.mirror.state,
        absolute_url: filter::check_scheme(mirror, wanted).map_or("", |protocol| mirror.url(protocol)),
        distance: location.place.distances.get(row as usize).copied().unwrap_or(0.0),
        score: 0,
        weight: None,
        excluded: Some((reason, mirror)),
    }
}

fn without_trailing_slash(path: &[u8]) -> &[u8] {
    match path.strip_suffix(b"/") {
        Some(b"") | None => path,
        Some(rest) => rest,
    }
}

fn decode_address(text: &[u8]) -> Option<IpAddr> {
    let mut decoded = Vec::new();
    path::percent_decode(text, &mut decoded).ok()?;
    std::str::from_utf8(&decoded).ok()?.trim().parse().ok()
}

fn append_url(out: &mut Vec<u8>, base: &str, relative: &[u8]) {
    out.extend_from_slice(base.as_bytes());
    path::percent_encode(relative, out);
}

/// RFC 6249, section 3.
fn append_link(out: &mut Vec<u8>, base: &str, relative: &[u8], priority: u32, label: &str) {
    use std::io::Write;
    out.push(b'<');
    append_url(out, base, relative);
    // Writing to a vector cannot fail.
    let _ = write!(out, ">; rel=duplicate; pri={priority}");
    if !label.is_empty() {
        out.extend_from_slice(b"; geo=");
        out.extend_from_slice(label.as_bytes());
    }
}

fn append_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}
