//! A client that uses one connection at a time, and every way in which one can fail.
//!
//! Requests are taken in batches: one, or as many as are pipelined. A batch ends with each of its requests answered, failed,
//! or kept for the next connection, which is what RFC 9112, section 9.6, tells a client to do with requests behind an answer
//! that announced a close.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::answer::{self, Malformed};
use crate::plan::{Mode, Plan};
use crate::report::{Failure, Report};
use crate::request::{self, Kind};
use crate::run::Progress;
use crate::schedule::{Schedule, Ticket};
use crate::verify::{Mirrors, Wrong, verify};

/// Between two attempts to connect to a server that is not there.
const CONNECT_AGAIN: Duration = Duration::from_millis(1);

/// Room for the answers of one read.
const READ_SIZE: usize = 16 * 1024;

/// What the clients of a run share.
pub(crate) struct Shared {
    pub(crate) plan: Arc<Plan>,
    pub(crate) mirrors: Mirrors,
    pub(crate) schedule: Schedule,
    pub(crate) progress: Arc<Progress>,
    pub(crate) report: RefCell<Report>,
}

/// A client.
pub(crate) struct Client {
    shared: Rc<Shared>,
    stream: Option<TcpStream>,
    /// Requests that no connection has answered yet, the oldest first.
    batch: VecDeque<Ticket>,
    sent: Instant,
    output: Vec<u8>,
    input: Vec<u8>,
}

/// How a connection goes on after an exchange.
enum After {
    Open,
    /// An answer announced the end.
    Announced,
    /// It is of no use any more.
    Broken,
}

impl Client {
    pub(crate) fn new(shared: Rc<Shared>) -> Client {
        let (output, input) = (Vec::new(), Vec::with_capacity(READ_SIZE));
        Client { shared, stream: None, batch: VecDeque::new(), sent: Instant::now(), output, input }
    }

    /// Sends requests until none is left.
    pub(crate) async fn run(mut self) {
        while self.fill().await {
            if self.connect().await {
                match self.exchange().await {
                    After::Open => {}
                    After::Announced => self.await_close().await,
                    After::Broken => self.stream = None,
                }
            }
        }
    }

    /// Takes requests that are due; `false` when the run is over.
    async fn fill(&mut self) -> bool {
        let Client { shared, batch, .. } = self;
        let depth = match shared.plan.mode {
            Mode::KeepAlive | Mode::PerRequest => 1,
            Mode::Pipelined(depth) => depth,
        };
        while batch.len() < depth {
            let ticket = if batch.is_empty() { shared.schedule.next().await } else { shared.schedule.try_next() };
            let Some(ticket) = ticket else { break };
            match ticket.due.map(|due| due.elapsed()) {
                Some(late) if late > shared.plan.timeout => {
                    shared.fail(&ticket, Failure::NeverSent, format_args!("due {late:.1?} ago"));
                }
                _ => batch.push_back(ticket),
            }
        }
        !batch.is_empty()
    }

    /// Makes sure that there is a connection on which nothing was received since its last answer.
    async fn connect(&mut self) -> bool {
        if let Some(stream) = &self.stream {
            match recv(stream, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => return true,
                Ok((_, received)) if received > 0 => {
                    self.shared.disturbed(Failure::UnexpectedBytes, "received without a request");
                }
                // Closed or reset between two requests, as a server may at any time.
                _ => self.shared.report.borrow_mut().closed_idle += 1,
            }
            self.stream = None;
        }
        let error = match timeout(self.shared.plan.timeout, TcpStream::connect(self.shared.plan.target)).await {
            Ok(Ok(stream)) => match stream.set_nodelay(true) {
                Ok(()) => {
                    self.shared.report.borrow_mut().connections += 1;
                    self.stream = Some(stream);
                    return true;
                }
                Err(error) => error,
            },
            Ok(Err(error)) => error,
            Err(_) => io::Error::from(ErrorKind::TimedOut),
        };
        let failure =
            if error.kind() == ErrorKind::ConnectionRefused { Failure::Refused } else { Failure::NotConnected };
        self.fail_all(failure, &error);
        tokio::time::sleep(CONNECT_AGAIN).await;
        false
    }

