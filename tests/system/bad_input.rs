//! Bad input and failing surroundings: each gives a message that names the cause and an exit status, and nothing that was
//! stored is lost.

use std::fs;
use std::process::{Command, Output, Stdio};

use crate::harness::host::{Host, Place};
use crate::harness::program::Program;
use crate::harness::redirector::{Redirector, indexer_program};
use crate::harness::tree::{self, USUAL_TIME};

/// Starts the daemon, which must refuse with status 1, and returns what it says.
fn refused(redirector: &Redirector) -> String {
    let mut command = redirector.daemon_command();
    let mut daemon = Program::start("refused", &mut command, redirector.folder());
    let status = daemon.wait();
    assert_eq!(status.code(), Some(1), "{}", daemon.output());
    daemon.output()
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is missing in: {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn bad_configuration_is_refused_with_line_key_value_and_what_is_allowed() {
    let cases: [(&str, &str, &[&str]); 5] = [
        ("OutputMode", "sideways", &["sideways", "auto", "redirect", "json"]),
        ("WeightDistributionRange", "-1", &["-1", "0"]),
        ("ListenAddress", "no-port", &["no-port"]),
        ("ScanInterval", "soon", &["soon"]),
        ("TrustedProxies", "[not-a-network]", &["not-a-network"]),
    ];
    for (key, value, parts) in cases {
        let mut redirector = Redirector::new();
        redirector.set(key, value);
        let config = fs::read_to_string(redirector.config_file()).expect("configuration");
        let line = 1 + config.lines().position(|line| line.starts_with(key)).expect("the line of the key");
        let message = refused(&redirector);
        assert_says(&message, &[&format!("mirrorbits.conf:{line}"), key]);
        assert_says(&message, parts);
    }
}

#[test]
fn missing_files_are_named() {
    let mut redirector = Redirector::new();
    redirector.unset("Repository");
    assert_says(&refused(&redirector), &["Repository", "mirrorbits.conf"]);

    let output = Command::new(env!("CARGO_BIN_EXE_mirrorbits"))
        .args(["daemon", "-config", "/no/such/mirrorbits.conf"])
        .stdin(Stdio::null())
        .output()
        .expect("mirrorbits");
    assert_eq!(output.status.code(), Some(1));
    assert_says(&text(&output), &["/no/such/mirrorbits.conf"]);
}

/// A disk that is not mounted yet must not keep the daemon from serving what it knows.
#[test]
fn a_missing_repository_is_reported_while_the_last_index_is_served() {
    let mut redirector = Redirector::new();
    let mirrors = redirector.start_with_one_mirror();
    redirector.stop();
    fs::rename(redirector.repository(), redirector.folder().join("elsewhere")).expect("removal of the repository");
    redirector.start();
    let repository = redirector.repository().display().to_string();
    redirector.daemon().wait_for_output(&format!("Repository {repository}"));
    assert_eq!(redirector.get("/file.iso", &[]).location(), format!("{}file.iso", mirrors.sites[0].http_url()));

    let output = Command::new(indexer_program())
        .args(["scan", "-source", "-config"])
        .arg(redirector.config_file())
        .stdin(Stdio::null())
        .output()
        .expect("mb-indexer");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_says(&text(&output), &[&repository]);
    assert_eq!(redirector.get("/file.iso", &[]).status, 302, "nothing is lost");
}

#[test]
fn a_bad_template_is_named_before_anybody_looks_at_the_page() {
    let mut redirector = Redirector::new();
    let folder = redirector.folder().join("templates");
    fs::create_dir(&folder).expect("folder");
    fs::write(folder.join("mirrorlist.html"), "<p>\n{{ FileInfo.Pth }}\n").expect("template");
    redirector.set("Templates", folder.display());
    let place = format!("{}:2: undefined value", folder.join("mirrorlist.html").display());
    assert_says(&refused(&redirector), &[&place]);
    let output =
        redirector.command(&["config", "check", "-config"]).arg(redirector.config_file()).output().expect("check");
    assert_eq!(output.status.code(), Some(1));
    assert_says(&text(&output), &[&place]);
}

#[test]
fn taken_ports_are_named() {
    for key in ["ListenAddress", "RPCListenAddress"] {
        let mut redirector = Redirector::new();
        let host = Host::claim(Place::Nowhere);
        let _occupant = std::net::TcpListener::bind(host.port(9999)).expect("occupied port");
        let address = host.port(9999).to_string();
        redirector.set(key, &address);
        assert_says(&refused(&redirector), &[&address, "in use"]);
    }
}

#[test]
fn wrong_usage_and_unreachable_daemons_have_their_exit_status() {
    let redirector = Redirector::new();
    for arguments in [&["no-such-command"][..], &["list", "-no-such-option"], &["enable"], &["add", "name-without-url"]]
    {
        let output = redirector.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
    }
    let output = redirector.run(&["list"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_says(&text(&output), &[&redirector.rpc_address().to_string()]);
}

#[test]
fn unreadable_geo_databases_are_reported_and_served_without() {
    for damaged in [false, true] {
        let mut redirector = Redirector::new();
        let geo = redirector.folder().join("geo");
        redirector.set("GeoipDatabasePath", geo.display());
        if damaged {
            fs::create_dir(&geo).expect("folder");
            for name in ["GeoLite2-City.mmdb", "GeoLite2-ASN.mmdb"] {
                fs::write(geo.join(name), b"this is no database").expect("damaged database");
            }
        }
        let mirrors = redirector.start_with_one_mirror();
        redirector.daemon().wait_for_output("GeoLite2-City.mmdb");
        let answer = redirector.get("/file.iso", &["X-Forwarded-For: 192.0.2.1"]);
        assert_eq!(answer.location(), format!("{}file.iso", mirrors.sites[0].http_url()));
    }
}

#[test]
fn a_mirror_that_refuses_rsync_keeps_its_earlier_scan() {
    let mut redirector = Redirector::new();
    let mirrors = redirector.start_with_one_mirror();

    // The module goes away: the daemon reads its configuration for each connection.
    let config = redirector.folder().join("rsyncd.conf");
    let modules = fs::read_to_string(&config).expect("rsyncd.conf");
    fs::write(&config, modules.replace("[only]", "[renamed]")).expect("rsyncd.conf");
    let output = redirector.run(&["scan", "only"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_says(&text(&output), &["Unknown module 'only'"]);
    assert_eq!(redirector.get("/file.iso", &[]).status, 302, "the earlier scan still counts");

    // No server at all.
    let nobody = Host::claim(Place::Nowhere);
    let url = format!("rsync://{}/module/", nobody.port(8730));
    redirector.mirrorbits(&["add", "-http", &mirrors.sites[0].http_url(), "-rsync", &url, "silent"]);
    let output = redirector.run(&["scan", "-enable", "silent"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_says(&text(&output), &["onnection refused"]);
    let list = redirector.mirrorbits(&["list"]);
    let silent = list.lines().find(|line| line.starts_with("silent")).expect("the mirror is still listed");
    assert!(silent.contains("disabled"), "a failed scan enables nothing: {silent}");
}

#[test]
fn an_emptied_repository_changes_nothing() {
    let mut redirector = Redirector::new();
    let _mirrors = redirector.start_with_one_mirror();
    fs::remove_file(redirector.repository().join("file.iso")).expect("removal");
    let output = redirector.run(&["refresh"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_says(&text(&output), &["-force"]);
    assert_eq!(redirector.get("/file.iso", &[]).status, 302);

    fs::remove_dir(redirector.repository()).expect("removal");
    let output = redirector.run(&["refresh"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_says(&text(&output), &["repository"]);
    assert_eq!(redirector.get("/file.iso", &[]).status, 302);
}

/// Makes the folder of the index a full file system, scans the repository there, and keeps what the index is then.
/// Arguments: indexer, configuration, folder of the index, KiB of room, folder to keep the index in.
const SCAN_ON_FULL_DISK: &str = r#"
    set -e
    mkdir "$5"
    cp -a "$3/." "$5"
    mount -t tmpfs -o size="$4k" none "$3"
    cp -a "$5/." "$3"
    rm -r "$5"
    status=0
    "$1" -config "$2" scan -source || status=$?
    cp -a "$3" "$5"
    exit $status
"#;

/// The disk of the index is full: a small file system of its own, mounted in a mount namespace that any user may make.
/// Where namespaces are forbidden, a limit on the size of files stands in for it.
#[test]
fn a_full_disk_while_publishing_keeps_the_index_and_says_so() {
    let mut redirector = Redirector::new();
    tree::write(&redirector.repository(), "file.iso", b"content", USUAL_TIME);
    let config = redirector.config_file();
    let scan = |prefix: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{prefix} exec \"$0\" -config \"$1\" scan -source")]);
        command.arg(indexer_program()).arg(&config).stdin(Stdio::null()).output().expect("mb-indexer")
    };
    let first = scan("");
    assert!(first.status.success(), "{}", text(&first));
    let index = redirector.state_dir().join("index");
    let published = index_files(&index);

    for number in 0..3000 {
        tree::write(&redirector.repository(), &format!("many/file-{number:05}"), b"", USUAL_TIME);
    }
    // Room for what is published, by whole pages, and for a small file, not for the facts of 3000 files.
    let room = 32 + published.iter().map(|(_, content)| 4 * content.len().div_ceil(4096)).sum::<usize>();
    let kept = redirector.folder().join("index-after-failure");
    let full_disk = Command::new("unshare")
        .args(["-rm", "sh", "-c", SCAN_ON_FULL_DISK, "sh"])
        .args([&indexer_program(), &config, &index])
        .arg(room.to_string())
        .arg(&kept)
        .stdin(Stdio::null())
        .output()
        .expect("unshare");
    let (failed, after) = if text(&full_disk).contains("unshare:") {
        eprintln!("no mount namespaces here ({}): limiting the size of files instead", text(&full_disk).trim());
        (scan("trap '' XFSZ; ulimit -f 64;"), index_files(&index))
    } else {
        (full_disk, index_files(&kept))
    };
    let message = text(&failed);
    assert_eq!(failed.status.code(), Some(1), "{message}");
    assert_says(&message, &["index"]);
    assert!(message.contains("No space left") || message.contains("File too large"), "{message}");
    assert!(after == published, "the index after the failure: {:?}", names(&after));

    // With room again, the scan completes, and both the old and the new files are there.
    let again = scan("");
    assert!(again.status.success(), "{}", text(&again));
    redirector.start_without_indexer();
    for target in ["/file.iso", "/many/file-02999"] {
        assert_eq!(redirector.get(target, &[]).status, 503, "{target} is known, and no mirror has it");
    }
}

fn names(files: &[(std::ffi::OsString, Vec<u8>)]) -> Vec<&std::ffi::OsStr> {
    files.iter().map(|(name, _)| name.as_os_str()).collect()
}

/// The index files with their contents, in the order of their names.
fn index_files(index: &std::path::Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(index)
        .expect("index")
        .map(|entry| entry.expect("entry"))
        .map(|entry| (entry.file_name(), fs::read(entry.path()).expect("index file")))
        .collect();
    files.sort();
    files
}
