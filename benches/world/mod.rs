//! What the benchmarks and the test of allocations answer from: an index with invented files, mirrors and places, and
//! random requests for it.

pub mod places;

use std::path::Path;
use std::sync::Arc;

use fastrand::Rng;
use mb_core::config::{self, LogFormat};
use mb_core::geo::GeoDatabase;
use mb_core::mirror::{Health, Mirror, MirrorId, MirrorSettings, MirrorState};
use mb_core::store::{EmbeddedStore, FileHashes};
use mb_core::time::FileTime;
use mb_index::{FileRecord, FilesBuilder, Publisher, open_newest_files, open_newest_mirrors};
use mirrorbits::handle::outcome::Outcome;
use mirrorbits::handle::{Handler, Peer, Settings};
use mirrorbits::http::request::{Parsed, Request, parse};
use mirrorbits::http::response::Envelope;
use mirrorbits::select::MirrorTable;
use mirrorbits::snapshot::Snapshot;
use mirrorbits::stats::download_log::Destination;
use mirrorbits::stats::recorder::{Moment, Recorder};
use mirrorbits::stats::{self, Statistics};

/// The date of all answers.
pub const DATE: &[u8; 29] = b"Sun, 22 Nov 2026 12:00:00 GMT";

/// How large a world is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Files.
    pub files: usize,
    /// Mirrors.
    pub mirrors: u32,
    /// Distinct sets of mirrors that files are on; 1: all mirrors have all files.
    pub sets: usize,
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} files, {} mirrors, {} sets", self.files, self.mirrors, self.sets)
    }
}

/// An index and what belongs to it.
pub struct World {
    /// What answers depend on.
    pub snapshot: Arc<Snapshot>,
    size: Size,
}

impl World {
    /// Publishes and opens an index of this size.
    pub fn new(size: Size) -> World {
        let folder = tempfile::tempdir().expect("a temporary folder");
        places::write(folder.path());
        let records: Vec<_> = (1..=size.mirrors).map(mirror).collect();
        let mut publishing = Publisher::new(folder.path()).lock().expect("the lock");
        publishing.publish(Some(&files(size)), &records).expect("space on the disk");
        let index = open_newest_files(folder.path()).index.expect("the index just published");
        let table = open_newest_mirrors(folder.path()).index.expect("the mirrors just published").mirrors();
        let (geo, errors) = GeoDatabase::load(folder.path());
        assert!(errors.is_empty(), "{errors:?}");
        let config = config::parse("Repository: /srv", Path::new("bench.conf")).expect("a configuration").config;
        let snapshot = Snapshot::new(
            Arc::new(Settings::from(&config)),
            Some(Arc::new(index)),
            Arc::new(MirrorTable::new(table)),
            Arc::new(geo),
        );
        World { snapshot: Arc::new(snapshot), size }
    }

    /// What requests are answered from, with or without a download log.
    #[allow(dead_code, reason = "not every user of this module records")]
    pub fn snapshot(&self, log: bool) -> Arc<Snapshot> {
        let Snapshot { settings, files, mirrors, geo, .. } = &*self.snapshot;
        let settings = Settings { download_log: log.then_some(LogFormat::Text), ..(**settings).clone() };
        Arc::new(Snapshot::new(Arc::new(settings), files.clone(), mirrors.clone(), geo.clone()))
    }

    /// `count` requests of random clients for random files, each with these header lines besides.
    pub fn requests(&self, count: usize, headers: &str) -> Vec<Vec<u8>> {
        let mut random = Rng::with_seed(1);
        let request = |_| {
            let (path, client) = (path(random.usize(..self.size.files)), places::random_client(&mut random));
            format!(
                "GET {path} HTTP/1.1\r\nHost: example.org\r\nUser-Agent: bench\r\nX-Forwarded-For: {client}\r\n\
                 {headers}\r\n"
            )
            .into_bytes()
        };
        (0..count).map(request).collect()
    }
}

