//! Symbolic links of the repository, through all programs.

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::redirector::Redirector;
use crate::harness::tree::{self, USUAL_TIME};

/// With `ln -s . pub`, the usual layout of a mirror's root, `/pub/a.iso` was not found, and so was everything below a link to
/// a folder above it.
#[test]
fn links_to_the_root_and_to_folders_above_lead_to_files() {
    let mut redirector = Redirector::new();
    let repository = redirector.repository();
    tree::write(&repository, "d/b.iso", b"b", USUAL_TIME);
    for (link, target) in
        [("pub", "."), ("d/up", ".."), ("chained", "pub/d"), ("out", ".."), ("ping", "pong"), ("pong", "ping")]
    {
        symlink(target, repository.join(link)).expect("link");
    }
    let mirrors = redirector.start_with_one_mirror();
    let site = &mirrors.sites[0];
    // Mirrors have the links, too.
    symlink(".", site.root.join("pub")).expect("link of the mirror");
    symlink("..", site.root.join("d/up")).expect("link of the mirror");
    redirector.mirrorbits(&["scan", "only"]);
    fs::write(site.root.join("late.iso"), b"late").expect("file of the mirror");

    let location = |path: &str| format!("{}{path}", site.http_url().trim_end_matches('/'));
    for (path, file) in [
        ("/pub/file.iso", "/file.iso"),
        ("/pub/pub/pub/file.iso", "/file.iso"),
        ("/d/up/file.iso", "/file.iso"),
        ("/d/up/d/up/pub/d/b.iso", "/d/b.iso"),
        ("/chained/b.iso", "/d/b.iso"),
        ("/chained/up/chained/b.iso", "/d/b.iso"),
        ("/d/b.iso", "/d/b.iso"),
    ] {
        let answer = redirector.get(path, &[]);
        assert_eq!(answer.status, 302, "{path}: {answer:?}");
        assert_eq!(answer.header("Location"), Some(location(file).as_str()), "{path}");
    }
    for (path, status) in [
        ("/pub/nothing.iso", 404),
        ("/pub/late.iso", 404),
        ("/d/up/out/state/mirrorbits.sqlite", 403),
        ("/out", 403),
        ("/ping", 404),
        ("/pub/ping/file.iso", 404),
    ] {
        assert_eq!(redirector.get(path, &[]).status, status, "{path}");
    }
    let many = |links: usize| format!("{}/file.iso", "/pub".repeat(links));
    assert_eq!(redirector.get(&many(40), &[]).status, 302);
    assert_eq!(redirector.get(&many(41), &[]).status, 404, "as many links as Linux follows");
}
