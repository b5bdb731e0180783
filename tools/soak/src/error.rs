//! Why a soak ended early. A soak that ends early has not passed.

use std::path::{Path, PathBuf};

/// What stopped the soak.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SoakError {
    #[error("cannot {step} {}: {source}", path.display())]
    File { step: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{name} is not in {}: run `make soak`, which builds it", folder.display())]
    MissingProgram { name: &'static str, folder: PathBuf },
    #[error("cannot start {program}: {source}; `make soak` installs what is needed")]
    Start { program: &'static str, source: std::io::Error },
    #[error("{what} did not happen within {seconds} s; the last lines of the daemon: {log}")]
    Timeout { what: String, seconds: u64, log: String },
    #[error("`mirrorbits {command}` failed: {output}")]
    Command { command: String, output: String },
    #[error("no port of the loopback address is free: {0}")]
    Port(std::io::Error),
    #[error("an honest visitor was not answered: {0}")]
    Visit(std::io::Error),
    #[error("the thread of the attackers cannot be started: {0}")]
    Attackers(std::io::Error),
    #[error("the descriptor limit cannot be raised: {0}")]
    Descriptors(rustix::io::Errno),
    #[error(transparent)]
    Plan(#[from] mb_load::PlanError),
    #[error(transparent)]
    Load(#[from] mb_load::run::RunError),
}

impl SoakError {
    /// Names the step and the path of a failed file operation.
    pub(crate) fn at<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> SoakError + 'a {
        move |source| SoakError::File { step, path: path.to_owned(), source }
    }
}
