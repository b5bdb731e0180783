//! Messages and descriptors over a unix socket of type SEQPACKET: a packet arrives whole or not at all.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::message::{MAX_BATCH, MAX_MESSAGE, Message, NotUnderstood};

/// Room for the descriptors of one packet.
const DESCRIPTOR_SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_BATCH));
/// Connections that wait to be looked at: the new process's, and strangers'.
const BACKLOG: i32 = 8;

/// Why a message did not get through.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket cannot be made.
    #[error("{}: cannot {step}: {source}; StateDir must be writable and its path shorter than 90 bytes", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What was being done.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Sending failed.
    #[error("`{message}` cannot be sent: {source}")]
    Send {
        /// Name of the message.
        message: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Receiving failed.
    #[error("no message can be received: {0}")]
    Receive(#[source] io::Error),
    /// A packet or its descriptors did not fit.
    #[error("a message was longer than {MAX_MESSAGE} bytes or had more than {MAX_BATCH} descriptors")]
    Truncated,
    /// A packet is no message.
    #[error(transparent)]
    NotUnderstood(#[from] NotUnderstood),
    /// Descriptors came where none belong, or another number than announced.
    #[error("`{message}` came with {found} descriptors instead of {expected}")]
    Descriptors {
        /// Name of the message.
        message: &'static str,
        /// How many came.
        found: usize,
        /// How many belong to it.
        expected: usize,
    },
}

/// Where the old process waits for the new one. The socket's file is removed when this is dropped.
#[derive(Debug)]
pub struct Endpoint {
    socket: AsyncFd<OwnedFd>,
    path: PathBuf,
}

impl Endpoint {
    /// Listens at `path`; what an earlier process left there is replaced.
    ///
    /// # Errors
    /// [`ChannelError::Socket`].
    pub fn bind(path: &Path) -> Result<Endpoint, ChannelError> {
        let at =
            |step: &'static str| move |source: io::Error| ChannelError::Socket { path: path.to_owned(), step, source };
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at("replace the old socket")(error)),
            _ => {}
        }
        let socket = seqpacket().map_err(at("make a socket"))?;
        let address = SocketAddrUnix::new(path).map_err(|error| at("use this path")(error.into()))?;
        rustix::net::bind(&socket, &address).map_err(|error| at("bind a socket")(error.into()))?;
        // Nobody can connect before `listen`.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(at("protect the socket"))?;
        rustix::net::listen(&socket, BACKLOG).map_err(|error| at("listen")(error.into()))?;
        let socket = registered(socket).map_err(at("wait for connections"))?;
        Ok(Endpoint { socket, path: path.to_owned() })
    }

    /// Waits for the connection of process `pid` of our own user; strangers are turned away. May be cancelled.
    ///
    /// # Errors
    /// [`ChannelError::Receive`].
    pub async fn accept_from(&self, pid: u32) -> Result<Channel, ChannelError> {
        loop {
            let accept =
                |socket: &OwnedFd| Ok(rustix::net::accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?);
            let socket = self.socket.async_io(Interest::READABLE, accept).await.map_err(ChannelError::Receive)?;
            let peer = socket_peercred(&socket).map_err(|error| ChannelError::Receive(error.into()))?;
            let is_ours = u32::try_from(peer.pid.as_raw_nonzero().get()) == Ok(pid);
            if is_ours && peer.uid == rustix::process::geteuid() {
                return Channel::new(socket);
            }
            tracing::warn!(
                "{}: process {} of user {} was turned away",
                self.path.display(),
                peer.pid.as_raw_nonzero(),
                peer.uid.as_raw()
            );
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A message and the descriptors that came with it.
#[derive(Debug)]
pub struct Received {
    /// The message.
    pub message: Message,
    /// As many as its entries if it is [`Message::Listeners`], else none.
    pub descriptors: Vec<OwnedFd>,
}

/// One end of the conversation.
#[derive(Debug)]
pub struct Channel {
    socket: AsyncFd<OwnedFd>,
}

impl Channel {
    fn new(socket: OwnedFd) -> Result<Channel, ChannelError> {
        Ok(Channel { socket: registered(socket).map_err(ChannelError::Receive)? })
    }

    /// Connects to an [`Endpoint`].
    ///
    /// # Errors
    /// [`ChannelError::Socket`].
    pub fn connect(path: &Path) -> Result<Channel, ChannelError> {
        let at =
            |step: &'static str| move |source: io::Error| ChannelError::Socket { path: path.to_owned(), step, source };
        let socket = seqpacket().map_err(at("make a socket"))?;
        let address = SocketAddrUnix::new(path).map_err(|error| at("use this path")(error.into()))?;
        rustix::net::connect(&socket, &address).map_err(|error| at("connect")(error.into()))?;
        Channel::new(socket)
    }

    /// Two ends that are connected.
    #[cfg(test)]
    pub(super) fn pair() -> (Channel, Channel) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (one, other) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        (Channel::new(one).unwrap(), Channel::new(other).unwrap())
    }

    /// Sends a message with copies of `descriptors`, at most [`MAX_BATCH`].
    ///
    /// # Errors
    /// [`ChannelError::Send`].
    pub async fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let bytes = message.encode();
        let send = |socket: &OwnedFd| {
            let mut space = [MaybeUninit::uninit(); DESCRIPTOR_SPACE];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
                return Err(io::Error::from(io::ErrorKind::InvalidInput));
            }
            // The peer may be gone, which is an error here and no signal.
            Ok(rustix::net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
        };
        let sent = self.socket.async_io(Interest::WRITABLE, send).await;
        sent.map(|_| ()).map_err(|source| ChannelError::Send { message: message.name(), source })
    }

    /// Waits for a message; `None` when the other end is closed. May be cancelled: no message is lost.
    ///
    /// # Errors
    /// [`ChannelError`], after which the conversation makes no sense any more. Descriptors that came are closed.
    pub async fn receive(&self) -> Result<Option<Received>, ChannelError> {
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut descriptors = Vec::new();
        let receive = |socket: &OwnedFd| {
            let mut space = [MaybeUninit::uninit(); DESCRIPTOR_SPACE];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let buffer = &mut [IoSliceMut::new(&mut bytes)];
            let received = rustix::net::recvmsg(socket, buffer, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    descriptors.extend(rights);
                }
            }
            Ok((received.bytes, received.flags))
        };
        let (length, flags) = match self.socket.async_io(Interest::READABLE, receive).await {
            Ok(received) => received,
            // It ended with a message of ours unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(ChannelError::Receive(error)),
        };
        if flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(ChannelError::Truncated);
        }
        if length == 0 {
            return Ok(None);
        }
        let message = Message::decode(&bytes[..length])?;
        let expected = if let Message::Listeners { entries, .. } = &message { entries.len() } else { 0 };
        if descriptors.len() != expected {
            let (message, found) = (message.name(), descriptors.len());
            return Err(ChannelError::Descriptors { message, found, expected });
        }
        Ok(Some(Received { message, descriptors }))
    }
}

