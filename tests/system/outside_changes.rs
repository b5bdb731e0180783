//! What another node or an outside tool writes into Redis reaches the answers within 100 ms, without a command of ours.

use std::time::{Duration, Instant};

use crate::harness::eventually;
use crate::harness::near_and_far::{self, answer};
use crate::harness::redirector::Redirector;
use crate::harness::redis::Redis;

/// The promise, from the message of the tool to the first answer that follows it.
const PROMPT: Duration = Duration::from_millis(100);

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
    let (_mirrors, [near, far]) = near_and_far::start(&mut redirector);
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
