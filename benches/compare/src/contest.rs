//! The servers side by side: all of them run on one core, and one after the other is asked, round after round, so that what
//! changes on the machine meanwhile changes for all of them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use crate::idle::Crowd;
use crate::interrupt::Interrupt;
use crate::process::{Server, pinned};
use crate::result::{Measurement, Results};
use crate::spread;
use crate::swap;
use crate::workload::Workload;
use crate::world::{self, World};
use crate::wrk::{Load, Wrk};
use crate::{Arguments, BenchError};

/// Busy connections of wrk.
const CONNECTIONS: usize = 64;

/// Random requests at most: more than any cache of a processor has lines for.
const REQUESTS: usize = 200_000;

/// A server in the contest.
struct Contestant {
    server: Server,
    address: SocketAddr,
    /// Where connections end after one answer, if that is elsewhere.
    closing: SocketAddr,
    ours: bool,
}

/// A daemon that serves `world`, with its address for downloads and for commands.
pub(crate) struct Daemon {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    pub(crate) rpc: SocketAddr,
}

/// Loopback addresses with free ports, each another one.
fn free_addresses<const N: usize>() -> Result<[SocketAddr; N], BenchError> {
    let bind = |()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listeners = [(); N].map(bind).into_iter().collect::<Result<Vec<_>, _>>().map_err(BenchError::Port)?;
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>();
    let addresses = addresses.map_err(BenchError::Port)?;
    Ok(std::array::from_fn(|number| addresses[number]))
}

/// How a daemon runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) runtime: &'static str,
    pub(crate) shards: usize,
    /// The only core that it may use, if any.
    pub(crate) core: Option<usize>,
}

/// Both runtimes, with one shard that may use all cores.
pub(crate) const OURS: [Setting; 2] = [
    Setting { name: "ours, io_uring", runtime: "io_uring", shards: 1, core: None },
    Setting { name: "ours, epoll", runtime: "epoll", shards: 1, core: None },
];

/// The same of another build.
pub(crate) const BEFORE: [Setting; 2] =
    [Setting { name: "before, io_uring", ..OURS[0] }, Setting { name: "before, epoll", ..OURS[1] }];

/// Starts a daemon.
pub(crate) fn start_daemon(
    setting: Setting,
    programs: &Path,
    world: &World,
    interrupt: &Interrupt,
) -> Result<Daemon, BenchError> {
    let Setting { name, runtime, shards, core } = setting;
    let [address, rpc] = free_addresses()?;
    let config = world.write_config(name, runtime, shards, [address.port(), rpc.port()])?;
    let mut command = pinned(&programs.join("mirrorbits"), core);
    command.args(["daemon", "-monitor=false", "-config"]).arg(config);
    let server = Server::start(name, &mut command, &world.folder, address, interrupt)?;
    Ok(Daemon { server, address, rpc })
}

/// Measures the workloads that servers are asked by wrk, and how soon a change is seen.
pub(crate) fn run(
    arguments: &Arguments,
    programs: &Path,
    world: &World,
    workloads: &[Workload],
    interrupt: &Interrupt,
    results: &mut Results,
) -> Result<(), BenchError> {
    let (server_core, client_core) = arguments.cores()?;
    let by_wrk: Vec<Workload> = workloads.iter().copied().filter(|workload| workload.by_wrk()).collect();
    if !by_wrk.is_empty() {
        let contestants = start(arguments, programs, world, server_core, interrupt)?;
        let wrk = Wrk::new(&world.folder, client_core)?;
        let lists = Lists::write(world)?;
        for round in 0..arguments.rounds {
            for &workload in &by_wrk {
                for contestant in &contestants {
                    if workload.only_ours() && !contestant.ours {
                        continue;
                    }
                    eprintln!("round {}: {}, {}", round + 1, workload.title(), contestant.server.name);
                    let load = Load {
                        requests: if workload.is_random() { &lists.random } else { &lists.one },
                        connections: CONNECTIONS,
                        pipelined: workload.pipelined(),
                        headers: workload.headers(),
                        duration: arguments.duration(),
                    };
                    results.add(measure(contestant, workload, arguments, &wrk, &load, interrupt)?);
                }
            }
        }
    }
    if workloads.contains(&Workload::Change) {
        let daemon = start_daemon(Setting { name: "change", runtime: "auto", ..OURS[0] }, programs, world, interrupt)?;
        results.change_ms = Some(swap::time_changes(&daemon, programs, arguments.rounds, interrupt)?);
    }
    if workloads.contains(&Workload::Spread) {
        results.spread = Some(spread::measure(arguments.rounds, programs, world, interrupt)?);
    }
    Ok(())
}

/// The requests that wrk sends.
struct Lists {
    one: PathBuf,
    random: PathBuf,
}

impl Lists {
    fn write(world: &World) -> Result<Lists, BenchError> {
        let (one, random) = (world.folder.join("one.requests"), world.folder.join("random.requests"));
        let line = format!("{} 198.18.0.1\n", world::path(0));
        std::fs::write(&one, line.repeat(16)).map_err(BenchError::at("write", &one))?;
        world::write_requests(&random, world.size, REQUESTS.min(4 * world.size.files))?;
        Ok(Lists { one, random })
    }
}

