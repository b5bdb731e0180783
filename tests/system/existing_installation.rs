//! A Redis database that Mirrorbits filled over ten years moves over unchanged: it starts, lists, edits and counts right, and
//! outside tools find what they know where they know it.

use crate::harness::eventually;
use crate::harness::host::Place;
use crate::harness::redirector::Redirector;
use crate::harness::redis::Redis;
use crate::harness::servers::MirrorSites;
use crate::harness::tree::{self, USUAL_TIME};

/// What Mirrorbits left behind: fields missing in one record, booleans in both spellings, URLs without scheme, files with
/// and without hashes, statistics of ten years.
fn fill(redis: &Redis, http_url: &str, rsync_url: &str) {
    let commands: [&[&str]; 10] = [
        &["SET", "MIRRORBITS_DB_VERSION", "2"],
        &["SET", "LAST_MID", "7"],
        &["HSET", "MIRRORS", "3", "old-mirror", "7", "sparse"],
        &["HSET", "MIRROR_3", "ID", "3", "name", "old-mirror", "http", http_url, "rsync", rsync_url, "enabled", "true"],
        &["HSET", "MIRROR_3", "httpUp", "true", "latitude", "48.85", "countryCodes", "FR", "stateSince", "1500000000"],
        &["HSET", "MIRROR_7", "ID", "7", "name", "sparse", "http", "sparse.example.org/pub/"],
        &["SADD", "FILES", "/file.iso", "/gone.iso"],
        &["HSET", "FILE_/file.iso", "size", "1", "modTime", "2016-01-02 03:04:05.6 +0000 UTC"],
        &["HSET", "FILE_/gone.iso", "size", "1", "modTime", "2016-01-02 03:04:05 +0000 UTC", "sha256", "ab"],
        &["SET", "STATS_TOTAL", "10007"],
    ];
    for command in commands {
        redis.command(command);
    }
    for year in 2016..2026 {
        redis.command(&["HSET", &format!("STATS_FILE_{year}"), "/file.iso", "1000", "/gone.iso", "1"]);
        redis.command(&["HSET", &format!("STATS_FILE_{year}_06"), "/file.iso", "1000", "/gone.iso", "1"]);
    }
    for period in ["2026", "2026_03", "2026_03_05"] {
        redis.command(&["HSET", &format!("STATS_FILE_{period}"), "/file.iso", "7"]);
        redis.command(&["HSET", &format!("STATS_MIRROR_{period}"), "3", "7"]);
        redis.command(&["HSET", &format!("STATS_MIRROR_BYTES_{period}"), "3", "7000"]);
    }
}

#[test]
fn a_database_of_mirrorbits_is_used_as_it_is() {
    let mut redirector = Redirector::new();
    let redis = Redis::start(redirector.folder());
    redirector.set("RedisAddress", redis.address()).unset("Database");
    tree::write(&redirector.repository(), "file.iso", b"content", USUAL_TIME);
    let mirrors = MirrorSites::start(redirector.folder(), &[("old-mirror", Place::Paris)]);
    tree::copy(&redirector.repository(), &mirrors.sites[0].root);
    let http_url = mirrors.sites[0].http_url();
    fill(&redis, &http_url, &mirrors.sites[0].rsync_url());
    redirector.start();

    let list = redirector.mirrorbits(&["list"]);
    let state = |name: &str| list.lines().find(|line| line.starts_with(name)).map(str::to_owned).expect("a line");
    assert!(state("old-mirror").contains("up") && state("sparse").contains("disabled"), "{list}");
    let shown = redirector.mirrorbits(&["show", "sparse"]);
    assert!(shown.contains("HttpURL: sparse.example.org/pub/\n") && shown.contains("Enabled: false\n"), "{shown}");

    let stats = |start: &str, end: &str, subject: [&str; 2]| {
        let dates = [format!("-start-date={start}"), format!("-end-date={end}")];
        redirector.mirrorbits(&["stats", &dates[0], &dates[1], subject[0], subject[1]])
    };
    let ten_years = stats("2016-01-01", "2026-01-01", ["file", "file"]);
    assert!(ten_years.contains("/file.iso") && ten_years.contains("10000"), "{ten_years}");
    let one_day = stats("2026-03-05", "2026-03-05", ["file", "iso$"]);
    assert!(one_day.contains("Total download requests: \t7\n"), "{one_day}");
    let mirror = stats("2026-03-01", "2026-04-01", ["mirror", "old"]);
    assert!(mirror.contains('7'), "{mirror}");

    redirector.scan_repository();
    redirector.mirrorbits(&["scan", "-enable", "old-mirror"]);
    eventually("the file is served", || {
        let answer = redirector.get("/file.iso", &[]);
        if answer.status == 302 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    redirector.mirrorbits(&["set", "old-mirror", "Score=5"]);
    redirector.mirrorbits(&["disable", "old-mirror"]);
    redirector.mirrorbits(&["add", "-http=new.example.org", "new"]);
    redirector.mirrorbits(&["remove", "-f", "sparse"]);

    let is = |command: &[&str], expected: &str| assert_eq!(redis.command(command), expected, "{command:?}");
    is(&["HGET", "MIRROR_3", "score"], "5");
    is(&["HGET", "MIRROR_3", "http"], &http_url);
    is(&["HGET", "MIRROR_3", "enabled"], "0");
    is(&["HGET", "MIRROR_3", "lastSuccessfulSyncPrecision"], "1000000000");
    is(&["HGET", "MIRRORS", "8"], "new");
    is(&["GET", "LAST_MID"], "8");
    is(&["EXISTS", "MIRROR_7"], "0");
    is(&["SMEMBERS", "FILES"], "/file.iso");
    is(&["HGET", "FILE_/file.iso", "size"], "7");
    is(&["EXISTS", "FILE_/gone.iso"], "0");
    is(&["HGET", "STATS_FILE_2016", "/gone.iso"], "1");
    let modified = redis.command(&["HGET", "FILE_/file.iso", "modTime"]);
    assert!(modified.ends_with(" +0000 UTC"), "{modified}");
    let log = redis.command(&["LRANGE", "MIRRORLOGS_3", "0", "-1"]);
    assert!(log.contains("\"Type\":7") && log.contains("\"Type\":8") && log.contains("\"Type\":3"), "{log}");
}
