//! A connection's stream, of which the runtime does not hear before it has to wait.
//!
//! The request of a new connection has often come by the time the connection is accepted. With one request for each connection
//! reading and writing are all there is to do then: nothing is registered, nor taken back.

use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

/// A stream that a runtime waits on.
pub(super) trait Watched: AsyncRead + AsyncWrite + Unpin + Sized {
    /// Begins to wait on a socket whose calls do not block.
    fn watch(socket: OwnedFd) -> io::Result<Self>;
}

/// A connected socket, watched by the runtime from the first call on that has to wait.
pub(super) struct Stream<W>(State<W>);

enum State<W> {
    Unwatched(OwnedFd),
    Watched(W),
    /// The runtime did not take it.
    Lost,
}

impl<W: Watched> Stream<W> {
    /// A stream of a socket whose calls do not block.
    pub(super) fn new(socket: OwnedFd) -> Stream<W> {
        Stream(State::Unwatched(socket))
    }

    /// Tries `call` on the socket; the stream to wait on when that has to wait, or the result.
    fn attempt<T>(
        &mut self,
        mut call: impl FnMut(&OwnedFd) -> rustix::io::Result<T>,
    ) -> Result<Pin<&mut W>, io::Result<T>> {
        if let State::Unwatched(socket) = &self.0 {
            match rustix::io::retry_on_intr(|| call(socket)) {
                Err(rustix::io::Errno::WOULDBLOCK) => self.watch().map_err(Err)?,
                result => return Err(result.map_err(Into::into)),
            }
        }
        match &mut self.0 {
            State::Watched(stream) => Ok(Pin::new(stream)),
            _ => Err(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn watch(&mut self) -> io::Result<()> {
        if let State::Unwatched(socket) = mem::replace(&mut self.0, State::Lost) {
            self.0 = State::Watched(W::watch(socket)?);
        }
        Ok(())
    }
}

impl<W: Watched> AsyncRead for Stream<W> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.attempt(|socket| recv(socket, &mut *buffer, RecvFlags::empty()).map(|(read, _)| read)) {
            Ok(stream) => stream.poll_read(context, buffer),
            Err(result) => Poll::Ready(result),
        }
    }
}

impl<W: Watched> AsyncWrite for Stream<W> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.attempt(|socket| send(socket, bytes, SendFlags::NOSIGNAL)) {
            Ok(stream) => stream.poll_write(context, bytes),
            Err(result) => Poll::Ready(result),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            State::Watched(stream) => Pin::new(stream).poll_flush(context),
            // What was written is the kernel's.
            State::Unwatched(_) | State::Lost => Poll::Ready(Ok(())),
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            State::Watched(stream) => Pin::new(stream).poll_close(context),
            State::Unwatched(socket) => Poll::Ready(shutdown(socket, Shutdown::Write).map_err(Into::into)),
            State::Lost => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::task::Waker;

    use super::*;

    /// A runtime that notes only that it was given a socket, or refuses it.
    struct Noted<const ACCEPTS: bool>(OwnedFd);

    impl<const ACCEPTS: bool> Watched for Noted<ACCEPTS> {
        fn watch(socket: OwnedFd) -> io::Result<Self> {
            if ACCEPTS { Ok(Noted(socket)) } else { Err(io::ErrorKind::OutOfMemory.into()) }
        }
    }

    impl<const ACCEPTS: bool> AsyncRead for Noted<ACCEPTS> {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
            match recv(&self.0, buffer, RecvFlags::empty()) {
                Ok((count, _)) => Poll::Ready(Ok(count)),
                Err(_) => Poll::Pending,
            }
        }
    }

    impl<const ACCEPTS: bool> AsyncWrite for Noted<ACCEPTS> {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            match send(&self.0, bytes, SendFlags::NOSIGNAL) {
                Ok(count) => Poll::Ready(Ok(count)),
                Err(_) => Poll::Pending,
            }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(shutdown(&self.0, Shutdown::Write).map_err(Into::into))
        }
    }

    fn pair<const ACCEPTS: bool>() -> (Stream<Noted<ACCEPTS>>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Stream::new(ours.into()), theirs)
    }

    fn is_watched<W>(stream: &Stream<W>) -> bool {
        matches!(stream.0, State::Watched(_))
    }

    fn read<W: Watched>(stream: &mut Stream<W>) -> Poll<io::Result<usize>> {
        Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut [0; 8])
    }

    fn write<W: Watched>(stream: &mut Stream<W>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(stream).poll_write(&mut Context::from_waker(Waker::noop()), bytes)
    }

    #[test]
    fn what_does_not_have_to_wait_is_not_watched() {
        let (mut stream, mut client) = pair::<true>();
        client.write_all(b"request").unwrap();
        assert!(matches!(read(&mut stream), Poll::Ready(Ok(7))));
        assert!(matches!(write(&mut stream, b"answer"), Poll::Ready(Ok(6))));
        assert!(Pin::new(&mut stream).poll_close(&mut Context::from_waker(Waker::noop())).is_ready());
        assert!(!is_watched(&stream));
        let mut received = String::new();
        client.read_to_string(&mut received).unwrap();
        assert_eq!(received, "answer");
    }

    #[test]
    fn a_read_that_has_to_wait_is_watched_from_then_on() {
        let (mut stream, mut client) = pair::<true>();
        assert!(read(&mut stream).is_pending());
        assert!(is_watched(&stream));
        client.write_all(b"request").unwrap();
        assert!(matches!(read(&mut stream), Poll::Ready(Ok(7))));
        drop(client);
        assert!(matches!(read(&mut stream), Poll::Ready(Ok(0))));
    }

    #[test]
    fn so_is_a_write_that_finds_no_room() {
        let (mut stream, mut client) = pair::<true>();
        let mut sent = 0;
        while let Poll::Ready(count) = write(&mut stream, &[7; 65_536]) {
            sent += count.unwrap();
        }
        assert!(is_watched(&stream));
        let mut received = vec![0; sent];
        client.read_exact(&mut received).unwrap();
        assert!(received.iter().all(|&byte| byte == 7));
        assert!(write(&mut stream, b"more").is_ready());
    }

    #[test]
    fn a_runtime_that_takes_no_more_ends_the_connection() {
        let (mut stream, mut client) = pair::<false>();
        assert!(matches!(read(&mut stream), Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::OutOfMemory));
        assert!(
            matches!(write(&mut stream, b"x"), Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::NotConnected)
        );
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "its socket is closed");
    }

    #[test]
    fn a_client_that_is_gone_is_an_error() {
        let (mut stream, client) = pair::<true>();
        drop(client);
        assert!(
            matches!(write(&mut stream, b"answer"), Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe)
        );
    }
}
