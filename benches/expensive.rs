//! What each kind of request costs on the shard, with many mirrors: none may take milliseconds.
//!
//! A request is parsed and answered on one thread, or handed to the page worker, whose answer is taken over. Of the work on the
//! shard the figures are the median and the 99th of 100 single requests, in processor time; of that of the page worker, which
//! writes and compresses documents, they are the median. Pages of HTML and counts are not made here.

use std::sync::Arc;
use std::time::Duration;

use mb_core::config;
use mb_core::mirror::Mirror;
use mirrorbits::handle::{Handler, Peer, Settings};
use mirrorbits::http::response::{Content, Envelope, gzip};
use mirrorbits::pages::{Form, Question, Subject};
use mirrorbits::select::MirrorTable;
use mirrorbits::shard::question::Questions;
use mirrorbits::snapshot::Snapshot;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

mod world;

use world::{DATE, Size, World, parsed};

const SIZE: Size = Size { files: 100_000, mirrors: 400, sets: 2000 };
/// Requests of each kind, in turn for all files and clients.
const REQUESTS: usize = 2000;

/// Who may answer.
#[derive(Clone, Copy, Debug)]
enum Mirrors {
    /// All.
    Up,
    /// Five; the others are listed with the reason.
    MostlyDisabled,
    /// None, so that fallbacks answer.
    Disabled,
}

const JSON: &str = "Accept: application/json\r\n";
const JSON_GZIP: &str = "Accept: application/json\r\nAccept-Encoding: gzip\r\n";
const GZIP: &str = "Accept-Encoding: gzip\r\n";

fn main() {
    // `cargo test` starts benchmarks, too, but not for this.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let world = World::new(SIZE);
    println!(
        "{SIZE}\n\n| request | mirrors | bytes | shard µs | 99 % | worker µs |\n| --- | --- | ---: | ---: | ---: | ---: |"
    );
    let forwarded = "X-Forwarded-For: 198.18.0.1, 10.0.0.1, 10.0.0.2, 10.0.0.3\r\n".repeat(64);
    let long = format!("?{}", "a=b&".repeat(1500));
    use Mirrors::*;
    for (name, query, headers, mirrors) in [
        ("redirect", "", "", Up),
        ("redirect", "", "", MostlyDisabled),
        ("redirect to a fallback", "", "", Disabled),
        ("redirect, 256 forwarded addresses", "", forwarded.as_str(), Up),
        ("redirect, 1500 parameters", long.as_str(), "", Up),
        ("not modified", "", "If-Modified-Since: Sun, 22 Nov 2026 12:00:00 GMT\r\n", Up),
        ("sha256", "?sha256", "", Up),
        ("stats", "?stats", "", Up),
        ("mirrorstats", "?mirrorstats", "", Up),
        ("mirrorlist, a page", "?mirrorlist", "", Up),
        ("mirrorlist, a compressed page", "?mirrorlist", GZIP, Up),
        ("mirrorlist, JSON", "?mirrorlist", JSON, Up),
        ("mirrorlist, indented JSON", "?mirrorlist&pretty", JSON, Up),
        ("mirrorlist, compressed JSON", "?mirrorlist", JSON_GZIP, Up),
        ("mirrorlist, compressed JSON", "?mirrorlist", JSON_GZIP, MostlyDisabled),
        ("mirrorlist of fallbacks, compressed JSON", "?mirrorlist", JSON_GZIP, Disabled),
        ("mirrorlist from elsewhere", "?mirrorlist&fromip=198.18.0.1", JSON, Up),
        ("mirrorlist from nowhere", "?mirrorlist&fromip=x", JSON, Up),
        ("JSON", "", JSON, Up),
        ("compressed JSON", "", JSON_GZIP, Up),
        ("JSON", "", JSON, MostlyDisabled),
        ("indented JSON", "?pretty", JSON, MostlyDisabled),
        ("compressed JSON", "", JSON_GZIP, MostlyDisabled),
        ("JSON of fallbacks", "", JSON, Disabled),
        ("compressed JSON of fallbacks", "", JSON_GZIP, Disabled),
    ] {
        measure(&world, name, query, headers, mirrors);
    }
}

