//! `apply` of a long list: all of it or nothing, as one publication, on either store.

use std::fmt::Write as _;
use std::fs;

use crate::harness::redirector::Redirector;
use crate::harness::redis::Redis;

/// Enough for one transaction and publication per mirror to take minutes.
const MIRRORS: usize = 1_000;

fn list(mirrors: usize, score: i32) -> String {
    (0..mirrors).fold(String::new(), |mut list, number| {
        let address = format!("192.0.2.{}:{}", number % 250 + 1, 1_000 + number);
        let _ = writeln!(list, "- Name: mirror{number}\n  HttpURL: http://{address}/\n  Score: {score}");
        list
    })
}

/// The number of the newest mirror table.
fn generation(redirector: &Redirector) -> u64 {
    let folder = fs::read_dir(redirector.state_dir().join("index")).expect("index");
    let numbers = folder.filter_map(|entry| {
        let name = entry.expect("entry").file_name().to_string_lossy().into_owned();
        name.strip_prefix("mirrors-")?.parse().ok()
    });
    numbers.max().unwrap_or_default()
}

/// Each mirror was a call, a transaction and a publication of the whole table: 5 a second, and falling.
fn a_long_list_is_one_publication(redirector: &mut Redirector) {
    redirector.start_without_indexer();
    let file = redirector.folder().join("mirrors.yaml");
    let file = file.to_str().expect("a path of text");
    let apply = |list: String, options: &[&str]| {
        fs::write(file, list).expect("written");
        redirector.mirrorbits(&[&["apply"], options, &[file]].concat())
    };
    redirector.mirrorbits(&["add", "-http=http://192.0.2.1/", "first"]);
    for (mirrors, score, options) in [(MIRRORS, 0, &[][..]), (MIRRORS, 5, &[]), (1, 5, &["-prune"])] {
        let before = generation(redirector);
        apply(list(mirrors, score), options);
        assert_eq!(generation(redirector), before + 1, "{mirrors} mirrors, score {score}");
    }
    let listed = redirector.mirrorbits(&["list"]);
    assert!(listed.contains("mirror0") && !listed.contains("mirror1") && !listed.contains("first"), "{listed}");

    // Every mistake is told with its line, 20 of them at most, and nothing is changed.
    let before = generation(redirector);
    let mistakes = list(30, 5).replace("http://", "gopher://");
    fs::write(file, mistakes).expect("written");
    let refused = redirector.run(&["apply", file]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    assert!(told.contains("mirror0: line 1: HttpURL") && told.contains("mirror19: line 58: HttpURL"), "{told}");
    assert!(told.contains("and 10 more mistakes") && !told.contains("mirror20"), "{told}");
    assert_eq!(generation(redirector), before);
}

#[test]
fn a_long_list_is_one_publication_from_the_embedded_store() {
    a_long_list_is_one_publication(&mut Redirector::new());
}

#[test]
fn a_long_list_is_one_publication_from_redis() {
    let mut redirector = Redirector::new();
    let redis = Redis::start(redirector.folder());
    redirector.set("Database", "redis").set("RedisAddress", redis.address());
    a_long_list_is_one_publication(&mut redirector);
}
