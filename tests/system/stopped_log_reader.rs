//! A log whose reader is there and does not read: the daemon serves, obeys and ends.
//!
//! Every thread that logged once waited for the reader, shards and the control loop included.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;

use crate::harness::eventually;
use crate::harness::metrics::scrape;
use crate::harness::program::{Program, make_fifo};
use crate::harness::redirector::Redirector;

/// Five seconds for requests under way, and as much again for a busy machine.
const END_TIME: Duration = Duration::from_secs(10);

fn pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = std::io::pipe().expect("pipe");
    (reader.into(), writer.into())
}

/// Writes into a pipe until it takes no more.
fn fill(writer: &OwnedFd) {
    let flags = rustix::fs::fcntl_getfl(writer).expect("flags");
    rustix::fs::fcntl_setfl(writer, flags | OFlags::NONBLOCK).expect("flags");
    let mut pipe = File::from(writer.try_clone().expect("descriptor"));
    let line = [b'\n'; 4096];
    while pipe.write(&line).is_ok() {}
    while pipe.write(b"\n").is_ok() {}
    // The flag belongs to the pipe's end, which the daemon shares.
    rustix::fs::fcntl_setfl(writer, flags).expect("flags");
}

/// Starts a daemon whose standard error is `writer`.
fn start(redirector: &Redirector, command: &mut Command, writer: &OwnedFd) -> Program {
    let error = writer.try_clone().expect("descriptor");
    Program::start_with_error("mirrorbits", command, redirector.folder(), error.into())
}

fn answers(redirector: &Redirector) {
    for _ in 0..20 {
        assert_eq!(redirector.get("/file.iso", &[]).status, 302);
    }
}

#[test]
fn a_reader_that_stops_holds_nothing_up_and_is_told_what_it_missed() {
    let mut redirector = Redirector::new();
    redirector.with_metrics().set("Fallbacks", "[{URL: 'http://fallback.example/'}]");
    fs::write(redirector.repository().join("file.iso"), "content").expect("file");
    let path = redirector.folder().join("notify.sock");
    let told = UnixDatagram::bind(&path).expect("notification socket");
    told.set_read_timeout(Some(Duration::from_secs(20))).expect("limit");
    let (reader, writer) = pipe();
    let mut command = redirector.daemon_command();
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000000");
    command.env("RUST_LOG", "trace");
    let mut daemon = start(&redirector, &mut command, &writer);
    eventually("the daemon's listeners", || {
        let connect = |address| std::net::TcpStream::connect(address).map_err(|error| error.to_string());
        connect(redirector.address()).and_then(|_| connect(redirector.rpc_address()))
    });
    redirector.scan_repository();
    redirector.wait_until_served("/file.iso");
    fill(&writer);

    // Every call is many lines at this level, and a reload logs from the control loop itself.
    eventually("lines are dropped", || {
        daemon.signal(Signal::HUP);
        redirector.mirrorbits(&["list"]);
        answers(&redirector);
        let dropped = scrape(&redirector).value("mirrorbits_log_dropped_lines_total");
        if dropped > Some(0.0) { Ok(()) } else { Err(format!("{dropped:?}")) }
    });
    let busy = scrape(&redirector).value("mirrorbits_part_busy_seconds{part=\"log\"}");
    assert!(busy > Some(0.0), "the thread that waits for the reader is visible: {busy:?}");
    let mut message = [0; 4096];
    let mut pings = 0;
    while pings < 4 {
        let length = told.recv(&mut message).expect("a message for systemd");
        pings += u32::from(String::from_utf8_lossy(&message[..length]).contains("WATCHDOG=1"));
    }
    answers(&redirector);

    // The reader goes on: it is told that lines are missing, and gets all that follow.
    let mut reader = File::from(reader);
    // Only the daemon has the other end from now on.
    drop((writer, command));
    let log = redirector.folder().join("read.log");
    let mut copy = File::create(&log).expect("file");
    let reading = std::thread::spawn(move || std::io::copy(&mut reader, &mut copy));
    eventually("the dropped lines are told", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        if text.contains("lines of the log were dropped") { Ok(()) } else { Err(text) }
    });
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    reading.join().expect("reader").expect("log");
    let text = fs::read_to_string(&log).expect("log");
    assert!(text.contains("INFO ended"), "{text}");
}

#[test]
fn sigterm_ends_a_daemon_whose_log_is_not_read() {
    for is_file in [false, true] {
        let redirector = Redirector::new();
        let fifo = redirector.folder().join("log.fifo");
        let mut command = redirector.daemon_command();
        let (reader, writer) = if is_file {
            make_fifo(&fifo);
            command.arg("-log").arg(&fifo);
            let both = rustix::fs::open(&fifo, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).expect("FIFO");
            (both.try_clone().expect("descriptor"), both)
        } else {
            pipe()
        };
        fill(&writer);
        let mut daemon = start(&redirector, &mut command, &writer);
        eventually("an answer", || {
            let mut stream = std::net::TcpStream::connect(redirector.address()).map_err(|e| e.to_string())?;
            stream.write_all(b"GET /a HTTP/1.0\r\n\r\n").map_err(|e| e.to_string())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map_err(|e| e.to_string())?;
            // There is no index yet.
            if answer.starts_with("HTTP/1.1 503") { Ok(()) } else { Err(answer) }
        });
        let begun = Instant::now();
        daemon.signal(Signal::TERM);
        assert!(daemon.wait().success());
        assert!(begun.elapsed() < END_TIME, "{:?}", begun.elapsed());
        drop(reader);
    }
}

/// The message of an error at start is printed, and not waited for without end.
#[test]
fn a_daemon_that_cannot_start_ends_although_its_message_is_not_read() {
    let mut redirector = Redirector::new();
    redirector.set("Shards", "many");
    let (reader, writer) = pipe();
    fill(&writer);
    let mut command = redirector.daemon_command();
    let mut daemon = start(&redirector, &mut command, &writer);
    assert_eq!(daemon.wait().code(), Some(1));
    drop(reader);
}
