//! A shard without a runtime, driven over a socket pair by the fuzz targets (`fuzz/`).

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mb_core::store::EmbeddedStore;
use tokio::sync::mpsc;

use super::acceptor::Accepted;
use super::capacity::Capacity;
use super::pool::Orders;
use super::question::Questions;
use super::rounds::{Outcome, Rounds};
use super::{Senses, Shard};
use crate::handle::Peer;
use crate::http::response::Content;
use crate::metrics::hand_over::exchange;
use crate::pages::{self, Form, Subject};
use crate::snapshot::{Publication, Snapshot};
use crate::stats::{Options, Statistics, file_statistics};

/// More than an input opens.
const CONNECTIONS: usize = 1000;

/// Exchanges between two hand-overs of what was counted, lest that grows.
const TICK: u32 = 1000;
/// Most turns that one exchange may take.
const MOST_TURNS: usize = 100_000;

/// A shard and those that answer what it leaves open.
pub struct Harness {
    rounds: Rounds,
    pages: mpsc::Receiver<pages::Question>,
    counts: mpsc::Receiver<file_statistics::Question>,
    exchanges: u32,
    _statistics: Statistics,
}

/// What a client received.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// All bytes.
    pub bytes: Vec<u8>,
    /// Whether the shard closed its side before the client did.
    pub closed: bool,
}

impl Harness {
    /// A shard that answers from `snapshot`, with its state in `folder`.
    ///
    /// # Errors
    /// The system refused something.
    pub fn new(snapshot: Snapshot, folder: &Path) -> io::Result<Harness> {
        let store = Arc::new(EmbeddedStore::open(folder).map_err(io::Error::other)?);
        let options = Options { state_dir: folder.to_owned(), log: None };
        let statistics = Statistics::start(&options, store)?;
        let (pages_sender, pages) = mpsc::channel(8);
        let (counts_sender, counts) = mpsc::channel(8);
        let questions = Questions { statistics: counts_sender, pages: pages_sender };
        let (reporter, _) = exchange().map_err(io::Error::other)?;
        let publication = Arc::new(Publication::new(snapshot));
        let orders = Arc::new(Orders::new(1));
        let capacity = Arc::new(Capacity::divide(CONNECTIONS, 1));
        let (intake, senses) = (statistics.intake(), Senses::new()?);
        let shard = Shard::new(publication, orders, &intake, questions, reporter, senses, capacity);
        Ok(Harness { rounds: Rounds::new(&shard), pages, counts, exchanges: 0, _statistics: statistics })
    }

    /// Lets time pass: what was counted is handed over, and the date of answers is that of now.
    pub fn tick(&mut self) -> io::Result<()> {
        self.shard().tick();
        while self.rounds.turn(Duration::ZERO)? != Outcome::Idle {}
        Ok(())
    }

    /// Has a client of `peer` send `pieces`, each after the shard has done all it can, and close its side after the last.
    /// What it draws is the same for the same seed.
    ///
    /// # Errors
    /// The system refused something, or the shard has something to do without end.
    pub fn exchange<'p>(
        &mut self,
        peer: Peer,
        seed: u64,
        pieces: impl Iterator<Item = &'p [u8]>,
    ) -> io::Result<Received> {
        self.exchanges += 1;
        if self.exchanges.is_multiple_of(TICK) {
            self.tick()?;
        }
        let shard = self.shard();
        shard.core.borrow_mut().handler.reseed(seed);
        let (ours, mut client) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        client.set_nonblocking(true)?;
        shard.take_on(Accepted { socket: ours.into(), peer });
        let mut received = Received::default();
        for mut piece in pieces {
            while !piece.is_empty() {
                match client.write(piece) {
                    Ok(count) => piece = &piece[count..],
                    // The shard has closed: what is still sent goes nowhere, as with any client.
                    Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => break,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
                self.settle(&mut client, &mut received)?;
            }
        }
        self.settle(&mut client, &mut received)?;
        let closed = received.closed;
        if !closed {
            let _ = client.shutdown(std::net::Shutdown::Write);
            self.settle(&mut client, &mut received)?;
        }
        received.closed = closed;
        drop(client);
        self.settle_unread()?;
        if self.shard().connections.get() != 0 {
            return Err(io::Error::other("a connection outlives its client"));
        }
        Ok(received)
    }

    fn shard(&self) -> Rc<Shard> {
        self.rounds.shard().clone()
    }

    /// Takes turns, reads and answers until nothing happens.
    fn settle(&mut self, client: &mut UnixStream, received: &mut Received) -> io::Result<()> {
        for _ in 0..MOST_TURNS {
            let outcome = self.rounds.turn(Duration::ZERO)?;
            let was_asked = self.answer_questions();
            let has_read = read(client, received)?;
            if outcome == Outcome::Idle && !was_asked && !has_read {
                return Ok(());
            }
        }
        Err(io::Error::other("turns without end"))
    }

    fn settle_unread(&mut self) -> io::Result<()> {
        for _ in 0..MOST_TURNS {
            if self.rounds.turn(Duration::ZERO)? == Outcome::Idle && !self.answer_questions() {
                return Ok(());
            }
        }
        Err(io::Error::other("turns without end"))
    }

    fn answer_questions(&mut self) -> bool {
        let content = |body: Vec<u8>| Content { lines: "Content-Type: text/plain\r\n".to_owned(), body };
        let mut was_asked = false;
        while let Ok(question) = self.pages.try_recv() {
            was_asked = true;
            let is_pretty = question.form == Form::Json { pretty: true };
            let body = match question.subject {
                Subject::MirrorList { document, .. } => document.write(is_pretty),
                Subject::MirrorStatistics { .. } => b"a page".to_vec(),
            };
            let _ = question.answer.send(content(body));
        }
        while let Ok(question) = self.counts.try_recv() {
            was_asked = true;
            let _ = question.answer.send(content(b"counts".to_vec()));
        }
        was_asked
    }
}

/// Reads what there is; whether there was something.
fn read(client: &mut UnixStream, received: &mut Received) -> io::Result<bool> {
    let mut buffer = [0; 16 * 1024];
    let before = received.bytes.len();
    while !received.closed {
        match client.read(&mut buffer) {
            Ok(0) => received.closed = true,
            Ok(count) => received.bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => received.closed = true,
            Err(error) => return Err(error),
        }
    }
    Ok(received.bytes.len() > before)
}