/// What requests are answered from when these mirrors may answer.
fn snapshot(world: &World, mirrors: Mirrors) -> Arc<Snapshot> {
    let config = "Repository: /srv\nGzip: true\nFallbacks: [{URL: 'https://one/'}, {URL: 'https://two/'}]";
    let config = config::parse(config, "bench.conf".as_ref()).expect("a configuration").config;
    let records = world.snapshot.mirrors.rows().iter().enumerate().map(|(number, row)| {
        let mut mirror: Mirror = row.mirror.clone();
        mirror.state.enabled = match mirrors {
            Mirrors::Up => true,
            Mirrors::MostlyDisabled => number % 80 == 0,
            Mirrors::Disabled => false,
        };
        mirror
    });
    let (table, files) = (MirrorTable::new(records.collect()), world.snapshot.files.clone());
    let geo = world.snapshot.geo.clone();
    Arc::new(Snapshot::new(Arc::new(Settings::from(&config)), files, Arc::new(table), geo))
}

fn measure(world: &World, name: &str, query: &str, headers: &str, mirrors: Mirrors) {
    let plain = world.requests(REQUESTS, headers);
    let line_end = format!("{query} HTTP/1.1\r\n");
    let requests: Vec<_> =
        plain.iter().map(|request| String::from_utf8_lossy(request).replacen(" HTTP/1.1\r\n", &line_end, 1)).collect();
    let mut handler = Handler::new(snapshot(world, mirrors), 1);
    let (statistics, mut counts) = mpsc::channel(64);
    let (pages, mut asked) = mpsc::channel(64);
    let questions = Questions { statistics, pages };
    let mut out = Vec::new();
    let (mut shard, mut worker) = (Vec::with_capacity(REQUESTS), Vec::with_capacity(REQUESTS));
    let mut bytes = 0;
    // What is told is the second time, with warm caches.
    for round in 0..2 {
        for request in &requests {
            out.clear();
            let began = processor_time();
            let request = parsed(request.as_bytes());
            let envelope = Envelope { date: DATE, persistence: request.persistence, head_only: false };
            let outcome = handler.handle(&request, Peer::Local, envelope, &mut out);
            let pending = outcome.is_offloaded.then(|| questions.ask(&outcome, &mut handler, &request));
            let mut took = processor_time() - began;
            drop((pending, counts.try_recv()));
            let began = processor_time();
            if let Some(content) = asked.try_recv().ok().and_then(made) {
                worker.push((processor_time() - began).as_nanos() as f64 / 1e3);
                let began = processor_time();
                // A connection that waited has no other answers.
                let mut taken = Vec::new();
                content.respond(envelope, &mut taken);
                took += processor_time() - began;
                bytes += taken.len();
            }
            bytes += out.len();
            if round == 1 {
                shard.push(took.as_nanos() as f64 / 1e3);
            }
        }
    }
    let [median, most] = [50, 99].map(|percent| percentile(&mut shard, percent).unwrap_or_default());
    let worker = percentile(&mut worker, 50).map_or("–".to_owned(), |median| format!("{median:.0}"));
    println!("| {name} | {mirrors:?} | {} | {median:.1} | {most:.1} | {worker} |", bytes / (2 * REQUESTS));
}

/// What the page worker makes of a document.
fn made(question: Question) -> Option<Content> {
    let (Subject::MirrorList { document, .. }, Form::Json { pretty }) = (question.subject, question.form) else {
        return None;
    };
    let document = document.write(pretty);
    let body = if question.accepts_gzip { gzip(&document) } else { document };
    Some(Content::with_room(String::new(), body))
}

fn percentile(times: &mut [f64], percent: usize) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    times.get(times.len() * percent / 100).copied()
}

/// Of this thread.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
