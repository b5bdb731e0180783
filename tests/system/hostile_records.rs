//! Records that other programs, or mistakes, wrote into the database: each hurts its own mirror, is shown with the reason,
//! and can be repaired or removed.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::PATIENCE;
use crate::harness::eventually;
use crate::harness::metrics::scrape;
use crate::harness::redirector::{Redirector, get};
use crate::harness::redis::Redis;

/// The values of `http` that must never be sent.
const HOSTILE_URLS: [(&str, &str); 8] = [
    ("split", "http://evil.example/\r\nSet-Cookie: x=y\r\n"),
    ("line-feed", "http://evil.example/\nX-Evil: 1/"),
    ("spaces", "http://evil.example/a b/"),
    ("quote", "http://evil.example/\"/"),
    ("angles", "http://evil.example/><script>/"),
    ("empty", ""),
    ("script", "javascript:alert(1)"),
    ("login", "http://user:evil@evil.example/"),
];

/// All bytes of the answer to a request.
fn raw_answer(redirector: &Redirector, target: &str, headers: &[&str]) -> Vec<u8> {
    let mut stream = TcpStream::connect(redirector.address()).expect("connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("limit");
    let headers: Vec<&str> = headers.iter().copied().chain(["Connection: close"]).collect();
    stream.write_all(get(target, &headers).as_bytes()).expect("request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("answer");
    answer
}

/// Asks for all that shows mirrors: the answers lead to the good mirror, and no field is another's.
#[track_caller]
fn assert_answers_are_ours(redirector: &Redirector, good: &str) {
    for (target, headers) in [
        ("/file.iso", &[][..]),
        ("/file.iso?https=0", &[]),
        ("/file.iso?mirrorlist", &[]),
        ("/file.iso?mirrorlist", &["Accept: application/json"]),
        ("/?mirrorstats", &[]),
        ("/file.iso?stats", &[]),
    ] {
        let answer = raw_answer(redirector, target, headers);
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        for line in head.split("\r\n") {
            assert!(!line.contains(char::is_control), "{target}: {head:?}");
            assert!(!line.starts_with("Set-Cookie") && !line.starts_with("X-Evil"), "{target}: {head:?}");
        }
        assert!(!text.contains("evil.example") && !text.contains("alert(1)"), "{target}: {text:?}");
        assert!(!body.contains('\x1b') && !body.contains('\0'), "{target}: {text:?}");
    }
    for _ in 0..20 {
        let answer = redirector.get("/file.iso", &[]);
        assert!(answer.status == 302 && answer.location().starts_with(good), "{answer:?}");
    }
}

/// The line of `list` for a mirror.
fn state_of(redirector: &Redirector, name: &str) -> String {
    let list = redirector.mirrorbits(&["list"]);
    list.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("no {name} in {list}")).to_owned()
}

#[track_caller]
fn assert_no_control(text: &str) {
    assert!(!text.contains(|c: char| (c.is_control() && !matches!(c, '\n' | '\t')) || c == '\u{202e}'), "{text:?}");
}

/// A mirror's `http` with CR LF split the answers, and one key of the wrong type made `list` and `logs` fail for all.
#[test]
fn hostile_records_in_redis_hurt_only_themselves() {
    let mut redirector = Redirector::new();
    let redis = Redis::start(redirector.folder());
    redirector.set("Database", "redis").set("RedisAddress", redis.address()).with_metrics();
    let mirrors = redirector.start_with_one_mirror();
    let good = mirrors.sites[0].http_url();
    let good_name = mirrors.sites[0].name.clone();
    redirector.wait_until_served("/file.iso");

    let up = ["enabled", "1", "httpUp", "1", "httpsUp", "1"];
    for (id, (name, url)) in (100..).zip(HOSTILE_URLS) {
        let key = format!("MIRROR_{id}");
        redis.command(&[&["HSET", &key, "ID", &id.to_string(), "name", name, "http", url][..], &up].concat());
        redis.command(&["HSET", "MIRRORS", &id.to_string(), name]);
    }
    let fine = ["http", "http://evil.example/"];
    let more: [&[&str]; 13] = [
        &["EVAL", "redis.call('HSET', 'MIRROR_200', 'name', 'nul', 'http', 'http://evil.example/\\0/')", "0"],
        &["HSET", "MIRRORS", "200", "nul", "201", "numbers", "202", "titled", "203", "text-key", "204", "list-key"],
        &[
            "HSET",
            "MIRROR_201",
            "name",
            "numbers",
            fine[0],
            fine[1],
            "score",
            "many",
            "latitude",
            "north",
            "enabled",
            "1",
        ],
        &["HSET", "MIRROR_202", "name", "titled\x1b]0;owned\x07\u{202e}", fine[0], fine[1], "enabled", "1"],
        &["SET", "MIRROR_203", "text"],
        &["RPUSH", "MIRROR_204", "element"],
        &["HSET", "MIRRORS", "205", "no-record", "x1", "no-number", "-3", "negative"],
        &["HSET", "MIRRORS", "206", "no-log"],
        &["HSET", "MIRROR_206", "name", "no-log", "http", "http://fine.example/"],
        &["SET", "MIRRORLOGS_206", "text"],
        &["SET", "FILE_/file.iso", "text"],
        &["SET", "STATS_FILE_2020", "text"],
        &["RPUSH", "STATS_MIRROR_2020", "element"],
    ];
    for command in more {
        redis.command(command);
    }
    redis.command(&["PUBLISH", "_mirrorbits_mirror_update", "100"]);
    eventually("the records are read", || {
        let list = redirector.mirrorbits(&["list"]);
        if list.contains("no-log") { Ok(()) } else { Err(list) }
    });
    assert_answers_are_ours(&redirector, &good);

    let list = redirector.mirrorbits(&["list"]);
    assert_no_control(&list);
    let invalid = HOSTILE_URLS.iter().map(|(name, _)| *name);
    for name in invalid.chain(["nul", "numbers", "titled", "text-key", "list-key", "no-record"]) {
        assert!(state_of(&redirector, name).contains("invalid: "), "{name}: {list}");
    }
    assert!(state_of(&redirector, &good_name).contains("up"), "{list}");
    for command in [
        &["logs", &good_name][..],
        &["show", &good_name],
        &["show", "split"],
        &["show", "text-key"],
        &["logs", "split"],
        &["explain", "/file.iso"],
        &["stats", "file", "file"],
        &["stats", "mirror", &good_name],
    ] {
        assert_no_control(&redirector.mirrorbits(command));
    }

    // On pages and as a label, the name is shown with its escapes.
    let page = redirector.get("/?mirrorstats", &[]).text().to_owned();
    let metrics = scrape(&redirector).text;
    for shown in [&page, &metrics] {
        assert_no_control(shown);
        assert!(shown.contains("titled") && shown.contains("\\u{202e}"), "{shown}");
    }

    redirector.mirrorbits(&["set", "split", "HttpURL=http://repaired.example/"]);
    redirector.mirrorbits(&["set", "text-key", "HttpURL=http://repaired.example/"]);
    redirector.mirrorbits(&["set", "numbers", "Score=0", "HttpURL=http://repaired.example/"]);
    for name in ["split", "text-key", "numbers"] {
        assert!(!state_of(&redirector, name).contains("invalid"), "{}", state_of(&redirector, name));
    }
    for name in ["line-feed", "list-key", "no-record", "titled"] {
        redirector.mirrorbits(&["remove", "-f", name]);
        assert!(!redirector.mirrorbits(&["list"]).contains(name), "{name}");
    }
    assert_answers_are_ours(&redirector, &good);
    redirector.daemon().assert_running();
}

/// The same for the file of the embedded database, which any SQLite shell can change.
#[test]
fn hostile_records_in_sqlite_hurt_only_themselves() {
    let mut redirector = Redirector::new();
    let mirrors = redirector.start_with_one_mirror();
    let good = mirrors.sites[0].http_url();
    let names = HOSTILE_URLS.iter().map(|(name, _)| *name).chain(["numbers", "blob"]);
    for name in names.clone() {
        redirector.mirrorbits(&["add", "-http", &format!("http://127.0.0.1:1/{name}/"), name]);
    }
    redirector.stop();

    let database = rusqlite::Connection::open(redirector.state_dir().join("mirrorbits.sqlite")).expect("database");
    let change = |sql: &str, parameters: &[&dyn rusqlite::ToSql]| {
        assert_eq!(database.execute(sql, parameters).expect(sql), 1, "{sql}");
    };
    for (name, url) in HOSTILE_URLS {
        change("UPDATE mirror SET http_url = ?1, enabled = 1 WHERE name = ?2", &[&url, &name]);
    }
    change("UPDATE mirror SET score = 99999999999 WHERE name = 'numbers'", &[]);
    change("UPDATE mirror SET http_url = CAST(x'ff00' AS TEXT) WHERE name = 'blob'", &[]);
    drop(database);

    redirector.start();
    redirector.wait_until_served("/file.iso");
    assert_answers_are_ours(&redirector, &good);
    for name in names {
        let state = state_of(&redirector, name);
        assert!(state.contains("invalid: "), "{state}");
    }
    assert_no_control(&redirector.mirrorbits(&["list"]));
    redirector.mirrorbits(&["set", "split", "HttpURL=http://repaired.example/"]);
    assert!(!state_of(&redirector, "split").contains("invalid"));
    redirector.mirrorbits(&["remove", "-f", "blob"]);
    redirector.daemon().assert_running();
}
