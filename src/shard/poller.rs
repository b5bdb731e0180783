//! What a shard waits on: its connections and its listening sockets, in one epoll instance on either runtime.
//!
//! All of them are watched edge-triggered, so that a connection is named to the kernel once in its life, and forgotten by it
//! with its last descriptor. The instance itself can be polled, which is how the runtime waits for any of them.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use slab::Slab;
use socket2::Socket;

use super::Shard;
use super::signal::Signal;

/// Most events taken at once. More are taken by the next look.
pub(super) const EVENTS: usize = 256;
/// Marks the keys of listening sockets.
const DOOR: u64 = 1 << 63;
/// The key of what other threads nudge.
const NUDGE: u64 = u64::MAX;

/// What connections are watched for.
const READING: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);

/// An epoll instance.
pub struct Poller {
    epoll: OwnedFd,
    doors: RefCell<Slab<Rc<Frame>>>,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    /// To a connection.
    To(Event),
    /// A connection has come to the listening socket of this key.
    Knock(usize),
    /// Another thread has something for one of the shard's tasks.
    Nudge,
}

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// The key that it is watched by.
    pub key: usize,
    /// There may be something to read.
    pub readable: bool,
    /// There may be room to write.
    pub writable: bool,
    /// The other side has closed, or the connection failed: what there is to read has an end.
    pub hung_up: bool,
}

impl From<epoll::Event> for Event {
    fn from(event: epoll::Event) -> Event {
        let flags = event.flags;
        let hung_up = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        Event {
            // It was made from a usize.
            key: event.data.u64() as usize,
            readable: hung_up || flags.contains(EventFlags::IN),
            writable: flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR),
            hung_up,
        }
    }
}

impl Poller {
    /// An instance that watches what other threads nudge a shard by, for [`Poller::new`].
    ///
    /// # Errors
    /// The system has no memory or descriptors left.
    pub fn create(nudged: impl AsFd) -> io::Result<OwnedFd> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, nudged, EventData::new_u64(NUDGE), EventFlags::IN | EventFlags::ET)?;
        Ok(epoll)
    }

    /// Uses an instance that was created for it.
    pub fn new(epoll: OwnedFd) -> Poller {
        Poller { epoll, doors: RefCell::default() }
    }

    /// Watches a connection until it is closed. What has happened already is told, too.
    pub(super) fn watch(&self, connection: &OwnedFd, key: usize) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, connection, EventData::new_u64(key as u64), READING)?)
    }

    /// Tells when there is room to write, too, from now on. Nearly always there is, and it would be told of each connection.
    pub(super) fn watch_writing(&self, connection: &OwnedFd, key: usize) -> io::Result<()> {
        let flags = READING | EventFlags::OUT;
        Ok(epoll::modify(&self.epoll, connection, EventData::new_u64(key as u64), flags)?)
    }

    /// Tells what has happened, and waits for at most `patience` until something has. Returns whether there may be more.
    pub(super) fn look(&self, patience: Duration, mut tell: impl FnMut(Happened)) -> io::Result<bool> {
        let mut events = [const { MaybeUninit::uninit() }; EVENTS];
        // Far less than the seconds that this can hold.
        let patience = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
        let events = match epoll::wait(&self.epoll, &mut events, Some(&patience)) {
            Err(Errno::INTR) => return Ok(true),
            events => events?.0,
        };
        for &event in events.iter() {
            match event.data.u64() {
                NUDGE => tell(Happened::Nudge),
                key if key & DOOR != 0 => tell(Happened::Knock((key & !DOOR) as usize)),
                _ => tell(Happened::To(event.into())),
            }
        }
        Ok(events.len() == EVENTS)
    }

    /// The listening socket of a key, unless its door is gone by now.
    pub(super) fn door(&self, key: usize) -> Option<Rc<Frame>> {
        self.doors.borrow().get(key).cloned()
    }
}

/// What a listening socket is accepted from by.
pub(super) struct Frame {
    pub socket: Arc<Socket>,
    /// Accepting failed with this.
    failure: RefCell<Option<io::Error>>,
    failed: Signal,
}

impl Frame {
    /// Tells who opened the door that accepting failed.
    pub fn fail(&self, error: io::Error) {
        self.failure.replace(Some(error));
        self.failed.raise();
    }
}

/// A listening socket that the shard accepts from. Dropped, it does not any more.
///
/// All who wait on a socket in this way are woken by a connection, those of other processes, too. The mode of io_uring's accept
/// has the kernel wake one of them, who may be a process that is dead already: the kernel ends its requests in the background,
/// and the connection would wait for the next to come.
pub(super) struct Door {
    shard: Rc<Shard>,
    key: usize,
    frame: Rc<Frame>,
}

impl Door {
    /// Has the shard accept from a socket, whose calls do not block. Whoever has come before is noticed, too.
    pub fn open(shard: &Rc<Shard>, socket: &Arc<Socket>) -> io::Result<Door> {
        let poller = &shard.poller;
        let frame = Rc::new(Frame { socket: socket.clone(), failure: RefCell::default(), failed: Signal::default() });
        let key = poller.doors.borrow_mut().insert(frame.clone());
        let door = Door { shard: shard.clone(), key, frame };
        epoll::add(&poller.epoll, socket, EventData::new_u64(key as u64 | DOOR), EventFlags::IN | EventFlags::ET)?;
        Ok(door)
    }

    /// Waits until accepting fails; then it is to be opened anew.
    pub async fn failed(&self) -> io::Error {
        self.frame.failed.caught().await;
        self.frame.failure.take().unwrap_or_else(|| io::ErrorKind::Other.into())
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let poller = &self.shard.poller;
        poller.doors.borrow_mut().remove(self.key);
        // It was not added if opening failed.
        let _ = epoll::delete(&poller.epoll, &self.frame.socket);
    }
}
