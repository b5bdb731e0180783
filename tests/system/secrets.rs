//! A run with a password in every place that can have one: none is on a command line, in a log, on
//! a page of metrics or in what commands print.
//!
//! Core dumps of the kernel are named by the program's name and number alone, so that their names
//! hold none either.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::harness::eventually;
use crate::harness::host::Place;
use crate::harness::metrics::scrape;
use crate::harness::redirector::Redirector;
use crate::harness::redis::Redis;
use crate::harness::servers::MirrorSites;
use crate::harness::tree::{self, USUAL_TIME};

const RPC: &str = "Sesame-of-RPC";
const REDIS: &str = "Sesame-of-Redis";
const RSYNC: &str = "Sesame-of-rsync";
const SENTINEL: &str = "Sesame-of-Sentinel";
/// What is in all of them and nowhere else.
const COMMON: &str = "Sesame-of";

/// Looks at the names and arguments of all processes until it is dropped.
struct ProcessList {
    end: Arc<AtomicBool>,
    looking: Option<JoinHandle<HashMap<String, String>>>,
    rsync_seen: Arc<AtomicBool>,
}

impl ProcessList {
    fn watch() -> ProcessList {
        let (end, rsync_seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let looking = std::thread::spawn({
            let (end, rsync_seen) = (Arc::clone(&end), Arc::clone(&rsync_seen));
            move || {
                let mut found = HashMap::new();
                while !end.load(Ordering::Relaxed) {
                    for process in fs::read_dir("/proc").expect("processes").flatten() {
                        // A process may have ended since.
                        let text =
                            ["cmdline", "comm"].map(|file| fs::read(process.path().join(file)).unwrap_or_default());
                        let text = String::from_utf8_lossy(&text.concat()).into_owned();
                        rsync_seen.fetch_or(text.contains("rsync://anna@"), Ordering::Relaxed);
                        if text.contains(COMMON) {
                            found.insert(process.path().display().to_string(), text);
                        }
                    }
                }
                found
            }
        });
        ProcessList { end, looking: Some(looking), rsync_seen }
    }

    /// The processes that showed a password.
    fn end(mut self) -> HashMap<String, String> {
        self.end.store(true, Ordering::Relaxed);
        self.looking.take().expect("a thread").join().expect("the process list")
    }
}

impl Drop for ProcessList {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

/// Runs a command that gives the password by its standard input.
fn run(redirector: &Redirector, arguments: &[&str]) -> Output {
    let mut command = redirector.command(&[&["-a"][..], arguments].concat());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("mirrorbits");
    writeln!(child.stdin.take().expect("piped"), "{RPC}").expect("the password");
    child.wait_with_output().expect("mirrorbits")
}

/// What a command printed, on both outputs.
fn printed(redirector: &Redirector, arguments: &[&str]) -> String {
    let output = run(redirector, arguments);
    [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
}

/// What files below `folder` with this ending, and the files right in it, hold.
fn logs(redirector: &Redirector) -> String {
    let folders = [redirector.folder().to_owned(), redirector.folder().join("logs")];
    let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let logs =
        files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.map(|path| fs::read(path).unwrap_or_default())
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .collect()
}

/// The password of `-P` stayed in the process list for as long as the command ran.
#[test]
fn the_password_of_the_command_line_leaves_the_process_list() {
    // It accepts, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = silent.local_addr().expect("its address");
    for password in [&["-P", "open-me-up"][..], &["-P=open-me-up"], &["-Popen-me-up"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mirrorbits"));
        command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]).args(password).arg("list");
        let mut program = command.stdin(Stdio::null()).spawn().expect("mirrorbits");
        let shown = eventually("the password is gone", || {
            let shown = fs::read(format!("/proc/{}/cmdline", program.id())).expect("arguments");
            let shown = String::from_utf8_lossy(&shown).into_owned();
            if shown.contains("mirrorbits") && !shown.contains("open-me-up") { Ok(shown) } else { Err(shown) }
        });
        program.kill().and_then(|()| program.wait()).expect("ended");
        assert!(shown.contains("**********") && shown.contains("list"), "{shown:?}");
    }
}

#[test]
fn no_password_is_shown_anywhere() {
    let mut redirector = Redirector::new();
    let redis = Redis::start(redirector.folder());
    let log_folder = redirector.folder().join("logs");
    fs::create_dir(&log_folder).expect("folder of logs");
    redis.command(&["CONFIG", "SET", "requirepass", REDIS]);
    redirector
        .set("Database", "redis")
        .set("RedisAddress", format!("redis://default:{REDIS}@{}", redis.address()))
        .set("RedisPassword", REDIS)
        .set("RPCPassword", RPC)
        .set("ExposePrivateFields", "true")
        .set("LogDir", log_folder.display());
    redirector.with_metrics();
    tree::write(&redirector.repository(), "file.iso", b"content", USUAL_TIME);
    let mirrors = MirrorSites::start(redirector.folder(), &[("only", Place::Paris)]);
    let site = mirrors.site("only");
    tree::copy(&redirector.repository(), &site.root);
    let processes = ProcessList::watch();
    redirector.start();

    let rsync = site.rsync_url().replace("rsync://", &format!("rsync://anna:{RSYNC}@"));
    let mut shown = String::new();
    shown += &printed(&redirector, &["refresh"]);
    shown +=
        &printed(&redirector, &["add", "-http", &site.http_url(), "-rsync", "rsync://placeholder.example/", "only"]);
    // On the command line of `set` it would be in the process list: a document is the way for a
    // password.
    let documents = redirector.folder().join("mirrors.yaml");
    fs::write(&documents, format!("- Name: only\n  RsyncURL: {rsync}\n")).expect("written");
    shown += &printed(&redirector, &["apply", documents.to_str().expect("a name")]);
    eventually("a scan with the password, seen in the process list", || {
        let said = printed(&redirector, &["scan", "-enable", "only"]);
        shown += &said;
        if processes.rsync_seen.load(Ordering::Relaxed) { Ok(()) } else { Err(said) }
    });
    redirector.wait_until_served("/file.iso");
    for arguments in [
        &["list", "-rsync", "-http", "-ftp"][..],
        &["export", "mirmon"],
        &["logs", "only"],
        &["stats", "file", "iso"],
        &["reload"],
        &["set", "only", "Score=2"],
        &["--debug", "list", "-rsync"],
        // Refused, with a message.
        &["set", "only", "Score=much"],
        &["add", "-http", "http://192.0.2.1/", "only"],
    ] {
        shown += &printed(&redirector, arguments);
    }
    assert!(shown.contains("anna:***@") && shown.contains(&site.rsync_url()), "{shown}");
    shown += redirector.get("/file.iso?mirrorlist", &["Accept: application/json"]).text();
    shown += &scrape(&redirector).text;
    let checked = redirector.command(&["config", "check", "-config"]).arg(redirector.config_file()).output();
    shown += &String::from_utf8_lossy(&checked.expect("mirrorbits").stdout);
    assert!(shown.contains("RPCPassword: "), "{shown}");

    // Redis takes another password, and the daemon starts with Sentinels that do not answer.
    redirector.stop();
    let nobody = redis.address();
    drop(redis);
    redirector
        .set("RedisSentinelMasterName", "main")
        .set("RedisSentinels", format!("[{{Host: 'redis://:{SENTINEL}@{nobody}'}}]"));
    redirector.start();
    redirector.daemon().wait_for_output("no Sentinel leads to the master");
    shown += &printed(&redirector, &["list"]);
    shown += &scrape(&redirector).text;
    redirector.stop();

    assert_eq!(processes.end(), HashMap::new(), "in the process list");
    assert!(!shown.contains(COMMON), "{shown}");
    let logs = logs(&redirector);
    assert!(logs.contains("serving on") && !logs.contains(COMMON), "{logs}");
}
