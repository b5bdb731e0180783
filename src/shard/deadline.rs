//! Connections that take too long, found by one sweep over all of them instead of a timer for each.

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

/// The deadline of one connection.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    wait: Wait,
    at: Duration,
}

impl Deadline {
    fn new(wait: Wait, now: Duration) -> Deadline {
        Deadline { wait, at: now.saturating_add(wait.limit()) }
    }
}

/// The deadlines of all connections of a shard, by the keys of these.
#[derive(Default)]
pub struct Deadlines(Vec<Option<Deadline>>);

impl Deadlines {
    /// Adds a connection, which waits for its first request from `now` on.
    pub fn add(&mut self, key: usize, now: Duration) {
        if self.0.len() <= key {
            self.0.resize(key.saturating_add(1), None);
        }
        self.restart(key, Wait::Request, now);
    }

    /// Forgets a connection.
    pub fn remove(&mut self, key: usize) {
        if let Some(deadline) = self.0.get_mut(key) {
            *deadline = None;
        }
    }

    /// The connection starts to wait for something else, or for the same thing anew.
    pub fn restart(&mut self, key: usize, wait: Wait, now: Duration) {
        if let Some(deadline) = self.0.get_mut(key) {
            *deadline = Some(Deadline::new(wait, now));
        }
    }

    /// The connection waits for `wait`, and goes on waiting if it already did.
    pub fn continue_wait(&mut self, key: usize, wait: Wait, now: Duration) {
        let current = self.0.get(key).copied().flatten();
        if current.is_none_or(|deadline| deadline.wait != wait) {
            self.restart(key, wait, now);
        }
    }

    /// The connections whose time is over, with what they waited for in vain.
    pub fn expired(&self, now: Duration) -> impl Iterator<Item = (usize, Wait)> {
        let numbered = self.0.iter().enumerate();
        numbered.filter_map(move |(key, deadline)| deadline.filter(|it| it.at <= now).map(|it| (key, it.wait)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(deadlines: &Deadlines, now: Duration) -> Vec<(usize, Wait)> {
        deadlines.expired(now).collect()
    }

    #[test]
    fn a_wait_that_goes_on_keeps_its_deadline_and_a_new_one_starts_anew() {
        let second = Duration::from_secs(1);
        let mut deadlines = Deadlines::default();
        deadlines.add(3, Duration::ZERO);
        deadlines.continue_wait(3, Wait::Request, 9 * second);
        assert_eq!(expired(&deadlines, 9 * second), []);
        assert_eq!(expired(&deadlines, 10 * second), [(3, Wait::Request)]);
        deadlines.continue_wait(3, Wait::Idle, 10 * second);
        assert_eq!(expired(&deadlines, 69 * second), []);
        assert_eq!(expired(&deadlines, 70 * second), [(3, Wait::Idle)]);
        deadlines.restart(3, Wait::Idle, 65 * second);
        assert_eq!(expired(&deadlines, 70 * second), []);
    }

    #[test]
    fn a_connection_that_is_gone_has_no_deadline() {
        let mut deadlines = Deadlines::default();
        deadlines.add(0, Duration::ZERO);
        deadlines.add(1, Duration::ZERO);
        deadlines.remove(0);
        assert_eq!(expired(&deadlines, Duration::from_secs(10)), [(1, Wait::Request)]);
    }
}
