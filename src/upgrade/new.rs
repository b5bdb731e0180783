//! What the process that takes over does next: a function of its state and of what happened. `PROTOCOL.md` draws it.

use std::time::Duration;

use super::message::{Message, PROTOCOLS};
use super::old::{DRAIN_TIME, PAUSE_TIME, READY_TIME};

/// For the old process to say the next thing, when that is up to it: its own longest pause and some.
const ANSWER_TIME: Duration = Duration::from_secs(READY_TIME.as_secs() + PAUSE_TIME.as_secs());
/// For the old process to let go: its connections' time, and its indexer's and its store's.
pub const RELEASE_TIME: Duration = Duration::from_secs(DRAIN_TIME.as_secs() + 30);

/// How far taking over is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// `hello` is said.
    Greeting,
    /// This many of so many sockets are here.
    Receiving {
        /// Received.
        have: usize,
        /// Announced.
        of: usize,
    },
    /// All sockets are here and checked; everything is being loaded.
    Loading,
    /// `ready` is said.
    Waiting,
    /// Our acceptors are being started.
    Activating,
    /// `serving` is said; the old process drains.
    Serving,
    /// Everything is ours. Final.
    Owner,
    /// Given up. Final.
    Failed,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message came; the descriptors of `listeners` passed their check.
    Said(Message),
    /// Everything is loaded.
    Loaded,
    /// All our acceptors accept.
    Accepting,
    /// Something of ours does not work; what.
    Trouble(String),
    /// The old process is gone.
    Closed,
    /// The state's time is over.
    TimeOver,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Wait,
    /// Load everything.
    Load,
    /// Say `ready`.
    SayReady,
    /// Start our acceptors.
    Accept,
    /// Say `serving`.
    SayServing,
    /// Take what only one process may have.
    TakeBelongings,
    /// The same without the old process's word; its trouble is to be reported.
    TakeBelongingsUnasked,
    /// Say `failed` if somebody is there, and exit.
    GiveUp(String),
}

impl State {
    /// How long the state may last; `None` for those that end by themselves.
    pub fn limit(self) -> Option<Duration> {
        match self {
            State::Greeting | State::Receiving { .. } | State::Waiting => Some(ANSWER_TIME),
            State::Serving => Some(RELEASE_TIME),
            State::Loading | State::Activating | State::Owner | State::Failed => None,
        }
    }

    /// The state after `event`, and what to do on the way there.
    pub fn after(self, event: Event) -> (State, Action) {
        let give_up = |reason: String| (State::Failed, Action::GiveUp(reason));
        match (self, event) {
            (State::Owner | State::Failed, _) => (self, Action::Wait),
            (State::Greeting, Event::Said(Message::Manifest { protocol, listeners, .. })) => {
                if PROTOCOLS.contains(&protocol) {
                    receiving(0, listeners)
                } else {
                    give_up(format!("the old process speaks version {protocol}, which was not offered"))
                }
            }
            (State::Receiving { have, of }, Event::Said(Message::Listeners { first, entries })) => {
                if first == have && !entries.is_empty() && have + entries.len() <= of {
                    receiving(have + entries.len(), of)
                } else {
                    give_up(format!(
                        "the old process sent {} sockets from number {first} on, after {have} of {of}",
                        entries.len()
                    ))
                }
            }
            (State::Loading, Event::Loaded) => (State::Waiting, Action::SayReady),
            (State::Waiting, Event::Said(Message::Go)) => (State::Activating, Action::Accept),
            (State::Activating, Event::Accepting) => (State::Serving, Action::SayServing),
            (State::Serving, Event::Said(Message::Released)) => (State::Owner, Action::TakeBelongings),
            (State::Serving, Event::Closed | Event::TimeOver) => (State::Owner, Action::TakeBelongingsUnasked),
            // Clients are being served: nothing that the old process says is a reason to stop.
            (State::Serving, Event::Said(_)) => (State::Serving, Action::Wait),
            (_, Event::Trouble(what)) => give_up(what),
            (_, Event::Closed) => give_up("the old process ended, or gave the upgrade up".to_owned()),
            (_, Event::TimeOver) => give_up("the old process did not go on in time".to_owned()),
            (_, Event::Said(message)) => {
                give_up(format!("the old process said `{}` when that makes no sense", message.name()))
            }
            (state, event) => give_up(format!("{event:?} while {state:?}: they do not fit")),
        }
    }
}

fn receiving(have: usize, of: usize) -> (State, Action) {
    if have == of { (State::Loading, Action::Load) } else { (State::Receiving { have, of }, Action::Wait) }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Entry, Role};
    use super::*;

    fn manifest(protocol: u32, listeners: usize) -> Event {
        Event::Said(Message::Manifest { protocol, release: "0".to_owned(), pid: 1, listeners, has_index: false })
    }

    fn listeners(first: usize, count: usize) -> Event {
        let text = || "127.0.0.1:1".to_owned();
        let entry = Entry { role: Role::Rpc, configured: text(), local: text(), shard: None, reuse_port: false };
        Event::Said(Message::Listeners { first, entries: vec![entry; count] })
    }

    const STATES: [State; 8] = [
        State::Greeting,
        State::Receiving { have: 0, of: 2 },
        State::Loading,
        State::Waiting,
        State::Activating,
        State::Serving,
        State::Owner,
        State::Failed,
    ];

    /// The only ways ahead.
    fn progress() -> Vec<(State, Event, State, Action)> {
        vec![
            (State::Greeting, manifest(1, 2), State::Receiving { have: 0, of: 2 }, Action::Wait),
            (State::Greeting, manifest(1, 0), State::Loading, Action::Load),
            (STATES[1], listeners(0, 1), State::Receiving { have: 1, of: 2 }, Action::Wait),
            (STATES[1], listeners(0, 2), State::Loading, Action::Load),
            (State::Loading, Event::Loaded, State::Waiting, Action::SayReady),
            (State::Waiting, Event::Said(Message::Go), State::Activating, Action::Accept),
            (State::Activating, Event::Accepting, State::Serving, Action::SayServing),
            (State::Serving, Event::Said(Message::Released), State::Owner, Action::TakeBelongings),
            (State::Serving, Event::Closed, State::Owner, Action::TakeBelongingsUnasked),
            (State::Serving, Event::TimeOver, State::Owner, Action::TakeBelongingsUnasked),
        ]
    }

    #[test]
    fn every_edge_leads_ahead_or_to_the_end() {
        let ahead = progress();
        let mut events: Vec<Event> = ahead.iter().map(|(_, event, ..)| event.clone()).collect();
        events.extend([
            manifest(2, 1),
            listeners(1, 1),
            listeners(0, 3),
            listeners(0, 0),
            Event::Trouble("reason".to_owned()),
            Event::Said(Message::Ready),
        ]);
        for state in STATES {
            for event in &events {
                let (next, action) = state.after(event.clone());
                if matches!(state, State::Owner | State::Failed) {
                    assert_eq!((next, action), (state, Action::Wait), "{state:?} is final: {event:?}");
                } else if let Some((.., to, doing)) = ahead.iter().find(|(from, by, ..)| *from == state && by == event)
                {
                    assert_eq!((next, &action), (*to, doing), "{state:?} after {event:?}");
                } else if matches!((state, event), (State::Serving, Event::Said(_))) {
                    assert_eq!((next, action), (State::Serving, Action::Wait), "clients are being served: {event:?}");
                } else {
                    assert_eq!(next, State::Failed, "{state:?} after {event:?}");
                    assert!(matches!(action, Action::GiveUp(reason) if !reason.is_empty()));
                }
            }
        }
    }
}
