//! SIGTERM, SIGINT and SIGQUIT with a request in flight at each stage.

use rustix::process::Signal;

use super::lineage::{Lineage, assert_nothing_failed, wait_for_answers};
use crate::harness::http::Connection;
use crate::harness::redirector::get;

const SIGNALS: [Signal; 3] = [Signal::TERM, Signal::INT, Signal::QUIT];

fn connect(lineage: &Lineage) -> Connection {
    Connection::open(lineage.redirector.address()).expect("connection")
}

#[test]
fn requests_at_each_stage_are_answered() {
    for signal in SIGNALS {
        let mut lineage = Lineage::new(2);
        lineage.start_with_a_file();
        let request = get("/file.iso", &[]);
        let [mut silent, mut half] = [(); 2].map(|()| connect(&lineage));
        let mut idle = lineage.idle_client();
        half.send(&request.as_bytes()[..20]).expect("half a request");
        // More answers than the sockets' buffers hold, once the client's is small: the rest waits in the daemon.
        let many = 800;
        let mut slow = Connection::open_with_small_buffer(lineage.redirector.address()).expect("connection");
        slow.send(request.repeat(many).as_bytes()).expect("requests");
        slow.receive().expect("the first answer");

        lineage.redirector.daemon().signal(signal);
        assert!(idle.is_closed(), "{signal:?}: the daemon is draining");
        silent.send(request.as_bytes()).expect("a first request");
        half.send(&request.as_bytes()[20..]).expect("the other half");
        for (stage, client) in [("silent", &mut silent), ("half", &mut half)] {
            let answer = client.receive().unwrap_or_else(|error| panic!("{signal:?}, {stage}: {error}"));
            assert_eq!((answer.status, answer.header("Connection")), (302, Some("close")), "{signal:?}, {stage}");
        }
        let mut answers = 1;
        while slow.receive().is_ok() {
            answers += 1;
        }
        assert_eq!(answers, many, "{signal:?}: pipelined requests that were sent before the signal");
        drop([silent, half, idle, slow]);
        assert!(lineage.redirector.daemon().wait().success(), "{signal:?}");
    }
}

#[test]
fn a_client_that_never_ends_is_not_waited_for_for_ever() {
    let mut lineage = Lineage::new(1);
    lineage.start_with_a_file();
    let mut stuck = connect(&lineage);
    stuck.send(b"GET /file.iso HTTP/1.1\r\n").expect("half a request");
    lineage.redirector.stop();
    assert!(stuck.is_closed());
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut lineage = Lineage::new(1);
    lineage.start_with_a_file();
    let mut stuck = connect(&lineage);
    stuck.send(b"GET /file.iso HTTP/1.1\r\n").expect("half a request");
    lineage.redirector.daemon().signal(Signal::QUIT);
    lineage.redirector.daemon().wait_for_output("ending, after the requests under way");
    lineage.redirector.daemon().signal(Signal::TERM);
    assert!(lineage.redirector.daemon().wait().success());
    assert!(lineage.redirector.daemon().output().contains("told twice to end"));
}

#[test]
fn clients_on_kept_connections_get_an_answer_or_a_close_between_two_requests() {
    let mut lineage = Lineage::new(2);
    lineage.start_with_a_file();
    let loads = vec![lineage.load(mb_load::Mode::KeepAlive, 1)];
    wait_for_answers(&loads, 100);
    loads[0].stop();
    lineage.redirector.stop();
    assert_nothing_failed(loads);
}
