//! A shard without a runtime, and its clients at the other ends of socket pairs.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use futures_lite::future::{block_on, poll_once};
use mb_core::config;
use mb_core::geo::GeoDatabase;
use mb_core::store::EmbeddedStore;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::handle::{Peer, Settings};
use crate::http::response::Content;
use crate::metrics::hand_over::exchange;
use crate::pages;
use crate::shard::acceptor::Accepted;
use crate::shard::fault::{self, Step};
use crate::shard::poller::Door;
use crate::shard::pool::{Orders, Stage};
use crate::shard::question::Questions;
use crate::shard::{FIRST_REQUEST_GRACE, Senses};
use crate::snapshot::{Publication, Snapshot};
use crate::stats::{Options, Statistics};

const AT_ONCE: Duration = Duration::ZERO;
/// Answered by a shard alone: there are no files, and no fallbacks.
const REQUEST: &str = "GET /file.iso HTTP/1.1\r\nHost: example.org\r\n\r\n";
/// Answered by somebody else.
const QUESTION: &str = "GET /?mirrorstats HTTP/1.1\r\nHost: example.org\r\n\r\n";

struct Table {
    orders: Arc<Orders>,
    pages: mpsc::Receiver<pages::Question>,
    rounds: Rounds,
    _statistics: Statistics,
    _folder: TempDir,
}

impl Table {
    fn new() -> Table {
        Table::with("")
    }

    /// With these lines in the configuration.
    fn with(lines: &str) -> Table {
        let folder = tempfile::tempdir().unwrap();
        let (geo, _) = GeoDatabase::load(folder.path());
        let config = config::parse(&format!("Repository: /srv\n{lines}"), Path::new("test.conf")).unwrap().config;
        let settings = Arc::new(Settings::from(&config));
        let publication = Publication::new(Snapshot::new(settings, None, Arc::default(), Arc::new(geo)));
        let store = Arc::new(EmbeddedStore::open(folder.path()).unwrap());
        let options = Options { state_dir: folder.path().to_owned(), log: None };
        let statistics = Statistics::start(&options, store).unwrap();
        let orders = Arc::new(Orders::new(1));
        let (asked, pages) = mpsc::channel(8);
        let questions = Questions { statistics: mpsc::channel(1).0, pages: asked };
        let (reporter, _) = exchange().unwrap();
        let senses = Senses::new().unwrap();
        let shard =
            Shard::new(Arc::new(publication), orders.clone(), &statistics.intake(), questions, reporter, senses);
        Table { orders, pages, rounds: Rounds::new(&shard), _statistics: statistics, _folder: folder }
    }

    fn shard(&self) -> &Rc<Shard> {
        &self.rounds.shard
    }

    fn connections(&self) -> usize {
        self.shard().connections.get()
    }

    /// A client whose connection is accepted.
    fn client(&self) -> Client {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        self.shard().take_on(Accepted { socket: ours.into(), peer: Peer::Local });
        Client { stream: theirs, received: String::new() }
    }

    /// A client whose connection is waited on.
    fn waiting_client(&mut self) -> Client {
        let client = self.client();
        assert_eq!(self.turn(), Outcome::Served);
        client
    }

    fn turn(&mut self) -> Outcome {
        self.rounds.turn(AT_ONCE).unwrap()
    }

    /// Takes turns until there is nothing to do.
    fn settle(&mut self) {
        let busy = (0..10_000).take_while(|_| self.turn() != Outcome::Idle).count();
        assert!(busy < 10_000, "turns without end");
    }

    /// What a shard does as time goes by.
    fn tick(&mut self) {
        self.shard().tick();
        self.settle();
    }

    /// Lets the next answer from elsewhere be given.
    fn answer(&mut self, body: &str) {
        let question = self.pages.try_recv().expect("a question");
        question.answer.send(Content { lines: "X: y\r\n".to_owned(), body: body.into() }).expect("somebody who waits");
        self.settle();
    }
}

struct Client {
    stream: UnixStream,
    received: String,
}

