//! The runtimes: which one is chosen, and what each asks of the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::net::getsockname;
use rustix::net::sockopt::socket_acceptconn;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};

use crate::harness::host::Place;
use crate::harness::http::Connection;
use crate::harness::program::Program;
use crate::harness::redirector::{Redirector, get};

/// `command` under strace, which writes the calls that `expressions` choose to `trace`. The program is our child and strace
/// its descendant, so that signals reach the program.
fn traced(command: &Command, expressions: &[&str], trace: &Path) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-qq", "-e", "signal=none", "-o"]).arg(trace);
    for expression in expressions {
        strace.args(["-e", expression]);
    }
    strace.arg(command.get_program()).args(command.get_args());
    strace
}

/// The daemon as in a container whose security filter blocks io_uring.
fn without_io_uring(redirector: &Redirector) -> Command {
    let expressions = ["trace=io_uring_setup", "inject=io_uring_setup:error=EPERM"];
    traced(&redirector.daemon_command(), &expressions, Path::new("/dev/null"))
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is missing in: {message}");
    }
}

#[test]
fn a_refused_io_uring_that_was_asked_for_is_explained() {
    let mut redirector = Redirector::new();
    redirector.set("Runtime", "io_uring");
    let mut daemon = Program::start("refused", &mut without_io_uring(&redirector), redirector.folder());
    assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.output());
    assert_says(&daemon.output(), &["Runtime: io_uring", "security filter", "seccomp", "Runtime: auto"]);
}

#[test]
fn a_refused_io_uring_is_replaced_by_epoll_with_the_reason_in_the_log() {
    let mut redirector = Redirector::new();
    redirector.set("Runtime", "auto");
    redirector.start_with(&mut without_io_uring(&redirector));
    redirector.daemon().wait_for_output("on epoll");
    assert_says(&redirector.daemon().output(), &["security filter", "seccomp"]);
    assert_eq!(redirector.get("/file.iso", &[]).status, 503, "the first scan is still to come");
    redirector.stop();
}

/// The lines in `trace` of rings that were made; the first is the probe's, which asks for nothing.
fn rings(trace: &str) -> Vec<&str> {
    let mut made: Vec<_> = trace.lines().filter(|line| !line.contains(" = -1 ")).collect();
    assert!(made.len() > 1, "{trace}");
    made.remove(0);
    made
}

#[test]
fn rings_of_a_shard_do_not_interrupt_it() {
    let mut redirector = Redirector::new();
    redirector.set("Runtime", "io_uring");
    let trace = redirector.folder().join("trace");
    redirector.start_with(&mut traced(&redirector.daemon_command(), &["trace=io_uring_setup"], &trace));
    redirector.stop();
    let trace = fs::read_to_string(trace).expect("trace");
    for ring in rings(&trace) {
        assert!(ring.contains("IORING_SETUP_COOP_TASKRUN|IORING_SETUP_TASKRUN_FLAG"), "{trace}");
    }
}

/// As on Linux 5.18 and older, which know neither flag.
#[test]
fn rings_are_made_without_flags_that_the_kernel_refuses() {
    let mut redirector = Redirector::new();
    redirector.set("Runtime", "io_uring");
    let trace = redirector.folder().join("trace");
    // Every other call of a thread fails: the second ring of the shard is refused at first, and its third.
    let expressions = ["trace=io_uring_setup", "inject=io_uring_setup:error=EINVAL:when=2+2"];
    redirector.start_with(&mut traced(&redirector.daemon_command(), &expressions, &trace));
    assert_eq!(redirector.get("/file.iso", &[]).status, 503, "the first scan is still to come");
    redirector.stop();
    let trace = fs::read_to_string(trace).expect("trace");
    assert!(trace.contains("INJECTED"), "{trace}");
    assert!(rings(&trace).iter().any(|ring| !ring.contains("COOP_TASKRUN")), "{trace}");
}

