//! `AllowOutdatedFiles` changes with a reload, and what the index holds of copies that differ changes with it.

use mb_index::open_newest_files;

use crate::harness::eventually;
use crate::harness::redirector::Redirector;
use crate::harness::tree::{self, USUAL_TIME};

/// More files than an index explains of a mirror that differs in all of them (10,000), without a rule that needs them.
const FILES: usize = 10_100;
/// See above.
const EXPLAINED: usize = 10_000;

/// Names of the files whose copies differ that are in the index, with those copies.
fn explained(redirector: &Redirector) -> Vec<String> {
    let opened = open_newest_files(&redirector.state_dir().join("index"));
    let files = opened.index.unwrap_or_else(|| panic!("{:?}", opened.refused));
    let differing = files.files().filter(|file| file.exceptions().len() > 0);
    differing.map(|file| String::from_utf8(file.path().to_owned()).expect("a path in UTF-8")).collect()
}

fn wait_until_explained(redirector: &Redirector, count: usize) -> Vec<String> {
    eventually(&format!("copies that differ: {count}"), || {
        let explained = explained(redirector);
        if explained.len() == count { Ok(explained) } else { Err(explained.len().to_string()) }
    })
}

/// Without a rule a mirror whose times are all off has no more than a sample of its copies in the index, so a rule that a
/// reload adds has nothing to accept until the index is built again.
#[test]
fn a_rule_that_a_reload_adds_or_removes_has_the_index_built_again() {
    let mut redirector = Redirector::new();
    let name = |number: usize| format!("/late/{:03}/{number:05}", number / 100);
    let mirrors = redirector.start_with_one_mirror();
    for number in 0..FILES {
        tree::write(&redirector.repository(), &name(number)[1..], b"", USUAL_TIME);
        tree::write(&mirrors.sites[0].root, &name(number)[1..], b"", USUAL_TIME - 60);
    }
    redirector.scan_repository();
    redirector.mirrorbits(&["scan", "only"]);
    let sample = wait_until_explained(&redirector, EXPLAINED);
    let unexplained = (0..FILES).map(name).find(|name| !sample.contains(name)).expect("a file beyond the sample");
    assert_eq!(redirector.get("/file.iso", &[]).status, 302);
    let explanation = redirector.mirrorbits(&["explain", &unexplained]);
    assert!(explanation.contains("Does not have the file, or has another version of it"), "{explanation}");
    let explanation = redirector.mirrorbits(&["explain", &sample[0]]);
    assert!(explanation.contains("Mod time mismatch (diff: 1m0s)"), "{explanation}");
    assert_ne!(redirector.get(&unexplained, &[]).status, 302);

    redirector.set("AllowOutdatedFiles", "[{Prefix: /late/, Minutes: 5}]").config_file();
    redirector.mirrorbits(&["reload"]);
    wait_until_explained(&redirector, FILES);
    redirector.wait_until_served(&unexplained);
    for file in [&unexplained, &sample[0], &name(FILES - 1)] {
        assert_eq!(redirector.get(file, &[]).status, 302, "{file}");
    }

    redirector.unset("AllowOutdatedFiles").config_file();
    redirector.mirrorbits(&["reload"]);
    wait_until_explained(&redirector, EXPLAINED);
    for file in [&unexplained, &sample[0]] {
        assert_ne!(redirector.get(file, &[]).status, 302, "{file}");
    }
    assert_eq!(redirector.get("/file.iso", &[]).status, 302);
    redirector.stop();
}
