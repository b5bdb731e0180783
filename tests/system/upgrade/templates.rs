//! Templates change with the rest of a reload, or not at all, and a new process loads its own.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;

use super::lineage::Lineage;
use crate::harness::eventually;

/// A daemon whose mirror list is a file in the folder that is returned.
fn start(mirror_list: &str) -> (Lineage, PathBuf) {
    let mut lineage = Lineage::new(2);
    let folder = lineage.redirector.folder().join("templates");
    fs::create_dir(&folder).expect("folder");
    fs::write(folder.join("mirrorlist.html"), mirror_list).expect("template");
    lineage.redirector.set("Templates", folder.display());
    lineage.start_with_a_file();
    (lineage, folder.join("mirrorlist.html"))
}

/// What the page says above its footer; of every shard, since it is by chance which one answers.
fn page(lineage: &Lineage) -> String {
    let pages: Vec<_> = (0..8).map(|_| page_of_a_shard(lineage)).collect();
    assert!(pages.iter().all(|page| *page == pages[0]), "{pages:#?}");
    pages[0].clone()
}

fn page_of_a_shard(lineage: &Lineage) -> String {
    let page = lineage.redirector.get("/file.iso?mirrorlist", &[]);
    assert_eq!(page.status, 200, "{page:?}");
    page.text().split("<footer>").next().unwrap_or_default().to_owned()
}

#[test]
fn a_reload_swaps_templates_and_an_upgrade_loads_them() {
    let (mut lineage, file) = start("first {{ FileInfo.Path }}");
    assert_eq!(page(&lineage), "first &#x2f;file.iso");
    fs::write(&file, "{% include \"part.html\" %}").expect("template");
    fs::write(file.with_file_name("part.html"), "second {{ FileInfo.Size }}").expect("template");
    assert_eq!(page(&lineage), "first &#x2f;file.iso", "files alone change nothing");
    lineage.redirector.mirrorbits(&["reload"]);
    assert_eq!(page(&lineage), "second 7");

    fs::write(&file, "third").expect("template");
    lineage.redirector.daemon().signal(Signal::HUP);
    eventually("the third template", || match page_of_a_shard(&lineage) {
        text if text == "third" => Ok(()),
        text => Err(text),
    });

    fs::write(&file, "fourth").expect("template");
    lineage.upgrade();
    assert_eq!(page(&lineage), "fourth");
    fs::remove_file(&file).expect("template");
    lineage.redirector.mirrorbits(&["reload"]);
    assert!(page(&lineage).starts_with("<!DOCTYPE html>"), "the built-in one");
}

#[test]
fn a_bad_template_keeps_everything_as_it_was() {
    let (mut lineage, file) = start("good");
    fs::write(&file, "\n\n{{ FileInfo.Path|shout }}").expect("template");
    lineage.redirector.set("Fallbacks", "[{URL: 'http://other.example/'}]").config_file();
    let output = lineage.redirector.run(&["reload"]);
    let reason = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{reason}");
    for part in [format!("{}:3: unknown filter", file.display()).as_str(), "Nothing was changed"] {
        assert!(reason.contains(part), "`{part}` is missing in: {reason}");
    }
    assert_eq!(page(&lineage), "good");
    assert_eq!(lineage.redirector.get("/file.iso", &[]).location(), "http://fallback.example/file.iso");

    let reason = lineage.fail_to_upgrade();
    assert!(reason.contains("unknown filter"), "{reason}");
    assert_eq!(page(&lineage), "good");

    fs::write(&file, "better").expect("template");
    lineage.redirector.mirrorbits(&["reload"]);
    assert_eq!(page(&lineage), "better");
    assert_eq!(lineage.redirector.get("/file.iso", &[]).location(), "http://other.example/file.iso");
}

/// A configuration of Mirrorbits names a folder of Go templates, and has to work.
#[test]
fn go_templates_are_tolerated() {
    let mut lineage = Lineage::new(1);
    let folder = lineage.redirector.folder().join("go");
    fs::create_dir(&folder).expect("folder");
    let go = "{{define \"title\"}}Mirrors{{end}}{{range $i, $mirror := .MirrorList}}{{$mirror.Name}}{{end}}";
    fs::write(folder.join("mirrorlist.html"), go).expect("template");
    lineage.redirector.set("Templates", folder.display());
    lineage.start_with_a_file();
    lineage.redirector.daemon().wait_for_output("mirrorlist.html is a Go template");
    assert!(page(&lineage).starts_with("<!DOCTYPE html>"));
    let output = lineage.redirector.run(&["reload"]);
    let notice = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && notice.contains("docs/templates.md"), "{notice}");
}
