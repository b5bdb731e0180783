//! Shards: each accepts connections from a listener of its own and answers them on one core, sharing nothing that
//! another core writes.
//!
//! - [`listener`]: how listening sockets are made
//! - [`front`]: those of one address, spread over the shards
//! - [`gate`]: whether they accept, ordered and acknowledged
//! - `acceptor`: accepting as they order
//! - [`capacity`]: how many connections it may hold
//! - `poller`: what a shard waits on
//! - `rounds`: all connections, served in turn
//! - `connection`: one client's requests and answers
//! - [`question`]: an answer that a connection waits for
//! - `deadline`: connections that take too long
//! - `fault`: panics that tests bring about
//! - [`clock`]: the time, as far as answers show it
//! - [`rt`]: the runtimes that shards run on
//! - [`pool`]: all shards, as the control thread sees them

mod acceptor;
mod bell;
pub mod capacity;
pub mod clock;
mod connection;
mod deadline;
mod fault;
pub mod front;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod gate;
pub mod listener;
mod poller;
pub mod pool;
pub mod question;
mod rounds;
pub mod rt;
mod signal;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::handle::outcome::{Kind, Outcome};
use crate::handle::{Handler, Peer};
use crate::http::reader::{Received, RequestReader};
use crate::http::request::{Method, Persistence};
use crate::http::response::{self, Envelope, Status};
use crate::metrics::hand_over::Reporter;
use crate::snapshot::Publication;
use crate::stats::Intake;
use crate::stats::recorder::Recorder;
use acceptor::Accepted;
use bell::Bell;
use capacity::Capacity;
use clock::Clock;
use poller::Poller;
use pool::{Orders, Stage};
use question::{Pending, Questions};
use signal::Signal;

/// Bytes read at once. Many pipelined requests fit, and a larger head is collected by its connection.
const READ_SIZE: usize = 16 * 1024;
/// Answers are written out when they reach this size, before more are made.
const WRITE_SIZE: usize = 256 * 1024;
/// The same for the answers of one connection: with one more they are what a client that does not read can have made for it.
const ANSWERS_SIZE: usize = 64 * 1024;
/// Most bytes of a request that the log shows when answering it failed.
const LOGGED_SIZE: usize = 512;

/// How long a draining shard waits for the first request of a connection. A guess: a client sends it one round trip after it
/// has connected.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(2);

/// What the connections of one shard share. Only ever used by the shard's own thread.
pub struct Shard {
    publication: Arc<Publication>,
    orders: Arc<Orders>,
    questions: Questions,
    core: RefCell<Core>,
    poller: Poller,
    bell: Arc<Bell>,
    /// Connections that were accepted and have had no turn yet.
    arrivals: RefCell<Vec<Accepted>>,
    /// Which connections are to be looked after in the next turn, whether or not something has happened to them.
    sweep: Cell<Sweep>,
    clock: Clock,
    connections: Cell<usize>,
    acceptors: Cell<usize>,
    /// Ends each acceptor.
    stops: RefCell<Vec<Rc<Signal>>>,
    /// It cannot go on, and is to be replaced.
    failed: Cell<bool>,
    capacity: Arc<Capacity>,
    /// Since when the shard is draining, by its clock.
    draining_since: Cell<Option<Duration>>,
}

/// What a shard hears by. It is made before its thread is, so that there is somebody to tell when it cannot be.
struct Senses {
    epoll: OwnedFd,
    bell: Arc<Bell>,
}

impl Senses {
    fn new() -> io::Result<Senses> {
        let bell = Bell::new()?;
        Ok(Senses { epoll: Poller::create(&bell)?, bell })
    }
}

/// What is borrowed while a request is answered, never across an await.
struct Core {
    handler: Handler,
    recorder: Recorder,
    epoch: u64,
    /// Where answers are counted.
    reporter: Reporter,
    /// Where answers are written to. What a connection cannot send of it moves into a buffer of its own, so that an idle
    /// connection has none.
    output: Vec<u8>,
    /// How far the connection that is being answered has got.
    answered: Answered,
}

/// What a connection has been answered in its turn, for the case that the next answer fails.
#[derive(Clone, Copy, Default)]
struct Answered {
    /// Bytes of the requests that were answered, of those that were received.
    received: usize,
    /// Bytes of the output up to the last complete answer.
    output: usize,
}

/// Which connections are to be looked after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sweep {
    #[default]
    Nobody,
    /// Those that take too long.
    Expired,
    /// All, lest one that waits for a request does not see that the shard is draining.
    Everybody,
}

