//! The connections of a shard, served in rounds: the requests of all that have some are read, then answered, then the answers
//! are written.
//!
//! Each of the three is done for many connections in a row, so that its code and data stay in the processor's caches, and
//! clients read their answers while others are still being written, without being woken for each.
//!
//! A panic in a step of one connection ends that connection. What connections hold in memory is added up, and when it is more
//! than the configuration allows, those are closed that hold the most for the longest and take the least.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use std::io;
use std::mem;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use super::acceptor::{accept_some, is_awaited};
use super::capacity;
use super::connection::{Connection, Next};
use super::deadline::{Deadlines, Wait};
use super::poller::Happened;
use super::{Answered, FIRST_REQUEST_GRACE, READ_SIZE, Shard, Sweep, WRITE_SIZE};

#[cfg(test)]
mod tests;

/// Most connections whose requests are answered in one round.
const ROUND: usize = 64;
/// Connections that are closed at a time to make room for new ones: finding them takes a look at all.
const ROOM: usize = 16;
/// Room for the requests of a round.
const INBOX_SIZE: usize = 8 * READ_SIZE;
/// Of the memory that connections may hold, the part that is freed when they hold more, so that they are not looked through for
/// each that comes over it.
const FREED_PART: usize = 8;
/// Between two lines of the log about connections that were closed for memory.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// All connections of a shard.
pub(super) struct Rounds {
    shard: Rc<Shard>,
    /// Tells that an answer from elsewhere has come.
    answered: Waker,
    connections: Slab<Connection>,
    deadlines: Deadlines,
    /// Those that are in line for a turn.
    queue: Vec<usize>,
    /// Memory for the next queue.
    spare: Vec<usize>,
    /// Another thread has something for one of the shard's tasks.
    is_nudged: bool,
    /// Listening sockets to which connections have come.
    knocked: Vec<usize>,
    /// Those that wait for an answer from elsewhere. Some may be closed by now, and their keys given to others.
    asking: Vec<usize>,
    /// What was read in this round; of what is left of it, connections keep a copy.
    inbox: Box<[u8]>,
    /// Those that have requests to answer in this round.
    askers: Vec<Asker>,
    /// Bytes that connections hold: requests that arrived in part, and answers that were not taken yet.
    held: usize,
    /// When the log last told that connections were closed for memory.
    told: Option<Duration>,
}

/// What a turn has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There was nothing to do.
    Idle,
    /// Everything has been done.
    Served,
    /// There is more to do at once.
    Unfinished,
}

/// A connection with requests to answer.
struct Asker {
    key: usize,
    /// Where they are in the inbox; empty when the connection has them itself.
    received: Range<usize>,
    /// Where the answers are in the shard's output.
    answers: Range<usize>,
}

impl Rounds {
    /// No connections yet. Those that the shard is given are taken over turn by turn.
    pub fn new(shard: &Rc<Shard>) -> Rounds {
        Rounds {
            shard: shard.clone(),
            answered: Waker::from(shard.bell.clone()),
            connections: Slab::new(),
            deadlines: Deadlines::default(),
            queue: Vec::new(),
            spare: Vec::new(),
            is_nudged: false,
            knocked: Vec::new(),
            asking: Vec::new(),
            inbox: vec![0; INBOX_SIZE].into_boxed_slice(),
            askers: Vec::with_capacity(ROUND),
            held: 0,
            told: None,
        }
    }

    /// The shard whose connections these are.
    #[cfg(fuzzing)]
    pub fn shard(&self) -> &Rc<Shard> {
        &self.shard
    }

