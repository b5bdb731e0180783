//! Why there is no table.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What stopped the run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error("interrupted")]
    Interrupted,
    #[error("cannot {step} {}: {source}", path.display())]
    File { step: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{name} is not in {}: run `make bench`, or build the whole workspace", folder.display())]
    Missing { name: &'static str, folder: PathBuf },
    #[error("cannot run {program}: {source}; `make bench` installs what is needed")]
    Start { program: &'static str, source: std::io::Error },
    #[error("{program} does not accept connections at {address}; it said: {output}")]
    Silent { program: &'static str, address: SocketAddr, output: String },
    #[error("{0} is not as proc(5) describes it")]
    Proc(String),
    #[error("wrk printed no result: {0}")]
    Wrk(String),
    #[error("{server}, {workload}: {errors} of {requests} requests failed")]
    Failed { server: &'static str, workload: &'static str, errors: u64, requests: u64 },
    #[error("an answer never changed after `mirrorbits {0}`")]
    Unchanged(String),
    #[error("`{0}` failed: {1}")]
    Command(String, String),
    #[error("{needed} descriptors are needed and {maximum} allowed: raise `ulimit -Hn`, or give a smaller --idle")]
    Descriptors { needed: u64, maximum: u64 },
    #[error("no port of the loopback address can be had: {0}")]
    Port(std::io::Error),
    #[error("idle connections: {0}")]
    Idle(std::io::Error),
    #[error("signals: {0}")]
    Signals(std::io::Error),
    #[error("system call: {0}")]
    System(#[from] rustix::io::Errno),
    #[error("geo database: {0}")]
    Geo(#[from] maxminddb_writer::Error),
    #[error(transparent)]
    Store(#[from] mb_core::store::StoreError),
    #[error(transparent)]
    Publish(#[from] mb_index::PublishError),
    #[error(transparent)]
    Build(#[from] mb_index::BuildError),
    #[error("the index just published was refused")]
    Refused,
    #[error(transparent)]
    Plan(#[from] mb_load::PlanError),
    #[error(transparent)]
    Load(#[from] mb_load::run::RunError),
    #[error("JSON: {0}")]
    Json(serde_json::Error),
}

impl BenchError {
    /// Names step and path of a failed file operation.
    pub(crate) fn at<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> BenchError + 'a {
        move |source| BenchError::File { step, path: path.to_owned(), source }
    }
}