/// What became of the bytes a connection received.
struct Progress {
    /// Bytes that are done with.
    consumed: usize,
    /// Bytes behind these that are needed again; what is behind both is done with, too.
    kept: usize,
    /// More requests may be complete in the rest; they wait until the answers so far are written.
    more: bool,
    /// What becomes of the connection after these answers.
    then: Then,
    /// What is to be answered next, and not by the shard.
    pending: Option<Pending>,
}

/// What becomes of a connection after the answers so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It stays open.
    Stay,
    /// It is closed, and what the client still sends is read for a while, lest it is cut off before it has read its answer.
    Finish,
    /// It is closed at once: the client asked for that, and has sent nothing behind.
    Close,
}

impl Progress {
    /// Progress to `consumed`, from where the connection reads on.
    fn to(consumed: usize) -> Progress {
        Progress { consumed, kept: 0, more: false, then: Then::Stay, pending: None }
    }
}

impl Shard {
    fn new(
        publication: Arc<Publication>,
        orders: Arc<Orders>,
        intake: &Intake,
        questions: Questions,
        reporter: Reporter,
        senses: Senses,
        capacity: Arc<Capacity>,
    ) -> Rc<Shard> {
        let epoch = publication.epoch();
        let core = Core {
            handler: Handler::new(publication.load(), fastrand::u64(..)),
            recorder: intake.recorder(),
            epoch,
            reporter,
            output: Vec::with_capacity(READ_SIZE),
            answered: Answered::default(),
        };
        Rc::new(Shard {
            publication,
            orders,
            questions,
            core: RefCell::new(core),
            poller: Poller::new(senses.epoll),
            bell: senses.bell,
            arrivals: RefCell::default(),
            sweep: Cell::default(),
            clock: Clock::new(),
            connections: Cell::new(0),
            acceptors: Cell::new(0),
            stops: RefCell::default(),
            failed: Cell::new(false),
            capacity,
            draining_since: Cell::new(None),
        })
    }

    /// What a shard does some times a second whether or not there are requests.
    fn tick(&self) {
        self.clock.refresh();
        self.hand_over();
        if self.orders.stage() >= Stage::Draining {
            self.draining_since.set(self.draining_since.get().or(Some(self.clock.now())));
            self.sweep.set(Sweep::Everybody);
        } else {
            self.sweep.set(Sweep::Expired);
        }
        self.bell.ring();
    }

    /// Takes a connection on, which counts from now on.
    fn take_on(&self, accepted: Accepted) {
        self.connections.set(self.connections.get() + 1);
        self.core.borrow_mut().reporter.tally.accepted += 1;
        self.arrivals.borrow_mut().push(accepted);
        self.bell.ring();
    }

    /// Whether there is something to do that no socket tells of.
    fn has_news(&self) -> bool {
        self.bell.has_answered() || self.sweep.get() != Sweep::Nobody || !self.arrivals.borrow().is_empty()
    }

    /// Takes the current snapshot over and hands over what was counted.
    fn hand_over(&self) {
        let core = &mut *self.core.borrow_mut();
        core.follow(&self.publication);
        core.recorder.hand_over();
        let tally = &mut core.reporter.tally;
        tally.open = self.connections.get();
        tally.processor_time = clock::processor_time();
        core.reporter.report(&core.handler.snapshot().mirrors);
    }

    /// Notes that a connection could not be accepted.
    fn note_accept_error(&self) {
        self.core.borrow_mut().reporter.tally.accept_errors += 1;
    }

    /// Counts an answer that was offloaded and is there now.
    fn count_offloaded(&self, kind: Kind, status: Status) {
        self.core.borrow_mut().reporter.tally.count_answer(kind, status);
    }

    /// Whether connections are to end with their next answer.
    fn ends_answered(&self) -> bool {
        self.orders.stage() != Stage::Serving
    }

    /// Whether a connection that waits for a request is to end now: one that got an answer at once; one whose first request is
    /// most likely under way a little later.
    fn ends_idle(&self, answered: bool) -> bool {
        let grace = if answered { Duration::ZERO } else { FIRST_REQUEST_GRACE };
        self.draining_since.get().is_some_and(|since| self.clock.now() >= since + grace)
    }

