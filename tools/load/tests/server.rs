//! Runs against a server that does exactly what it is told, right or wrong.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mb_load::{Failure, File, Kind, Limit, Mode, Pace, Plan, PlanError, Report, start};

/// What the server does about a request head; `false` closes the connection.
type Reaction = dyn Fn(&mut TcpStream, &str) -> bool + Send + Sync;

/// A server on a free port that lives as long as the test.
fn server(reaction: impl Fn(&mut TcpStream, &str) -> bool + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
    let address = listener.local_addr().expect("address");
    let reaction: Arc<Reaction> = Arc::new(reaction);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let reaction = Arc::clone(&reaction);
            thread::spawn(move || converse(stream.expect("connection"), &*reaction));
        }
    });
    address
}

/// Takes the heads one by one, however many come at a time.
fn converse(mut stream: TcpStream, reaction: &Reaction) {
    let (mut received, mut bytes) = (String::new(), [0; 4096]);
    loop {
        while let Some(end) = received.find("\r\n\r\n") {
            let head: String = received.drain(..end + 4).collect();
            if !reaction(&mut stream, &head) {
                return;
            }
        }
        match stream.read(&mut bytes) {
            Ok(count @ 1..) => received.push_str(std::str::from_utf8(&bytes[..count]).expect("ASCII")),
            _ => return,
        }
    }
}

fn send(stream: &mut TcpStream, text: &str) {
    // A client that gave up is part of some tests.
    let _ = stream.write_all(text.as_bytes());
}

/// Sends a last answer and closes. The rest is read, so that the close is no reset.
fn end_with(stream: &mut TcpStream, text: &str) -> bool {
    send(stream, text);
    rustix::net::shutdown(&*stream, rustix::net::Shutdown::Write).expect("half close");
    while matches!(stream.read(&mut [0; 4096]), Ok(1..)) {}
    false
}

fn path(head: &str) -> &str {
    head.split(' ').nth(1).expect("target")
}

fn redirect(base: &str, head: &str, field: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {base}{}\r\n{field}Content-Length: 0\r\n\r\n", &path(head)[1..])
}

/// Answers as a redirector with the mirror http://m/.
fn answer_rightly(stream: &mut TcpStream, head: &str) -> bool {
    let close = head.contains("Connection: close");
    let field = if close { "Connection: close\r\n" } else { "" };
    let whole =
        |status: &str, body: &str| format!("HTTP/1.1 {status}\r\n{field}Content-Length: {}\r\n\r\n{body}", body.len());
    let text = if path(head).contains("there-is-no") {
        whole("404 Not Found", "Not Found")
    } else if head.contains("If-Modified-Since") {
        format!("HTTP/1.1 304 Not Modified\r\n{field}\r\n")
    } else if head.contains("application/json") {
        let file = format!("{{\"Path\":\"{}\"}}", path(head));
        whole("200 OK", &format!("{{\"FileInfo\":{file},\"MirrorList\":[{{\"AbsoluteURL\":\"http://m/\"}}]}}"))
    } else {
        redirect("http://m/", head, field)
    };
    send(stream, &text);
    !close
}

/// A plan for one connection and `requests` requests of two files.
fn plan(target: SocketAddr, requests: u64) -> Plan {
    let mut plan = Plan::new(target, vec![File::new("/a.iso"), File::new("/b/c.deb")]);
    plan.mirrors = vec!["http://m/".to_owned()];
    plan.limit = Limit::Requests(requests);
    plan
}

fn report(plan: Plan) -> Report {
    start(plan).expect("start").wait().expect("report")
}

/// The only kind of failure, and how often it happened.
fn only_failure(report: &Report) -> (Failure, u64) {
    assert_eq!(report.failures.len(), 1, "{report}");
    report.failures.iter().map(|(&failure, &count)| (failure, count)).next().expect("a failure")
}

#[test]
fn right_answers_are_counted_by_kind_in_every_mode() {
    let address = server(answer_rightly);
    for mode in [Mode::KeepAlive, Mode::Pipelined(7), Mode::PerRequest] {
        for pace in [Pace::Closed, Pace::Open(2000.0)] {
            let mut plan = plan(address, 300);
            plan.mix = "get=4,head=1,json=1,range=1,conditional=1,missing=1".parse().expect("mix");
            plan.connections = 5;
            (plan.mode, plan.pace) = (mode, pace);
            let report = report(plan);
            assert_eq!((report.answered(), report.failures()), (300, 0), "{mode:?} {pace:?}: {report}");
            let downloads = report.right_of(Kind::Get) + report.right_of(Kind::Range);
            assert_eq!(report.redirects_by_file.iter().sum::<u64>(), downloads);
            assert_eq!(report.redirects_by_mirror, [downloads]);
            assert_eq!(report.statuses[&404], report.right_of(Kind::Missing));
            assert_eq!(report.latencies.len(), 300);
            if mode == Mode::PerRequest {
                assert_eq!((report.connections, report.closed_announced), (300, 300));
            }
        }
    }
}

#[test]
fn a_request_without_an_answer_is_a_failure_however_the_connection_ends() {
    let closing = server(|_, _| false);
    assert_eq!(only_failure(&report(plan(closing, 20))), (Failure::ClosedUnanswered, 20));

    let halting = server(|stream, _| {
        send(stream, "HTTP/1.1 302 Fou");
        false
    });
    assert_eq!(only_failure(&report(plan(halting, 20))), (Failure::ClosedMidAnswer, 20));

    let resetting = server(|stream, _| {
        rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO)).expect("linger");
        false
    });
    assert_eq!(only_failure(&report(plan(resetting, 20))), (Failure::Reset, 20));

    let silent = server(|_, _| true);
    let mut hasty = plan(silent, 3);
    hasty.timeout = Duration::from_millis(30);
    assert_eq!(only_failure(&report(hasty)), (Failure::Timeout, 3));

    let gone = TcpListener::bind("127.0.0.1:0").expect("listener").local_addr().expect("address");
    assert_eq!(only_failure(&report(plan(gone, 20))), (Failure::Refused, 20));
}

