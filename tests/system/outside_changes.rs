//! What another node or an outside tool writes into Redis reaches the answers within 100 ms, without a command of ours.

use std::time::{Duration, Instant};

use crate::harness::eventually;
use crate::harness::host::Place;
use crate::harness::redirector::Redirector;
use crate::harness::redis::Redis;
use crate::harness::servers::MirrorSites;
use crate::harness::tree::{self, USUAL_TIME};

/// The promise, from the message of the tool to the first answer that follows it.
const PROMPT: Duration = Duration::from_millis(100);

/// The mirror that a client in Paris is sent to; `None` when there is none.
fn answer(redirector: &Redirector) -> Option<String> {
    let client = format!("X-Forwarded-For: {}", Place::Paris.client());
    let response = redirector.get("/file.iso", &[&client]);
    match response.status {
        302 => Some(response.location().to_owned()),
        503 => None,
        _ => panic!("{response:?}"),
    }
}

/// Writes a field of the mirror `id` as a tool does, and measures how long the answers take to be as `expected`.
fn change(redis: &Redis, redirector: &Redirector, id: &str, field: [&str; 2], expected: Option<&str>) {
    redis.command(&["HSET", &format!("MIRROR_{id}"), field[0], field[1]]);
    redis.command(&["PUBLISH", "_mirrorbits_mirror_update", id]);
    let told = Instant::now();
    eventually(&format!("the effect of {field:?} of mirror {id}"), || {
        let answer = answer(redirector);
        if answer.as_deref() == expected { Ok(()) } else { Err(format!("{answer:?} instead of {expected:?}")) }
    });
    let took = told.elapsed();
    assert!(took <= PROMPT, "{field:?} of mirror {id} took effect after {took:?}");
}

#[test]
fn changes_in_redis_reach_the_answers_within_100_ms() {
    let mut redirector = Redirector::new();
    let redis = Redis::start(redirector.folder());
    redirector.set("Database", "redis").set("RedisAddress", redis.address());
    tree::write(&redirector.repository(), "file.iso", b"content", USUAL_TIME);
    let mirrors = MirrorSites::start(redirector.folder(), &[("near", Place::Paris), ("far", Place::Tokyo)]);
    for site in &mirrors.sites {
        tree::copy(&redirector.repository(), &site.root);
    }
    redirector.start();
    redirector.scan_repository();
    for site in &mirrors.sites {
        redirector.use_mirror(site);
    }
    let [near, far] = ["near", "far"].map(|name| format!("{}file.iso", mirrors.site(name).http_url()));
    eventually("both mirrors are used", || {
        if answer(&redirector).as_deref() == Some(&near) { Ok(()) } else { Err("not the near one".to_owned()) }
    });
    let generation = files_generation(&redirector);

    change(&redis, &redirector, "1", ["enabled", "0"], Some(&far));
    change(&redis, &redirector, "1", ["enabled", "true"], Some(&near));
    change(&redis, &redirector, "1", ["excludedCountryCodes", "FR"], Some(&far));
    change(&redis, &redirector, "2", ["countryOnly", "1"], None);
    change(&redis, &redirector, "1", ["excludedCountryCodes", ""], Some(&near));
    assert!(redirector.mirrorbits(&["show", "far"]).contains("\nCountryOnly: true\n"));
    assert_eq!(files_generation(&redirector), generation, "no file index was built for that");
}

/// The file of the newest files generation.
fn files_generation(redirector: &Redirector) -> String {
    let folder = std::fs::read_dir(redirector.state_dir().join("index")).expect("index");
    let names = folder.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("files-")).max().expect("a files generation")
}
