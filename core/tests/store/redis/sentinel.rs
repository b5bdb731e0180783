//! Redis Sentinel: real Sentinels, a real failover.

use mb_core::config::RedisSettings;
use mb_core::secret::SecretUrl;
use mb_core::store::{RedisStore, Store, StoreError};
use mb_core::time::Timestamp;

use super::server::{Server, free_port, wait_until};
use crate::suite::{batch, counts, date, settings};

const DATA_PASSWORD: &str = "data";
const SENTINEL_PASSWORD: &str = "watch";

fn data_server(options: &[&str]) -> Server {
    let own = [&format!("requirepass {DATA_PASSWORD}"), &format!("masterauth {DATA_PASSWORD}")];
    Server::start(&own.iter().map(|line| line.as_str()).chain(options.iter().copied()).collect::<Vec<_>>())
}

fn sentinel(master: &Server, password: &str) -> Server {
    let password = if password.is_empty() { String::new() } else { format!("requirepass {password}") };
    Server::start(&[
        &password,
        &format!("sentinel monitor downloads 127.0.0.1 {} 1", master.port),
        &format!("sentinel auth-pass downloads {DATA_PASSWORD}"),
        "sentinel down-after-milliseconds downloads 500",
        "sentinel failover-timeout downloads 5000",
    ])
}

fn settings_for(sentinels: Vec<String>) -> RedisSettings {
    RedisSettings {
        // Not used beside Sentinels, and not there.
        address: format!("127.0.0.1:{}", free_port()).into(),
        password: DATA_PASSWORD.to_owned().into(),
        database: 2,
        sentinel_master_name: "downloads".to_owned(),
        sentinels: sentinels.into_iter().map(SecretUrl::from).collect(),
    }
}

#[test]
fn a_failover_is_followed_and_nothing_counts_twice() {
    let mut master = data_server(&[]);
    let replica = data_server(&[&format!("replicaof 127.0.0.1 {}", master.port)]);
    let watcher = sentinel(&master, SENTINEL_PASSWORD);
    let address = format!("redis://:{SENTINEL_PASSWORD}@127.0.0.1:{}", watcher.port);
    let nobody = format!("127.0.0.1:{}", free_port());
    let store = RedisStore::open(&settings_for(vec![nobody, address])).expect("opened");

    let id = store.add_mirror(&settings("one")).expect("added");
    let day = date(2026, 11, 22);
    for sequence in 1..=3 {
        assert!(store.add_stats(&batch("node", sequence, [(day, counts(&[("/a", 1)]))])).expect("added"));
    }
    wait_until("the Sentinel knows the replica", || {
        watcher.command::<Vec<redis::Value>>("SENTINEL replicas downloads").len() == 1
    });
    assert_eq!(master.command::<u64>("WAIT 1 10000"), 1, "the replica has everything");

    master.stop();
    assert!(store.mirrors().is_err());
    wait_until("the replica became the master", || replica.has_role("master"));
    wait_until("the store follows", || store.mirrors().is_ok_and(|mirrors| mirrors.len() == 1));
    store.set_enabled(id, true, Timestamp(1)).expect("the new master takes writes");
    assert!(!store.add_stats(&batch("node", 3, [(day, counts(&[("/a", 1)]))])).expect("asked"), "it was added before");
    assert!(store.add_stats(&batch("node", 4, [(day, counts(&[("/a", 1)]))])).expect("added"));
    assert_eq!(store.total_downloads().expect("read"), 4);

    // The old master comes back, empty, and takes itself for the master until a Sentinel tells it otherwise.
    master.start_again();
    store.set_enabled(id, false, Timestamp(2)).expect("set");
    store.add_mirror(&settings("two")).expect("added");
    assert_eq!(store.mirrors().expect("read").len(), 2, "nobody writes to the old master");
}

#[test]
fn one_password_may_be_everywhere() {
    let master = data_server(&[]);
    let watcher = sentinel(&master, DATA_PASSWORD);
    let store = RedisStore::open(&settings_for(vec![format!("127.0.0.1:{}", watcher.port)])).expect("opened");
    store.add_mirror(&settings("one")).expect("added");
}

#[test]
fn sentinels_that_lead_nowhere_are_told_one_by_one() {
    let master = data_server(&[]);
    let (watcher, locked) = (sentinel(&master, ""), sentinel(&master, SENTINEL_PASSWORD));
    let addresses = [&watcher, &locked].map(|server| format!("127.0.0.1:{}", server.port)).to_vec();
    let unknown = RedisSettings { sentinel_master_name: "uploads".to_owned(), ..settings_for(addresses.clone()) };
    match RedisStore::open(&unknown).expect("opened").mirrors() {
        Err(StoreError::Database(text)) => {
            for part in ["no Sentinel leads", &addresses[0], "RedisSentinelMasterName", &addresses[1], "NOAUTH"] {
                assert!(text.contains(part), "{part:?} is not in: {text}");
            }
        }
        other => panic!("no error of the database: {other:?}"),
    }
}