#[test]
fn every_pipelined_request_behind_a_sudden_end_is_a_failure() {
    let address = server(|stream, head| end_with(stream, &redirect("http://m/", head, "")));
    let mut plan = plan(address, 40);
    plan.mode = Mode::Pipelined(10);
    let report = report(plan);
    assert_eq!((report.answered(), only_failure(&report)), (4, (Failure::ClosedUnanswered, 36)));
}

#[test]
fn requests_behind_an_announced_close_are_sent_again() {
    let address = server(|stream, head| end_with(stream, &redirect("http://m/", head, "Connection: close\r\n")));
    let mut plan = plan(address, 40);
    plan.mode = Mode::Pipelined(10);
    let report = report(plan);
    assert_eq!((report.answered(), report.failures(), report.connections), (40, 0, 40), "{report}");
    assert!(report.sent_again >= 9, "{report}");
}

#[test]
fn a_close_between_two_requests_is_no_failure() {
    let address = server(|stream, head| {
        answer_rightly(stream, head);
        false
    });
    let mut plan = plan(address, 4);
    // Half a second for the server to close.
    plan.pace = Pace::Open(2.0);
    let report = report(plan);
    assert_eq!((report.answered(), report.failures(), report.closed_idle), (4, 0, 3), "{report}");
}

#[test]
fn wrong_answers_are_told_apart() {
    let found = |answer: fn(&str) -> String| {
        let address = server(move |stream, head| {
            send(stream, &answer(head));
            true
        });
        let report = report(plan(address, 10));
        assert!(!report.examples.is_empty());
        only_failure(&report)
    };
    assert_eq!(found(|head| redirect("http://other/", head, "")), (Failure::WrongMirror, 10));
    assert_eq!(found(|head| redirect("http://m/x/", head, "")), (Failure::WrongLocation, 10));
    assert_eq!(found(|_| "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into()), (Failure::WrongStatus, 10));
    assert_eq!(found(|_| "HTTP/1.1 302 Found\r\n\r\n".into()), (Failure::Malformed, 10));
    let (failure, _) = found(|head| redirect("http://m/", head, "") + "x");
    assert_eq!(failure, Failure::UnexpectedBytes);
}

/// A server that stops for a moment lets nobody in who came meanwhile. A client that only asks when it was answered sees one
/// slow answer; the requests that were due during the stop were just as slow.
#[test]
fn at_a_fixed_rate_a_stall_counts_for_all_who_were_due() {
    let stalled = std::sync::Once::new();
    let address = server(move |stream, head| {
        stalled.call_once(|| thread::sleep(Duration::from_millis(400)));
        answer_rightly(stream, head)
    });
    let mut plan = plan(address, 50);
    plan.pace = Pace::Open(100.0);
    let report = report(plan);
    assert_eq!((report.answered(), report.failures()), (50, 0), "{report}");
    let slow = report.latencies.count_between(Duration::from_millis(100).as_nanos() as u64, u64::MAX);
    assert!(slow >= 30, "only {slow} of 50 were slow: {report}");
}

/// A machine that is busy when the time is over must not hide the last requests.
#[test]
fn at_a_fixed_rate_all_who_were_due_in_the_time_are_asked_for() {
    let mut plan = plan(server(answer_rightly), 0);
    plan.limit = Limit::Duration(Duration::from_millis(50));
    plan.pace = Pace::Open(20_000.0);
    let report = report(plan);
    assert_eq!((report.answered(), report.failures()), (1_000, 0), "{report}");
}

#[test]
fn requests_that_no_connection_had_time_for_are_failures() {
    let silent = server(|_, _| true);
    let mut plan = plan(silent, 100);
    plan.pace = Pace::Open(1000.0);
    plan.timeout = Duration::from_millis(200);
    let report = report(plan);
    let (timeout, never) = (report.failures[&Failure::Timeout], report.failures[&Failure::NeverSent]);
    assert_eq!((report.answered(), timeout + never), (0, 100), "{report}");
}

#[test]
fn a_run_goes_on_until_it_is_stopped() {
    let mut plan = plan(server(answer_rightly), 0);
    plan.limit = Limit::Stopped;
    let running = start(plan).expect("start");
    while running.answered() < 100 {
        assert!(!running.is_over() && running.failed() == 0);
        thread::yield_now();
    }
    running.stop();
    let report = running.wait().expect("report");
    assert!(report.answered() >= 100 && report.failures() == 0, "{report}");
}

#[test]
fn only_this_machine_is_ever_asked() {
    let elsewhere = plan("192.0.2.1:80".parse().expect("address"), 1);
    assert!(matches!(start(elsewhere), Err(PlanError::NotLoopback(_))));
}

#[test]
fn the_program_reports_and_tells_by_its_status() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let list = folder.path().join("files");
    std::fs::write(&list, "/a.iso\n/b\t404\n").expect("list");
    let run = |address: SocketAddr| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mb-load"));
        command.arg(address.to_string()).arg("--files").arg(&list).args(["--requests", "50", "--json"]);
        command.output().expect("mb-load")
    };
    let output = run(server(|stream, head| {
        let gone = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned();
        send(stream, &if path(head) == "/b" { gone } else { redirect("http://m/", head, "") });
        true
    }));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert_eq!((&report["answered"], &report["failed"]), (&50.into(), &0.into()));

    let output = run(server(answer_rightly));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert_eq!(report["failures"]["wrong_status"], report["kinds"]["get"]["failed"]);
}
