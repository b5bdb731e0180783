//! Statistics and the download log are exact, whatever happens to the store, to the log or to the daemon.
//!
//! The numbers to compare with are those of `mb-load`, which verifies each answer. How many requests a test sends is set by
//! `MIRRORBITS_TEST_REQUESTS`; the default is small enough for a debug build.

mod away;
mod counts;
mod download_log;
mod parts;
mod proxy;

use std::collections::BTreeMap;

use mb_core::store::{EmbeddedStore, Store};
use mb_load::{File, Kind, Limit, Mix, Plan, Report, Running};

use crate::harness::eventually;
use crate::harness::host::Place;
use crate::harness::metrics::scrape;
use crate::harness::redirector::Redirector;
use crate::harness::redis::Redis;
use crate::harness::servers::MirrorSites;
use crate::harness::tree::{self, USUAL_TIME};

/// Files of the repository, but for the one that no mirror has.
const FILES: usize = 40;
/// Where what no mirror has is redirected to.
const FALLBACK: &str = "http://fallback.example.org/";
/// A file that no mirror has.
const LONELY: &str = "/lonely.iso";

/// Two shards, two mirrors, of which one has only every second file, and a fallback.
struct Scene {
    redirector: Redirector,
    mirrors: MirrorSites,
}

fn path(number: usize) -> String {
    format!("/pool/file {number:02}.iso")
}

/// Size of a file, which is told apart from all others by it.
fn size(path: &str) -> u64 {
    1000 + path.bytes().map(u64::from).sum::<u64>()
}

impl Scene {
    /// Starts it; `configure` changes the configuration before.
    fn start(configure: impl FnOnce(&mut Redirector)) -> Scene {
        let mut redirector = Redirector::new();
        redirector
            .set("Shards", "2")
            .set("SameDownloadInterval", "0")
            .set("Fallbacks", format!("[{{URL: '{FALLBACK}'}}]"));
        configure(redirector.with_metrics());
        let paths: Vec<String> = (0..FILES).map(path).collect();
        for path in paths.iter().map(String::as_str).chain([LONELY]) {
            let content = vec![b'x'; usize::try_from(size(path)).expect("a small file")];
            tree::write(&redirector.repository(), path.trim_start_matches('/'), &content, USUAL_TIME);
        }
        let mirrors = MirrorSites::start(redirector.folder(), &[("whole", Place::Paris), ("half", Place::Tokyo)]);
        for site in &mirrors.sites {
            tree::copy(&redirector.repository(), &site.root);
            std::fs::remove_file(site.root.join(&LONELY[1..])).expect("a file to remove");
        }
        for path in paths.iter().skip(1).step_by(2) {
            std::fs::remove_file(mirrors.site("half").root.join(&path[1..])).expect("a file to remove");
        }
        redirector.start();
        redirector.scan_repository();
        for site in &mirrors.sites {
            redirector.use_mirror(site);
        }
        let scene = Scene { redirector, mirrors };
        eventually("all files are served as they should be", || {
            let answers: Vec<String> = paths.iter().map(|path| scene.location(path)).collect();
            let at_mirrors = answers.iter().all(|answer| !answer.is_empty() && !answer.starts_with(FALLBACK));
            if at_mirrors && scene.location(LONELY).starts_with(FALLBACK) {
                Ok(())
            } else {
                Err(format!("{answers:?}"))
            }
        });
        scene
    }

    /// Where a HEAD request is sent, which is not counted.
    fn location(&self, path: &str) -> String {
        let path = path.replace(' ', "%20");
        let mut connection = crate::harness::http::Connection::open(self.redirector.address()).expect("connection");
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: download.example.org\r\n\r\n");
        connection.send(request.as_bytes()).expect("request");
        let answer = connection.receive_head().expect("an answer");
        answer.header("Location").unwrap_or_default().to_owned()
    }

