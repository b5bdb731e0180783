//! The store goes away, freezes, or takes a batch and dies before it says so; the daemon is killed: nothing is lost but the
//! last second before a kill, and nothing is counted twice.

use std::time::{Duration, Instant};

use mb_load::{Limit, Pace, start};
use rustix::process::Signal;

use super::proxy::Proxy;
use super::{Counted, Scene, finish, requests, spooled};
use crate::harness::eventually;
use crate::harness::redis::Redis;

fn scene_on_redis() -> (Scene, Redis) {
    let mut redis = None;
    let scene = Scene::start(|redirector| {
        let server = redis.insert(Redis::start(redirector.folder()));
        redirector.set("Database", "redis").set("RedisAddress", server.address());
    });
    (scene, redis.expect("the server"))
}

#[test]
fn a_store_that_dies_three_times_has_everything_in_the_end() {
    let (scene, mut redis) = scene_on_redis();
    let mut plan = scene.plan("get=8,range=1,json=1", 0);
    plan.limit = Limit::Stopped;
    plan.pace = Pace::Open(1_000.0);
    let running = start(plan).expect("the load");
    for _ in 0..3 {
        let before = running.answered();
        redis.kill();
        eventually("counts wait in the spool", || match spooled(&scene.redirector) {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        });
        redis.start_again();
        eventually("they are delivered", || match spooled(&scene.redirector) {
            0 if running.answered() > before => Ok(()),
            waiting => Err(format!("{waiting} downloads wait")),
        });
    }
    running.stop();
    let report = finish(running);
    scene.expected(&[report]).wait_for(&redis);
}

/// A frozen server has read nothing of what was sent to it, and reads it when it goes on: the batch that the next daemon
/// sends again is then there already.
#[test]
fn a_frozen_store_and_a_killed_daemon_count_everything_once() {
    let (mut scene, redis) = scene_on_redis();
    let first = finish(start(scene.plan("get=1", 1_000)).expect("the load"));
    scene.expected(std::slice::from_ref(&first)).wait_for(&redis);
    redis.signal(Signal::STOP);
    let second = finish(start(scene.plan("get=1", requests() / 4)).expect("the load"));
    let expected = scene.expected(&[first, second.clone()]);
    let frozen = scene.expected(&[second]).total;
    eventually("all of it is in the spool", || match spooled(&scene.redirector) {
        all if all == frozen => Ok(()),
        some => Err(format!("{some} of {frozen}")),
    });
    scene.redirector.daemon().signal(Signal::KILL);
    scene.redirector.daemon().wait();
    scene.redirector.forget();
    redis.signal(Signal::CONT);
    scene.redirector.start();
    expected.wait_for(&redis);
    eventually("the spool is empty", || match spooled(&scene.redirector) {
        0 => Ok(()),
        some => Err(format!("{some}")),
    });
    scene.redirector.stop();
    assert_eq!(Counted::in_redis(&redis, ""), expected, "nothing comes twice");
}

/// The transaction is done, and its answer never comes.
#[test]
fn a_connection_that_is_cut_before_the_answer_counts_once() {
    let (mut redis, mut proxy) = (None, None);
    let scene = Scene::start(|redirector| {
        let server = redis.insert(Redis::start(redirector.folder()));
        let between = proxy.insert(Proxy::start(server.address(), "MB_STATS_SEQ_"));
        redirector.set("Database", "redis").set("RedisAddress", between.address());
    });
    let (redis, proxy) = (redis.expect("the server"), proxy.expect("the proxy"));
    proxy.swallow_answers(3);
    let report = finish(start(scene.plan("get=1", requests() / 4)).expect("the load"));
    scene.expected(&[report]).wait_for(&redis);
    assert_eq!(proxy.left_to_swallow(), 0, "connections were cut");
}

/// The promise is one second. The test asks for a little more, since it may share its processors with others.
#[test]
fn a_killed_daemon_loses_the_last_second_at_most() {
    const PROMISED: Duration = Duration::from_secs(1);
    const BUSY_MACHINE: Duration = Duration::from_secs(2);
    let (mut scene, redis) = scene_on_redis();
    let mut answered: Vec<Instant> = Vec::new();
    while answered.first().is_none_or(|first| first.elapsed() < 2 * (PROMISED + BUSY_MACHINE)) {
        assert_eq!(scene.redirector.get("/pool/file%2000.iso", &[]).status, 302);
        answered.push(Instant::now());
    }
    scene.redirector.daemon().signal(Signal::KILL);
    let killed = Instant::now();
    scene.redirector.daemon().wait();
    let safe = answered.iter().filter(|at| killed - **at > PROMISED + BUSY_MACHINE).count() as u64;
    let counted = Counted::in_redis(&redis, "").total;
    assert!(safe > 0 && (safe..=answered.len() as u64).contains(&counted), "{counted} of {} ({safe})", answered.len());
    scene.redirector.forget();
}