/// Requests on connections that are kept.
const REQUESTS: usize = 600;
/// Connections that they are sent on, in turn.
const CONNECTIONS: usize = 4;

/// The system calls of a shard while it answers [`REQUESTS`] of some kinds.
struct Calls {
    by_name: BTreeMap<String, usize>,
    /// How often the shard looked after its clock at most.
    ticks: usize,
    /// How often it let its runtime run, at most.
    passes: usize,
}

impl Calls {
    fn of(runtime: &str) -> Calls {
        let mut redirector = Redirector::new();
        redirector.set("Runtime", runtime);
        let _mirrors = redirector.start_with_one_mirror();
        let requests = [
            (302, get("/file.iso", &[&format!("X-Forwarded-For: {}", Place::Tokyo.client())])),
            (200, get("/file.iso", &["Accept: application/json"])),
            (404, get("/missing.iso", &[])),
        ];
        let mut connections: Vec<_> =
            (0..CONNECTIONS).map(|_| Connection::open(redirector.address()).expect("connection")).collect();
        let mut exchange = || {
            for number in 0..REQUESTS {
                let (status, request) = &requests[number % requests.len()];
                let connection = &mut connections[number % CONNECTIONS];
                connection.send(request.as_bytes()).expect("request");
                assert_eq!(connection.receive().expect("answer").status, *status, "{request}");
            }
        };
        // Whatever grows with the first requests has grown after these.
        exchange();

        let trace = redirector.folder().join("trace");
        let shard = thread(redirector.daemon(), "shard-0");
        let mut command = Command::new("strace");
        command.args(["-p", &shard, "-o"]).arg(&trace);
        let mut strace = Program::start("strace", &mut command, redirector.folder());
        strace.wait_for_output("attached");
        let started = Instant::now();
        exchange();
        strace.signal(Signal::INT);
        strace.wait();
        let times = |interval| usize::try_from(started.elapsed().as_millis() / interval + 2).expect("a short test");
        let (ticks, passes) = (times(100), times(10));
        let trace = fs::read_to_string(trace).expect("trace");
        let mut by_name = BTreeMap::new();
        for (name, rest) in trace.lines().filter_map(|line| line.split_once('(')) {
            let name = if rest.contains("ENOTSOCK") { "refused" } else { name };
            *by_name.entry(name.to_owned()).or_default() += 1;
        }
        Calls { by_name, ticks, passes }
    }

    /// Takes the calls of one name away.
    fn take(&mut self, name: &str) -> usize {
        self.by_name.remove(name).unwrap_or_default()
    }

    /// A tick reads the thread's processor time, for the metrics, and may begin a list of downloads for which the allocator
    /// has to enlarge its heap; nothing else is left.
    #[track_caller]
    fn assert_no_others(mut self) {
        let times = self.take("clock_gettime");
        assert!(times <= self.ticks, "{times} readings of the processor time in {} ticks", self.ticks);
        let growths = self.take("mprotect");
        assert!(growths <= self.ticks, "the heap grew {growths} times in {} ticks", self.ticks);
        assert!(self.by_name.is_empty(), "besides: {:?}", self.by_name);
    }
}

/// The id of a program's thread.
fn thread(program: &Program, name: &str) -> String {
    let tasks = fs::read_dir(format!("/proc/{}/task", program.pid().as_raw_pid())).expect("threads");
    let mut tasks = tasks.map(|task| task.expect("thread"));
    // glommio adds a number to the name.
    let found =
        tasks.find(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.starts_with(name)));
    found.expect("thread of that name").file_name().into_string().expect("a number")
}