    /// Sends the batch and reads its answers.
    async fn exchange(&mut self) -> After {
        let Some(stream) = &mut self.stream else { return After::Broken };
        self.output.clear();
        self.input.clear();
        for ticket in &self.batch {
            request::write(&ticket.request, &self.shared.plan, &mut self.output);
        }
        self.sent = Instant::now();
        let limit = self.shared.plan.timeout;
        match timeout(limit, stream.write_all(&self.output)).await {
            // The server may have answered before it closed: what was received is looked at first.
            Ok(_) => {}
            Err(_) => {
                self.fail_all(Failure::Timeout, "while sending");
                return After::Broken;
            }
        }
        loop {
            let Some(stream) = &mut self.stream else { return After::Broken };
            match timeout(limit, stream.read_buf(&mut self.input)).await {
                Ok(Ok(0)) => {
                    let failure =
                        if self.input.is_empty() { Failure::ClosedUnanswered } else { Failure::ClosedMidAnswer };
                    self.fail_all(failure, format_args!("{} requests unanswered", self.batch.len()));
                    return After::Broken;
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    self.fail_all(Failure::Reset, error);
                    return After::Broken;
                }
                Err(_) => {
                    self.fail_all(Failure::Timeout, format_args!("after {} bytes", self.input.len()));
                    return After::Broken;
                }
            }
            if let Some(after) = self.take_answers() {
                return after;
            }
        }
    }

    /// Takes the complete answers out of what was received; `None` while some are still to come.
    fn take_answers(&mut self) -> Option<After> {
        let mut start = 0;
        while let Some(ticket) = self.batch.front().copied() {
            let received = &self.input[start..];
            let answer = match answer::parse(received, ticket.request.kind == Kind::Head) {
                Ok(Some(answer)) => answer,
                Ok(None) => {
                    self.input.drain(..start);
                    return None;
                }
                Err(malformed) => {
                    self.batch.pop_front();
                    self.shared.malformed(&ticket, malformed, received);
                    return Some(self.give_up());
                }
            };
            self.batch.pop_front();
            self.shared.answered(&ticket, self.sent, &answer, received);
            start += answer.len();
            if answer.close || self.shared.plan.mode == Mode::PerRequest {
                if !answer.close {
                    self.shared.disturbed(Failure::NotClosed, "the answer to `Connection: close` does not announce it");
                }
                self.input.drain(..start);
                self.keep_the_rest();
                return Some(After::Announced);
            }
        }
        if start == self.input.len() {
            return Some(After::Open);
        }
        self.shared.disturbed(Failure::UnexpectedBytes, String::from_utf8_lossy(&self.input[start..]));
        Some(After::Broken)
    }

    /// After bytes that are no answer nothing that follows can be read.
    fn give_up(&mut self) -> After {
        self.keep_the_rest();
        After::Broken
    }

    /// What is left of the batch goes to the next connection.
    fn keep_the_rest(&mut self) {
        self.shared.report.borrow_mut().sent_again += self.batch.len() as u64;
    }

    /// Waits for the close that an answer announced. Bytes before it are answers to nothing.
    async fn await_close(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        let shared = &self.shared;
        if self.input.is_empty() {
            match timeout(shared.plan.timeout, stream.read_buf(&mut self.input)).await {
                // A reset loses nothing here: the answer is complete.
                Ok(Ok(0) | Err(_)) => {}
                Ok(Ok(_)) => {}
                Err(_) => return shared.disturbed(Failure::NotClosed, "the connection is still open"),
            }
        }
        if !self.input.is_empty() {
            return shared.disturbed(Failure::UnexpectedBytes, String::from_utf8_lossy(&self.input));
        }
        shared.report.borrow_mut().closed_announced += 1;
    }

    fn fail_all(&mut self, failure: Failure, detail: impl std::fmt::Display) {
        for ticket in self.batch.drain(..) {
            self.shared.fail(&ticket, failure, &detail);
        }
    }
}

impl Shared {
    fn answered(&self, ticket: &Ticket, sent: Instant, answer: &answer::Answer, bytes: &[u8]) {
        let mut report = self.report.borrow_mut();
        *report.statuses.entry(answer.status).or_default() += 1;
        let failure = match verify(&ticket.request, &self.plan, &self.mirrors, answer, bytes) {
            Ok(right) => {
                report.right(&ticket.request, right, ticket.due.unwrap_or(sent).elapsed());
                self.progress.answered.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(Wrong::Status) => Failure::WrongStatus,
            Err(Wrong::Location) => Failure::WrongLocation,
            Err(Wrong::Mirror) => Failure::WrongMirror,
            Err(Wrong::Body) => Failure::WrongBody,
        };
        drop(report);
        let text = String::from_utf8_lossy(&bytes[..answer.len()]);
        self.fail(ticket, failure, text);
    }

    fn malformed(&self, ticket: &Ticket, malformed: Malformed, bytes: &[u8]) {
        self.fail(ticket, Failure::Malformed, format_args!("{malformed}: {}", String::from_utf8_lossy(bytes)));
    }

    fn fail(&self, ticket: &Ticket, failure: Failure, detail: impl std::fmt::Display) {
        self.report.borrow_mut().failed(&ticket.request, failure, &self.plan, detail);
        self.progress.failed.fetch_add(1, Ordering::Relaxed);
    }

    fn disturbed(&self, failure: Failure, detail: impl std::fmt::Display) {
        self.report.borrow_mut().count(failure, detail);
        self.progress.failed.fetch_add(1, Ordering::Relaxed);
    }
}