    /// Answers the requests in `bytes`, which were received at `received`, into `core.output`. `is_all` tells that nothing more
    /// was received behind them.
    fn answer(
        &self,
        core: &mut Core,
        bytes: &[u8],
        received: Instant,
        is_all: bool,
        peer: Peer,
        reader: &mut RequestReader,
    ) -> Progress {
        core.follow(&self.publication);
        let start = core.output.len();
        let mut consumed = 0_usize;
        let date = self.clock.date();
        let moment = self.clock.moment(received);
        loop {
            let made = core.output.len();
            core.answered = Answered { received: consumed, output: made };
            let rest = bytes.get(consumed..).unwrap_or_default();
            if rest.is_empty() {
                return Progress::to(consumed);
            }
            let unfinished = Progress { kept: rest.len(), more: true, ..Progress::to(consumed) };
            if made >= WRITE_SIZE || made.saturating_sub(start) >= ANSWERS_SIZE {
                return unfinished;
            }
            match reader.read(rest) {
                Received::Incomplete(wanted) => {
                    if wanted.sends_continue {
                        core.output.extend_from_slice(response::CONTINUE);
                    }
                    return Progress { kept: wanted.kept, ..Progress::to(consumed) };
                }
                Received::Rejected(rejection) => {
                    core.reject(rejection.into(), &date);
                    return Progress { then: Then::Finish, ..Progress::to(bytes.len()) };
                }
                Received::Complete { mut request, length } => {
                    let is_last = is_all && rest.len() == length;
                    let then = match request.persistence {
                        Persistence::Close if is_last => Then::Close,
                        _ => Then::Finish,
                    };
                    // Those that were sent behind it in good faith are answered, too.
                    if self.ends_answered() && is_last {
                        request.persistence = Persistence::Close;
                    }
                    let head_only = request.method == Method::Head;
                    let envelope = Envelope { date: &date, persistence: request.persistence, head_only };
                    let Core { handler, output, recorder, reporter, .. } = core;
                    let outcome = handler.handle(&request, peer, envelope, output);
                    fault::point(fault::Step::Answer);
                    reporter.tally.count(&outcome);
                    recorder.record(&outcome, &request, handler, moment);
                    consumed = consumed.saturating_add(length);
                    let then = if request.persistence == Persistence::Close { then } else { Then::Stay };
                    if outcome.is_offloaded {
                        let pending = self.questions.ask(&outcome, handler, &request);
                        let (kept, more) = match then {
                            Then::Stay => (rest.len().saturating_sub(length), true),
                            _ => (0, false),
                        };
                        return Progress { kept, more, then, pending: Some(pending), ..Progress::to(consumed) };
                    }
                    if then != Then::Stay {
                        return Progress { then, ..Progress::to(consumed) };
                    }
                }
            }
        }
    }
}

impl Core {
    /// Takes over the current snapshot if it is a new one.
    fn follow(&mut self, publication: &Publication) {
        let epoch = publication.epoch();
        if epoch != self.epoch {
            self.reporter.tally.settle(&self.handler.snapshot().mirrors);
            self.handler.adopt(publication.load());
            self.epoch = epoch;
        }
    }

    /// Puts things in order when a request of `received` could not be answered because of a defect of ours. It leaves no trace in
    /// the output but a message to its client; what happens to the handler's memory is not relied on.
    fn recover(
        &mut self,
        publication: &Publication,
        received: &[u8],
        date: &[u8; crate::http::date::HTTP_DATE_LENGTH],
    ) {
        self.output.truncate(self.answered.output);
        self.reporter.tally.settle(&self.handler.snapshot().mirrors);
        self.handler = Handler::new(publication.load(), fastrand::u64(..));
        self.reject(Status::InternalServerError, date);
        self.note_panic("answering", received.get(self.answered.received..).unwrap_or_default());
    }

    /// Counts and logs a panic while a connection was served, from which `received` was not answered yet.
    fn note_panic(&mut self, while_doing: &str, received: &[u8]) {
        let tally = &mut self.reporter.tally;
        tally.panics = tally.panics.saturating_add(1);
        let request = received.get(..LOGGED_SIZE).unwrap_or(received).escape_ascii();
        tracing::error!(%request, "a connection is closed because of a panic while {while_doing}: please report this");
    }

    /// Uses the memory of `output` again, and gives some of it back when an answer was unusually large.
    fn reuse_output(&mut self, mut output: Vec<u8>) {
        output.clear();
        output.shrink_to(2 * WRITE_SIZE);
        self.output = output;
    }

    fn reject(&mut self, status: Status, date: &[u8; crate::http::date::HTTP_DATE_LENGTH]) {
        let envelope = Envelope { date, persistence: Persistence::Close, head_only: false };
        response::plain(&mut self.output, status, envelope);
        self.reporter.tally.count(&Outcome::refused(Method::Other, status));
    }
}
