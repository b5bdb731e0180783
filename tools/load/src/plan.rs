//! What a run does.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::request::{File, Mix};

/// Requests that may be under way on one connection: more would fill the socket buffers of both sides.
pub const MAX_PIPELINE: usize = 128;

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As soon as a connection is free. What is slow is asked less often, so latencies flatter the server.
    Closed,
    /// This many per second, whether or not earlier ones were answered. Latency counts from the intended moment.
    Open(f64),
}

/// How connections are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One request after the other on a connection that stays open.
    KeepAlive,
    /// Up to this many requests, at most [`MAX_PIPELINE`], in one write.
    Pipelined(usize),
    /// A connection for each request, with `Connection: close`.
    PerRequest,
}

/// When a run ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// After this many requests.
    Requests(u64),
    /// After this time; what is under way is waited for.
    Duration(Duration),
    /// When [`crate::Running::stop`] is called.
    Stopped,
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server; a loopback address.
    pub target: SocketAddr,
    /// Value of `Host`.
    pub host: String,
    /// Connections open at a time.
    pub connections: usize,
    /// When requests are sent.
    pub pace: Pace,
    /// How connections are used.
    pub mode: Mode,
    /// When it ends.
    pub limit: Limit,
    /// How long an answer, a connection or an announced close may take.
    pub timeout: Duration,
    /// Shares of the kinds of requests.
    pub mix: Mix,
    /// What is asked for.
    pub files: Vec<File>,
    /// Base URLs of the mirrors that may be chosen, each with a `/` at its end; empty: any.
    pub mirrors: Vec<String>,
    /// Networks of the clients that `X-Forwarded-For` names; empty: no such header.
    pub clients: Vec<IpNet>,
    /// Decides the sequence of requests.
    pub seed: u64,
}

impl Plan {
    /// One keep-alive connection that asks `target` for `files` until it is stopped; the rest is for the caller to change.
    pub fn new(target: SocketAddr, files: Vec<File>) -> Plan {
        Plan {
            target,
            host: "download.example.org".to_owned(),
            connections: 1,
            pace: Pace::Closed,
            mode: Mode::KeepAlive,
            limit: Limit::Stopped,
            timeout: Duration::from_secs(5),
            mix: Mix::default(),
            files,
            mirrors: Vec::new(),
            clients: Vec::new(),
            seed: 1,
        }
    }

    pub(crate) fn check(&self) -> Result<(), PlanError> {
        if !self.target.ip().is_loopback() {
            return Err(PlanError::NotLoopback(self.target));
        }
        if self.files.is_empty() {
            return Err(PlanError::NoFiles);
        }
        if self.connections == 0 {
            return Err(PlanError::NoConnections);
        }
        if let Pace::Open(rate) = self.pace
            && !(rate.is_finite() && rate > 0.0)
        {
            return Err(PlanError::Rate(rate));
        }
        if let Mode::Pipelined(depth) = self.mode
            && !(1..=MAX_PIPELINE).contains(&depth)
        {
            return Err(PlanError::Depth(depth));
        }
        match self.mirrors.iter().find(|base| !base.ends_with('/')) {
            Some(base) => Err(PlanError::Mirror(base.clone())),
            None => Ok(()),
        }
    }
}

/// A run that was not started.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Load on somebody else's machine is an attack.
    #[error("{0} is not a loopback address; load is sent to this machine only")]
    NotLoopback(SocketAddr),
    /// Nothing to ask for.
    #[error("there are no files to ask for; give a list with at least one path")]
    NoFiles,
    /// Nothing to send on.
    #[error("a run needs at least one connection")]
    NoConnections,
    /// Not a number of requests per second.
    #[error("{0} requests per second is no rate; give a number above 0")]
    Rate(f64),
    /// Too many requests in one write, or none.
    #[error("{0} pipelined requests are not possible; give 1 to {MAX_PIPELINE}")]
    Depth(usize),
    /// Not a base URL.
    #[error("the mirror `{0}` does not end with a slash; give base URLs as redirects start with them")]
    Mirror(String),
    /// The latencies have no place.
    #[error("cannot start the load: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// The system refused.
    #[error("cannot start the load: {0}")]
    System(#[from] std::io::Error),
}
