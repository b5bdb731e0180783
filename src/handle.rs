//! A request and a snapshot make an answer: synchronous, without a clock, a socket or a lock, and without allocating once
//! the caches are warm.
//!
//! [`Handler`] holds what a shard keeps between requests. The client (`address`, `locate`), the choice (`choose`), the
//! answers (`answers`) and their JSON (`document`, `listing`) are files of their own, as is what is told of each ([`outcome`]).

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use std::net::IpAddr;
use std::sync::Arc;

use mb_core::path;
use mb_core::time::FileTime;
use mb_index::{Entry, FileIndex, FileRef};

use crate::http::date::{http_date, parse_http_date};
use crate::http::request::{Method, Request};
use crate::http::response::{self, Envelope, Response, Status};
use crate::http::target::{Directive, Parameters, Target};
use crate::select::draw::Candidates;
use crate::select::{Accepted, Reason, Wanted};
use crate::snapshot::Snapshot;

mod address;
mod answers;
mod choose;
pub mod document;
mod listing;
mod locate;
pub mod outcome;
mod settings;
#[cfg(test)]
mod tests;

pub use address::{Networks, Peer, client_address};
pub use answers::JSON_LINES;
pub use listing::{Document, Listing};
pub use settings::Settings;

use choose::{Among, Choices, EvaluationScratch};
use listing::Plan;
use locate::{Locator, Origin};
use outcome::{Chosen, File, Kind, Outcome};

/// Answers the requests of one shard.
pub struct Handler {
    snapshot: Arc<Snapshot>,
    locator: Locator,
    choices: Choices,
    random: fastrand::Rng,
    scratch: Scratch,
}

/// Memory that is used again from request to request.
#[derive(Default)]
struct Scratch {
    path: Vec<u8>,
    alias: Vec<u8>,
    /// The requested path as it stands in URLs.
    encoded: Vec<u8>,
    body: Vec<u8>,
    drawn: Vec<Accepted>,
    excluded: Vec<(u32, Reason)>,
    ranked: Vec<usize>,
    evaluation: EvaluationScratch,
    candidates: Candidates,
    /// What the offloaded answer is to be made of.
    offloaded: Option<Offloaded>,
}

/// What an offloaded answer is made of.
enum Offloaded {
    Document(Vec<u8>),
    Listing(Plan),
}

impl Handler {
    /// A handler that answers from `snapshot` and draws by the random numbers of `seed`.
    pub fn new(snapshot: Arc<Snapshot>, seed: u64) -> Handler {
        Handler {
            snapshot,
            locator: Locator::new(),
            choices: Choices::new(),
            random: fastrand::Rng::with_seed(seed),
            scratch: Scratch::default(),
        }
    }

    /// Answers from `snapshot` from now on.
    pub fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        if !Arc::ptr_eq(&snapshot.geo, &self.snapshot.geo) {
            self.locator.clear();
        }
        self.choices.clear();
        self.snapshot = snapshot;
    }

    /// Draws by the random numbers of `seed` from now on.
    #[cfg(fuzzing)]
    pub fn reseed(&mut self, seed: u64) {
        self.random = fastrand::Rng::with_seed(seed);
    }

    /// What is answered from.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The path that the latest request led to, which had `outcome`: that of the file, else what was asked for.
    pub fn path(&self, outcome: &Outcome) -> &[u8] {
        match (&self.snapshot.files, outcome.file) {
            (Some(files), Some(file)) => files.file(file.row).path(),
            _ => &self.scratch.path,
        }
    }

    /// Takes the document that the latest request led to, whose answer was offloaded; `None` when it is not about the mirrors of
    /// a file.
    pub fn take_document(&mut self) -> Option<Document> {
        Some(match self.scratch.offloaded.take()? {
            Offloaded::Document(document) => Document::Written(document),
            Offloaded::Listing(plan) => Document::Listing(Listing::new(Arc::clone(&self.snapshot), plan)),
        })
    }

    /// Appends the answer to `request` to `out`, and tells what it was. `envelope.head_only` must say whether its method
    /// is `HEAD`. Nothing is appended when [`Outcome::is_offloaded`].
    pub fn handle(&mut self, request: &Request<'_>, peer: Peer, envelope: Envelope<'_>, out: &mut Vec<u8>) -> Outcome {
        // The parts are borrowed one by one, so that the answer may read the snapshot while it fills the scratch memory.
        let Handler { snapshot, locator, choices, random, scratch } = self;
        let mut path = std::mem::take(&mut scratch.path);
        let mut alias = std::mem::take(&mut scratch.alias);
        path.clear();
        let outcome = Outcome::refused(request.method, Status::NotFound);
        let mut exchange = Exchange {
            snapshot,
            locator,
            choices,
            random,
            scratch,
            request,
            peer,
            envelope,
            out,
            outcome,
            origin: None,
            among: None,
        };
        exchange.answer(&mut path, &mut alias);
        let outcome = exchange.outcome;
        self.scratch.path = path;
        self.scratch.alias = alias;
        outcome
    }
}

