//! `mb-generate`: makes the inputs of tests, the demo and measurements. The same arguments give the same files.
//!
//! - [`repository`]: a tree of many small files
//! - [`mirrors`]: copies of a repository that share its files, and the servers' configurations for any number of mirrors
//! - [`geo`]: geo databases over documentation prefixes and loopback addresses, from the list in [`places`]

mod geo;
mod mirrors;
mod places;
mod repository;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "mb-generate", about = "Makes the inputs of tests, the demo and measurements")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A repository of small files: sparse, so that they take inodes but no blocks
    Repository {
        /// Folder to create; must not exist
        folder: PathBuf,
        /// Number of files
        #[arg(long, default_value_t = 1000)]
        files: usize,
        /// Another seed gives other names, sizes and times
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Mirrors of a repository: trees that hard-link its files, rsyncd.conf, nginx.conf and add-mirrors.sh
    Mirrors {
        /// Folder to create; must not exist
        folder: PathBuf,
        /// The repository, on the same file system
        #[arg(long)]
        source: PathBuf,
        /// Number of mirrors, up to 4000
        #[arg(long, default_value_t = 10)]
        count: usize,
        /// Chooses the files that differ
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Port of the rsync daemon, on 127.0.0.1
        #[arg(long, default_value_t = 8730)]
        rsync_port: u16,
        /// Port of nginx, on a loopback address for each mirror
        #[arg(long, default_value_t = 8081)]
        http_port: u16,
    },
    /// GeoLite2-City.mmdb and GeoLite2-ASN.mmdb with invented data
    Geo {
        /// Folder to write to
        folder: PathBuf,
    },
}

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
enum GenerateError {
    /// The system refused.
    #[error("cannot {step} {}: {source}", path.display())]
    File { step: &'static str, path: PathBuf, source: std::io::Error },
    /// A database could not be encoded.
    #[error("cannot encode {}: {source}", path.display())]
    Database { path: PathBuf, source: maxminddb_writer::Error },
    /// More mirrors than there are addresses set aside.
    #[error("--count {0} is too large: {max} mirrors at most", max = mirrors::MAX_COUNT)]
    TooManyMirrors(usize),
}

/// Names step and path of a failed file operation.
fn at<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> GenerateError + 'a {
    move |source| GenerateError::File { step, path: path.to_owned(), source }
}

fn main() -> ExitCode {
    let result = match Arguments::parse().what {
        What::Repository { folder, files, seed } => repository::generate(&folder, files, seed),
        What::Mirrors { folder, source, count, seed, rsync_port, http_port } => {
            mirrors::generate(&mirrors::Request { folder, source, count, seed, rsync_port, http_port })
        }
        What::Geo { folder } => geo::generate(&folder),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mb-generate: {error}");
            ExitCode::FAILURE
        }
    }
}
