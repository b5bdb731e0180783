//! The names in an index folder.
//!
//! | name | what |
//! | --- | --- |
//! | `files-7`, `mirrors-12` | a generation |
//! | `files-8.tmp`, `CURRENT.tmp` | being written, or left behind by a publisher that died |
//! | `CURRENT` | which generations are current |
//! | `LOCK` | locked by the publisher at work |

use std::io;
use std::path::Path;

use crate::header::Kind;

/// Name of the file that says which generations are current. Watch it to learn of new ones.
pub const CURRENT_NAME: &str = "CURRENT";
/// Name of the file whose lock makes publishers take turns.
pub(crate) const LOCK_NAME: &str = "LOCK";
/// End of the names of files that are being written.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// The name of a generation: `files-7`.
pub fn file_name(kind: Kind, generation: u64) -> String {
    format!("{kind}-{generation}")
}

/// The kind and generation that a name stands for; nothing for other names, among them `files-07` and `files-7.tmp`.
pub(crate) fn generation_of(name: &str) -> Option<(Kind, u64)> {
    let (kind, number) = name.split_once('-')?;
    let kind = [Kind::Files, Kind::Mirrors].into_iter().find(|known| known.name() == kind)?;
    let generation = number.parse().ok()?;
    (file_name(kind, generation) == name).then_some((kind, generation))
}

/// The generations of a kind for which there are files, in no order.
pub(crate) fn generations(dir: &Path, kind: Kind) -> io::Result<Vec<u64>> {
    let mut generations = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        generations.extend(name.to_str().and_then(generation_of).filter(|of| of.0 == kind).map(|of| of.1));
    }
    Ok(generations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_that_are_written_are_read() {
        assert_eq!(generation_of("files-7"), Some((Kind::Files, 7)));
        assert_eq!(generation_of("mirrors-18446744073709551615"), Some((Kind::Mirrors, u64::MAX)));
        for name in ["files-07", "files-+7", "files-", "files", "files-7.tmp", "other-7", "files-18446744073709551616"]
        {
            assert_eq!(generation_of(name), None, "{name}");
        }
    }
}
