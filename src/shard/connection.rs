//! One client's connection: a state machine over a socket whose calls do not block.
//!
//! Reads and writes go through the shard's buffers; a connection owns memory only for what does not fit into one step: the
//! start of a request whose rest is still to come, and the rest of an answer that the client is slow to take.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::deadline::Wait;
use super::poller::{Event, Poller};
use super::question::Pending;
use super::{Core, Progress, Shard, Then, fault};
use crate::handle::Peer;
use crate::http::reader::RequestReader;
use crate::http::response::Status;

/// Steps a connection takes before the others of its shard get their turn.
const STEPS: usize = 32;
/// Most bytes that are read and dropped after the last answer, so that the client is not cut off before it has read it.
const LINGER_BYTES: usize = 256 * 1024;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Answering requests.
    Serving,
    /// Writing the last answer; then the write side is closed.
    Finishing,
    /// Writing the last answer; then the connection is over.
    Closing,
    /// Reading what the client still sends, up to this many bytes, until it closes its side.
    Lingering(usize),
}

/// What the poller watches it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    /// Nothing yet.
    Not,
    ForReading,
    ForBoth,
}

/// What a connection comes to in its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It has requests that can be answered: so many bytes of them are in the inbox, or else in a buffer of its own.
    Answer(usize),
    /// It waits.
    Wait,
    /// There is more to do, when the others have had their turn.
    Again,
    /// It is over.
    Over,
}

/// A connection.
pub(super) struct Connection {
    socket: OwnedFd,
    peer: Peer,
    phase: Phase,
    watched: Watched,
    /// There may be something to read, as far as the poller and the latest read told.
    is_readable: bool,
    /// Likewise, room to write.
    is_writable: bool,
    /// The other side has closed: only a read that finds the end tells that all was read.
    has_hung_up: bool,
    /// It is in line for a turn.
    pub is_queued: bool,
    /// It is to be told when an answer from elsewhere has come.
    pub is_asking: bool,
    /// Something was written since the deadline was last set.
    has_written: bool,
    /// A request was answered, so that a silent client is one that keeps its connection for the next.
    answered: bool,
    /// Received and not yet answered.
    input: Vec<u8>,
    /// `input` may hold complete requests.
    more: bool,
    /// The latest read took everything that was received.
    is_all: bool,
    /// Where it is in what it receives.
    reader: RequestReader,
    /// The answer that comes next and is not there yet.
    pending: Option<Pending>,
    /// Answers not yet written, from `written` on.
    output: Vec<u8>,
    written: usize,
    /// What it holds, as it was last told.
    held: Held,
}

/// The memory that a connection holds, and what it does for it.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    bytes: usize,
    /// Since when it holds any, by the shard's clock.
    since: Duration,
    /// Bytes of answers that the client has taken since then.
    taken: u64,
}

impl Connection {
    /// A connection that was accepted just now. Its first request may have come with it: that is found out by reading.
    pub fn new(socket: OwnedFd, peer: Peer) -> Connection {
        Connection {
            socket,
            peer,
            phase: Phase::Serving,
            watched: Watched::Not,
            is_readable: true,
            is_writable: true,
            has_hung_up: false,
            is_queued: false,
            is_asking: false,
            has_written: false,
            answered: false,
            input: Vec::new(),
            more: false,
            is_all: true,
            reader: RequestReader::new(),
            pending: None,
            output: Vec::new(),
            written: 0,
            held: Held::default(),
        }
    }

    /// Takes note of what the poller tells.
    pub fn note(&mut self, event: Event) {
        self.is_readable |= event.readable;
        self.is_writable |= event.writable;
        self.has_hung_up |= event.hung_up;
    }

    /// Has the poller watch for what it waits for; until it has to wait, there is no need.
    pub fn watch(&mut self, poller: &Poller, key: usize) -> io::Result<()> {
        if self.watched == Watched::Not {
            poller.watch(&self.socket, key)?;
            self.watched = Watched::ForReading;
        }
        if self.watched == Watched::ForReading && !self.is_writable {
            poller.watch_writing(&self.socket, key)?;
            self.watched = Watched::ForBoth;
        }
        Ok(())
    }

