//! Redirects at a fixed rate, with and without clients that ask for mirror lists all the time.
//!
//! The daemon has one core for its shard and its page worker: lists must take the time that redirects leave. The clients are on
//! the other core, and those of the lists give way to those that are measured.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use mb_core::priority::give_way;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::contest::{BEFORE, Daemon, OURS, Setting, start_daemon};
use crate::interrupt::Interrupt;
use crate::result::{PacedResult, Results};
use crate::swap::{LOOK_AGAIN, SETTLING, under_load};
use crate::world::{World, path};
use crate::{Arguments, BenchError};

/// Clients of mirror lists.
const CLIENTS: usize = 16;
/// Requests that each of them sends at once.
const PIPELINED: usize = 8;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Measures every build of ours in turns, round by round.
pub(crate) fn run(
    arguments: &Arguments,
    programs: &Path,
    world: &World,
    interrupt: &Interrupt,
    results: &mut Results,
) -> Result<(), BenchError> {
    let (server_core, client_core) = arguments.cores()?;
    let before = arguments.before.iter().flat_map(|programs| BEFORE.map(|setting| (setting, programs.as_path())));
    let builds = before.chain(OURS.map(|setting| (setting, programs)));
    let usual = sched_getaffinity(None)?;
    for (setting, programs) in builds.filter(|(setting, _)| arguments.wants_server(setting.name)) {
        let setting = Setting { core: Some(server_core), ..setting };
        let daemon = match start_daemon(setting, programs, world, interrupt) {
            Ok(daemon) => daemon,
            // Containers often refuse io_uring.
            Err(BenchError::Silent { output, .. }) => {
                eprintln!("without {}: {output}", setting.name);
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut client = CpuSet::new();
        client.set(client_core);
        sched_setaffinity(None, &client)?;
        let measured = measure(arguments, world, &daemon, setting.name, interrupt);
        sched_setaffinity(None, &usual)?;
        results.lists.extend(measured?);
    }
    Ok(())
}

/// The load alone and beside the lists, round by round.
fn measure(
    arguments: &Arguments,
    world: &World,
    daemon: &Daemon,
    name: &'static str,
    interrupt: &Interrupt,
) -> Result<[PacedResult; 2], BenchError> {
    thread::sleep(SETTLING);
    let mut idle = || {
        thread::sleep(LOOK_AGAIN);
        Ok(())
    };
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for round in 0..arguments.rounds {
        eprintln!("round {}: mirror lists beside redirects, {name}", round + 1);
        let duration = arguments.duration();
        let (report, _) = under_load(arguments, world, daemon.address, duration, interrupt, &mut idle)?;
        alone.push(PacedResult::new(name, "no mirror lists", 0, &report));
        let (report, lists) = beside_lists(daemon.address, || {
            under_load(arguments, world, daemon.address, duration, interrupt, &mut idle).map(|(report, _)| report)
        })?;
        beside.push(PacedResult::new(name, "16 clients of mirror lists", lists, &report));
    }
    let none = || BenchError::Idle(io::Error::other("no round"));
    Ok([PacedResult::of_rounds(&alone).ok_or_else(none)?, PacedResult::of_rounds(&beside).ok_or_else(none)?])
}

/// Does `work` while the clients of mirror lists ask. Returns how many lists they got, too.
fn beside_lists<T>(address: SocketAddr, work: impl FnOnce() -> Result<T, BenchError>) -> Result<(T, u64), BenchError> {
    let (is_over, lists) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (is_over, lists) = (&is_over, &lists);
                scope.spawn(move || {
                    give_way();
                    ask_for_lists(address, number, is_over, lists)
                })
            })
            .collect();
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().unwrap_or_else(|_| Err(io::Error::other("a client panicked"))).map_err(BenchError::Idle)?;
        }
        Ok((done?, lists.load(Ordering::Relaxed)))
    })
}

/// Asks for mirror lists until the time `is_over`, and counts them.
fn ask_for_lists(address: SocketAddr, number: usize, is_over: &AtomicBool, lists: &AtomicU64) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut answers = BufReader::with_capacity(64 * 1024, stream.try_clone()?);
    let request = format!(
        "GET {}?mirrorlist HTTP/1.1\r\nHost: download.example.org\r\nX-Forwarded-For: 198.18.{number}.1\r\n\
         Accept: application/json\r\nAccept-Encoding: gzip\r\n\r\n",
        path(number)
    );
    while !is_over.load(Ordering::Relaxed) {
        stream.write_all(request.repeat(PIPELINED).as_bytes())?;
        for _ in 0..PIPELINED {
            read_list(&mut answers)?;
            lists.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Reads an answer, which must be a compressed document.
fn read_list(answers: &mut BufReader<TcpStream>) -> io::Result<()> {
    let (mut line, mut length, mut zipped) = (String::new(), 0, false);
    answers.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other(format!("no mirror list: {line}")));
    }
    while line != "\r\n" {
        line.clear();
        if answers.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        zipped |= line == "Content-Encoding: gzip\r\n";
        if let Some(text) = line.strip_prefix("Content-Length: ") {
            length = text.trim().parse().map_err(io::Error::other)?;
        }
    }
    if !zipped {
        return Err(io::Error::other("a mirror list is not compressed"));
    }
    io::copy(&mut answers.take(length), &mut io::sink()).map(drop)
}
