//! Time and memory of building an index from stored scan results, without a network:
//! `cargo run --release -p mb-indexer --example measure_build -- [files] [mirrors] [parts] [late]`.
//!
//! The repository is cut into `parts` subtrees, of which each mirror lacks some; with 1 part all mirrors are complete. On
//! `late` of the mirrors all times are off.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| arguments.next().map_or(Ok(default), |argument| argument.parse::<u32>());
    let folder = tempfile::tempdir()?;
    mb_indexer::measure::build(folder.path(), number(1_000_000)?, number(400)?, number(1)?, number(0)?)
}
