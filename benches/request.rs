//! What our own code costs per request, step by step and as a whole, without sockets.
//!
//! Two sizes show whether the cost grows with files and mirrors: 10,000 files on 50 mirrors, and 1,000,000 on 400. Files,
//! and clients out of the fixture's networks, are random; mirrors are complete but for one set in ten. The caches are warm
//! except where a benchmark says so.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use mb_core::config;
use mb_core::geo::GeoDatabase;
use mb_core::mirror::{Health, Mirror, MirrorId, MirrorSettings, MirrorState};
use mb_core::store::FileHashes;
use mb_core::time::FileTime;
use mb_index::{FileIndex, FileRecord, FilesBuilder, Publisher, open_newest_files, open_newest_mirrors};
use mirrorbits::handle::{Handler, Peer, Settings};
use mirrorbits::http::request::{Parsed, parse};
use mirrorbits::http::response::Envelope;
use mirrorbits::select::MirrorTable;
use mirrorbits::snapshot::Snapshot;

const DATE: &[u8; 29] = b"Sun, 22 Nov 2026 12:00:00 GMT";
/// Distinct random requests that a benchmark goes round in.
const REQUESTS: usize = 1 << 16;

struct World {
    snapshot: Arc<Snapshot>,
    requests: Vec<Vec<u8>>,
}

fn path(number: usize) -> String {
    format!("/pool/main/{:04x}/package-{number:08}_1.0-1_amd64.deb", number / 512)
}

fn mirror(id: u32) -> Mirror {
    let country = ["FR", "DE", "US", "JP", "BR", "AU", "IN", "ZA"][id as usize % 8];
    Mirror {
        id: MirrorId(id),
        settings: MirrorSettings {
            name: format!("mirror{id}"),
            http_url: format!("https://mirror{id}.example.org/pub/"),
            country_codes: country.to_owned(),
            latitude: (id * 37 % 140) as f32 - 70.0,
            longitude: (id * 101 % 360) as f32 - 180.0,
            ..MirrorSettings::default()
        },
        state: MirrorState {
            enabled: true,
            https: Health { up: true, down_reason: String::new() },
            ..MirrorState::default()
        },
    }
}

fn world(files: usize, mirrors: u32) -> World {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ids: Vec<_> = (1..=mirrors).map(MirrorId).collect();
    let mut builder = FilesBuilder::new(&ids, false);
    let complete = {
        let mut words = vec![0_u64; builder.set_words()];
        (0..mirrors as usize).for_each(|bit| words[bit / 64] |= 1 << (bit % 64));
        words
    };
    let sets: Vec<_> = (0..10)
        .map(|lacking| {
            let mut words = complete.clone();
            if lacking > 0 {
                words[0] &= !(1 << lacking);
            }
            builder.intern_set(&words)
        })
        .collect();
    for number in 0..files {
        let (path, hashes) = (path(number), FileHashes::default());
        let modified = FileTime::from_seconds(1_700_000_000);
        let set = sets[if number % 10 == 0 { number / 10 % 10 } else { 0 }];
        let record = FileRecord { path: path.as_bytes(), size: 1, modified, hashes, set, exceptions: &[] };
        builder.push_file(record).expect("ascending paths");
    }
    let records: Vec<_> = (1..=mirrors).map(mirror).collect();
    let mut publishing = Publisher::new(folder.path()).lock().expect("the lock");
    publishing.publish(Some(&builder.finish()), &records).expect("space on the disk");
    let files_index = open_newest_files(folder.path()).index.expect("the index just published");
    let table = open_newest_mirrors(folder.path()).index.expect("the mirrors just published").mirrors();
    let (geo, _) = GeoDatabase::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/geo"));
    let config = config::parse("Repository: /srv", Path::new("bench.conf")).expect("a configuration").config;
    let snapshot = Snapshot::new(
        Arc::new(Settings::from(&config)),
        Some(Arc::new(files_index)),
        Arc::new(MirrorTable::new(table)),
        Arc::new(geo),
    );
    let mut random = fastrand::Rng::with_seed(1);
    let request = |_| {
        let (path, host) = (path(random.usize(..files)), random.u8(..));
        format!(
            "GET {path} HTTP/1.1\r\nHost: example.org\r\nUser-Agent: bench\r\nX-Forwarded-For: 192.0.2.{host}\r\n\r\n"
        )
        .into_bytes()
    };
    World { snapshot: Arc::new(snapshot), requests: (0..REQUESTS).map(request).collect() }
}

fn answer(handler: &mut Handler, bytes: &[u8], out: &mut Vec<u8>) {
    let Parsed::Complete { request, .. } = parse(bytes) else { unreachable!("requests are well formed") };
    out.clear();
    let envelope = Envelope { date: DATE, persistence: request.persistence, head_only: false };
    handler.handle(&request, Peer::Local, envelope, out);
}

fn lookup(files: &FileIndex, request: &[u8]) -> bool {
    let end = request[4..].iter().position(|&byte| byte == b' ').map_or(request.len(), |end| end + 4);
    matches!(files.lookup(&request[4..end]), mb_index::Entry::File(_))
}

fn requests(criterion: &mut Criterion) {
    for (files, mirrors) in [(10_000, 50), (1_000_000, 400)] {
        let world = world(files, mirrors);
        let size = format!("{files} files, {mirrors} mirrors");
        let mut group = criterion.benchmark_group("request");
        let mut next = (0..REQUESTS).cycle();
        let mut request = || &world.requests[next.next().unwrap_or_default()];

        group.bench_function(BenchmarkId::new("parse", &size), |bench| {
            bench.iter(|| parse(black_box(request())).is_complete());
        });
        group.bench_function(BenchmarkId::new("lookup", &size), |bench| {
            let files = world.snapshot.files.as_ref().expect("an index");
            bench.iter(|| lookup(files, black_box(request())));
        });
        group.bench_function(BenchmarkId::new("handle", &size), |bench| {
            let mut handler = Handler::new(world.snapshot.clone(), 1);
            let mut out = Vec::new();
            world.requests.iter().for_each(|request| answer(&mut handler, request, &mut out));
            bench.iter(|| answer(&mut handler, black_box(request()), &mut out));
        });
        group.bench_function(BenchmarkId::new("handle, cold caches", &size), |bench| {
            bench.iter_batched_ref(
                || (Handler::new(world.snapshot.clone(), 1), Vec::new()),
                |(handler, out)| answer(handler, &world.requests[0], out),
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, requests);
criterion_main!(benches);
