//! Time and memory of building an index from stored scan results, without a network:
//! `cargo run --release -p mb-indexer --example measure_build -- [files] [mirrors] [parts] [late] [rule]`.
//!
//! The repository is cut into `parts` subtrees, of which each mirror lacks some; with 1 part all mirrors are complete. On
//! `late` of the mirrors all times are off. With `rule` 1 a rule of `AllowOutdatedFiles` is for all files.

use mb_indexer::measure::Size;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| arguments.next().map_or(Ok(default), |argument| argument.parse::<u32>());
    let folder = tempfile::tempdir()?;
    let size = Size {
        files: number(1_000_000)?,
        mirrors: number(400)?,
        parts: number(1)?,
        late: number(0)?,
        has_rule: number(0)? > 0,
    };
    mb_indexer::measure::build(folder.path(), size)
}
