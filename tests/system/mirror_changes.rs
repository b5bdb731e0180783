//! What the operator changes reaches the answers within 100 ms, while requests are being served.

use std::time::{Duration, Instant};

use crate::harness::eventually;
use crate::harness::near_and_far::{self, answer};
use crate::harness::redirector::Redirector;

/// The promise, from the end of the command to the first answer that follows it.
const PROMPT: Duration = Duration::from_millis(100);

/// Runs a command and measures how long after its end the answers are as `expected`.
fn change(redirector: &Redirector, command: &[&str], expected: Option<&str>) {
    redirector.mirrorbits(command);
    let ended = Instant::now();
    eventually(&format!("the effect of {command:?}"), || {
        let answer = answer(redirector);
        if answer.as_deref() == expected { Ok(()) } else { Err(format!("{answer:?} instead of {expected:?}")) }
    });
    let took = ended.elapsed();
    assert!(took <= PROMPT, "{command:?} took effect {took:?} after its end");
    // The effect stays: it was no answer from a generation in between.
    for _ in 0..50 {
        assert_eq!(answer(redirector).as_deref(), expected, "after {command:?}");
    }
}

#[test]
fn changes_reach_the_answers_within_100_ms() {
    let mut redirector = Redirector::new();
    let (mirrors, [near, far]) = near_and_far::start(&mut redirector);

    change(&redirector, &["disable", "near"], Some(&far));
    change(&redirector, &["enable", "near"], Some(&near));
    change(&redirector, &["disable", "far"], Some(&near));
    change(&redirector, &["disable", "near"], None);
    change(&redirector, &["enable", "far"], Some(&far));
    change(&redirector, &["enable", "near"], Some(&near));
    change(&redirector, &["remove", "-f", "near"], Some(&far));

    // Added again it is a new mirror: it must be scanned, and found up, before it is used.
    let site = mirrors.site("near");
    change(&redirector, &["add", "-http", &site.http_url(), "-rsync", &site.rsync_url(), "near"], Some(&far));
    redirector.mirrorbits(&["scan", "-enable", "near"]);
    redirector.wait_until_up("near");
    eventually("the mirror is used again", || {
        if answer(&redirector).as_deref() == Some(&near) { Ok(()) } else { Err("not the near one".to_owned()) }
    });
}
