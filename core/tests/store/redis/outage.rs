//! Servers that are away, frozen, full, not writable, locked, or not ours: each says so in time, and recovers.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use mb_core::config::RedisSettings;
use mb_core::secret::Secret;
use mb_core::store::{Change, RedisStore, SourceChanges, StatsBatch, Store, StoreError};

use super::server::{Server, wait_until};
use crate::suite::{batch, counts, date, entries, file, settings};

/// The text of a database error.
fn text<T>(outcome: Result<T, StoreError>) -> String {
    match outcome {
        Err(StoreError::Database(text)) => text,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("no error"),
    }
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn a_server_that_comes_back_is_used_again() {
    let mut server = Server::start(&[]);
    let store = server.store();
    let (sender, changes) = mpsc::channel();
    let _watch = store.watch_changes(Box::new(move |change| sender.send(change).unwrap_or_default()));
    let next = || changes.recv_timeout(Duration::from_secs(30)).expect("a change");
    assert_eq!(next(), Change::Everything);
    store.add_mirror(&settings("one")).expect("added");
    server.command::<()>("SAVE");

    server.stop();
    for _ in 0..3 {
        let text = text(store.mirrors());
        assert_says(&text, &[&server.port.to_string(), "reading the mirrors", "refused", "start Redis"]);
    }
    server.start_again();
    wait_until("the store works again", || store.mirrors().is_ok());
    wait_until("told to read everything again", || next() == Change::Everything);
    let id = store.add_mirror(&settings("two")).expect("added");
    wait_until("changes are seen again", || next() == Change::Mirror(id));
}

#[test]
fn a_store_may_be_opened_before_its_server_is_there() {
    let mut server = Server::start(&[]);
    server.stop();
    let store = server.store();
    assert!(store.mirrors().is_err());
    server.start_again();
    wait_until("the store works", || store.mirrors().is_ok());
}

#[test]
fn a_frozen_server_holds_nobody_up_for_long() {
    let server = Server::start(&[]);
    let store = server.store();
    store.mirrors().expect("read");
    server.signal("STOP");
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_says(&text(store.mirrors()), &["no answer in time", "frozen"]));
        }
    });
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    server.signal("CONT");
    wait_until("the store works again", || store.mirrors().is_ok());
}

/// The connection broke after a batch was applied and before its answer came: sending it again must not count twice.
#[test]
fn counts_whose_answer_was_lost_are_added_once() {
    let server = Server::start(&[]);
    let (port, cut) = answers_get_lost(server.port, b"STATS_TOTAL");
    let through = RedisSettings { address: format!("127.0.0.1:{port}").into(), ..server.settings() };
    let store = RedisStore::open(&through).expect("opened");
    let batch = batch("node", 1, [(date(2026, 11, 22), counts(&[("/a", 1)]))]);
    // Redis does not know the script yet, and says so to the first call.
    server
        .store()
        .add_stats(&StatsBatch { node: "other".to_owned(), sequence: 1, ..StatsBatch::default() })
        .expect("added");
    store.add_stats(&batch).expect_err("the answer was lost");
    assert_eq!(server.command::<u64>("GET STATS_TOTAL"), 1, "and yet it was applied");
    cut.store(false, Ordering::Relaxed);
    wait_until("the batch can be sent again", || store.add_stats(&batch).is_ok());
    assert_eq!(store.total_downloads().expect("read"), 1);
}

/// A way to the server at `port` that is cut when the answer to a request with `mark` in it comes, for as long as the flag is
/// set.
fn answers_get_lost(port: u16, mark: &'static [u8]) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let own_port = listener.local_addr().expect("an address").port();
    let cut = Arc::new(AtomicBool::new(true));
    let cuts = Arc::clone(&cut);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(mut client), Ok(mut server)) = (client, TcpStream::connect(("127.0.0.1", port))) else { return };
            let cuts = Arc::clone(&cuts);
            thread::spawn(move || {
                let mut buffer = [0; 65_536];
                // The client of this test sends a request as a whole and then waits for its answer.
                while let Ok(length @ 1..) = client.read(&mut buffer) {
                    let request = &buffer[..length];
                    let marked = request.windows(mark.len()).any(|part| part == mark);
                    server.write_all(request).expect("sent");
                    let length = server.read(&mut buffer).expect("answered");
                    if marked && cuts.load(Ordering::Relaxed) {
                        return;
                    }
                    client.write_all(&buffer[..length]).expect("sent");
                }
            });
        }
    });
    (own_port, cut)
}

