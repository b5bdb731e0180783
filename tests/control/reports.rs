//! Commands that tell: `stats`, `explain`, `export`, `completions`, `man`.

use std::io::Write;
use std::process::{Command, Stdio};

use mb_core::mirror::{DownloadProtocol, MirrorId};
use mb_core::store::Store;
use mb_core::time::Timestamp;

use crate::server::{Server, wait_until};

/// Two mirrors that are up, paris with `/pub/a.iso` and tokyo, which is disabled, too; oslo has it not.
fn server_with_file() -> Server {
    let server = Server::start("");
    for name in ["paris", "tokyo", "oslo"] {
        server.succeed(&["add", "-http=http://192.0.2.1/", "-admin-email=ops@example.org", name]);
    }
    let store = server.store();
    for id in [1, 2, 3] {
        store.set_health(MirrorId(id), DownloadProtocol::Http, None, Timestamp::now()).unwrap();
    }
    server.succeed(&["enable", "paris"]);
    server.publish_file("/pub/a.iso", &[MirrorId(1), MirrorId(2)]);
    server
}

#[test]
fn an_answer_is_explained() {
    let server = server_with_file();
    wait_until("the index is in use", || server.run(&["explain", "/pub/a.iso"]).status == 0);
    let text = server.succeed(&["explain", "/pub/a.iso", "-from", "192.0.2.1"]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("/pub/a.iso for 192.0.2.1 (FR, EU"), "{text}");
    let accepted: Vec<&str> = lines[3].split('\t').filter(|cell| !cell.is_empty()).collect();
    assert_eq!((accepted[0], accepted[1], accepted[4]), ("paris", "100.00%", "http://192.0.2.1/"), "{text}");
    assert!(accepted[2].parse::<i64>().is_ok_and(|score| score > 0) && accepted[3].ends_with(" km"), "{text}");
    assert_eq!(
        &lines[5..],
        ["REFUSED\tREASON", "oslo\tDoes not have the file, or has another version of it", "tokyo\tDisabled"]
    );

    server.succeed(&["disable", "paris"]);
    wait_until("paris is refused", || {
        let text = server.succeed(&["explain", "pub/a.iso", "-from=192.0.2.1"]);
        text.contains("No mirror can be used") && text.contains("paris\tDisabled")
    });
}

#[test]
fn what_cannot_be_explained_is_told() {
    let server = Server::start("");
    assert!(server.fail(&["explain", "/a"]).contains("run `mirrorbits refresh` first"));
    let server = server_with_file();
    wait_until("the index is in use", || server.run(&["explain", "/pub/a.iso"]).status == 0);
    for path in ["/b.iso", "/pub", "/"] {
        assert!(server.fail(&["explain", path]).contains("no such file"), "{path}");
    }
    assert!(server.fail(&["explain", "/outside"]).contains("leads out of the repository"));
    assert_eq!(server.run(&["explain", "-from=here", "/pub/a.iso"]).status, 2);
}

#[test]
fn downloads_are_counted_by_date() {
    let server = server_with_file();
    let counts = [("2025-12-31", 1), ("2026-01-01", 10), ("2026-02-28", 100), ("2026-03-01", 1000)];
    server.count_downloads(&counts.map(|(day, count)| (day, "/pub/a.iso", count)));
    let counted = |start: &str, end: &str| {
        let text = server.succeed(&["stats", "-start-date", start, "-end-date", end, "file", r"^/pub/.*\.iso$"]);
        let total = text.lines().last().unwrap();
        total.strip_prefix("Total download requests: \t").unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(counted("2025-01-01", "2027-01-01"), 1111);
    assert_eq!(counted("2026-1-1", "2026-3-1"), 110, "as in Mirrorbits the last day is not counted");
    assert_eq!(counted("2026-03-01", "2026-03-01"), 1000, "unless it is the first one, too");
    assert_eq!(counted("2026-03-02", "2026-12-01"), 0);
    assert_eq!(
        server.succeed(&["stats", "-start-date=2026-03-01", "-end-date=2026-03-02", "file", "iso"]),
        "/pub/a.iso:\t\t\t1000\n\t\t\t\t\nTotal download requests: \t1000\n"
    );
    assert_eq!(server.succeed(&["stats", "file", "."]), "Total download requests: \t0\n");

    let of_mirror = |arguments: &[&str]| {
        let dates = ["-start-date=2025-01-01", "-end-date=2027-01-01"];
        server.succeed(&[&["stats"][..], &dates, arguments].concat())
    };
    assert_eq!(
        of_mirror(&["mirror", "PAR"]),
        "Identifier:\t\tparis\nStatus:\t\t\tup\nDownload requests:\t1111\nBytes transferred:\t1.1 MB\n"
    );
    assert!(of_mirror(&["-h=false", "mirror", "paris"]).ends_with("Bytes transferred:\t1137664\n"));
    assert!(of_mirror(&["mirror", "tokyo"]).contains("Status:\t\t\tdisabled\nDownload requests:\t0\n"));

    assert!(server.fail(&["stats", "file", "("]).contains("the pattern \"(\""));
    assert_eq!(server.run(&["stats", "-start-date=2026-02-02", "-end-date=2026-02-01", "file", "."]).status, 2);
}

#[test]
fn mirrors_are_exported_for_mirmon() {
    let server = server_with_file();
    let line = "FR\thttp://192.0.2.1/\tops@example.org\n";
    assert_eq!(server.succeed(&["export", "mirmon"]), line.repeat(3));
    assert_eq!(server.succeed(&["export", "-disabled=false", "mirmon"]), line);
    assert_eq!(server.succeed(&["export", "mirmon", "-http=false"]), "");
}

#[test]
fn packages_get_completions_and_a_manual() {
    let printed = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_mirrorbits")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        output.stdout
    };
    let completed = String::from_utf8(printed(&["completions", "bash"])).unwrap();
    let script = format!(
        "{completed}\nCOMP_WORDS=(mirrorbits geo); COMP_CWORD=1; _mirrorbits mirrorbits geo mirrorbits; echo \"${{COMPREPLY[*]}}\""
    );
    let output = Command::new("bash").arg("-c").arg(script).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "geoupdate\n", "{output:?}");

    let page = printed(&["man"]);
    assert!(page.starts_with(b".ie"), "a page of roff");
    // Debian's smallest systems have no man; where it is, it must have nothing to complain about.
    if let Ok(mut man) = Command::new("man")
        .args(["--warnings", "-l", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    {
        man.stdin.take().unwrap().write_all(&page).unwrap();
        let output = man.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert!(String::from_utf8_lossy(&output.stdout).contains("geoupdate"));
    }
}
