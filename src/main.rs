//! Hands the command line over to [`mirrorbits::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    mirrorbits::cli::run(std::env::args_os())
}
