//! The old process's side at work: `old` decides, this does.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::channel::{Channel, ChannelError, Endpoint};
use super::message::{Entry, MAX_BATCH, Message};
use super::old::{Action, DRAIN_TIME, Event, READY_TIME, State, TOLD_TO_END};
use super::program::Program;

/// Between two looks at whether our connections have ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// What idle connections are left when the new process waits for our end.
const HURRY: Duration = Duration::from_millis(500);
/// Between the end of the conversation and that of the process.
const END_TIME: Duration = Duration::from_secs(1);

/// From killing the new process to its end.
const KILL_TIME: Duration = Duration::from_secs(2);

/// What the running daemon shows the outside: its sockets and the acceptors behind them.
pub trait Incumbent: Send + Sync {
    /// Every listening socket, with a descriptor to pass on.
    ///
    /// # Errors
    /// No descriptors are left; for people.
    fn sockets(&self) -> Result<Vec<(Entry, OwnedFd)>, String>;
    /// Whether requests are answered from an index.
    fn has_index(&self) -> bool;
    /// Stops all acceptors, and returns when all of them stand.
    ///
    /// # Errors
    /// One does not stop; for people.
    fn pause(&self) -> impl Future<Output = Result<(), String>> + Send;
    /// Lets each connection end with its next answer.
    fn let_end(&self);
    /// Whether no connection is left.
    fn is_drained(&self) -> bool;
    /// Accepts again and keeps connections, whatever was ordered before.
    fn resume(&self) -> impl Future<Output = ()> + Send;
}

/// The upgrade did not take place: this process serves as before.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TakenBack(pub String);

/// A hand-over that only lacks its last word.
#[derive(Debug)]
pub struct HandedOver {
    channel: Channel,
    pid: u32,
}

impl HandedOver {
    /// The new process's id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Tells the new process that everything is its own.
    pub async fn release(self) {
        // If it cannot be told, our end tells it.
        if let Err(error) = self.channel.send(&Message::Released, &[]).await {
            tracing::warn!("{error}");
        }
    }
}

/// Starts `program` and hands over to it through a socket at `path`. `on_serving` is called with its process id once it serves;
/// `stopping` is notified when this process is told to end. Returns when no connection of ours is left.
///
/// # Errors
/// [`TakenBack`]; the new process is gone then, and [`Incumbent::resume`] was called.
pub async fn hand_over(
    program: &Program,
    path: &Path,
    incumbent: &impl Incumbent,
    stopping: &Notify,
    on_serving: impl FnOnce(u32) + Send,
) -> Result<HandedOver, TakenBack> {
    // A new process that is started after all finds no socket, and ends.
    let (endpoint, child) = tokio::select! {
        started = start(program, path) => started?,
        () = stopping.notified() => return Err(TakenBack(TOLD_TO_END.to_owned())),
        () = tokio::time::sleep(READY_TIME) => {
            let program = program.path.display();
            let reason = format!("{program} was not started in time: its disk, or that of {}, does not answer", path.display());
            return Err(TakenBack(reason));
        }
    };
    let pid = child.id().unwrap_or_default();
    tracing::info!("upgrade: {} was started as process {pid}", program.path.display());
    let mut successor = Successor { child, pid, endpoint: Some(endpoint), channel: None };
    let mut on_serving = Some(on_serving);

    let mut state = State::Starting;
    let mut deadline = state.limit().map(|limit| Instant::now() + limit);
    let mut event = None;
    loop {
        let happened = match event.take() {
            Some(event) => event,
            None => tokio::select! {
                event = successor.event() => event,
                () = until(deadline) => if state == State::Draining { Event::Drained } else { Event::TimeOver },
                () = drained(incumbent), if state == State::Draining => Event::Drained,
                () = stopping.notified() => Event::Stopping,
            },
        };
        tracing::debug!("upgrade: {state:?}: {happened:?}");
        let (next, action) = state.after(happened);
        if next.limit() != state.limit() {
            deadline = next.limit().map(|limit| Instant::now() + limit);
        }
        state = next;
        match action {
            Action::Wait => {}
            Action::SendSockets(protocol) => event = successor.send_sockets(protocol, incumbent).await,
            Action::Pause => event = Some(incumbent.pause().await.map_or_else(Event::NotPaused, |()| Event::Paused)),
            Action::SayGo => {
                // No acceptor of either process accepts here.
                mb_core::fault::point("upgrade");
                event = successor.say(&Message::Go).await;
            }
            Action::Drain => {
                if let Some(on_serving) = on_serving.take() {
                    on_serving(pid);
                }
                incumbent.let_end();
                deadline = Some(Instant::now() + DRAIN_TIME);
            }
            Action::HurryDrain => deadline = deadline.map(|deadline| deadline.min(Instant::now() + HURRY)),
            Action::SayReleased => match successor.channel.take() {
                Some(channel) => return Ok(HandedOver { channel, pid }),
                None => event = Some(Event::Broken("there is no connection".to_owned())),
            },
            Action::TakeBack(reason) => {
                successor.end().await;
                incumbent.resume().await;
                return Err(TakenBack(reason));
            }
        }
    }
}