    /// Does what can be done up to the next request, which is read into `inbox`. An answer from elsewhere that is not there
    /// yet wakes the task of `context`.
    ///
    /// # Errors
    /// The client is gone.
    pub fn advance(&mut self, shard: &Shard, inbox: &mut [u8], context: &mut Context<'_>) -> io::Result<Next> {
        fault::point(fault::Step::Read);
        for _ in 0..STEPS {
            let is_flushed = self.flush()?;
            // An answer from elsewhere is taken over whether or not the client reads, so that it is among what is held.
            if let Some(pending) = &mut self.pending {
                let Poll::Ready((kind, status)) = pending.poll(context, &shard.clock.date(), &mut self.output) else {
                    return Ok(Next::Wait);
                };
                shard.count_offloaded(kind, status);
                self.pending = None;
                self.answered = true;
                continue;
            }
            if !is_flushed {
                return Ok(Next::Wait);
            }
            match self.phase {
                Phase::Serving if self.more => return Ok(Next::Answer(0)),
                Phase::Serving => match self.receive(inbox)? {
                    // Between two requests is the moment to go.
                    None if shard.ends_idle(self.answered) && self.is_between_requests() => {
                        self.phase = Phase::Finishing;
                    }
                    None => return Ok(Next::Wait),
                    Some(0) => return Ok(Next::Over),
                    Some(count) => {
                        self.is_all = count < inbox.len();
                        if self.input.is_empty() {
                            return Ok(Next::Answer(count));
                        }
                        self.input.extend_from_slice(inbox.get(..count).unwrap_or_default());
                        return Ok(Next::Answer(0));
                    }
                },
                Phase::Finishing => {
                    shutdown(&self.socket, Shutdown::Write)?;
                    self.phase = Phase::Lingering(LINGER_BYTES);
                }
                Phase::Closing => return Ok(Next::Over),
                Phase::Lingering(left) => match self.receive(inbox)? {
                    None => return Ok(Next::Wait),
                    Some(count) if count == 0 || count >= left => return Ok(Next::Over),
                    Some(count) => self.phase = Phase::Lingering(left.saturating_sub(count)),
                },
            }
        }
        Ok(Next::Again)
    }

    /// Answers the requests that came to [`Next::Answer`] of it, into `core.output`. `received` is what was read just now, and
    /// the work on it `began` then.
    pub fn answer(&mut self, shard: &Shard, core: &mut Core, received: &[u8], began: Instant) {
        let progress = if received.is_empty() {
            let progress = shard.answer(core, &self.input, began, self.is_all, self.peer, &mut self.reader);
            self.input.drain(..progress.consumed);
            self.input.truncate(progress.kept);
            if self.input.is_empty() {
                self.input = Vec::new();
            }
            progress
        } else {
            let progress = shard.answer(core, received, began, self.is_all, self.peer, &mut self.reader);
            let kept = received.get(progress.consumed..).and_then(|rest| rest.get(..progress.kept));
            self.input.extend_from_slice(kept.unwrap_or_default());
            progress
        };
        let Progress { more, then, pending, consumed: _, kept: _ } = progress;
        self.more = more;
        self.pending = pending;
        self.phase = match then {
            Then::Stay => self.phase,
            Then::Finish => Phase::Finishing,
            Then::Close => Phase::Closing,
        };
    }

    /// Ends the connection after the message that [`Core::recover`] made, since its requests could not be answered. Returns what
    /// it had of them itself.
    pub fn give_up(&mut self) -> Vec<u8> {
        self.phase = Phase::Finishing;
        self.more = false;
        self.pending = None;
        self.reader = RequestReader::new();
        std::mem::take(&mut self.input)
    }

    /// What was received and not answered yet, as far as the connection has it itself.
    pub fn unanswered(&self) -> &[u8] {
        &self.input
    }

    /// Writes what can be written of `answers` and keeps the rest.
    ///
    /// # Errors
    /// The client is gone.
    pub fn deliver(&mut self, answers: &[u8]) -> io::Result<Next> {
        fault::point(fault::Step::Write);
        if !answers.is_empty() {
            self.answered = true;
            let written = self.send(answers)?;
            self.output.extend_from_slice(answers.get(written..).unwrap_or_default());
        }
        Ok(if self.has_output() {
            Next::Wait
        } else if self.pending.is_some() || self.more {
            Next::Again
        } else {
            match self.phase {
                Phase::Closing => Next::Over,
                Phase::Serving if !self.is_readable => Next::Wait,
                _ => Next::Again,
            }
        })
    }