/// One request being answered.
struct Exchange<'h, 'r, 'o> {
    snapshot: &'h Snapshot,
    locator: &'h mut Locator,
    choices: &'h mut Choices,
    random: &'h mut fastrand::Rng,
    scratch: &'h mut Scratch,
    request: &'r Request<'r>,
    peer: Peer,
    envelope: Envelope<'r>,
    out: &'o mut Vec<u8>,
    /// What is known of it so far; a refusal until an answer says what it is.
    outcome: Outcome,
    /// Where it comes from, when it was looked up ahead of its use.
    origin: Option<Origin<'h>>,
    /// Whom there is to choose among, likewise.
    among: Option<Among>,
}

impl<'h> Exchange<'h, '_, '_> {
    fn answer(&mut self, decoded: &mut Vec<u8>, alias: &mut Vec<u8>) {
        match self.request.method {
            Method::Get | Method::Head => {}
            Method::Options => {
                self.outcome.kind = Kind::Options;
                return self.start(Status::NoContent).lines("Allow: GET, HEAD\r\n").no_body();
            }
            Method::Other => {
                let refusal = self.start(Status::MethodNotAllowed).lines("Allow: GET, HEAD\r\n");
                return response::text(refusal, "Method Not Allowed");
            }
        }
        let Some(target) = Target::parse(self.request.target) else { return self.plain(Status::BadRequest) };
        if path::percent_decode(target.path, decoded).is_err() {
            return self.plain(Status::BadRequest);
        }
        // Of what is looked up, each step's memory comes while something else is done.
        let announced = self.snapshot.files.as_ref().map(|files| files.announce(without_trailing_slash(decoded)));
        if memchr::memchr(0, decoded).is_some() {
            return self.plain(Status::NotFound);
        }
        if !path::is_clean(decoded) {
            return self.redirect_to_clean(decoded, &target);
        }
        let parameters = Parameters::of(&target);
        if parameters.directive == Directive::MirrorStats {
            return self.offload(Kind::MirrorStatistics);
        }
        let wants_statistics = matches!(parameters.directive, Directive::Stats { .. });
        let Some(files) = &self.snapshot.files else {
            if wants_statistics {
                return response::text(self.start(Status::ServiceUnavailable), "Statistics are not available");
            }
            return self.answer_by_fallback(decoded, None, &parameters);
        };
        let path = without_trailing_slash(decoded);
        if parameters.directive == Directive::None
            && let Some(announced) = announced
        {
            let address = self.client_address();
            let origin = self.locator.origin(&self.snapshot.geo, address, || files.fetch_row(&announced));
            let among = self.choices.announce(self.snapshot, &origin, self.wanted(&parameters));
            (self.origin, self.among) = (Some(origin), Some(among));
            files.fetch_path(&announced);
            self.choices.fetch(&among);
            self.encode(path);
        }
        match files.resolve(path, alias) {
            Entry::Missing | Entry::Alias(_) => self.plain(Status::NotFound),
            Entry::Forbidden => self.plain(Status::Forbidden),
            Entry::Directory if wants_statistics => self.plain(Status::NotFound),
            Entry::Directory => self.answer_by_fallback(decoded, None, &parameters),
            Entry::File(_) if decoded.ends_with(b"/") => self.plain(Status::NotFound),
            Entry::File(file) => self.answer_for_file(files, file, path, &parameters),
        }
    }