/// One request at a time is the worst case: each finds the shard waiting. A shard that has just served waits by itself, on either
/// runtime, and lets the runtime run from time to time; `runtime` takes the calls that this one makes then, and for going to
/// sleep, which a test that is slow enough leads to.
#[track_caller]
fn assert_reads_writes_and_waits_once(mut calls: Calls, runtime: impl FnOnce(&mut Calls)) {
    assert_eq!((calls.take("recvfrom"), calls.take("sendto")), (REQUESTS, REQUESTS));
    let waits = calls.take("epoll_pwait");
    assert!((REQUESTS..=REQUESTS + 2 * calls.passes).contains(&waits), "{waits} waits, and {} passes", calls.passes);
    runtime(&mut calls);
    calls.assert_no_others();
}

#[test]
fn a_request_takes_a_read_a_write_and_a_wait_on_epoll() {
    assert_reads_writes_and_waits_once(Calls::of("epoll"), |calls| {
        let (looks, wakes) = (calls.take("epoll_wait"), calls.take("write"));
        assert!(looks <= 2 * calls.passes, "{looks} looks of tokio in {} passes", calls.passes);
        // tokio wakes itself to see a new timer, of which a tick makes one.
        assert!(wakes <= calls.ticks, "{wakes} wakes in {} ticks", calls.ticks);
    });
}

#[test]
fn a_request_takes_a_read_a_write_and_a_wait_on_io_uring() {
    assert_reads_writes_and_waits_once(Calls::of("io_uring"), |calls| {
        // glommio has several rings, and a memory barrier against wakers.
        let (entries, barriers) = (calls.take("io_uring_enter"), calls.take("membarrier"));
        assert!(entries <= 10 * calls.passes, "{entries} entries into rings in {} passes", calls.passes);
        assert!(barriers <= 2 * calls.passes, "{barriers} barriers in {} passes", calls.passes);
        // It is given a descriptor of the poller each time, takes it for a socket, and tries to read.
        let (copies, closed, refused) = (calls.take("fcntl"), calls.take("close"), calls.take("refused"));
        let most = copies.max(closed).max(refused);
        assert!(most <= calls.passes, "{most} copies of the poller in {} passes", calls.passes);
    });
}

/// The only listening socket of `program` at `address`.
fn listening_socket(program: &Program, address: SocketAddr) -> OwnedFd {
    let process = pidfd_open(program.pid(), PidfdFlags::empty()).expect("process");
    let names = fs::read_dir(format!("/proc/{}/fd", program.pid().as_raw_pid())).expect("descriptors");
    let numbers = names.filter_map(|name| name.expect("descriptor").file_name().to_str()?.parse().ok());
    let sockets = numbers.filter_map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok());
    let mut found = sockets.filter(|socket| {
        socket_acceptconn(socket).unwrap_or(false)
            && getsockname(socket).is_ok_and(|name| SocketAddr::try_from(name) == Ok(address))
    });
    found.next().expect("a socket that listens there")
}

/// The kernel wakes only the first of those who wait for a connection in a mode that io_uring's accept has, too; and one that
/// waits may belong to a process which is dead already, of which the kernel gets rid in the background. After an upgrade that
/// failed in this way, connections waited for the next one to come.
#[test]
fn a_connection_is_accepted_even_if_somebody_else_is_woken_for_it() {
    let mut redirector = Redirector::new();
    redirector.set("Shards", 1).start();
    let address = redirector.address();
    let socket = listening_socket(redirector.daemon(), address);
    let ours = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
    let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
    epoll::add(&ours, &socket, epoll::EventData::new_u64(0), flags).expect("interest");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let moment = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            let end = Instant::now() + Duration::from_secs(10);
            while !is_over.load(Ordering::Relaxed) && Instant::now() < end {
                let mut events = Vec::with_capacity(1);
                // It is in the way only while it waits.
                if epoll::wait(&ours, spare_capacity(&mut events), Some(&moment)).is_ok_and(|woken| woken > 0) {
                    thread::sleep(Duration::from_millis(2));
                }
            }
        });
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(10));
            let answer = redirector.get("/file.iso", &[]);
            assert_eq!(answer.status, 503, "the first scan is still to come");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    redirector.stop();
}
