//! Requests that are long, cut or malformed: each costs its client, and nobody else.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use crate::harness::redirector::{Redirector, get};
use crate::harness::{PATIENCE, eventually};

/// Starts a daemon that answers by itself: there are no files, and no mirrors.
fn started() -> Redirector {
    let mut redirector = Redirector::new();
    redirector.set("MetricsListenAddress", "''");
    redirector.start_without_indexer();
    redirector
}

/// Sends `bytes` in pieces of `size`, and returns the codes of the answers until the connection is closed.
fn codes(redirector: &Redirector, bytes: &[u8], size: usize) -> Vec<u16> {
    let mut stream = TcpStream::connect(redirector.address()).expect("connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("limit");
    stream.set_nodelay(true).expect("no delay");
    for piece in bytes.chunks(size) {
        // The server may close before it has got everything.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut answers = Vec::new();
    let _ = stream.read_to_end(&mut answers);
    let text = String::from_utf8_lossy(&answers).into_owned();
    let heads = text.split("HTTP/1.1 ").skip(1);
    heads.map(|head| head.get(..3).and_then(|code| code.parse().ok()).expect("a code")).collect()
}

/// A head of exactly 8,193 bytes without a line end ended the whole daemon.
#[test]
fn heads_around_the_limits_are_answered_by_themselves() {
    let mut redirector = started();
    for length in 8190..=8196 {
        let head = format!("GET /{}", "0".repeat(length - 5));
        let expected: &[u16] = if length > 8192 { &[414] } else { &[] };
        for size in [length, 1000, 8191, 8192, 8193] {
            assert_eq!(codes(&redirector, head.as_bytes(), size), expected, "{length} bytes by {size}");
        }
    }
    for (empty, length, status) in [("", 8192, 503), ("", 8193, 414), ("\r\n", 8192, 503), ("\r\n\r\n", 8193, 414)] {
        let line = format!("{empty}GET /{} HTTP/1.1", "a".repeat(length - 14));
        let request = format!("{line}\r\nHost: x\r\nConnection: close\r\n\r\n");
        for size in [usize::MAX, 1000, line.len(), line.len() + 1] {
            assert_eq!(codes(&redirector, request.as_bytes(), size), [status], "{length} bytes by {size}");
        }
    }
    for (headers, status) in [(32_767, 503), (32_768, 503), (32_769, 431)] {
        let fields = "Host: x\r\nConnection: close\r\nA: ";
        let request = format!("GET / HTTP/1.1\r\n{fields}{}\r\n\r\n", "b".repeat(headers - fields.len() - 4));
        for size in [usize::MAX, 1000, 16_384] {
            assert_eq!(codes(&redirector, request.as_bytes(), size), [status], "{headers} bytes of headers by {size}");
        }
    }
    redirector.daemon().assert_running();
}

/// Chunks without their line end, and `;x` for a size, were accepted; a body of exactly 64 KiB closed the connection.
#[test]
fn bodies_end_where_they_say_or_are_refused() {
    let redirector = started();
    let next = get("/next", &["Connection: close"]);
    let chunked = |chunks: &[u8]| {
        [b"GET /first HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", chunks, next.as_bytes()].concat()
    };
    let of_size = |size: usize| [format!("{size:x}\r\n").as_bytes(), &vec![b'a'; size], b"\r\n0\r\n\r\n"].concat();
    let cases: [(&str, Vec<u8>, &[u16]); 9] = [
        ("good", chunked(b"5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n"), &[503, 503]),
        ("64 KiB", chunked(&of_size(65_536)), &[503, 503]),
        ("64 KiB and one byte", chunked(&of_size(65_537)), &[413]),
        ("no line end", chunked(b"5\r\nhelloX\r\n0\r\n\r\n"), &[400]),
        ("no line end at all", chunked(b"5\r\nhello0\r\n\r\n"), &[400]),
        ("no size", chunked(b";x\r\n\r\n"), &[400]),
        ("a long extension", chunked(format!("5;{}", "a".repeat(100_000)).as_bytes()), &[400]),
        ("a long trailer", chunked(format!("0\r\nA: {}\r\n\r\n", "a".repeat(5000)).as_bytes()), &[413]),
        ("a space in the target", get("/a b", &[]).into_bytes(), &[400]),
    ];
    for (name, request, expected) in cases {
        for size in [usize::MAX, 4096, 50] {
            assert_eq!(codes(&redirector, &request, size), expected, "{name}, by {size}");
        }
    }
    // A client that asks first is told to go on.
    let mut stream = TcpStream::connect(redirector.address()).expect("connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("limit");
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").expect("head");
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).expect("an interim answer");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").expect("body");
    let mut code = [0; 12];
    stream.read_exact(&mut code).expect("an answer");
    assert_eq!(&code, b"HTTP/1.1 405");
}

/// 1,000 connections with an endless chunk extension took 772 MB and all processor time.
#[test]
fn endless_bodies_take_no_memory() {
    let mut redirector = started();
    let mut clients: Vec<_> = (0..200).map(|_| TcpStream::connect(redirector.address()).expect("connection")).collect();
    let before = resident(&mut redirector);
    for client in &mut clients {
        client.set_write_timeout(Some(PATIENCE)).expect("limit");
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").expect("head");
    }
    let began = Instant::now();
    for _ in 0..50 {
        for client in &mut clients {
            client.write_all(&[b"400\r\n".as_slice(), &[b'a'; 1024], b"\r\n"].concat()).expect("chunk");
        }
    }
    let answer = redirector.get("/other", &[]);
    assert_eq!(answer.status, 503, "the others are served");
    let after = resident(&mut redirector);
    assert!(after < before + 8 * 1024, "{before} KiB, then {after} KiB, after {:?}", began.elapsed());
    for client in &mut clients {
        client.write_all(b"0;").expect("an extension");
        let _ = client.write_all(&[b'a'; 100]);
    }
    eventually("the end of the connections", || match clients.iter().filter(|client| !is_refused(client)).count() {
        0 => Ok(()),
        left => Err(format!("{left} are left")),
    });
}

/// Whether what a client gets is a refusal of its request.
fn is_refused(client: &TcpStream) -> bool {
    client.set_read_timeout(Some(PATIENCE)).expect("limit");
    let mut code = [0; 12];
    client.peek(&mut code).is_ok_and(|count| count == code.len()) && code == *b"HTTP/1.1 400"
}

/// Resident memory of the daemon in KiB.
fn resident(redirector: &mut Redirector) -> u64 {
    redirector.daemon().anonymous_kib()
}

/// A long head in pieces of one byte took as much work as its length squared.
#[test]
fn a_head_byte_by_byte_costs_little() {
    let mut redirector = started();
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "b".repeat(32_000));
    let before = redirector.daemon().processor_time();
    assert_eq!(codes(&redirector, head.as_bytes(), 1), [503]);
    let taken = redirector.daemon().processor_time() - before;
    // A system call for each piece, in a build without optimization, is what is left.
    assert!(taken.as_secs() < 3, "{taken:?}");
}
