//! Commands that change and show mirrors.

use std::io::Write;
use std::process::Stdio;

use crate::server::{Ended, Server, wait_until};

#[test]
fn the_life_of_a_mirror() {
    let server = Server::start("");
    let added =
        server.succeed(&["add", "-http=http://192.0.2.1/pub", "-rsync", "rsync://192.0.2.1/m", "-score=-5", "paris"]);
    assert_eq!(
        added,
        "Mirror location:\nLatitude:  48.8566\nLongitude: 2.3522\nContinent: EU\nCountry:   FR\nASN:       64496\n"
    );
    assert_eq!(server.succeed(&["list", "-state=false"]), "Identifier\nparis\n");
    assert!(server.succeed(&["list"]).contains("paris\t\tdisabled\t("));

    let published = server.published();
    assert_eq!(published.len(), 1);
    assert!(!published[0].state.enabled);
    server.succeed(&["enable", "PAR"]);
    assert!(server.published()[0].state.enabled, "the change is published when the command ends");

    let shown = server.succeed(&["show", "paris"]);
    assert!(
        shown.starts_with("Name: paris\nHttpURL: http://192.0.2.1/pub/\nRsyncURL: rsync://192.0.2.1/m/\n"),
        "{shown}"
    );
    assert!(shown.contains("\nScore: -5\nLatitude: 48.8566\n"), "{shown}");
    assert!(shown.ends_with("\nAllowRedirects: null\n##### Comments go below this line #####\n"), "{shown}");

    assert_eq!(
        server.succeed(&["set", "paris", "Score=7", "CountryCodes=fr,be"]),
        "- Score: -5\n+ Score: 7\n- CountryCodes: FR\n+ CountryCodes: FR BE\n"
    );
    assert_eq!(server.succeed(&["set", "paris", "Score=7"]), "");
    assert_eq!(server.published()[0].settings.score, 7);
    assert!(server.published()[0].state.enabled, "what was not set stays");

    server.succeed(&["disable", "paris"]);
    server.succeed(&["disable", "paris"]);
    let log = server.succeed(&["logs", "paris"]);
    let texts: Vec<&str> = log.lines().map(|line| line.split_once(" UTC: ").unwrap().1).collect();
    assert_eq!(texts, ["Mirror added", "Mirror enabled", "Mirror edited", "Mirror disabled"]);
    assert_eq!(server.succeed(&["logs", "-l", "1", "paris"]).lines().count(), 1);

    server.succeed(&["remove", "-f", "paris"]);
    assert_eq!(server.succeed(&["list", "-state=false"]), "Identifier\n");
    assert!(server.published().is_empty());
}

