//! The steps of a request, each alone and with its input prepared, and the whole.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use fastrand::Rng;
use mb_index::{Entry, FileIndex};
use mirrorbits::handle::Handler;
use mirrorbits::http::request::{Persistence, parse};
use mirrorbits::http::response::{Envelope, Response, Status};
use mirrorbits::metrics::hand_over::exchange;
use mirrorbits::select::distance::{Point, Position, kilometres};
use mirrorbits::select::draw::{Candidates, KEPT};
use mirrorbits::select::filter::{FileCopy, Source};
use mirrorbits::select::score::Query;
use mirrorbits::select::shortlist::Shortlist;
use mirrorbits::select::{Accepted, Client, Code, Evaluation, Wanted};

use mirrorbits::stats::recorder::Moment;

use crate::world::{self, DATE, World, answer, parsed, places};

/// Distinct random requests that are gone round in: more than a processor's caches hold the files of.
pub const REQUESTS: usize = 1 << 16;
/// Prepared clients for the steps that need one; each has its distances to all mirrors.
const CLIENTS: usize = 256;

/// Names of the steps, in the order of a request.
pub const STEPS: [&str; 12] = [
    "parse",
    "lookup",
    "geo",
    "evaluate all",
    "shortlist",
    "draw",
    "render",
    "handle",
    "handle, measure",
    "handle, count",
    "handle, count, log",
    "handle JSON",
];
/// Requests between two hand-overs of what was counted and logged: a tenth of a second at 100,000 requests per second.
const HAND_OVER: u32 = 10_000;

/// Calls `step` with one request after another.
fn round<T>(inputs: &[T], mut step: impl FnMut(&T)) -> impl FnMut() {
    let mut next = 0;
    move || {
        step(black_box(&inputs[next]));
        next = (next + 1) % inputs.len();
    }
}

/// Hands one call of the step `name` to `measure`, which repeats it.
pub fn with(world: &World, name: &str, mut measure: impl FnMut(&mut dyn FnMut())) {
    let files: &FileIndex = world.snapshot.files.as_ref().expect("an index");
    match name {
        "parse" => {
            let requests = world.requests(REQUESTS, "");
            measure(&mut round(&requests, |request| assert!(parse(request).is_complete())));
        }
        "lookup" => {
            let mut scratch = Vec::new();
            let paths: Vec<_> =
                world.requests(REQUESTS, "").iter().map(|request| parsed(request).target.to_vec()).collect();
            measure(&mut round(&paths, |path| assert!(matches!(files.resolve(path, &mut scratch), Entry::File(_)))));
        }
        "geo" => {
            let mut random = Rng::with_seed(4);
            let clients: Vec<Ipv4Addr> = (0..REQUESTS).map(|_| places::random_client(&mut random)).collect();
            measure(&mut round(&clients, |&client| {
                let located = world.snapshot.geo.locate(IpAddr::V4(client));
                black_box((located.place_key(), located.autonomous_system_key()));
            }));
        }
        "evaluate all" => {
            let clients = Clients::of(world);
            let mut evaluation = Evaluation::default();
            let mut random = Rng::with_seed(5);
            let pairs: Vec<_> = (0..CLIENTS).map(|client| (client, random.u32(..files.len() as u32))).collect();
            measure(&mut round(&pairs, |&(client, file)| {
                clients.evaluate(world, client, file, &mut evaluation);
                black_box(Candidates::of(&evaluation));
            }));
        }
        "shortlist" => {
            let clients = Clients::of(world);
            let shortlists = clients.shortlists(world);
            let mut candidates = Candidates::default();
            let mut random = Rng::with_seed(5);
            let pairs: Vec<_> = (0..CLIENTS).map(|client| (client, random.u32(..files.len() as u32))).collect();
            measure(&mut round(&pairs, |&(client, file)| {
                let set = files.set(files.file(file).set());
                shortlists[client].candidates(
                    &world.snapshot.mirrors,
                    |ordinal| set.contains(ordinal),
                    &mut candidates,
                );
            }));
        }
        "draw" => {
            let clients = Clients::of(world);
            let mut evaluation = Evaluation::default();
            let candidates: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    clients.evaluate(world, client, 0, &mut evaluation);
                    Candidates::of(&evaluation)
                })
                .collect();
            let mut random = Rng::with_seed(6);
            let mut drawn: Vec<Accepted> = Vec::new();
            measure(&mut round(&candidates, |candidates| candidates.draw(KEPT, &mut drawn, |n| random.u64(..n))));
        }
        "render" => {
            let mut out = Vec::new();
            measure(&mut round(&[DATE], |date| {
                out.clear();
                let envelope = Envelope { date, persistence: Persistence::Implied, head_only: false };
                let mut response = Response::new(&mut out, Status::Found, envelope);
                for _ in 0..KEPT {
                    response = response.header_by("Link", |out| {
                        out.extend_from_slice(b"<https://mirror1.example.org/pub/");
                        out.extend_from_slice(black_box(b"pool/main/0001/package-00000001_1.0-1_amd64.deb"));
                        out.extend_from_slice(b">; rel=duplicate; pri=1; geo=fr");
                    });
                }
                response.no_body();
            }));
        }
        "handle" => whole(world, "", measure),
        "handle, count" => counted(world, false, measure),
        "handle, measure" => measured(world, measure),
        "handle, count, log" => counted(world, true, measure),
        "handle JSON" => whole(world, "Accept: application/json\r\n", measure),
        _ => unreachable!("{name} is no step"),
    }
}