#[test]
fn a_password_that_is_missing_wrong_or_unwanted_is_told() {
    let server = Server::start(&["requirepass sesame"]);
    let with = |password: &str| RedisSettings { password: password.to_owned().into(), ..server.settings() };
    let store = |settings| RedisStore::open(&settings).expect("opened");
    assert_says(&text(store(with("")).mirrors()), &["NOAUTH", "set RedisPassword"]);
    let wrong = text(store(with("wrong")).mirrors());
    assert_says(&wrong, &["WRONGPASS", "correct RedisPassword"]);
    assert!(!wrong.contains("sesame") && !wrong.contains("\"wrong\""), "{wrong}");
    let in_url = RedisSettings { address: format!("redis://:sesame@127.0.0.1:{}", server.port).into(), ..with("") };
    store(in_url).mirrors().expect("read");

    let open = Server::start(&[]);
    let unwanted = RedisSettings { password: "sesame".to_owned().into(), ..open.settings() };
    assert_says(&text(store(unwanted).mirrors()), &["remove RedisPassword"]);
}

#[test]
fn users_of_access_control_lists_log_in_by_url() {
    let server = Server::start(&["user default off", "user mirrorbits on >secret ~* &* +@all"]);
    let address = format!("redis://mirrorbits:secret@127.0.0.1:{}", server.port).into();
    let store = RedisStore::open(&RedisSettings { address, ..server.settings() }).expect("opened");
    store.add_mirror(&settings("one")).expect("added");
}

#[test]
fn other_versions_are_refused_and_left_alone() {
    for (commands, parts) in [
        (&["HSET MIRRORS 1 one"][..], &["version 0", "old Mirrorbits", "upgrades it"][..]),
        (&["SET MIRRORBITS_DB_VERSION 1"], &["version 1", "upgrades it"]),
        (&["SET MIRRORBITS_DB_VERSION 3"], &["version 3 is newer", "newer program"]),
        (&["SET MIRRORBITS_DB_VERSION x"], &["another program", "RedisDB"]),
    ] {
        let server = Server::start(&[]);
        for line in commands {
            server.command::<redis::Value>(line);
        }
        let text = text(RedisStore::open(&server.settings()).map(|_| ()));
        assert_says(&text, parts);
        assert_eq!(server.command::<usize>("DBSIZE"), 1, "{text}");
    }
}

/// The database behind the address was exchanged while we ran.
#[test]
fn a_version_that_changes_later_is_noticed() {
    let server = Server::start(&[]);
    let store = server.store();
    store.mirrors().expect("read");
    server.command::<()>("SET MIRRORBITS_DB_VERSION 3");
    server.command::<redis::Value>("CLIENT KILL TYPE normal SKIPME yes");
    assert_says(&text(store.mirrors()), &["version 3 is newer"]);
}

#[test]
fn a_replica_takes_no_writes_and_says_so() {
    let master = Server::start(&[]);
    master.store().add_mirror(&settings("one")).expect("added");
    let replica = Server::start(&[&format!("replicaof 127.0.0.1 {}", master.port)]);
    let store = RedisStore::open(&replica.settings()).expect("opened");
    wait_until("the replica has the mirror", || store.mirrors().is_ok_and(|mirrors| mirrors.len() == 1));
    for outcome in [
        store.add_mirror(&settings("two")).map(|_| ()),
        store.apply_source_changes(&SourceChanges { upserts: vec![file("/a", 1)], removals: Vec::new() }),
    ] {
        assert_says(&text(outcome), &["READONLY", "RedisSentinels"]);
    }
}

#[test]
fn a_full_server_takes_nothing_by_halves() {
    let server = Server::start(&[]);
    let store = server.store();
    let id = store.add_mirror(&settings("one")).expect("added");
    server.command::<()>("CONFIG SET maxmemory 1");
    let day = date(2026, 11, 22);
    for outcome in [
        store.add_mirror(&settings("two")).map(|_| ()),
        store.update_settings(id, &settings("renamed")),
        store.add_stats(&batch("node", 1, [(day, counts(&[("/a", 1)]))])).map(|_| ()),
        store.apply_source_changes(&SourceChanges { upserts: vec![file("/a", 1)], removals: Vec::new() }),
    ] {
        assert_says(&text(outcome), &["OOM", "maxmemory"]);
    }
    assert_eq!(store.mirrors().expect("read").len(), 1);
    assert_eq!(store.mirrors().expect("read")[0].settings, settings("one"));
    assert_eq!(entries(&store), []);
    server.command::<()>("CONFIG SET maxmemory 0");
    assert_eq!(store.total_downloads().expect("read"), 0);
    assert!(store.add_stats(&batch("node", 1, [(day, counts(&[("/a", 1)]))])).expect("added"));
    store.add_mirror(&settings("two")).expect("added");
}

#[test]
fn what_is_no_redis_is_told() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("bound");
    let other = RedisSettings {
        address: silent.local_addr().expect("an address").to_string().into(),
        password: Secret::default(),
        database: 0,
        sentinel_master_name: String::new(),
        sentinels: Vec::new(),
    };
    let store = RedisStore::open(&other).expect("opened");
    assert_says(&text(store.mirrors()), &["no answer in time"]);
    let nonsense = RedisSettings { address: "redis://".to_owned().into(), ..other };
    assert_says(&text(RedisStore::open(&nonsense).map(|_| ())), &["RedisAddress"]);
}