/// The request in `bytes`.
pub fn parsed(bytes: &[u8]) -> Request<'_> {
    match parse(bytes) {
        Parsed::Complete { request, .. } => request,
        _ => unreachable!("requests are well formed"),
    }
}

/// Answers the request in `bytes` into `out`, which is emptied before, and tells what the answer was.
#[allow(dead_code, reason = "not every user of this module only answers")]
pub fn answer(handler: &mut Handler, bytes: &[u8], out: &mut Vec<u8>) -> Outcome {
    let request = parsed(bytes);
    out.clear();
    let envelope = Envelope { date: DATE, persistence: request.persistence, head_only: false };
    handler.handle(&request, Peer::Local, envelope, out)
}

/// Answers the request in `bytes` into `out`, which is emptied before, and records it; tells what it was.
#[allow(dead_code, reason = "not every user of this module records")]
pub fn answer_and_record(
    handler: &mut Handler,
    recorder: &mut Recorder,
    moment: Moment,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Outcome {
    let request = parsed(bytes);
    out.clear();
    let envelope = Envelope { date: DATE, persistence: request.persistence, head_only: false };
    let outcome = handler.handle(&request, Peer::Local, envelope, out);
    recorder.record(&outcome, &request, handler, moment);
    outcome
}

/// Statistics with an embedded database and, if wanted, a download log in `folder`.
#[allow(dead_code, reason = "not every user of this module records")]
pub fn statistics(folder: &Path, log: bool) -> Statistics {
    let store = Arc::new(EmbeddedStore::open(folder).expect("a database"));
    let destination = || Destination { folder: folder.to_owned(), format: LogFormat::Text };
    let options = stats::Options { state_dir: folder.to_owned(), log: log.then(destination) };
    Statistics::start(&options, store).expect("threads")
}

fn path(number: usize) -> String {
    format!("/pool/main/{:04x}/package-{number:08}_1.0-1_amd64.deb", number / 512)
}

fn files(size: Size) -> mb_index::FilesModel {
    let ids: Vec<_> = (1..=size.mirrors).map(MirrorId).collect();
    let mut builder = FilesBuilder::new(&ids, false);
    let mut complete = vec![0_u64; builder.set_words()];
    (0..size.mirrors as usize).for_each(|bit| complete[bit / 64] |= 1 << (bit % 64));
    let mut random = Rng::with_seed(2);
    let sets: Vec<_> = (0..size.sets)
        .map(|number| {
            // Most mirrors have most files: three of four, by chance.
            let incomplete = |word: &u64| word & (random.u64(..) | random.u64(..));
            let words = if number == 0 { complete.clone() } else { complete.iter().map(incomplete).collect() };
            builder.intern_set(&words)
        })
        .collect();
    for number in 0..size.files {
        let (path, hashes) = (path(number), FileHashes::default());
        let modified = FileTime::from_seconds(1_700_000_000);
        let set = sets[number % sets.len()];
        let record = FileRecord { path: path.as_bytes(), size: 1, modified, hashes, set, exceptions: &[] };
        builder.push_file(record).expect("ascending paths");
    }
    builder.finish()
}

fn mirror(id: u32) -> Mirror {
    let mut random = Rng::with_seed(id.into());
    let country = random.choice(places::COUNTRIES).expect("some countries");
    Mirror {
        id: MirrorId(id),
        settings: MirrorSettings {
            name: format!("mirror{id}"),
            http_url: format!("https://mirror{id}.example.org/pub/"),
            country_codes: country.code.to_owned(),
            continent_code: country.continent.to_owned(),
            latitude: country.latitude + random.f32() * 10.0 - 5.0,
            longitude: country.longitude + random.f32() * 10.0 - 5.0,
            asn: 64_496 + id % 16,
            ..MirrorSettings::default()
        },
        state: MirrorState {
            enabled: true,
            https: Health { up: true, down_reason: String::new() },
            ..MirrorState::default()
        },
    }
}