    fn answer_for_file(&mut self, files: &'h FileIndex, file: FileRef<'h>, path: &[u8], parameters: &Parameters<'_>) {
        self.outcome.file = Some(File { row: file.row(), size: file.size() });
        match parameters.directive {
            Directive::Stats { period } => return self.file_statistics(period),
            Directive::Md5 => return self.checksum(file, file.md5().map(|digest| digest.as_slice())),
            Directive::Sha1 => return self.checksum(file, file.sha1().map(|digest| digest.as_slice())),
            Directive::Sha256 => return self.checksum(file, file.sha256().map(|digest| digest.as_slice())),
            Directive::MirrorList { .. } => return self.mirror_list(files, file, parameters),
            Directive::None | Directive::MirrorStats => {}
        }
        if self.is_unmodified(file.modified()) {
            self.outcome.kind = Kind::NotModified;
            let last_modified = http_date(file.modified().seconds());
            return self.start(Status::NotModified).header("Last-Modified", last_modified).no_body();
        }
        let wanted = self.wanted(parameters);
        let origin = self.origin();
        let settings = &self.snapshot.settings;
        let as_json = document::wants_json(settings.output_mode, self.request.accepts_json);
        let count = if as_json { usize::MAX } else { settings.max_link_headers.saturating_add(1) };
        if !self.draw(files, file, &origin, wanted, count) {
            self.answer_by_fallback(file.path(), Some(file), parameters);
        } else if as_json {
            let location = self.locator.locate(&origin);
            self.json(files, file, &location, wanted, parameters.pretty);
        } else {
            // It is what was asked for, unless a link led there.
            if file.path() != path {
                self.encode(file.path());
            }
            self.redirect();
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

    /// Where the request comes from.
    fn origin(&mut self) -> Origin<'h> {
        let origin = self.origin.take().unwrap_or_else(|| {
            let address = self.client_address();
            self.locator.origin(&self.snapshot.geo, address, || ())
        });
        self.outcome.client = Some(outcome::Client { address: origin.address, asn: origin.asn });
        origin
    }

    /// Where `address` is, in the place of the client.
    fn origin_of(&mut self, address: IpAddr) -> Origin<'h> {
        let origin = self.locator.origin(&self.snapshot.geo, address, || ());
        self.outcome.client = Some(outcome::Client { address, asn: origin.asn });
        origin
    }

    fn client_address(&self) -> IpAddr {
        address::client_address(self.peer, &self.request.forwarded_for, &self.snapshot.settings.trusted_proxies)
    }

    /// Makes `path`, without its leading slash, what is appended to the mirrors' URLs.
    fn encode(&mut self, path: &[u8]) {
        self.scratch.encoded.clear();
        path::percent_encode(path.strip_prefix(b"/").unwrap_or(path), &mut self.scratch.encoded);
    }

    /// Takes down who is chosen.
    fn chose(&mut self, kind: Kind, chosen: Chosen) {
        self.outcome.kind = kind;
        self.outcome.chosen = chosen;
    }

    /// Leaves the answer to another thread. What it is to be made of is set after this.
    fn offload(&mut self, kind: Kind) {
        self.outcome.kind = kind;
        self.outcome.status = Status::Ok;
        self.outcome.is_offloaded = true;
        self.scratch.offloaded = None;
    }

    fn start<'s>(&'s mut self, status: Status) -> Response<'s, 's> {
        self.outcome.status = status;
        Response::new(self.out, status, self.envelope)
    }

    fn plain(&mut self, status: Status) {
        self.outcome.status = status;
        response::plain(self.out, status, self.envelope);
    }
}

fn without_trailing_slash(path: &[u8]) -> &[u8] {
    match path.strip_suffix(b"/") {
        Some(b"") | None => path,
        Some(rest) => rest,
    }
}
