//! The new process's side at work: `new` decides, this does.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use tokio::time::Instant;

use super::channel::{Channel, ChannelError};
use super::descriptor::{self, WrongDescriptor};
use super::message::{Entry, Message, PROTOCOLS, Role};
use super::new::{Action, Event, RELEASE_TIME, State};
use super::program::SOCKET_VARIABLE;

/// Why nothing can be taken over. The old process goes on.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// The way to the old process.
    #[error("upgrade: {0}")]
    Channel(#[from] ChannelError),
    /// A socket.
    #[error("upgrade: {0}")]
    Descriptor(#[from] WrongDescriptor),
    /// The old process or the order of things.
    #[error("upgrade: {0}")]
    GivenUp(String),
}

/// What the old process passes on.
#[derive(Debug)]
pub struct Inheritance {
    channel: Channel,
    state: State,
    /// When the state has lasted too long.
    deadline: Option<Instant>,
    sockets: Vec<(Entry, OwnedFd)>,
    has_index: bool,
}

impl Inheritance {
    /// Takes all sockets from the old process, if this one was started to do so.
    ///
    /// # Errors
    /// [`InheritError`], of which the old process knows, too.
    pub async fn receive() -> Result<Option<Inheritance>, InheritError> {
        let Some(path) = std::env::var_os(SOCKET_VARIABLE).map(PathBuf::from) else { return Ok(None) };
        let channel = Channel::connect(&path)?;
        Inheritance::from(channel).await.map(Some)
    }

    async fn from(channel: Channel) -> Result<Inheritance, InheritError> {
        let release = env!("CARGO_PKG_VERSION").to_owned();
        channel.send(&Message::Hello { protocols: PROTOCOLS.to_vec(), release }, &[]).await?;
        let state = State::Greeting;
        let mut inheritance =
            Inheritance { channel, state, deadline: deadline_of(state), sockets: Vec::new(), has_index: false };
        loop {
            let event = inheritance.hear().await;
            match inheritance.step(event).await? {
                Action::Load => return Ok(inheritance),
                _ => continue,
            }
        }
    }

    /// The sockets for `role`, which are not given again.
    pub fn take(&mut self, role: Role) -> Vec<(Entry, OwnedFd)> {
        self.sockets.extract_if(.., |(entry, _)| entry.role == role).collect()
    }

    /// Whether the old process answers from an index. One of an earlier release does not tell.
    pub fn has_index(&self) -> bool {
        self.has_index
    }

    /// Tells the old process why this one cannot take over.
    pub async fn fail(mut self, reason: String) {
        // The reason is reported by this process itself, too.
        let _ = self.step(Event::Trouble(reason)).await;
    }

    /// Says that everything is loaded, and waits until the old process accepts no more.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn wait_for_go(&mut self) -> Result<(), InheritError> {
        let mut event = Event::Loaded;
        loop {
            match self.step(event).await? {
                Action::Accept => return Ok(()),
                _ => event = self.hear().await,
            }
        }
    }

    /// Says that this process accepts.
    ///
    /// # Errors
    /// The old process cannot be told.
    pub async fn serving(&mut self) -> Result<(), InheritError> {
        self.step(Event::Accepting).await.map(|_| ())
    }

    /// Waits until the old process has let go of everything, or is gone. May be cancelled, and waited for again.
    pub async fn released(&mut self) {
        while self.state == State::Serving {
            let event = self.hear().await;
            match self.step(event).await {
                Ok(Action::TakeBelongingsUnasked) => {
                    tracing::warn!(
                        "the old process ended, or took more than {} s, without letting go of its indexer and of undelivered \
                         statistics: they are taken",
                        RELEASE_TIME.as_secs()
                    );
                }
                Ok(_) => {}
                Err(error) => tracing::error!("{error}"),
            }
        }
    }

    /// Tells the old process that this one is about to end and waits for what it holds.
    pub async fn ending(&self) {
        if self.state == State::Serving
            && let Err(error) = self.channel.send(&Message::Ending, &[]).await
        {
            tracing::warn!("{error}");
        }
    }

    /// What the old process says next, or does not in time. May be cancelled.
    async fn hear(&mut self) -> Event {
        let received = match self.deadline {
            Some(deadline) => match tokio::time::timeout_at(deadline, self.channel.receive()).await {
                Ok(received) => received,
                Err(_) => return Event::TimeOver,
            },
            None => self.channel.receive().await,
        };
        match received {
            Ok(Some(received)) => match self.keep(&received.message, received.descriptors) {
                Ok(()) => Event::Said(received.message),
                Err(error) => Event::Trouble(error.to_string()),
            },
            Ok(None) => Event::Closed,
            // A message that is not understood says nothing; the end of the connection comes as one.
            Err(error) if self.state == State::Serving => {
                tracing::warn!("{error}");
                Event::Closed
            }
            Err(error) => Event::Trouble(error.to_string()),
        }
    }

    /// Keeps what a message passes on, and checks its sockets.
    fn keep(&mut self, message: &Message, descriptors: Vec<OwnedFd>) -> Result<(), WrongDescriptor> {
        match message {
            Message::Manifest { has_index, .. } => self.has_index = *has_index,
            Message::Listeners { entries, .. } => {
                for (entry, socket) in entries.iter().zip(descriptors) {
                    descriptor::check(socket.as_fd(), entry)?;
                    self.sockets.push((entry.clone(), socket));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Goes on by `event`, and does what needs the channel only.
    async fn step(&mut self, event: Event) -> Result<Action, InheritError> {
        let (state, action) = self.state.after(event);
        if state != self.state {
            self.deadline = deadline_of(state);
        }
        self.state = state;
        match &action {
            Action::SayReady => self.channel.send(&Message::Ready, &[]).await?,
            Action::SayServing => self.channel.send(&Message::Serving, &[]).await?,
            Action::GiveUp(reason) => {
                // The old process may be what is gone.
                let _ = self.channel.send(&Message::Failed { reason: reason.clone() }, &[]).await;
                return Err(InheritError::GivenUp(reason.clone()));
            }
            Action::Wait | Action::Load | Action::Accept | Action::TakeBelongings | Action::TakeBelongingsUnasked => {}
        }
        Ok(action)
    }
}

fn deadline_of(state: State) -> Option<Instant> {
    state.limit().map(|limit| Instant::now() + limit)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::BorrowedFd;

    use super::*;

    fn manifest(listeners: usize) -> Message {
        Message::Manifest { protocol: 1, release: "0".to_owned(), pid: 1, listeners, has_index: true }
    }

    fn entry_of(listener: &TcpListener) -> Entry {
        let local = listener.local_addr().unwrap().to_string();
        Entry { role: Role::Downloads, configured: local.clone(), local, shard: Some(0), reuse_port: false }
    }

    /// Plays the old process with `messages` and tells what the new one makes of it, and what it says last.
    async fn receive(
        messages: &[(Message, &[BorrowedFd<'_>])],
    ) -> (Result<Inheritance, InheritError>, Option<Message>) {
        let (old, new) = Channel::pair();
        for (message, descriptors) in messages {
            old.send(message, descriptors).await.unwrap();
        }
        let received = Inheritance::from(new).await;
        let hello = old.receive().await.unwrap().unwrap().message;
        assert!(matches!(hello, Message::Hello { protocols, .. } if protocols == PROTOCOLS));
        let answer = match &received {
            Err(_) => old.receive().await.unwrap().map(|received| received.message),
            Ok(_) => None,
        };
        (received, answer)
    }

    #[tokio::test]
    async fn sockets_of_several_messages_are_sorted_by_role() {
        let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let mut entries: Vec<Entry> = listeners.iter().map(entry_of).collect();
        entries[1].role = Role::Rpc;
        let first = Message::Listeners { first: 0, entries: entries[..2].to_vec() };
        let second = Message::Listeners { first: 2, entries: entries[2..].to_vec() };
        let (received, _) = receive(&[
            (manifest(3), &[]),
            (first, &[listeners[0].as_fd(), listeners[1].as_fd()]),
            (second, &[listeners[2].as_fd()]),
        ])
        .await;
        let mut inheritance = received.unwrap();
        assert!(inheritance.has_index());
        let downloads = inheritance.take(Role::Downloads);
        assert_eq!(
            downloads.into_iter().map(|(entry, _)| entry).collect::<Vec<_>>(),
            [entries[0].clone(), entries[2].clone()]
        );
        assert_eq!(inheritance.take(Role::Rpc).len(), 1);
        assert_eq!(inheritance.take(Role::Rpc).len(), 0);
    }

    #[tokio::test]
    async fn a_socket_that_is_not_what_was_promised_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut entry = entry_of(&listener);
        entry.local = "127.0.0.1:1".to_owned();
        let listeners = Message::Listeners { first: 0, entries: vec![entry] };
        let (received, answer) = receive(&[(manifest(1), &[]), (listeners, &[listener.as_fd()])]).await;
        received.unwrap_err();
        assert!(matches!(answer, Some(Message::Failed { reason }) if reason.contains("is bound to")));
    }

    #[tokio::test]
    async fn the_end_of_the_old_process_before_go_ends_the_new_one() {
        let (old, new) = Channel::pair();
        old.send(&manifest(0), &[]).await.unwrap();
        let mut inheritance = Inheritance::from(new).await.unwrap();
        drop(old);
        inheritance.wait_for_go().await.unwrap_err();
    }

    /// Both ends at the point where the new process serves.
    async fn serving() -> (Channel, Inheritance) {
        let (old, new) = Channel::pair();
        old.send(&manifest(0), &[]).await.unwrap();
        let mut inheritance = Inheritance::from(new).await.unwrap();
        old.send(&Message::Go, &[]).await.unwrap();
        inheritance.wait_for_go().await.unwrap();
        inheritance.serving().await.unwrap();
        (old, inheritance)
    }

    #[tokio::test]
    async fn the_whole_conversation() {
        let (old, mut inheritance) = serving().await;
        let mut said = Vec::new();
        inheritance.ending().await;
        old.send(&Message::Released, &[]).await.unwrap();
        inheritance.released().await;
        assert_eq!(inheritance.state, State::Owner);
        inheritance.ending().await;
        drop(inheritance);
        while let Some(received) = old.receive().await.unwrap() {
            said.push(received.message.name());
        }
        assert_eq!(said, ["hello", "ready", "serving", "ending"]);
    }

    #[tokio::test]
    async fn what_a_dead_process_held_is_taken() {
        let (old, mut inheritance) = serving().await;
        drop(old);
        inheritance.released().await;
        assert_eq!(inheritance.state, State::Owner);
    }
}
