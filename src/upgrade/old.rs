//! What the process that hands over does next: a function of its state and of what happened. `PROTOCOL.md` draws it.

use std::time::Duration;

use super::message::common_protocol;

/// From the start of the new program to `ready`: the promise of the command `upgrade`.
pub const READY_TIME: Duration = Duration::from_secs(30);
/// For our own acceptors to stop, which takes them microseconds where their threads get to run.
pub const PAUSE_TIME: Duration = Duration::from_secs(5);
/// From `go` to `serving`: the new process has loaded everything and only starts its acceptors, which takes milliseconds. Longer
/// than it waits for them itself, so that its own words arrive.
pub const SERVING_TIME: Duration = Duration::from_secs(20);
/// For our connections to end by themselves: an idle one's time (60 s), a request's (10 s), and some.
pub const DRAIN_TIME: Duration = Duration::from_secs(75);

/// Why an upgrade does not take place in a process that is to end.
pub const TOLD_TO_END: &str = "this process was told to end";

/// How far the hand-over is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The program was started.
    Starting,
    /// It has the sockets and loads.
    Loading,
    /// Our acceptors are being stopped.
    Pausing,
    /// It was told to accept.
    Handing,
    /// It serves; our connections are coming to their end.
    Draining,
    /// It has everything. Final.
    Released,
    /// We accept again, as if nothing had happened. Final.
    TakenBack,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `hello` with the versions it speaks.
    Hello(Vec<u32>),
    /// `ready`.
    Ready,
    /// `failed` with its reason.
    Failed(String),
    /// All our acceptors stand still.
    Paused,
    /// One does not; why.
    NotPaused(String),
    /// `serving`.
    Serving,
    /// `ending`.
    Ending,
    /// Our connections have ended, or their time is over, and we have let go of what only one process may have.
    Drained,
    /// The new process has ended; how.
    Ended(String),
    /// It sent what it should not, or cannot be spoken to; what.
    Broken(String),
    /// The state's time is over.
    TimeOver,
    /// We were told to end.
    Stopping,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the manifest and the sockets in this version.
    SendSockets(u32),
    /// Stop our acceptors.
    Pause,
    /// Say `go`.
    SayGo,
    /// Let our connections end, then let go of everything.
    Drain,
    /// The same, but do not wait for idle connections any more.
    HurryDrain,
    /// Say `released`, and end.
    SayReleased,
    /// End the new process, accept again, and tell why.
    TakeBack(String),
    /// Nothing.
    Wait,
}

impl State {
    /// How long the state may last; `None` for those that end by themselves.
    pub fn limit(self) -> Option<Duration> {
        match self {
            State::Starting | State::Loading => Some(READY_TIME),
            State::Handing => Some(SERVING_TIME),
            State::Pausing | State::Draining | State::Released | State::TakenBack => None,
        }
    }

    /// The state after `event`, and what to do on the way there.
    pub fn after(self, event: Event) -> (State, Action) {
        let take_back = |reason: String| (State::TakenBack, Action::TakeBack(reason));
        match (self, event) {
            (State::Released | State::TakenBack, _) => (self, Action::Wait),
            (State::Starting, Event::Hello(protocols)) => match common_protocol(&protocols) {
                Some(protocol) => (State::Loading, Action::SendSockets(protocol)),
                None => take_back(format!(
                    "the new program speaks versions {protocols:?} of the hand-over, which this one does not: stop this \
                     one and start the new one"
                )),
            },
            (State::Loading, Event::Ready) => (State::Pausing, Action::Pause),
            (State::Pausing, Event::Paused) => (State::Handing, Action::SayGo),
            (State::Handing, Event::Serving) => (State::Draining, Action::Drain),
            (State::Draining, Event::Ending | Event::Stopping) => (State::Draining, Action::HurryDrain),
            (State::Draining, Event::Drained) => (State::Released, Action::SayReleased),
            (_, Event::Stopping) => take_back(TOLD_TO_END.to_owned()),
            (_, Event::Failed(reason)) => take_back(reason),
            (State::Pausing, Event::NotPaused(reason)) => take_back(reason),
            (State::Starting | State::Loading, Event::Ended(how)) => {
                take_back(format!("the new program ended before it was ready: {how}; the log has what it wrote"))
            }
            (_, Event::Ended(how)) => {
                take_back(format!("the new process ended before it had taken over: {how}; the log has what it wrote"))
            }
            (_, Event::Broken(what)) => take_back(format!("the new process cannot be spoken with: {what}")),
            (State::Starting | State::Loading, Event::TimeOver) => {
                take_back(format!("the new program was not ready within {} s", READY_TIME.as_secs()))
            }
            (_, Event::TimeOver) => {
                take_back(format!("the new process did not accept connections within {} s", SERVING_TIME.as_secs()))
            }
            (state, event) => take_back(format!("the new process sent {event:?} while {state:?}: they do not fit")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 7] = [
        State::Starting,
        State::Loading,
        State::Pausing,
        State::Handing,
        State::Draining,
        State::Released,
        State::TakenBack,
    ];

    fn events() -> Vec<Event> {
        vec![
            Event::Hello(vec![1]),
            Event::Ready,
            Event::Failed("reason".to_owned()),
            Event::Paused,
            Event::NotPaused("reason".to_owned()),
            Event::Serving,
            Event::Ending,
            Event::Drained,
            Event::Ended("exit status 1".to_owned()),
            Event::Broken("noise".to_owned()),
            Event::TimeOver,
            Event::Stopping,
        ]
    }

    /// The only ways ahead.
    fn progress() -> Vec<(State, Event, State, Action)> {
        vec![
            (State::Starting, Event::Hello(vec![1]), State::Loading, Action::SendSockets(1)),
            (State::Loading, Event::Ready, State::Pausing, Action::Pause),
            (State::Pausing, Event::Paused, State::Handing, Action::SayGo),
            (State::Handing, Event::Serving, State::Draining, Action::Drain),
            (State::Draining, Event::Ending, State::Draining, Action::HurryDrain),
            (State::Draining, Event::Stopping, State::Draining, Action::HurryDrain),
            (State::Draining, Event::Drained, State::Released, Action::SayReleased),
        ]
    }

    #[test]
    fn every_edge_leads_ahead_or_back() {
        for state in STATES {
            for event in events() {
                let (next, action) = state.after(event.clone());
                let ahead = progress().into_iter().find(|(from, by, ..)| *from == state && *by == event);
                if matches!(state, State::Released | State::TakenBack) {
                    assert_eq!((next, action), (state, Action::Wait), "{state:?} is final: {event:?}");
                } else if let Some((.., to, doing)) = ahead {
                    assert_eq!((next, action), (to, doing), "{state:?} after {event:?}");
                } else {
                    assert_eq!(next, State::TakenBack, "{state:?} after {event:?}");
                    let Action::TakeBack(reason) = action else { panic!("{state:?} after {event:?}: {action:?}") };
                    assert!(!reason.is_empty());
                }
            }
        }
    }

    #[test]
    fn a_program_of_another_time_is_refused_in_words() {
        let (state, action) = State::Starting.after(Event::Hello(vec![7]));
        assert_eq!(state, State::TakenBack);
        assert!(matches!(action, Action::TakeBack(reason) if reason.contains("[7]") && reason.contains("stop this")));
    }

    #[test]
    fn the_programs_own_words_are_passed_on() {
        let (_, action) = State::Loading.after(Event::Failed("a.conf:3: Shards: 0".to_owned()));
        assert_eq!(action, Action::TakeBack("a.conf:3: Shards: 0".to_owned()));
    }
}
