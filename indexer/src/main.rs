//! The indexer of Mirrorbits; see the library for what it consists of.

use std::process::ExitCode;

fn main() -> ExitCode {
    mb_indexer::cli::run(std::env::args_os())
}
