//! The indexer's side of the link, played by the test.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;

use mb_core::link::{Request, socket_path};

use crate::server::{PATIENCE, Server};

/// The end of work that has nothing to report.
pub(crate) const DONE: &[u8] = b"{\"event\":\"done\"}\n";

/// The end of the scan of a mirror.
pub(crate) const SCANNED: &[u8] = br#"{"event":"done","scan":{"enabled":true,"files_indexed":12,"known_indexed":10,"removed":1,"timezone_offset_ms":3600000}}
"#;

/// Takes the indexer's place for `jobs` requests, each of which `answer` gets with its connection. Notices of changes are
/// taken beside. Returns the requests.
pub(crate) fn play_indexer(
    server: &Server,
    jobs: usize,
    mut answer: impl FnMut(&Request, &mut UnixStream) + Send + 'static,
) -> JoinHandle<Vec<Request>> {
    let listener = UnixListener::bind(socket_path(server.state_dir())).unwrap();
    std::thread::spawn(move || {
        let mut done = Vec::new();
        while done.len() < jobs {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            match serde_json::from_str(&line).unwrap() {
                Request::MirrorsChanged { .. } => stream.write_all(DONE).unwrap(),
                request => {
                    answer(&request, &mut stream);
                    done.push(request);
                }
            }
        }
        done
    })
}