impl Client {
    fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// Takes what has come; whether that was all.
    fn receive(&mut self) -> bool {
        let mut buffer = [0; 65_536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(count) => self.received.push_str(std::str::from_utf8(&buffer[..count]).unwrap()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                // It was closed before all that this client sent was read.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return true,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The codes of the answers that have come.
    fn codes(&mut self) -> Vec<&str> {
        self.receive();
        self.received.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect()
    }

    fn is_closed(&mut self) -> bool {
        self.receive()
    }
}

#[test]
fn everybody_is_answered_in_one_turn() {
    let mut table = Table::new();
    let mut clients: Vec<_> = (0..ROUND + 10).map(|_| table.client()).collect();
    clients.iter_mut().for_each(|client| client.send(REQUEST));
    assert_eq!(table.turn(), Outcome::Served);
    assert!(clients.iter_mut().all(|client| client.codes() == ["503"]));
    assert_eq!(table.turn(), Outcome::Idle);
    clients.iter_mut().for_each(|client| client.send(REQUEST));
    assert_eq!(table.turn(), Outcome::Served, "they are kept, and watched");
    assert!(clients.iter_mut().all(|client| client.codes() == ["503"; 2]));
    assert_eq!(table.connections(), clients.len());
    drop(clients);
    table.settle();
    assert_eq!(table.connections(), 0);
}

#[test]
fn a_request_may_come_late_and_in_pieces() {
    let mut table = Table::new();
    let mut client = table.waiting_client();
    for piece in [&REQUEST[..3], &REQUEST[3..20], &REQUEST[20..]] {
        assert_eq!(client.codes(), [""; 0]);
        client.send(piece);
        table.settle();
    }
    assert_eq!(client.codes(), ["503"]);
    client.send(&format!("{REQUEST}{REQUEST}{}", &REQUEST[..10]));
    table.settle();
    client.send(&REQUEST[10..]);
    table.settle();
    assert_eq!(client.codes(), ["503"; 4]);
}

#[test]
fn a_client_that_sends_no_more_gets_its_answers() {
    let mut table = Table::new();
    let mut clients = [table.client(), table.waiting_client()];
    for client in &mut clients {
        client.send(&REQUEST.repeat(2));
        client.stream.shutdown(Shutdown::Write).unwrap();
    }
    table.settle();
    for client in &mut clients {
        assert_eq!(client.codes(), ["503"; 2]);
        assert!(client.is_closed());
    }
    assert_eq!(table.connections(), 0);
}

#[test]
fn a_connection_ends_when_the_client_asks_for_that() {
    let mut table = Table::new();
    let mut client = table.client();
    client.send("GET /file.iso HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n");
    assert_eq!(table.turn(), Outcome::Served);
    assert_eq!((client.codes(), table.connections()), (vec!["503"], 0));
    assert!(client.is_closed());
}

#[test]
fn a_refused_client_may_read_why() {
    let mut table = Table::new();
    let mut client = table.client();
    client.send("nonsense\r\n\r\n");
    client.send(&"more of it ".repeat(1000));
    table.settle();
    assert_eq!(client.codes(), ["400"]);
    assert!(client.is_closed());
    assert_eq!(table.connections(), 1, "what is still sent is read");
    drop(client);
    table.settle();
    assert_eq!(table.connections(), 0);
}

#[test]
fn a_client_that_is_slow_to_read_gets_everything() {
    const REQUESTS: usize = 5_000;
    let mut table = Table::new();
    let mut client = table.waiting_client();
    let requests = REQUEST.repeat(REQUESTS).into_bytes();
    let mut sent = 0;
    while sent < requests.len() {
        match client.stream.write(&requests[sent..]) {
            Ok(count) => sent += count,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        table.settle();
        if sent < requests.len() && table.rounds.connections[0].wait() == Wait::Write {
            assert!(!client.is_closed());
        }
    }
    while client.codes().len() < REQUESTS {
        table.settle();
    }
    assert!(client.codes().iter().all(|code| *code == "503"));
    assert_eq!(table.rounds.connections[0].wait(), Wait::Idle);
}

#[test]
fn an_answer_from_elsewhere_is_waited_for() {
    let mut table = Table::new();
    let [mut first, mut second] = [table.client(), table.client()];
    first.send(&format!("{REQUEST}{QUESTION}{REQUEST}"));
    second.send(&QUESTION.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
    table.settle();
    assert_eq!((first.codes(), second.codes()), (vec!["503"], vec![]));
    first.send(REQUEST);
    table.settle();
    assert_eq!(first.codes(), ["503"], "those behind it wait, too");
    table.answer("one");
    assert_eq!(first.codes(), ["503", "200", "503", "503"]);
    assert!(!second.is_closed());
    table.answer("two");
    assert_eq!(second.codes(), ["200"]);
    assert!(second.is_closed() && second.received.ends_with("two"));
    // What nobody answers is not left open.
    first.send(QUESTION);
    table.settle();
    drop(table.pages.try_recv().unwrap());
    table.settle();
    assert_eq!(first.codes().last(), Some(&"503"));
}

#[test]
fn who_leaves_while_waiting_for_an_answer_is_forgotten() {
    let mut table = Table::new();
    let mut client = table.client();
    client.send(QUESTION);
    table.settle();
    drop(client);
    table.settle();
    let mut next = table.waiting_client();
    let question = table.pages.try_recv().unwrap();
    let _ = question.answer.send(Content { lines: "X: y\r\n".to_owned(), body: Vec::new() });
    table.settle();
    next.send(REQUEST);
    table.settle();
    assert_eq!(next.codes(), ["503"], "and no other client gets it");
}

#[test]
fn a_draining_shard_ends_connections_between_requests() {
    let mut table = Table::new();
    let [mut served, mut silent, mut halfway, mut asking] = std::array::from_fn(|_| table.client());
    served.send(REQUEST);
    halfway.send(&REQUEST[..10]);
    asking.send(QUESTION);
    table.settle();
    table.orders.advance(Stage::Draining);
    table.tick();
    assert!(served.is_closed());
    assert!(!silent.is_closed() && !halfway.is_closed() && !asking.is_closed());
    halfway.send(&REQUEST[10..]);
    table.answer("page");
    table.tick();
    assert!(halfway.is_closed() && asking.is_closed());
    assert_eq!((halfway.codes(), asking.codes()), (vec!["503"], vec!["200"]));
    std::thread::sleep(FIRST_REQUEST_GRACE);
    table.tick();
    assert!(silent.is_closed());
    drop((served, silent, halfway, asking));
    table.settle();
    assert_eq!(table.connections(), 0);
}

#[test]
fn connections_that_have_come_to_a_door_are_accepted() {
    let mut table = Table::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let mut early = TcpStream::connect(address).unwrap();
    let socket = Arc::new(listener.into());
    let door = Door::open(table.shard(), &socket).unwrap();
    let mut late = TcpStream::connect(address).unwrap();
    for stream in [&mut early, &mut late] {
        stream.write_all(REQUEST.as_bytes()).unwrap();
    }
    table.settle();
    assert_eq!(table.connections(), 2);
    for stream in [&mut early, &mut late] {
        let mut code = [0; 12];
        stream.read_exact(&mut code).unwrap();
        assert_eq!(&code, b"HTTP/1.1 503");
    }
    assert!(block_on(poll_once(door.failed())).is_none());
    drop(door);
    let _left = TcpStream::connect(address).unwrap();
    table.settle();
    assert_eq!(table.connections(), 2, "a closed door leaves them to others");
    let door = Door::open(table.shard(), &socket).unwrap();
    table.settle();
    assert_eq!(table.connections(), 3, "and one that is opened again finds them");
    drop(door);
}

#[test]
fn a_door_tells_why_nobody_can_be_accepted() {
    let mut table = Table::new();
    // As a listening socket it is none: a connected one cannot be accepted from, and is readable at once.
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"x").unwrap();
    let door = Door::open(table.shard(), &Arc::new(std::os::fd::OwnedFd::from(ours).into())).unwrap();
    table.settle();
    let failure = block_on(poll_once(door.failed())).expect("a failure");
    assert_eq!(failure.raw_os_error(), Some(rustix::io::Errno::INVAL.raw_os_error()));
    assert_eq!(table.turn(), Outcome::Idle, "until it is opened anew");
}

#[test]
fn a_nudge_from_another_thread_ends_a_wait() {
    let mut table = Table::new();
    let bell = table.shard().bell.clone();
    let waking = std::thread::spawn(move || Waker::from(bell).wake());
    assert_eq!(table.rounds.turn(Duration::from_secs(60)).unwrap(), Outcome::Idle);
    waking.join().unwrap();
    assert!(table.rounds.take_nudge() && !table.rounds.take_nudge());
}

/// One request that panicked while it was parsed ended the whole program. A panic at any step costs its connection, is counted, and
/// the others, among them those of the same round, get their answers.
#[test]
fn a_panic_costs_one_connection() {
    for (step, codes) in [(Step::Read, [""; 0].as_slice()), (Step::Answer, &["503", "500"]), (Step::Write, &[])] {
        let mut table = Table::new();
        let mut clients: Vec<_> = (0..5).map(|_| table.waiting_client()).collect();
        clients.iter_mut().for_each(|client| client.send(&REQUEST.repeat(3)));
        // Of the third connection: the second of its requests, or the connection itself.
        fault::after(if step == Step::Answer { 7 } else { 2 }, step);
        table.settle();
        for (number, client) in clients.iter_mut().enumerate() {
            let expected = if number == 2 { codes } else { &["503"; 3] };
            assert_eq!(client.codes(), expected, "{step:?}, client {number}");
            assert_eq!(client.is_closed(), number == 2, "{step:?}, client {number}");
        }
        let failed = clients.remove(2);
        drop(failed);
        table.settle();
        assert_eq!((table.connections(), table.rounds.held), (4, 0));
        let core = table.shard().core.borrow();
        assert_eq!((core.reporter.tally.panics, core.output.len()), (1, 0));
        drop(core);
        clients.iter_mut().for_each(|client| client.send(REQUEST));
        table.settle();
        assert!(clients.iter_mut().all(|client| client.codes() == ["503"; 4]));
    }
}

#[test]
fn a_panic_at_a_deadline_costs_one_connection() {
    let mut table = Table::new();
    let [mut late, mut other] = std::array::from_fn(|_| table.waiting_client());
    late.send(&REQUEST[..10]);
    table.settle();
    fault::after(0, Step::Late);
    table.rounds.end(0, Wait::Request);
    assert!(late.is_closed() && late.received.is_empty());
    other.send(REQUEST);
    table.settle();
    assert_eq!((other.codes(), table.connections()), (vec!["503"], 1));
    assert_eq!(table.shard().core.borrow().reporter.tally.panics, 1);
}

#[test]
fn a_body_is_dropped_as_it_arrives_and_its_request_answered_when_it_is_complete() {
    let mut table = Table::new();
    let mut client = table.waiting_client();
    client.send("POST /x HTTP/1.1\r\nHost: example.org\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..60 {
        client.send(&format!("400\r\n{}\r\n", "x".repeat(1024)));
        table.settle();
        assert!(table.rounds.held < 4096, "{}", table.rounds.held);
    }
    assert_eq!(client.codes(), [""; 0]);
    client.send(&format!("0\r\n\r\n{REQUEST}"));
    table.settle();
    assert_eq!((client.codes(), table.rounds.held), (vec!["405", "503"], 0));
    // A bad body makes the request a bad one, of which nothing else is answered.
    client.send(&format!("GET /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\naX{REQUEST}"));
    table.settle();
    assert_eq!(client.codes(), ["405", "503", "400"]);
    assert!(client.is_closed());
}

/// Thousands of clients that never read took a gigabyte.
#[test]
fn clients_that_do_not_read_are_closed_when_all_hold_too_much() {
    let mut table = Table::with("ConnectionBuffersPerShard: 1MiB");
    let mut reading = table.waiting_client();
    let mut held = 0;
    let mut clients: Vec<_> = (0..200).map(|_| table.waiting_client()).collect();
    for turn in 0..20 {
        for client in &mut clients {
            let _ = client.stream.write(REQUEST.repeat(2000).as_bytes());
        }
        reading.send(REQUEST);
        table.settle();
        held = table.rounds.held.max(held);
        assert_eq!(reading.codes(), vec!["503"; turn + 1]);
        table.shard().clock.refresh();
    }
    assert!(held <= 1 << 20, "{held}");
    let closed = table.shard().core.borrow().reporter.tally.closed_for_memory;
    assert!(closed > 0, "{held}");
    assert_eq!(table.connections() as u64, 201 - closed);
    drop(clients);
    table.settle();
    assert_eq!((table.connections(), table.rounds.held), (1, 0));
}

#[test]
fn those_are_closed_first_that_hold_most_for_longest_and_take_least() {
    let mut table = Table::with("ConnectionBuffersPerShard: 1MiB");
    let [mut partial, mut stuck, mut slow] = std::array::from_fn(|_| table.waiting_client());
    partial.send(&REQUEST[..20]);
    for client in [&mut stuck, &mut slow] {
        let _ = client.stream.write(REQUEST.repeat(4000).as_bytes());
    }
    table.settle();
    let before = table.rounds.held;
    assert!(before > 1000, "{before}");
    slow.codes();
    table.settle();
    let _ = slow.stream.write(REQUEST.repeat(4000).as_bytes());
    table.settle();
    let now = table.shard().clock.now() + Duration::from_secs(1);
    let burden = |key: usize| table.rounds.connections[key].burden(now);
    assert!(burden(0) > 0 && burden(1) > burden(0) && burden(1) > 100 * burden(2), "{:?}", [0, 1, 2].map(burden));
}
