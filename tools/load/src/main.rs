//! `mb-load`: load on a redirector of this machine, with a look at every answer.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ipnet::IpNet;
use mb_load::{File, Limit, Mix, Mode, Pace, Plan, PlanError, Report, start};

/// Sends requests to a redirector on a loopback address and verifies every answer. Ends with 1 when anything failed.
#[derive(Debug, Parser)]
#[command(name = "mb-load", version)]
struct Arguments {
    /// The server, such as 127.0.0.1:8080
    target: SocketAddr,
    /// List of paths, one on each line; a status other than 302 follows after a tab
    #[arg(long)]
    files: PathBuf,
    /// List of the base URLs of the mirrors that may be chosen; any without it
    #[arg(long)]
    mirrors: Option<PathBuf>,
    /// Requests per second; as many as are answered without it
    #[arg(long)]
    rate: Option<f64>,
    /// Connections open at a time
    #[arg(long, short, default_value_t = 64)]
    connections: usize,
    /// Requests under way on one connection
    #[arg(long, value_name = "DEPTH")]
    pipeline: Option<usize>,
    /// One connection for each request
    #[arg(long, conflicts_with = "pipeline")]
    close: bool,
    /// Kinds of requests and their shares, out of get, head, json, range, conditional and missing
    #[arg(long, default_value = "get=1")]
    mix: Mix,
    /// Networks of the clients that X-Forwarded-For names, such as 192.0.2.0/24
    #[arg(long, value_delimiter = ',')]
    clients: Vec<IpNet>,
    /// Host header
    #[arg(long, default_value = "download.example.org")]
    host: String,
    /// Ends after this many requests
    #[arg(long)]
    requests: Option<u64>,
    /// Ends after this many seconds; 10 unless there is a number of requests
    #[arg(long, conflicts_with = "requests")]
    duration: Option<f64>,
    /// Seconds that an answer may take
    #[arg(long, default_value_t = 5.0)]
    timeout: f64,
    /// Decides the sequence of requests
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    List(#[from] mb_load::request::ListError),
    #[error("{0} is no number of seconds")]
    Seconds(f64),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Run(#[from] mb_load::run::RunError),
    #[error("cannot write the report: {0}")]
    Write(#[from] serde_json::Error),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(report) if report.failures() == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mb-load: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<Report, LoadError> {
    let plan = plan(arguments)?;
    let report = start(plan.clone())?.wait()?;
    if arguments.json {
        report.write_json(&plan, std::io::stdout())?;
        println!();
    } else {
        print!("{report}");
    }
    Ok(report)
}

fn plan(arguments: &Arguments) -> Result<Plan, LoadError> {
    let mut plan = Plan::new(arguments.target, File::list(&read(&arguments.files)?)?);
    plan.host.clone_from(&arguments.host);
    plan.connections = arguments.connections;
    plan.pace = arguments.rate.map_or(Pace::Closed, Pace::Open);
    plan.mode = match (arguments.close, arguments.pipeline) {
        (true, _) => Mode::PerRequest,
        (false, Some(depth)) => Mode::Pipelined(depth),
        (false, None) => Mode::KeepAlive,
    };
    plan.limit = match arguments.requests {
        Some(requests) => Limit::Requests(requests),
        None => Limit::Duration(seconds(arguments.duration.unwrap_or(10.0))?),
    };
    plan.timeout = seconds(arguments.timeout)?;
    plan.mix = arguments.mix;
    plan.clients.clone_from(&arguments.clients);
    plan.seed = arguments.seed;
    if let Some(path) = &arguments.mirrors {
        plan.mirrors = read(path)?.lines().map(str::to_owned).collect();
    }
    Ok(plan)
}

fn read(path: &Path) -> Result<String, LoadError> {
    fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })
}

fn seconds(value: f64) -> Result<Duration, LoadError> {
    Duration::try_from_secs_f64(value).map_err(|_| LoadError::Seconds(value))
}
