//! `mirrorbits migrate`: an operator moves a Redis installation into the embedded database, and what they are told.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::harness::redis::Redis;

fn migrate(config: &Path, from: &str, to: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mirrorbits"));
    command.args(["migrate", "-from", from, "-to", to, "-config"]).arg(config);
    command.output().expect("mirrorbits")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn an_installation_moves_out_of_redis() {
    let folder = tempfile::tempdir().expect("a folder");
    let redis = Redis::start(folder.path());
    redis.command(&["SET", "MIRRORBITS_DB_VERSION", "2"]);
    redis.command(&["HSET", "MIRRORS", "7", "mirror.example"]);
    redis.command(&["HSET", "MIRROR_7", "ID", "7", "name", "mirror.example", "http", "mirror.example/pub/"]);
    redis.command(&["SADD", "FILES", "/a.iso"]);
    redis.command(&["HSET", "FILE_/a.iso", "size", "3", "modTime", "2020-01-02 03:04:05 +0000 UTC"]);
    redis.command(&["HSET", "STATS_FILE", "/a.iso", "5"]);
    redis.command(&["SET", "STATS_TOTAL", "5"]);
    let config = folder.path().join("mirrorbits.conf");
    let (place, address) = (folder.path().display(), redis.address());
    fs::write(&config, format!("Repository: {place}\nStateDir: {place}/state\nRedisAddress: {address}\n"))
        .expect("written");

    for _ in 0..2 {
        let done = migrate(&config, "redis", "embedded");
        assert!(done.status.success(), "{}", text(&done.stderr));
        assert_eq!(
            text(&done.stdout),
            "Copied 1 mirrors, 0 log entries, 1 paths of the repository and the statistics of 5 downloads\n"
        );
        let told = text(&done.stderr);
        assert!(told.contains("Copying 1 mirrors\n") && told.contains("set `Database: embedded`"), "{told}");
        assert!(!told.contains('\u{1b}'), "what is no terminal gets plain text: {told:?}");
    }

    let back = migrate(&config, "embedded", "redis");
    assert_eq!(back.status.code(), Some(1));
    assert!(text(&back.stderr).contains("-force"), "{}", text(&back.stderr));
    assert_eq!(migrate(&config, "embedded", "nowhere").status.code(), Some(2));
}
