//! Connections that take too long, found by one sweep over all of them instead of a timer for each.

use std::task::Waker;
use std::time::Duration;

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The rest of a request, or any byte of the first one.
    Request,
    /// The next request.
    Idle,
    /// An answer that the shard cannot give by itself.
    Answer,
    /// The client to take an answer.
    Write,
    /// The client to close its side.
    Linger,
}

impl Wait {
    /// How long it may take.
    pub fn limit(self) -> Duration {
        match self {
            Wait::Request | Wait::Write => Duration::from_secs(10),
            // Longer than whoever answers allows itself.
            Wait::Answer => Duration::from_secs(15),
            Wait::Idle => Duration::from_secs(60),
            // A guess: long enough for a client on a slow line to read its answer before the connection is gone.
            Wait::Linger => Duration::from_secs(2),
        }
    }
}

/// Names a connection's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

/// The deadline of one connection.
struct Deadline {
    wait: Wait,
    at: Duration,
    /// Wakes the connection's task.
    waker: Option<Waker>,
}

/// The deadlines of all connections of a shard.
#[derive(Default)]
pub struct Deadlines {
    slots: Vec<Option<Deadline>>,
    free: Vec<usize>,
}

impl Deadlines {
    /// Adds a connection, which waits for its first request from `now` on.
    pub fn add(&mut self, now: Duration) -> Slot {
        let deadline = Some(Deadline { wait: Wait::Request, at: now + Wait::Request.limit(), waker: None });
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = deadline;
                Slot(slot)
            }
            None => {
                self.slots.push(deadline);
                Slot(self.slots.len() - 1)
            }
        }
    }

    /// Forgets a connection.
    pub fn remove(&mut self, slot: Slot) {
        self.slots[slot.0] = None;
        self.free.push(slot.0);
    }

    /// The connection starts to wait for something else, or for the same thing anew.
    pub fn restart(&mut self, slot: Slot, wait: Wait, now: Duration) {
        if let Some(deadline) = &mut self.slots[slot.0] {
            deadline.wait = wait;
            deadline.at = now + wait.limit();
        }
    }

    /// The connection waits for `wait`, and goes on waiting if it already did. Its task is `waker`'s.
    pub fn continue_wait(&mut self, slot: Slot, wait: Wait, now: Duration, waker: &Waker) {
        if let Some(deadline) = &mut self.slots[slot.0] {
            if deadline.wait != wait {
                deadline.wait = wait;
                deadline.at = now + wait.limit();
            }
            match &mut deadline.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
    }

    /// What the connection waited for in vain, if its time is over.
    pub fn expired(&self, slot: Slot, now: Duration) -> Option<Wait> {
        self.slots[slot.0].as_ref().filter(|deadline| deadline.at <= now).map(|deadline| deadline.wait)
    }

    /// Wakes the connections whose time is over.
    pub fn sweep(&mut self, now: Duration) {
        for deadline in self.slots.iter_mut().flatten().filter(|deadline| deadline.at <= now) {
            if let Some(waker) = deadline.waker.take() {
                waker.wake();
            }
        }
    }

    /// Wakes all connections, so that those which wait for a request see that the shard is draining.
    pub fn wake_all(&mut self) {
        for waker in self.slots.iter_mut().flatten().filter_map(|deadline| deadline.waker.take()) {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_wait_that_goes_on_keeps_its_deadline_and_a_new_one_starts_anew() {
        let second = Duration::from_secs(1);
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut deadlines = Deadlines::default();
        let slot = deadlines.add(Duration::ZERO);
        deadlines.continue_wait(slot, Wait::Request, 9 * second, &waker);
        deadlines.sweep(10 * second);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(deadlines.expired(slot, 10 * second), Some(Wait::Request));
        deadlines.continue_wait(slot, Wait::Idle, 10 * second, &waker);
        assert_eq!(deadlines.expired(slot, 69 * second), None);
        assert_eq!(deadlines.expired(slot, 70 * second), Some(Wait::Idle));
        deadlines.restart(slot, Wait::Idle, 65 * second);
        assert_eq!(deadlines.expired(slot, 70 * second), None);
    }

    #[test]
    fn slots_are_used_again() {
        let mut deadlines = Deadlines::default();
        let first = deadlines.add(Duration::ZERO);
        let second = deadlines.add(Duration::ZERO);
        deadlines.remove(first);
        assert_eq!(deadlines.add(Duration::ZERO), first);
        assert_ne!(first, second);
    }
}