    /// Gives every connection to which something has happened its turn. It waits for at most `patience` until something has.
    ///
    /// # Errors
    /// The system does not tell what has happened.
    pub fn turn(&mut self, patience: Duration) -> io::Result<Outcome> {
        let is_full = self.look(patience)?;
        self.accept();
        self.admit();
        if self.shard.bell.take_answered() {
            for key in mem::take(&mut self.asking) {
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.is_asking = false;
                    self.enqueue(key);
                }
            }
        }
        let is_idle = self.queue.is_empty();
        self.take_turns();
        // Whoever did something in the meantime is not late.
        self.sweep();
        self.relieve();
        Ok(if is_full || !self.queue.is_empty() || !self.knocked.is_empty() {
            Outcome::Unfinished
        } else if is_idle {
            Outcome::Idle
        } else {
            Outcome::Served
        })
    }

    /// Whether another thread has had something for one of the shard's tasks since the last call.
    pub fn take_nudge(&mut self) -> bool {
        mem::take(&mut self.is_nudged)
    }

    /// Takes note of what has happened; whether there may be more.
    fn look(&mut self, patience: Duration) -> io::Result<bool> {
        let Rounds { shard, connections, queue, knocked, is_nudged, .. } = self;
        shard.poller.look(patience, |happened| match happened {
            Happened::Knock(door) if !knocked.contains(&door) => knocked.push(door),
            Happened::Knock(_) => {}
            Happened::Nudge => *is_nudged = true,
            Happened::To(event) => {
                // One that is closed in the meantime is named by its key no more, or another is: that one finds nothing.
                if let Some(connection) = connections.get_mut(event.key) {
                    connection.note(event);
                    if !mem::replace(&mut connection.is_queued, true) {
                        queue.push(event.key);
                    }
                }
            }
        })
    }

    /// Accepts the connections that have come.
    fn accept(&mut self) {
        let shard = self.shard.clone();
        for door in mem::take(&mut self.knocked) {
            let Some(frame) = shard.poller.door(door) else { continue };
            let limit = shard.capacity.connections();
            let room = |shard: &Shard| limit.saturating_sub(shard.connections.get());
            if room(&shard) == 0 {
                if !is_awaited(&frame) {
                    continue;
                }
                if self.make_room() == 0 {
                    frame.fail(capacity::full(limit));
                    continue;
                }
            }
            match accept_some(&frame, &shard, room(&shard)) {
                Ok(true) => self.knocked.push(door),
                Ok(false) => {}
                // Each further try closes a connection, so that their number ends.
                Err(error) if capacity::is_exhaustion(&error) && self.make_room() > 0 => self.knocked.push(door),
                Err(error) => frame.fail(error),
            }
        }
    }

    /// Closes some connections to make room for new ones: those that have been idle longest, or else those whose request has
    /// been under way longest. Returns how many.
    fn make_room(&mut self) -> usize {
        let now = self.shard.clock.now();
        // One that is in line may have a request.
        let may_end = |key| self.connections.get(key).is_some_and(|connection| !connection.is_queued);
        let mut closed = self.deadlines.longest(Wait::Idle, Duration::ZERO, now, ROOM, may_end);
        if closed.is_empty() {
            closed = self.deadlines.longest(Wait::Request, FIRST_REQUEST_GRACE, now, ROOM, may_end);
        }
        for &key in &closed {
            self.close(key);
        }
        let count = &mut self.shard.core.borrow_mut().reporter.tally.closed_for_room;
        *count = count.saturating_add(closed.len() as u64);
        closed.len()
    }

    /// Takes over the connections that were accepted.
    fn admit(&mut self) {
        let shard = self.shard.clone();
        for accepted in shard.arrivals.borrow_mut().drain(..) {
            let key = self.connections.insert(Connection::new(accepted.socket, accepted.peer));
            self.deadlines.add(key, shard.clock.now());
            self.enqueue(key);
        }
    }

    fn enqueue(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !mem::replace(&mut connection.is_queued, true)
        {
            self.queue.push(key);
        }
    }

    fn take_turns(&mut self) {
        let mut queue = mem::replace(&mut self.queue, mem::take(&mut self.spare));
        let mut rest = queue.as_slice();
        while !rest.is_empty() {
            rest = self.round(rest);
        }
        queue.clear();
        self.spare = queue;
    }

    /// Takes a round with the first of `queue`, and returns the others.
    fn round<'q>(&mut self, queue: &'q [usize]) -> &'q [usize] {
        let began = Instant::now();
        let rest = self.read(queue);
        let mut askers = mem::take(&mut self.askers);
        let mut left = askers.as_mut_slice();
        while !left.is_empty() {
            let count = self.answer(left, began);
            let (answered, others) = left.split_at_mut(count);
            self.write(answered);
            self.relieve();
            left = others;
        }
        if !askers.is_empty() {
            self.shard.core.borrow_mut().reporter.tally.measure(began.elapsed());
        }
        askers.clear();
        self.askers = askers;
        rest
    }

    /// Has the first of `queue` do what they can up to their next requests, which are read. Returns those that have to wait for
    /// the next round.
    fn read<'q>(&mut self, queue: &'q [usize]) -> &'q [usize] {
        let answered = self.answered.clone();
        let mut context = Context::from_waker(&answered);
        let mut filled = 0_usize;
        for (place, &key) in queue.iter().enumerate() {
            let end = filled.saturating_add(READ_SIZE);
            let room = match self.inbox.get_mut(filled..end) {
                Some(room) if self.askers.len() < ROUND => room,
                _ => return queue.get(place..).unwrap_or_default(),
            };
            let Some(connection) = self.connections.get_mut(key) else { continue };
            // The key of one that was closed in line may be another's by now, which is in line itself.
            if !mem::replace(&mut connection.is_queued, false) {
                continue;
            }
            match guarded(|| connection.advance(&self.shard, room, &mut context)) {
                Ok(Ok(Next::Answer(count))) => {
                    let end = filled.saturating_add(count);
                    self.askers.push(Asker { key, received: filled..end, answers: 0..0 });
                    filled = end;
                }
                Ok(next) => self.settle(key, next),
                Err(Panicked) => self.fail(key, "reading"),
            }
        }
        &[]
    }

    /// Answers the first of `askers`: as many as there is room for in the output, and one at least. Returns how many.
    fn answer(&mut self, askers: &mut [Asker], began: Instant) -> usize {
        let Rounds { shard, connections, inbox, .. } = self;
        let core = &mut *shard.core.borrow_mut();
        let mut count = 0_usize;
        for Asker { key, received, answers } in askers {
            let start = core.output.len();
            if start >= WRITE_SIZE {
                break;
            }
            // One that was closed for memory in this round has no answers.
            if let Some(connection) = connections.get_mut(*key) {
                let received = inbox.get(received.clone()).unwrap_or_default();
                core.answered = Answered { received: 0, output: start };
                if guarded(|| connection.answer(shard, core, received, began)).is_err() {
                    let own = connection.give_up();
                    let received = if received.is_empty() { own.as_slice() } else { received };
                    core.recover(&shard.publication, received, &shard.clock.date());
                }
            }
            *answers = start..core.output.len();
            count = count.saturating_add(1);
        }
        count
    }

    /// Writes the answers of `askers`.
    fn write(&mut self, askers: &[Asker]) {
        let output = mem::take(&mut self.shard.core.borrow_mut().output);
        for Asker { key, answers, .. } in askers {
            let Some(connection) = self.connections.get_mut(*key) else { continue };
            let answers = output.get(answers.clone()).unwrap_or_default();
            match guarded(|| connection.deliver(answers)) {
                Ok(next) => self.settle(*key, next),
                Err(Panicked) => self.fail(*key, "writing"),
            }
        }
        self.shard.core.borrow_mut().reuse_output(output);
    }

    /// Does what a connection has come to.
    fn settle(&mut self, key: usize, next: io::Result<Next>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let now = self.shard.clock.now();
        let (held, before) = connection.hold(now);
        self.held = self.held.saturating_sub(before).saturating_add(held);
        if connection.take_written() {
            self.deadlines.restart(key, connection.wait(), now);
        }
        match next {
            Ok(Next::Again | Next::Answer(_)) => self.enqueue(key),
            Ok(Next::Wait) => {
                self.deadlines.continue_wait(key, connection.wait(), now);
                if connection.awaits_answer() && !mem::replace(&mut connection.is_asking, true) {
                    self.asking.push(key);
                }
                // What the poller does not take cannot go on.
                if connection.watch(&self.shard.poller, key).is_err() {
                    self.close(key);
                }
            }
            // An error means that the client is gone; there is nobody left to tell.
            Ok(Next::Over) | Err(_) => self.close(key),
        }
    }

    fn close(&mut self, key: usize) {
        let Some(mut connection) = self.connections.try_remove(key) else { return };
        // What it holds now goes with it; what counts is what was told of it before.
        let (_, held) = connection.hold(Duration::ZERO);
        self.held = self.held.saturating_sub(held);
        self.deadlines.remove(key);
        self.shard.connections.set(self.shard.connections.get().saturating_sub(1));
    }

    /// Closes a connection because of a panic.
    fn fail(&mut self, key: usize, while_doing: &str) {
        if let Some(connection) = self.connections.get(key) {
            self.shard.core.borrow_mut().note_panic(while_doing, connection.unanswered());
        }
        self.close(key);
    }

    /// Closes connections when they hold more memory than they may, those first that are the greatest burden.
    fn relieve(&mut self) {
        let allowed = {
            let core = &mut *self.shard.core.borrow_mut();
            core.reporter.tally.held = self.held;
            core.handler.snapshot().settings.connection_buffers
        };
        if self.held <= allowed {
            return;
        }
        let now = self.shard.clock.now();
        let burdens = self.connections.iter().map(|(key, connection)| (connection.burden(now), key));
        let mut burdens: Vec<_> = burdens.filter(|&(burden, _)| burden > 0).collect();
        burdens.sort_unstable_by(|one, other| other.cmp(one));
        let goal = allowed.saturating_sub(allowed / FREED_PART);
        let (held, mut closed) = (self.held, 0_u64);
        for (_, key) in burdens {
            if self.held <= goal {
                break;
            }
            if let Some(connection) = self.connections.get(key) {
                connection.forgo_answers();
            }
            self.close(key);
            closed = closed.saturating_add(1);
        }
        let core = &mut *self.shard.core.borrow_mut();
        let count = &mut core.reporter.tally.closed_for_memory;
        *count = count.saturating_add(closed);
        core.reporter.tally.held = self.held;
        if self.told.is_none_or(|told| now.saturating_sub(told) >= TELL_INTERVAL) {
            self.told = Some(now);
            tracing::warn!(
                "connections held {held} bytes of unfinished requests and of answers that clients do not take; {closed} \
                 are closed, and more as it happens again (ConnectionBuffersPerShard: {allowed})"
            );
        }
    }

    /// Puts those in line that are to see that it is late, and ends those that waited in vain.
    fn sweep(&mut self) {
        let shard = self.shard.clone();
        match shard.sweep.take() {
            Sweep::Nobody => return,
            Sweep::Expired => {}
            Sweep::Everybody => {
                for (key, connection) in &mut self.connections {
                    if !mem::replace(&mut connection.is_queued, true) {
                        self.queue.push(key);
                    }
                }
            }
        }
        let expired: Vec<_> = self.deadlines.expired(shard.clock.now()).collect();
        for (key, wait) in expired {
            self.end(key, wait);
        }
    }

    /// Ends a connection that has waited in vain, after a last answer where there is one to give.
    fn end(&mut self, key: usize, wait: Wait) {
        let shard = self.shard.clone();
        let Some(connection) = self.connections.get_mut(key) else { return };
        match guarded(|| connection.outlive(wait, &shard, &mut shard.core.borrow_mut())) {
            Ok(true) => {
                self.deadlines.restart(key, Wait::Write, shard.clock.now());
                self.enqueue(key);
            }
            Ok(false) => self.close(key),
            Err(Panicked) => {
                shard.core.borrow_mut().output.clear();
                self.fail(key, "ending it");
            }
        }
    }
}

/// A step of a connection panicked.
struct Panicked;

/// Does a step of one connection. After a panic its caller closes the connection, and puts in order what it shares with others.
#[inline]
fn guarded<T>(step: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(step)).map_err(|_| Panicked)
}