fn seqpacket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

fn registered(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: `OwnedFd` names the same open descriptor for as long as it lives, and only ever its own.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::{AsFd, AsRawFd};

    use rustix::io::{FdFlags, fcntl_getfd};

    use super::super::message::{Entry, Role};
    use super::*;

    fn entries(count: usize) -> Vec<Entry> {
        let entry = Entry {
            role: Role::Downloads,
            configured: ":8080".to_owned(),
            local: "[::]:8080".to_owned(),
            shard: Some(0),
            reuse_port: true,
        };
        vec![entry; count]
    }

    #[tokio::test]
    async fn descriptors_arrive_in_their_order_and_close_on_exec() {
        let (old, new) = Channel::pair();
        let files: Vec<File> = (0..MAX_BATCH).map(|_| tempfile::tempfile().unwrap()).collect();
        for (number, file) in files.iter().enumerate() {
            write!(&mut &*file, "{number}").unwrap();
        }
        let borrowed: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        let message = Message::Listeners { first: 0, entries: entries(MAX_BATCH) };
        old.send(&message, &borrowed).await.unwrap();
        let received = new.receive().await.unwrap().unwrap();
        assert_eq!(received.message, message);
        for (number, descriptor) in received.descriptors.into_iter().enumerate() {
            assert!(fcntl_getfd(&descriptor).unwrap().contains(FdFlags::CLOEXEC));
            let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
            let mut text = String::new();
            File::open(path).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, number.to_string());
        }
    }

    #[tokio::test]
    async fn a_wrong_number_of_descriptors_is_an_error_and_none_is_kept() {
        let file = tempfile::tempfile().unwrap();
        for (announced, sent) in [(2, 1), (0, 1), (1, 2), (1, 0)] {
            let (old, new) = Channel::pair();
            let (reader, writer) = std::io::pipe().unwrap();
            let mut borrowed = vec![file.as_fd(); sent];
            if let Some(first) = borrowed.first_mut() {
                *first = writer.as_fd();
            }
            old.send(&Message::Listeners { first: 0, entries: entries(announced) }, &borrowed).await.unwrap();
            let error = new.receive().await.unwrap_err();
            assert!(
                matches!(error, ChannelError::Descriptors { found, expected, .. } if (found, expected) == (sent, announced))
            );
            drop(borrowed);
            drop(writer);
            // The end of the pipe comes only when no copy of its other end is left.
            assert_eq!((&reader).read(&mut [0; 1]).unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn descriptors_beside_another_message_are_an_error() {
        let (old, new) = Channel::pair();
        let file = tempfile::tempfile().unwrap();
        old.send(&Message::Go, &[file.as_fd()]).await.unwrap();
        assert!(matches!(new.receive().await, Err(ChannelError::Descriptors { found: 1, expected: 0, .. })));
    }

    #[tokio::test]
    async fn too_much_is_noticed() {
        let (old, new) = Channel::pair();
        old.send(&Message::Failed { reason: "x".repeat(MAX_MESSAGE) }, &[]).await.unwrap();
        assert!(matches!(new.receive().await, Err(ChannelError::Truncated)));
        let file = tempfile::tempfile().unwrap();
        let too_many = vec![file.as_fd(); MAX_BATCH + 10];
        old.send(&Message::Go, &too_many).await.unwrap_err();
    }

    #[tokio::test]
    async fn the_end_of_the_other_is_no_error() {
        let (old, new) = Channel::pair();
        new.send(&Message::Ready, &[]).await.unwrap();
        drop(new);
        assert_eq!(old.receive().await.unwrap().unwrap().message, Message::Ready);
        assert!(old.receive().await.unwrap().is_none());
        assert!(matches!(old.send(&Message::Go, &[]).await, Err(ChannelError::Send { message: "go", .. })));
        let (old, new) = Channel::pair();
        old.send(&Message::Go, &[]).await.unwrap();
        drop(new);
        assert!(old.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn only_the_expected_process_gets_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upgrade.sock");
        fs::write(&path, "left over").unwrap();
        let endpoint = Endpoint::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let stranger = Channel::connect(&path).unwrap();
        {
            let nobody = endpoint.accept_from(std::process::id() + 1);
            tokio::pin!(nobody);
            tokio::select! {
                channel = &mut nobody => panic!("{channel:?}"),
                end = stranger.receive() => assert!(end.unwrap().is_none()),
            }
        }
        let ours = Channel::connect(&path).unwrap();
        let accepted = endpoint.accept_from(std::process::id()).await.unwrap();
        ours.send(&Message::Ready, &[]).await.unwrap();
        assert_eq!(accepted.receive().await.unwrap().unwrap().message, Message::Ready);
        drop(endpoint);
        assert!(!path.exists());
        Channel::connect(&path).unwrap_err();
    }
}
