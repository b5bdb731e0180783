//! One client's connection: a state machine over a socket whose calls do not block.
//!
//! Reads and writes go through the shard's buffers; a connection owns memory only for what does not fit into one step: the
//! start of a request whose rest is still to come, and the rest of an answer that the client is slow to take.

use std::io;
use std::os::fd::OwnedFd;
use std::task::Context;
use std::time::Instant;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::deadline::Wait;
use super::poller::{Event, Poller};
use super::question::Pending;
use super::{Core, Progress, Shard, Then};
use crate::handle::Peer;
use crate::http::body::Body;
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
    /// What is still to come of the latest request's body.
    body: Body,
    /// The answer that comes next and is not there yet.
    pending: Option<Pending>,
    /// Answers not yet written, from `written` on.
    output: Vec<u8>,
    written: usize,
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
            body: Body::None,
            pending: None,
            output: Vec::new(),
            written: 0,
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
        for _ in 0..STEPS {
            if !self.flush()? {
                return Ok(Next::Wait);
            }
            if let Some(pending) = &mut self.pending {
                if pending.poll(context, &shard.clock.date(), &mut self.output).is_pending() {
                    return Ok(Next::Wait);
                }
                self.pending = None;
                self.answered = true;
                continue;
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
                        self.input.extend_from_slice(&inbox[..count]);
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
                    Some(count) => self.phase = Phase::Lingering(left - count),
                },
            }
        }
        Ok(Next::Again)
    }

    /// Answers the requests that came to [`Next::Answer`] of it, into `core.output`. `received` is what was read just now, and
    /// the work on it `began` then.
    pub fn answer(&mut self, shard: &Shard, core: &mut Core, received: &[u8], began: Instant) {
        let progress = if received.is_empty() {
            let progress = shard.answer(core, &self.input, began, self.is_all, self.peer, &mut self.body);
            self.input.drain(..progress.consumed);
            if self.input.is_empty() {
                self.input = Vec::new();
            }
            progress
        } else {
            let progress = shard.answer(core, received, began, self.is_all, self.peer, &mut self.body);
            self.input.extend_from_slice(&received[progress.consumed..]);
            progress
        };
        let Progress { more, then, pending, consumed: _ } = progress;
        self.more = more;
        self.pending = pending;
        self.phase = match then {
            Then::Stay => self.phase,
            Then::Finish => Phase::Finishing,
            Then::Close => Phase::Closing,
        };
    }

    /// Writes what can be written of `answers` and keeps the rest.
    ///
    /// # Errors
    /// The client is gone.
    pub fn deliver(&mut self, answers: &[u8]) -> io::Result<Next> {
        if !answers.is_empty() {
            self.answered = true;
            let written = self.send(answers)?;
            self.output.extend_from_slice(&answers[written..]);
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
        let mut written = 0;
        while written < bytes.len() && self.is_writable {
            match retry_on_intr(|| send(&self.socket, &bytes[written..], SendFlags::NOSIGNAL)) {
                Err(Errno::WOULDBLOCK) => self.is_writable = false,
                count => written += count?,
            }
        }
        self.has_written |= written > 0;
        Ok(written)
    }

    /// Writes what was kept; whether nothing is left of it.
    fn flush(&mut self) -> io::Result<bool> {
        if self.has_output() {
            let output = std::mem::take(&mut self.output);
            self.written += self.send(&output[self.written..])?;
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
        self.input.is_empty() && self.body == Body::None
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
        let unfinished = wait == Wait::Request && self.phase == Phase::Serving && !self.input.is_empty();
        if !unfinished || self.body != Body::None {
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
