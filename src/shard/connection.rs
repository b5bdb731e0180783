//! One client's connection: a state machine over any stream, polled by whatever runtime the shard runs on.
//!
//! Reads and writes go through the shard's buffers; a connection owns memory only for what does not fit into one step: the
//! start of a request whose rest is still to come, and the rest of an answer that the client is slow to take.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_io::{AsyncRead, AsyncWrite};

use super::deadline::{Slot, Wait};
use super::question::Pending;
use super::{Progress, Shard, Then};
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

/// A connection.
pub struct Connection<S> {
    stream: S,
    peer: Peer,
    phase: Phase,
    /// Whether a request was answered, so that a silent client is one that keeps its connection for the next.
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
    slot: Slot,
}

/// Serves `stream` until it is closed. It counts as a connection of the shard from this call on, not only when it is polled.
pub fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: Peer,
    shard: Rc<Shard>,
) -> impl Future<Output = ()> + use<S> {
    let slot = shard.deadlines.borrow_mut().add(shard.clock.now());
    shard.connections.set(shard.connections.get() + 1);
    shard.note_accepted();
    let connection = Connection {
        stream,
        peer,
        phase: Phase::Serving,
        answered: false,
        input: Vec::new(),
        more: false,
        is_all: true,
        body: Body::None,
        pending: None,
        output: Vec::new(),
        written: 0,
        slot,
    };
    run(connection, shard)
}