/// Makes the socket and starts the new process, whose disks may not answer. May be cancelled.
async fn start(program: &Program, path: &Path) -> Result<(Endpoint, Child), TakenBack> {
    let taken_back = |error: &dyn std::fmt::Display| TakenBack(error.to_string());
    let bound = tokio::task::spawn_blocking({
        let path = path.to_owned();
        move || Endpoint::bind(&path)
    });
    let endpoint = bound.await.map_err(|aborted| taken_back(&aborted))?.map_err(|error| taken_back(&error))?;
    let mut command = Command::from(program.successor(path));
    let spawned =
        tokio::task::spawn_blocking(move || command.spawn()).await.unwrap_or_else(|aborted| Err(aborted.into()));
    let child = spawned.map_err(|error| {
        taken_back(&format!("{} cannot be started: {error}; put the new program there", program.path.display()))
    })?;
    Ok((endpoint, child))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn drained(incumbent: &impl Incumbent) {
    while !incumbent.is_drained() {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The new process, and the way to it.
struct Successor {
    child: Child,
    pid: u32,
    /// Until it has connected.
    endpoint: Option<Endpoint>,
    /// From then on.
    channel: Option<Channel>,
}

impl Successor {
    /// What happens next on its side. May be cancelled.
    async fn event(&mut self) -> Event {
        loop {
            let heard = async {
                match (&self.endpoint, &self.channel) {
                    (_, Some(channel)) => Heard::Message(channel.receive().await),
                    (Some(endpoint), None) => Heard::Connection(endpoint.accept_from(self.pid).await),
                    (None, None) => std::future::pending().await,
                }
            };
            let heard = tokio::select! {
                // What it said before it ended counts more than that it did.
                biased;
                heard = heard => heard,
                ended = self.child.wait() => return ended_as(ended),
            };
            match heard {
                Heard::Connection(Ok(channel)) => {
                    self.channel = Some(channel);
                    self.endpoint = None;
                }
                Heard::Connection(Err(error)) | Heard::Message(Err(error)) => return Event::Broken(error.to_string()),
                Heard::Message(Ok(Some(received))) => return event_of(received.message),
                Heard::Message(Ok(None)) => {
                    return match tokio::time::timeout(END_TIME, self.child.wait()).await {
                        Ok(ended) => ended_as(ended),
                        Err(_) => Event::Ended("it closed the connection".to_owned()),
                    };
                }
            }
        }
    }

    /// Says something; the trouble with that is the event.
    async fn say(&mut self, message: &Message) -> Option<Event> {
        let error = self.send(message, &[]).await.err()?;
        Some(self.trouble(error).await)
    }

    /// What a failure to send means: most likely that the process has ended.
    async fn trouble(&mut self, error: ChannelError) -> Event {
        match tokio::time::timeout(END_TIME, self.child.wait()).await {
            Ok(ended) => ended_as(ended),
            Err(_) => Event::Broken(error.to_string()),
        }
    }

    async fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        match &self.channel {
            Some(channel) => channel.send(message, descriptors).await,
            None => Ok(()),
        }
    }

    /// Sends all sockets; the trouble with that is the event.
    async fn send_sockets(&mut self, protocol: u32, incumbent: &impl Incumbent) -> Option<Event> {
        let sockets = match incumbent.sockets() {
            Ok(sockets) => sockets,
            Err(error) => return Some(Event::Broken(error)),
        };
        let release = env!("CARGO_PKG_VERSION").to_owned();
        let manifest = Message::Manifest {
            protocol,
            release,
            pid: std::process::id(),
            listeners: sockets.len(),
            has_index: incumbent.has_index(),
        };
        let mut sent = self.send(&manifest, &[]).await;
        for (number, batch) in sockets.chunks(MAX_BATCH).enumerate() {
            let entries = batch.iter().map(|(entry, _)| entry.clone()).collect();
            let descriptors: Vec<BorrowedFd<'_>> = batch.iter().map(|(_, socket)| socket.as_fd()).collect();
            if sent.is_ok() {
                sent = self.send(&Message::Listeners { first: number * MAX_BATCH, entries }, &descriptors).await;
            }
        }
        match sent {
            Ok(()) => None,
            Err(error) => Some(self.trouble(error).await),
        }
    }

    /// Ends it and waits until it is gone, but not for a disk that keeps it: it accepts nothing more.
    async fn end(&mut self) {
        match tokio::time::timeout(KILL_TIME, self.child.kill()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("upgrade: process {} cannot be ended: {error}", self.pid),
            Err(_) => tracing::error!("upgrade: process {} was killed and still waits for a disk", self.pid),
        }
    }
}

/// Ends the new process when this side of the hand-over panics: it could never be released.
impl Drop for Successor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // It may have ended by itself.
            let _ = self.child.start_kill();
        }
    }
}

/// What came from the new process.
enum Heard {
    Connection(Result<Channel, ChannelError>),
    Message(Result<Option<super::channel::Received>, ChannelError>),
}

fn event_of(message: Message) -> Event {
    match message {
        Message::Hello { protocols, release } => {
            tracing::info!("upgrade: the new program is release {release}");
            Event::Hello(protocols)
        }
        Message::Failed { reason } => Event::Failed(reason),
        Message::Ready => Event::Ready,
        Message::Serving => Event::Serving,
        Message::Ending => Event::Ending,
        ours @ (Message::Manifest { .. } | Message::Listeners { .. } | Message::Go | Message::Released) => {
            Event::Broken(format!("it said `{}`, which is for the old process to say", ours.name()))
        }
    }
}

fn ended_as(ended: std::io::Result<ExitStatus>) -> Event {
    Event::Ended(match ended {
        Ok(status) => status.to_string(),
        Err(error) => format!("its end cannot be waited for ({error})"),
    })
}