    /// Reads what there is; `None` when there is nothing now, and 0 at the end.
    fn receive(&mut self, inbox: &mut [u8]) -> io::Result<Option<usize>> {
        if !self.is_readable {
            return Ok(None);
        }
        match retry_on_intr(|| recv(&self.socket, &mut *inbox, RecvFlags::empty())) {
            Err(Errno::WOULDBLOCK) => {
                self.is_readable = false;
                Ok(None)
            }
            Err(error) => Err(error.into()),
            Ok((count, _)) => {
                // What did not fill the room was all; the poller tells what comes from now on.
                self.is_readable = count == inbox.len() || self.has_hung_up;
                Ok(Some(count))
            }
        }
    }

    /// Writes what there is room for.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() && self.is_writable {
            match retry_on_intr(|| send(&self.socket, rest, SendFlags::NOSIGNAL)) {
                Err(Errno::WOULDBLOCK) => self.is_writable = false,
                count => rest = rest.get(count?..).unwrap_or_default(),
            }
        }
        let written = bytes.len().saturating_sub(rest.len());
        self.has_written |= written > 0;
        Ok(written)
    }

    /// Writes what was kept; whether nothing is left of it.
    fn flush(&mut self) -> io::Result<bool> {
        if self.has_output() {
            let output = std::mem::take(&mut self.output);
            let written = self.send(output.get(self.written..).unwrap_or_default())?;
            self.written = self.written.saturating_add(written);
            self.held.taken = self.held.taken.saturating_add(written as u64);
            if self.written < output.len() {
                self.output = output;
                return Ok(false);
            }
            self.written = 0;
        }
        Ok(true)
    }

    fn has_output(&self) -> bool {
        self.written < self.output.len()
    }

    fn is_between_requests(&self) -> bool {
        self.input.is_empty()
    }

    /// Tells the memory that it holds now, at `now`, and what it held when this was last called.
    pub fn hold(&mut self, now: Duration) -> (usize, usize) {
        let bytes = self.input.capacity().saturating_add(self.output.capacity());
        let before = std::mem::replace(&mut self.held.bytes, bytes);
        if before == 0 && bytes > 0 {
            self.held = Held { bytes, since: now, taken: 0 };
        }
        (bytes, before)
    }

    /// How much it costs to keep the connection at `now`: bytes held, times how long, for each byte that the client has taken
    /// meanwhile. 0 when it holds none.
    pub fn burden(&self, now: Duration) -> u128 {
        let Held { bytes, since, taken } = self.held;
        let milliseconds = now.saturating_sub(since).as_millis().saturating_add(1);
        // In thousandths, so that clients who read quickly are told apart, too.
        let cost = (bytes as u128).saturating_mul(milliseconds).saturating_mul(1000);
        cost.checked_div(u128::from(taken).saturating_add(1)).unwrap_or(cost)
    }

    /// Has the system drop what it has of the answers, too, when the connection is closed.
    pub fn forgo_answers(&self) {
        // What the system then still sends is its own affair.
        let _ = rustix::net::sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
    }

    /// Whether it waits for an answer from elsewhere.
    pub fn awaits_answer(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether something was written since the last call.
    pub fn take_written(&mut self) -> bool {
        std::mem::take(&mut self.has_written)
    }

    /// What it is waiting for now.
    pub fn wait(&self) -> Wait {
        if self.has_output() {
            Wait::Write
        } else if self.pending.is_some() {
            Wait::Answer
        } else if self.phase != Phase::Serving {
            Wait::Linger
        } else if self.answered && self.is_between_requests() {
            Wait::Idle
        } else {
            Wait::Request
        }
    }

    /// What happens when `wait` took too long; `false` when the connection ends.
    pub fn outlive(&mut self, wait: Wait, shard: &Shard, core: &mut Core) -> bool {
        fault::point(fault::Step::Late);
        if wait != Wait::Request || self.phase != Phase::Serving || self.input.is_empty() {
            return false;
        }
        let began = Instant::now();
        core.reject(Status::RequestTimeout, &shard.clock.date());
        core.reporter.tally.measure(began.elapsed());
        self.output.append(&mut core.output);
        self.phase = Phase::Finishing;
        true
    }
}