    /// Requests of `mix` for all files, from clients near both mirrors.
    fn plan(&self, mix: &str, requests: u64) -> Plan {
        let paths = (0..FILES).map(path).chain([LONELY.to_owned()]);
        let list: Vec<String> = paths.collect();
        let mut plan = Plan::new(self.redirector.address(), File::list(&list.join("\n")).expect("a list of files"));
        plan.connections = 8;
        plan.limit = Limit::Requests(requests);
        plan.mix = mix.parse::<Mix>().expect("a mix");
        plan.mirrors = self.mirrors.sites.iter().map(|site| site.http_url()).chain([FALLBACK.to_owned()]).collect();
        plan.clients = vec!["192.0.2.0/24".parse().expect("a network")];
        plan.timeout = crate::harness::PATIENCE;
        plan
    }

    /// The counts that are right after these runs.
    fn expected(&self, reports: &[Report]) -> Counted {
        let mut expected = Counted::default();
        for report in reports {
            for (number, downloads) in report.redirects_by_file[..FILES].iter().enumerate().filter(|(_, n)| **n > 0) {
                *expected.files.entry(path(number)).or_default() += downloads;
                expected.total += downloads;
                expected.bytes += downloads * size(&path(number));
            }
            // By id: the mirrors were added in their order.
            for (id, downloads) in ["1", "2"].into_iter().zip(&report.redirects_by_mirror).filter(|(_, n)| **n > 0) {
                *expected.mirrors.entry(id.to_owned()).or_default() += downloads;
            }
        }
        expected
    }
}

/// How many requests a test sends.
fn requests() -> u64 {
    std::env::var("MIRRORBITS_TEST_REQUESTS").map_or(20_000, |text| text.parse().expect("a number of requests"))
}

/// Waits for the end of a run, in which nothing may have failed.
fn finish(running: Running) -> Report {
    let report = running.wait().expect("the load");
    assert_eq!(report.failures(), 0, "{report}");
    report
}

/// What is in a store of the statistics.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    files: BTreeMap<String, u64>,
    mirrors: BTreeMap<String, u64>,
    bytes: u64,
    total: u64,
}

impl Counted {
    /// What Redis has in the keys that end with `suffix`, read as outside tools do.
    fn in_redis(redis: &Redis, suffix: &str) -> Counted {
        let hash = |name: &str| -> BTreeMap<String, u64> {
            let text = redis.command(&["HGETALL", &format!("{name}{suffix}")]);
            let lines: Vec<&str> = text.lines().collect();
            lines.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].parse().expect("a count"))).collect()
        };
        let files = hash("STATS_FILE");
        Counted {
            mirrors: hash("STATS_MIRROR"),
            bytes: hash("STATS_MIRROR_BYTES").values().sum(),
            total: match suffix {
                "" => redis.command(&["GET", "STATS_TOTAL"]).parse().unwrap_or_default(),
                _ => files.values().sum(),
            },
            files,
        }
    }

    /// What the embedded store has, over all time.
    fn in_file(redirector: &Redirector) -> Counted {
        let store = EmbeddedStore::open(&redirector.state_dir()).expect("the store");
        let traffic = store.mirror_traffic(None).expect("traffic");
        let files = store.file_downloads(None, &|_| true).expect("downloads");
        Counted {
            files: files.into_iter().map(|(path, n)| (String::from_utf8_lossy(&path).into_owned(), n)).collect(),
            mirrors: traffic.iter().map(|(id, traffic)| (id.to_string(), traffic.requests)).collect(),
            bytes: traffic.values().map(|traffic| traffic.bytes).sum(),
            total: store.total_downloads().expect("the total"),
        }
    }

    /// Waits until the all-time keys of Redis have exactly this.
    fn wait_for(&self, redis: &Redis) {
        eventually("the counts are delivered", || {
            let counted = Counted::in_redis(redis, "");
            if counted == *self { Ok(()) } else { Err(format!("{counted:?}\ninstead of {self:?}")) }
        });
    }
}

/// Downloads that wait in the spool, as the daemon says.
fn spooled(redirector: &Redirector) -> u64 {
    scrape(redirector).value("mirrorbits_spooled_downloads").map_or(0, |downloads| downloads as u64)
}

/// Requests of one kind that were answered.
fn right(report: &Report, kinds: &[Kind]) -> u64 {
    kinds.iter().map(|kind| report.right_of(*kind)).sum()
}
