//! The connections of a shard, served in rounds: the requests of all that have some are read, then answered, then the answers
//! are written.
//!
//! Each of the three is done for many connections in a row, so that its code and data stay in the processor's caches, and
//! clients read their answers while others are still being written, without being woken for each.

use std::io;
use std::mem;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use super::acceptor::accept_some;
use super::connection::{Connection, Next};
use super::deadline::{Deadlines, Wait};
use super::poller::Happened;
use super::{READ_SIZE, Shard, Sweep, WRITE_SIZE};

#[cfg(test)]
mod tests;

/// Most connections whose requests are answered in one round.
const ROUND: usize = 64;
/// Room for the requests of a round.
const INBOX_SIZE: usize = 8 * READ_SIZE;

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
        let shard = &self.shard;
        self.knocked.retain(|&door| shard.poller.door(door).is_some_and(|frame| accept_some(&frame, shard)));
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
        let mut filled = 0;
        for (place, &key) in queue.iter().enumerate() {
            if self.askers.len() == ROUND || INBOX_SIZE - filled < READ_SIZE {
                return &queue[place..];
            }
            let Some(connection) = self.connections.get_mut(key) else { continue };
            // The key of one that was closed in line may be another's by now, which is in line itself.
            if !mem::replace(&mut connection.is_queued, false) {
                continue;
            }
            let room = &mut self.inbox[filled..filled + READ_SIZE];
            match connection.advance(&self.shard, room, &mut context) {
                Ok(Next::Answer(count)) => {
                    self.askers.push(Asker { key, received: filled..filled + count, answers: 0..0 });
                    filled += count;
                }
                next => self.settle(key, next),
            }
        }
        &[]
    }

    /// Answers the first of `askers`: as many as there is room for in the output, and one at least. Returns how many.
    fn answer(&mut self, askers: &mut [Asker], began: Instant) -> usize {
        let Rounds { shard, connections, inbox, .. } = self;
        let core = &mut *shard.core.borrow_mut();
        let mut count = 0;
        for Asker { key, received, answers } in askers {
            if core.output.len() >= WRITE_SIZE {
                break;
            }
            answers.start = core.output.len();
            connections[*key].answer(shard, core, &inbox[received.clone()], began);
            answers.end = core.output.len();
            count += 1;
        }
        count
    }

    /// Writes the answers of `askers`.
    fn write(&mut self, askers: &[Asker]) {
        let output = mem::take(&mut self.shard.core.borrow_mut().output);
        for Asker { key, answers, .. } in askers {
            let next = self.connections[*key].deliver(&output[answers.clone()]);
            self.settle(*key, next);
        }
        self.shard.core.borrow_mut().reuse_output(output);
    }

    /// Does what a connection has come to.
    fn settle(&mut self, key: usize, next: io::Result<Next>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let now = self.shard.clock.now();
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
        self.connections.remove(key);
        self.deadlines.remove(key);
        self.shard.connections.set(self.shard.connections.get() - 1);
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
            if self.connections[key].outlive(wait, &shard, &mut shard.core.borrow_mut()) {
                self.deadlines.restart(key, Wait::Write, shard.clock.now());
                self.enqueue(key);
            } else {
                self.close(key);
            }
        }
    }
}