fn start(
    arguments: &Arguments,
    programs: &Path,
    world: &World,
    core: usize,
    interrupt: &Interrupt,
) -> Result<Vec<Contestant>, BenchError> {
    let wanted = |name| arguments.wants_server(name);
    let mut contestants = Vec::new();
    if wanted("floor") {
        let [address, closing] = free_addresses()?;
        let mut command = pinned(&programs.join("mb-floor"), Some(core));
        command.args([address.to_string(), closing.to_string()]);
        let server = Server::start("epoll floor", &mut command, &world.folder, address, interrupt)?;
        contestants.push(Contestant { server, address, closing, ours: false });
    }
    if wanted("nginx") {
        let [address] = free_addresses()?;
        let config = world.folder.join("nginx.conf");
        let text = nginx_conf(&world.folder, address, arguments.idle + 1024);
        std::fs::write(&config, text).map_err(BenchError::at("write", &config))?;
        let mut command = pinned(&nginx(), Some(core));
        command.arg("-p").arg(&world.folder).arg("-c").arg(&config).args(["-e", "stderr"]);
        let server = Server::start("nginx", &mut command, &world.folder, address, interrupt)?;
        contestants.push(Contestant { server, address, closing: address, ours: false });
    }
    let before = arguments.before.iter().flat_map(|programs| BEFORE.map(|setting| (setting, programs.as_path())));
    for (setting, programs) in before.chain(OURS.map(|setting| (setting, programs))) {
        let name = setting.name;
        if wanted(name) {
            match start_daemon(Setting { core: Some(core), ..setting }, programs, world, interrupt) {
                Ok(Daemon { server, address, .. }) => {
                    contestants.push(Contestant { server, address, closing: address, ours: true });
                }
                // Containers often refuse io_uring.
                Err(BenchError::Silent { output, .. }) => eprintln!("without {name}: {output}"),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(contestants)
}

/// Debian has it where the path of ordinary users does not lead.
fn nginx() -> PathBuf {
    let sbin = PathBuf::from("/usr/sbin/nginx");
    if sbin.is_file() { sbin } else { PathBuf::from("nginx") }
}

/// As little as nginx can do for a redirect: one process, no log, connections that never end by themselves.
fn nginx_conf(folder: &Path, address: SocketAddr, connections: usize) -> String {
    let folder = folder.display();
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    format!(
        "{user}daemon off;\nmaster_process off;\nworker_rlimit_nofile {files};\npid {folder}/nginx.pid;\n\
         error_log stderr crit;\nevents {{ worker_connections {connections}; use epoll; multi_accept on; }}\nhttp {{\n\
         access_log off;\nserver_tokens off;\nkeepalive_requests 1000000000;\nkeepalive_timeout 1h;\n\
         tcp_nodelay on;\nreset_timedout_connection on;\n\
         client_body_temp_path {folder}/body;\nproxy_temp_path {folder}/proxy;\nfastcgi_temp_path {folder}/fastcgi;\n\
         uwsgi_temp_path {folder}/uwsgi;\nscgi_temp_path {folder}/scgi;\n\
         server {{ listen {address} backlog=4096; location / {{ return 302 http://mirror.example.org/pub/file.iso; }} }}\n}}\n",
        files = connections + 64,
    )
}

fn measure(
    contestant: &Contestant,
    workload: Workload,
    arguments: &Arguments,
    wrk: &Wrk,
    load: &Load<'_>,
    interrupt: &Interrupt,
) -> Result<Measurement, BenchError> {
    let Contestant { server, address, closing, .. } = contestant;
    let address = if workload == Workload::PerRequest { closing } else { address };
    let before = server.resident()?;
    let crowd = match workload {
        Workload::Idle => Some(Crowd::gather(*address, arguments.idle)?),
        _ => None,
    };
    let idle_bytes = match &crowd {
        Some(crowd) => Some(server.resident()?.saturating_sub(before) as f64 / crowd.len().max(1) as f64),
        None => None,
    };
    let cpu = server.cpu_time()?;
    let seen = wrk.run(*address, load, interrupt)?;
    let cpu = server.cpu_time()?.since(cpu);
    drop(crowd);
    if seen.errors > 0 || seen.requests == 0 {
        let (server, workload) = (server.name, workload.title());
        return Err(BenchError::Failed { server, workload, errors: seen.errors, requests: seen.requests });
    }
    Ok(Measurement {
        server: server.name,
        workload,
        per_second: seen.requests as f64 / seen.seconds,
        cpu_us: cpu.total().as_secs_f64() * 1e6 / seen.requests as f64,
        user_us: cpu.user.as_secs_f64() * 1e6 / seen.requests as f64,
        busy: cpu.total().as_secs_f64() / seen.seconds,
        client_busy: seen.busy,
        p50_us: known(seen.p50),
        p99_us: known(seen.p99),
        p999_us: known(seen.p999),
        idle_bytes,
    })
}

/// A latency that wrk knows.
fn known(latency: f64) -> Option<f64> {
    (latency > 0.0).then_some(latency)
}
