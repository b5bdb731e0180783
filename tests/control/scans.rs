//! Commands that the indexer has to work for.

use std::io::{Read, Write};

use mb_core::link::Request;
use mb_core::mirror::{MirrorId, ScanProtocol};

use crate::indexer::{SCANNED, play_indexer};
use crate::server::Server;

fn server_with_mirror() -> Server {
    let server = Server::start("");
    server.publish_source();
    server.succeed(&["add", "-http=http://192.0.2.1/", "-rsync=rsync://192.0.2.1/m", "paris"]);
    server
}

#[test]
fn a_scan_is_passed_on_and_reported() {
    let server = server_with_mirror();
    let indexer = play_indexer(&server, 1, |_, stream| {
        stream.write_all(b"{\"event\":\"progress\",\"message\":\"listing\"}\n").unwrap();
        stream.write_all(SCANNED).unwrap();
    });
    assert_eq!(
        server.succeed(&["scan", "-enable", "-rsync", "paris"]),
        "Scanning paris... 12 files indexed, 10 known and 1 removed\n  ∟ Timezone offset detected and corrected: 3600000 \
         milliseconds\n  ∟ Enabled\n"
    );
    let expected = Request::ScanMirror { id: MirrorId(1), enable: true, protocol: Some(ScanProtocol::Rsync) };
    assert_eq!(indexer.join().unwrap(), [expected]);
}

#[test]
fn a_failed_scan_tells_its_reason() {
    let server = server_with_mirror();
    let indexer = play_indexer(&server, 1, |_, stream| {
        stream.write_all(b"{\"event\":\"failed\",\"message\":\"rsync: no such module\"}\n").unwrap();
    });
    let ended = server.run(&["scan", "-all"]);
    assert_eq!((ended.status, ended.out.as_str()), (1, "Scanning paris... failed\n"));
    assert_eq!(ended.err, "rsync: no such module\n");
    indexer.join().unwrap();
}

#[test]
fn giving_up_cancels_the_scan() {
    let server = server_with_mirror();
    let indexer = play_indexer(&server, 1, |_, stream| {
        // Ends when the daemon closes the connection, which is how the indexer learns that nobody waits any more.
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    });
    let ended = server.run(&["scan", "-timeout=1", "paris"]);
    assert_eq!(ended.status, 1);
    assert!(ended.err.contains("not done within 1 seconds"), "{ended:?}");
    indexer.join().unwrap();
}

#[test]
fn without_an_indexer_or_an_index_the_command_says_so() {
    let server = Server::start("");
    server.succeed(&["add", "-http=http://192.0.2.1/", "paris"]);
    let ended = server.run(&["scan", "paris"]);
    assert_eq!(ended.status, 1);
    assert!(ended.err.contains("run `mirrorbits refresh` first"), "{ended:?}");
    assert!(server.fail(&["refresh"]).contains("the indexer is not running"));
    server.publish_source();
    assert!(server.run(&["scan", "-all"]).err.contains("the indexer is not running"));
}

#[test]
fn a_refresh_is_passed_on() {
    let server = Server::start("");
    let indexer = play_indexer(&server, 1, |_, stream| stream.write_all(b"{\"event\":\"done\"}\n").unwrap());
    assert_eq!(server.succeed(&["refresh", "-rehash"]), "");
    assert_eq!(indexer.join().unwrap(), [Request::ScanSource { rehash: true, force: false }]);
}

#[test]
fn a_scan_needs_either_a_name_or_all() {
    let server = Server::start("");
    for arguments in [vec!["scan"], vec!["scan", "-all", "paris"]] {
        assert_eq!(server.run(&arguments).status, 2, "{arguments:?}");
    }
}
