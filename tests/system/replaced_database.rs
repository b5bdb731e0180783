//! The embedded database is emptied, or taken away under the daemon.

use std::fs;

use crate::harness::eventually;
use crate::harness::http::Connection;
use crate::harness::metrics::scrape;
use crate::harness::redirector::Redirector;

fn refused(redirector: &Redirector, arguments: &[&str]) -> String {
    let output = redirector.run(arguments);
    assert!(!output.status.success(), "{arguments:?} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The daemon took the empty file for a new store: no mirror was left, and every download was refused.
#[test]
fn an_emptied_database_is_told_and_downloads_go_on() {
    let mut redirector = Redirector::new();
    let _mirrors = redirector.start_with_one_mirror();
    let target = fs::read_dir(redirector.repository()).expect("repository").next().expect("a file").expect("read");
    let target = format!("/{}", target.file_name().to_string_lossy());
    redirector.stop();
    let file = redirector.state_dir().join("mirrorbits.sqlite");
    let sound = fs::read(&file).expect("the database");
    fs::write(&file, "").expect("emptied");
    redirector.start();
    redirector.wait_until_served(&target);
    redirector.daemon().wait_for_output("is empty (0 bytes)");
    let told = refused(&redirector, &["list"]);
    assert!(told.contains("is empty (0 bytes)") && told.contains("mirrorbits.sqlite.id"), "{told}");
    assert_eq!(fs::metadata(&file).expect("there").len(), 0, "it is left alone");

    fs::write(&file, sound).expect("restored");
    eventually("commands work again", || {
        let output = redirector.run(&["list"]);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
}

/// What was entered went into a file that nobody would find again.
#[test]
fn a_database_that_is_taken_away_takes_no_changes() {
    let mut redirector = Redirector::new();
    redirector.start_without_indexer();
    redirector.mirrorbits(&["add", "-http=http://192.0.2.1/", "first"]);
    let file = redirector.state_dir().join("mirrorbits.sqlite");
    let aside = redirector.state_dir().join("aside");
    fs::rename(&file, &aside).expect("moved");
    let told = refused(&redirector, &["add", "-http=http://192.0.2.2/", "second"]);
    assert!(told.contains("was deleted or moved away while this program uses it"), "{told}");
    redirector.daemon().wait_for_output("was deleted or moved away");
    assert!(redirector.mirrorbits(&["list"]).contains("first"), "what was stored can be rescued");
    fs::rename(&aside, &file).expect("moved back");
    redirector.mirrorbits(&["add", "-http=http://192.0.2.2/", "second"]);
}

/// It was noticed by the next change alone, which may be a day later.
#[test]
fn a_database_that_is_replaced_or_emptied_is_told_without_a_change() {
    let mut redirector = Redirector::new();
    redirector.with_metrics();
    redirector.start_without_indexer();
    redirector.mirrorbits(&["add", "-http=http://192.0.2.1/", "first"]);
    let file = redirector.state_dir().join("mirrorbits.sqlite");
    let aside = redirector.state_dir().join("aside");
    let wait_for_store = |redirector: &Redirector, up: f64| {
        eventually("what the metrics tell of the store", || match scrape(redirector).value("mirrorbits_store_up") {
            Some(value) if value == up => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    let ready = |redirector: &Redirector| {
        let mut connection = Connection::open(redirector.metrics_address()).expect("connection");
        connection.send(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n").expect("request");
        connection.receive().expect("an answer").text().to_owned()
    };
    wait_for_store(&redirector, 1.0);

    fs::rename(&file, &aside).expect("moved");
    wait_for_store(&redirector, 0.0);
    let told = ready(&redirector);
    assert!(told.contains("degraded: store: down since") && told.contains("was deleted or moved away"), "{told}");
    fs::copy(&aside, &file).expect("another file");
    eventually("the replacement is told", || {
        let told = ready(&redirector);
        if told.contains("was replaced by another file") { Ok(()) } else { Err(told) }
    });
    fs::rename(&aside, &file).expect("moved back");
    wait_for_store(&redirector, 1.0);
    let output = redirector.daemon().output();
    assert_eq!(output.matches("while this program uses it").count(), 1, "{output}");
    assert_eq!(output.matches("the store is up again").count(), 1, "{output}");

    fs::File::options().write(true).open(&file).and_then(|file| file.set_len(0)).expect("emptied");
    wait_for_store(&redirector, 0.0);
    let told = ready(&redirector);
    assert!(told.contains("was emptied (0 bytes)"), "{told}");
}

/// Without a metrics server the log alone tells.
#[test]
fn a_replaced_database_is_logged_without_metrics() {
    let mut redirector = Redirector::new();
    redirector.start_without_indexer();
    fs::rename(redirector.state_dir().join("mirrorbits.sqlite"), redirector.folder().join("aside")).expect("moved");
    redirector.daemon().wait_for_output("was deleted or moved away");
}
