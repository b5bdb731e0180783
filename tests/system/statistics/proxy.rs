//! Between the daemon and Redis: swallows answers and cuts the connection instead.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// A proxy. Its threads end with their connections, the last with the test's process.
pub(super) struct Proxy {
    address: SocketAddr,
    to_swallow: Arc<AtomicU32>,
}

impl Proxy {
    /// Starts a proxy for `server` that may cut what follows a request that contains `mark`.
    pub(super) fn start(server: SocketAddr, mark: &'static str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let to_swallow = Arc::new(AtomicU32::new(0));
        let left = Arc::clone(&to_swallow);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let left = Arc::clone(&left);
                let Ok(server) = TcpStream::connect(server) else { continue };
                thread::spawn(move || pass_on(client, server, mark, &left));
            }
        });
        Proxy { address, to_swallow }
    }

    /// `RedisAddress`.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Swallows the answers to the next `count` requests with the mark.
    pub(super) fn swallow_answers(&self, count: u32) {
        self.to_swallow.store(count, Ordering::SeqCst);
    }

    /// How many are still to be swallowed.
    pub(super) fn left_to_swallow(&self) -> u32 {
        self.to_swallow.load(Ordering::SeqCst)
    }
}

/// Passes requests and answers on in turn: the daemon waits for each answer before it sends more.
fn pass_on(mut client: TcpStream, mut server: TcpStream, mark: &str, left: &AtomicU32) {
    let mut answers_from = server.try_clone().expect("a second handle");
    let mut answers_to = client.try_clone().expect("a second handle");
    let back = thread::spawn(move || drop(std::io::copy(&mut answers_from, &mut answers_to)));
    let mut buffer = vec![0; 256 * 1024];
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        let request = &buffer[..length];
        let marked = memchr::memmem::find(request, mark.as_bytes()).is_some();
        let take = |left: u32| left.checked_sub(1);
        if marked && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
            // The client hears nothing more. The server is waited for: it closes its side when it has done all that was
            // asked of it.
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.write_all(request);
            let _ = server.shutdown(Shutdown::Write);
            break;
        }
        if server.write_all(request).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Write);
    let _ = back.join();
    let _ = client.shutdown(Shutdown::Both);
}
