//! Shards: each accepts connections from a listener of its own and answers them on one core, sharing nothing that
//! another core writes.
//!
//! - [`listener`]: how listening sockets are made
//! - [`front`]: those of one address, spread over the shards
//! - [`gate`]: whether they accept, ordered and acknowledged
//! - `acceptor`: accepting as they order
//! - `poller`: what a shard waits on
//! - `rounds`: all connections, served in turn
//! - `connection`: one client's requests and answers
//! - [`question`]: an answer that a connection waits for
//! - `deadline`: connections that take too long
//! - [`clock`]: the time, as far as answers show it
//! - [`rt`]: the runtimes that shards run on
//! - [`pool`]: all shards, as the control thread sees them

mod acceptor;
mod bell;
pub mod clock;
mod connection;
mod deadline;
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
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::handle::outcome::Outcome;
use crate::handle::{Handler, Peer};
use crate::http::body::Body;
use crate::http::request::{Method, Parsed, Persistence, Request, parse};
use crate::http::response::{self, Envelope, Status};
use crate::metrics::hand_over::Reporter;
use crate::snapshot::Publication;
use crate::stats::Intake;
use crate::stats::recorder::Recorder;
use acceptor::Accepted;
use bell::Bell;
use clock::Clock;
use poller::Poller;
use pool::{Orders, Stage};
use question::{Pending, Questions};

/// Bytes read at once. Many pipelined requests fit, and a larger head is collected by its connection.
const READ_SIZE: usize = 16 * 1024;
/// Answers to pipelined requests are written out when they reach this size, before more are made.
const WRITE_SIZE: usize = 256 * 1024;

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
        Progress { consumed, more: false, then: Then::Stay, pending: None }
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
    ) -> Rc<Shard> {
        let epoch = publication.epoch();
        let core = Core {
            handler: Handler::new(publication.load(), fastrand::u64(..)),
            recorder: intake.recorder(),
            epoch,
            reporter,
            output: Vec::with_capacity(READ_SIZE),
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
        body: &mut Body,
    ) -> Progress {
        core.follow(&self.publication);
        let mut consumed = 0;
        let date = self.clock.date();
        let moment = self.clock.moment(received);
        loop {
            match body.skip(&bytes[consumed..]) {
                Ok(skipped) => consumed += skipped,
                // Its request has been answered; all there is left to say is goodbye.
                Err(_) => return Progress { then: Then::Finish, ..Progress::to(consumed) },
            }
            if *body != Body::None || consumed == bytes.len() {
                return Progress::to(consumed);
            }
            if core.output.len() >= WRITE_SIZE {
                return Progress { more: true, ..Progress::to(consumed) };
            }
            match parse(&bytes[consumed..]) {
                Parsed::Incomplete => return Progress::to(consumed),
                Parsed::Rejected(rejection) => {
                    core.reject(rejection.into(), &date);
                    return Progress { then: Then::Finish, ..Progress::to(bytes.len()) };
                }
                Parsed::Complete { mut request, length, body: follows } => {
                    let is_last = is_all && consumed + length == bytes.len() && follows == Body::None;
                    let then = match request.persistence {
                        Persistence::Close if is_last => Then::Close,
                        _ => Then::Finish,
                    };
                    // Those that were sent behind it in good faith are answered, too.
                    if self.ends_answered() && is_all && consumed + length == bytes.len() {
                        request.persistence = Persistence::Close;
                    }
                    let head_only = request.method == Method::Head;
                    let envelope = Envelope { date: &date, persistence: request.persistence, head_only };
                    consumed += length;
                    *body = follows;
                    let Some(outcome) = core.handle(&request, peer, envelope) else {
                        core.reject(Status::InternalServerError, &date);
                        core.replace_handler(&self.publication);
                        return Progress { then: Then::Finish, ..Progress::to(consumed) };
                    };
                    core.reporter.tally.count(&outcome);
                    core.recorder.record(&outcome, &request, &core.handler, moment);
                    let then = if request.persistence == Persistence::Close { then } else { Then::Stay };
                    if outcome.kind.is_left_open() {
                        let pending = self.questions.ask(&outcome, &mut core.handler, &request);
                        let more = then == Then::Stay;
                        return Progress { more, then, pending: Some(pending), ..Progress::to(consumed) };
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

    /// Starts anew with a handler that nothing has happened to.
    fn replace_handler(&mut self, publication: &Publication) {
        self.reporter.tally.settle(&self.handler.snapshot().mirrors);
        self.handler = Handler::new(publication.load(), fastrand::u64(..));
    }

    /// Answers `request`; `None` when that hit a defect of ours. It then leaves no trace in the output, and only this one
    /// connection is to suffer.
    fn handle(&mut self, request: &Request<'_>, peer: Peer, envelope: Envelope<'_>) -> Option<Outcome> {
        let Core { handler, output, .. } = self;
        let start = output.len();
        // Nothing of the handler is looked at again after a panic: the caller replaces it.
        let answered = catch_unwind(AssertUnwindSafe(|| handler.handle(request, peer, envelope, output)));
        if answered.is_err() {
            output.truncate(start);
            tracing::error!(target = %request.target.escape_ascii(), "a request could not be answered: please report this");
        }
        answered.ok()
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