async fn run<S: AsyncRead + AsyncWrite + Unpin>(mut connection: Connection<S>, shard: Rc<Shard>) {
    // An error means that the client is gone; there is nobody left to tell.
    let _ = poll_fn(|context| connection.poll(context, &shard)).await;
    shard.deadlines.borrow_mut().remove(connection.slot);
    shard.connections.set(shard.connections.get() - 1);
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn poll(&mut self, context: &mut Context<'_>, shard: &Shard) -> Poll<io::Result<()>> {
        let expired = shard.deadlines.borrow().expired(self.slot, shard.clock.now());
        if let Some(wait) = expired
            && !self.outlive(wait, shard)
        {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..STEPS {
            let step = self.step(context, shard);
            match step {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    let wait = self.wait();
                    shard.deadlines.borrow_mut().continue_wait(self.slot, wait, shard.clock.now(), context.waker());
                    return Poll::Pending;
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Does one thing. Ready with `false` when the connection is over.
    fn step(&mut self, context: &mut Context<'_>, shard: &Shard) -> Poll<io::Result<bool>> {
        if self.written < self.output.len() {
            ready!(self.poll_flush(context, shard))?;
        }
        if let Some(pending) = &mut self.pending {
            ready!(pending.poll(context, &shard.clock.date(), &mut self.output));
            self.pending = None;
            return Poll::Ready(Ok(true));
        }
        match self.phase {
            Phase::Serving if self.more => self.answer_buffered(context, shard),
            Phase::Serving => self.poll_request(context, shard),
            Phase::Finishing => {
                ready!(Pin::new(&mut self.stream).poll_close(context))?;
                self.phase = Phase::Lingering(LINGER_BYTES);
                Poll::Ready(Ok(true))
            }
            Phase::Closing => Poll::Ready(Ok(false)),
            Phase::Lingering(left) => {
                let mut core = shard.core.borrow_mut();
                let count = ready!(Pin::new(&mut self.stream).poll_read(context, &mut core.input))?;
                self.phase = Phase::Lingering(left.saturating_sub(count));
                Poll::Ready(Ok(count > 0 && left > count))
            }
        }
    }

    fn poll_request(&mut self, context: &mut Context<'_>, shard: &Shard) -> Poll<io::Result<bool>> {
        let core = &mut *shard.core.borrow_mut();
        let count = match Pin::new(&mut self.stream).poll_read(context, &mut core.input) {
            Poll::Ready(count) => count?,
            // Between two requests is the moment to go.
            Poll::Pending if shard.ends_idle(self.answered) && self.input.is_empty() && self.body == Body::None => {
                self.phase = Phase::Finishing;
                return Poll::Ready(Ok(true));
            }
            Poll::Pending => return Poll::Pending,
        };
        if count == 0 {
            return Poll::Ready(Ok(false));
        }
        self.is_all = count < core.input.len();
        if self.input.is_empty() {
            let began = Instant::now();
            let received = std::mem::take(&mut core.input);
            let progress = shard.answer(core, &received[..count], began, self.is_all, self.peer, &mut self.body);
            self.input.extend_from_slice(&received[progress.consumed..count]);
            core.input = received;
            self.after(progress);
            return self.poll_write_answers(context, shard, core, began);
        }
        self.input.extend_from_slice(&core.input[..count]);
        self.more = true;
        Poll::Ready(Ok(true))
    }

    fn answer_buffered(&mut self, context: &mut Context<'_>, shard: &Shard) -> Poll<io::Result<bool>> {
        let began = Instant::now();
        let core = &mut *shard.core.borrow_mut();
        let progress = shard.answer(core, &self.input, began, self.is_all, self.peer, &mut self.body);
        self.input.drain(..progress.consumed);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        self.after(progress);
        self.poll_write_answers(context, shard, core, began)
    }

    fn after(&mut self, progress: Progress) {
        self.more = progress.more;
        self.pending = progress.pending;
        self.phase = match progress.then {
            Then::Stay => self.phase,
            Then::Finish => Phase::Finishing,
            Then::Close => Phase::Closing,
        };
    }

    /// Writes what can be written of `core.output` and keeps the rest. The requests were read when the work `began`.
    fn poll_write_answers(
        &mut self,
        context: &mut Context<'_>,
        shard: &Shard,
        core: &mut super::Core,
        began: Instant,
    ) -> Poll<io::Result<bool>> {
        let mut written = 0;
        let mut failed = None;
        if !core.output.is_empty() {
            self.answered = true;
            let now = shard.clock.now();
            while written < core.output.len() {
                match Pin::new(&mut self.stream).poll_write(context, &core.output[written..]) {
                    Poll::Ready(Ok(count)) => written += count,
                    Poll::Ready(Err(error)) => {
                        failed = Some(error);
                        break;
                    }
                    Poll::Pending => {
                        self.output.extend_from_slice(&core.output[written..]);
                        break;
                    }
                }
            }
            core.reset_output();
            let wait = self.wait();
            shard.deadlines.borrow_mut().restart(self.slot, wait, now);
        }
        core.reporter.tally.measure(began.elapsed());
        failed.map_or(Poll::Ready(Ok(true)), |error| Poll::Ready(Err(error)))
    }

    fn poll_flush(&mut self, context: &mut Context<'_>, shard: &Shard) -> Poll<io::Result<()>> {
        while self.written < self.output.len() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(context, &self.output[self.written..]))?;
            self.written += count;
            shard.deadlines.borrow_mut().restart(self.slot, Wait::Write, shard.clock.now());
        }
        self.output = Vec::new();
        self.written = 0;
        let wait = self.wait();
        shard.deadlines.borrow_mut().restart(self.slot, wait, shard.clock.now());
        Poll::Ready(Ok(()))
    }

    /// What the connection is waiting for now.
    fn wait(&self) -> Wait {
        if self.written < self.output.len() {
            Wait::Write
        } else if self.pending.is_some() {
            Wait::Answer
        } else if self.phase != Phase::Serving {
            Wait::Linger
        } else if self.answered && self.input.is_empty() && self.body == Body::None {
            Wait::Idle
        } else {
            Wait::Request
        }
    }

    /// What happens when `wait` took too long; `false` when the connection ends.
    fn outlive(&mut self, wait: Wait, shard: &Shard) -> bool {
        let unfinished = wait == Wait::Request && self.phase == Phase::Serving && !self.input.is_empty();
        if !unfinished || self.body != Body::None {
            return false;
        }
        let core = &mut *shard.core.borrow_mut();
        let began = Instant::now();
        core.reject(Status::RequestTimeout, &shard.clock.date());
        core.reporter.tally.measure(began.elapsed());
        self.output.append(&mut core.output);
        self.phase = Phase::Finishing;
        shard.deadlines.borrow_mut().restart(self.slot, Wait::Write, shard.clock.now());
        true
    }
}