/// Whole answers from warm caches.
fn whole(world: &World, headers: &str, mut measure: impl FnMut(&mut dyn FnMut())) {
    let requests = world.requests(REQUESTS, headers);
    let mut handler = Handler::new(world.snapshot.clone(), 1);
    let mut out = Vec::new();
    let mut once = |request: &Vec<u8>| {
        black_box(answer(&mut handler, request, &mut out));
    };
    requests.iter().for_each(&mut once);
    measure(&mut round(&requests, once));
}

/// Whole answers that are counted and measured for the metrics, each with a cycle of its own, as without pipelining.
fn measured(world: &World, mut measure: impl FnMut(&mut dyn FnMut())) {
    let requests = world.requests(REQUESTS, "");
    let mut handler = Handler::new(world.snapshot.clone(), 1);
    let mut out = Vec::new();
    let (mut reporter, _collector) = exchange().expect("counters");
    let mut once = |request: &Vec<u8>| {
        let began = Instant::now();
        let outcome = answer(&mut handler, request, &mut out);
        reporter.tally.count(&outcome);
        reporter.tally.measure(began.elapsed());
    };
    requests.iter().for_each(&mut once);
    measure(&mut round(&requests, once));
}

/// Whole answers that are measured, counted and, if wanted, logged; all of it is delivered to an embedded database and a file.
fn counted(world: &World, log: bool, mut measure: impl FnMut(&mut dyn FnMut())) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let statistics = world::statistics(folder.path(), log);
    let mut recorder = statistics.intake().recorder();
    let (mut reporter, collector) = exchange().expect("counters");
    let requests = world.requests(REQUESTS, "");
    let mut handler = Handler::new(world.snapshot(log), 1);
    let mut out = Vec::new();
    let mut left = HAND_OVER;
    let moment = Moment { unix_microseconds: 1_795_305_600_000_000, instant: Instant::now() };
    let mut once = |request: &Vec<u8>| {
        let began = Instant::now();
        let outcome = world::answer_and_record(&mut handler, &mut recorder, moment, request, &mut out);
        reporter.tally.count(&outcome);
        reporter.tally.measure(began.elapsed());
        left -= 1;
        if left == 0 {
            left = HAND_OVER;
            recorder.hand_over();
            reporter.report(&world.snapshot.mirrors);
            collector.collect(|_| {});
        }
    };
    requests.iter().for_each(&mut once);
    measure(&mut round(&requests, once));
    drop(recorder);
    statistics.stop(Duration::from_secs(10));
}

/// Clients with their distances to all mirrors.
struct Clients(Vec<(Client, Vec<f32>)>);

impl Clients {
    fn of(world: &World) -> Clients {
        let mut random = Rng::with_seed(7);
        let client = |_| {
            let address = places::random_client(&mut random);
            let located = world.snapshot.geo.locate(IpAddr::V4(address));
            let (place, system) = (located.place(), located.autonomous_system());
            let here = Position::from(Point { latitude: place.latitude, longitude: place.longitude });
            let distances = world.snapshot.mirrors.rows().iter().map(|row| kilometres(&here, &row.position));
            let (country, continent) = (Code::of(&place.country_code), Code::of(&place.continent_code));
            (Client { country, continent, asn: system.number }, distances.collect())
        };
        Clients((0..CLIENTS).map(client).collect())
    }

    fn shortlists(&self, world: &World) -> Vec<Shortlist> {
        let mirrors = &world.snapshot.mirrors;
        let shortlist = |(client, distances): &(Client, Vec<f32>)| {
            let ordinals = world.snapshot.mirrors_by_ordinal();
            Shortlist::of(mirrors, ordinals, *client, Wanted::Any, 1.5, |row| distances[row as usize])
        };
        self.0.iter().map(shortlist).collect()
    }

    fn evaluate(&self, world: &World, client: usize, file: u32, evaluation: &mut Evaluation) {
        let (client, distances) = &self.0[client];
        let files = world.snapshot.files.as_ref().expect("an index");
        let file = files.file(file);
        let source = Source {
            size: file.size(),
            modified: file.modified(),
            outdated_minutes: None,
            fix_timezone_offsets: false,
        };
        let query = Query { source, client: *client, distances, wanted: Wanted::Any, weight_distribution_range: 1.5 };
        let copies = files.set(file.set()).ordinals().map(|row| (row, FileCopy::Matches));
        evaluation.evaluate(&world.snapshot.mirrors, &query, copies);
    }
}