#[test]
fn a_removal_asks_first() {
    let server = Server::start("");
    server.succeed(&["add", "-http=http://192.0.2.1/", "paris"]);
    let answer = |text: &str| {
        let mut command = server.command(&["remove", "paris"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        Ended::of(child.wait_with_output().unwrap())
    };
    for no in ["n\n", "\n", ""] {
        let ended = answer(no);
        assert_eq!(ended.status, 1, "{ended:?}");
        assert!(ended.err.contains("Remove the mirror 'paris' for good?"), "{ended:?}");
    }
    assert_eq!(server.published().len(), 1);
    assert_eq!(answer("y\n").status, 0);
    assert!(server.published().is_empty());
}

#[test]
fn a_mirror_is_named_by_a_part_that_fits_no_other() {
    let server = Server::start("");
    for name in ["paris", "paris.example.org", "tokyo"] {
        server.succeed(&["add", "-http=http://192.0.2.1/", name]);
    }
    assert!(server.succeed(&["show", "paris"]).starts_with("Name: paris\n"));
    assert!(server.succeed(&["show", "KYO"]).starts_with("Name: tokyo\n"));
    let several = server.fail(&["show", "pari"]);
    assert!(several.contains("several mirrors") && several.contains("\n  paris\n  paris.example.org\n"), "{several}");
    assert!(server.fail(&["enable", "berlin"]).contains("no mirror fits \"berlin\""));
}

#[test]
fn what_cannot_be_added_is_refused_with_its_reason() {
    let server = Server::start("");
    server.succeed(&["add", "-http=http://192.0.2.1/", "paris"]);
    assert_eq!(server.fail(&["add", "-http=http://192.0.2.2/", "paris"]), "name already taken\n");
    assert!(server.fail(&["add", "-http=gopher://a/", "b"]).contains("must start with http://"));
    assert!(server.fail(&["add", "-http=http://a/", "-rsync=a::m", "b"]).contains("must start with rsync://"));
    assert!(server.fail(&["set", "paris", "Latitude=91"]).contains("from -90 to 90"));
    assert!(server.fail(&["set", "paris", "Colour=red"]).contains("unknown key \"Colour\""));
    assert_eq!(server.run(&["add", "-http=http://a/", "a b"]).status, 2);
    assert_eq!(server.run(&["add", "b"]).status, 2);
    assert_eq!(server.succeed(&["list", "-state=false"]), "Identifier\nparis\n");
}

#[test]
fn an_unknown_location_is_a_warning() {
    let server = Server::start("");
    let ended = server.run(&["add", "-http=http://127.0.0.1:8080/", "here"]);
    assert_eq!((ended.status, ended.out.as_str()), (0, ""));
    assert!(ended.err.contains("Warning: the location of 127.0.0.1 is unknown"), "{ended:?}");
    assert!(ended.err.contains("mirrorbits enable here"), "{ended:?}");
}

#[test]
fn the_password_is_asked_for_and_checked() {
    let server = Server::start("secret");
    for wrong in [vec!["list"], vec!["-P", "Secret", "list"]] {
        assert!(server.fail(&wrong).contains("access denied: wrong password"));
    }
    assert_eq!(server.succeed(&["-P", "secret", "list", "-state=false"]), "Identifier\n");

    let mut command = server.command(&["-a", "list", "-state=false"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert_eq!((ended.status, ended.out.as_str()), (0, "Identifier\n"), "{ended:?}");
}

#[test]
fn an_absent_daemon_is_told_from_a_failing_command() {
    let server = Server::start("");
    let port = server.address.port().to_string();
    assert!(server.succeed(&["version"]).contains("Server:\n  Version:"));
    let orphan = server.command(&["list"]);
    drop(server);
    let mut orphan = orphan;
    let ended = Ended::of(orphan.output().unwrap());
    assert_eq!(ended.status, 1);
    assert!(
        ended.err.starts_with(&format!("cannot reach the daemon at 127.0.0.1:{port}: Connection refused")),
        "{ended:?}"
    );
    assert!(ended.err.contains("is it running?"), "{ended:?}");
}

/// A disk that is full keeps a change from the answers; once there is room, the change gets there by itself.
#[test]
fn a_change_that_cannot_be_published_is_reported_and_published_later() {
    let server = Server::start("");
    server.succeed(&["add", "-http=http://192.0.2.1/", "paris"]);
    // As root no permission keeps us from writing, but a file in the folder's place does.
    let aside = server.state_dir().join("aside");
    std::fs::rename(server.index_dir(), &aside).unwrap();
    std::fs::write(server.index_dir(), b"").unwrap();
    let message = server.fail(&["enable", "paris"]);
    assert!(message.contains("the change is stored, but cannot be published"), "{message}");
    assert!(server.succeed(&["show", "paris"]).contains("\nEnabled: true\n"));

    std::fs::remove_file(server.index_dir()).unwrap();
    std::fs::rename(&aside, server.index_dir()).unwrap();
    wait_until("the change is published", || server.published().iter().any(|mirror| mirror.state.enabled));
}

#[test]
fn orders_to_the_daemon_tell_what_to_know_and_why_not() {
    let server = Server::start("");
    let reloaded = server.run(&["reload"]);
    assert_eq!((reloaded.status, reloaded.out.as_str()), (0, ""), "{reloaded:?}");
    assert_eq!(reloaded.err, "Shards: wait – for a restart\n");
    assert_eq!(server.fail(&["upgrade"]), "there is no program\n");
}
