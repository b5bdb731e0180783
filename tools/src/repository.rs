//! A repository as a distribution has it: a pool of packages in many folders, and a few folders of images.
//!
//! Files are sparse: they have a size but no blocks, so 200,000 of them take their inodes and nothing else. Their sizes
//! are spread evenly on a logarithmic scale up to 64 KiB, which keeps hashing them all a matter of seconds.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use fastrand::Rng;

use crate::{GenerateError, at};

/// Files in one folder.
const FILES_PER_FOLDER: usize = 20;

/// Files have at most two to this power of bytes.
const LARGEST_SIZE_LOG2: u32 = 16;

/// Times lie between this, 2016-01-01, and ten years later; Unix seconds.
const EARLIEST: u64 = 1_451_606_400;
const TEN_YEARS: u64 = 10 * 365 * 86_400;

const WORDS: [&str; 16] = [
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "islet", "juniper", "kelp", "larch",
    "maple", "nettle", "osprey", "quartz",
];

/// Endings of names; some need percent-encoding.
const ENDINGS: [&str; 8] =
    ["_amd64.deb", "_arm64.deb", "_all.deb", ".tar.xz", ".iso", "-größer.rpm", " (beta).zip", "#1+100%.txt"];

/// Creates `folder` with `files` files.
pub(crate) fn generate(folder: &Path, files: usize, seed: u64) -> Result<(), GenerateError> {
    fs::create_dir(folder).map_err(at("create", folder))?;
    let mut rng = Rng::with_seed(seed);
    let mut current = folder.to_owned();
    for number in 0..files {
        if number % FILES_PER_FOLDER == 0 {
            current = folder.join(folder_name(number / FILES_PER_FOLDER, &mut rng));
            fs::create_dir_all(&current).map_err(at("create", &current))?;
        }
        let word = WORDS[rng.usize(..WORDS.len())];
        let ending = ENDINGS[rng.usize(..ENDINGS.len())];
        let name = format!("{word}-{number}_{}.{}-{}{ending}", rng.u8(0..10), rng.u8(0..30), rng.u8(1..5));
        write_sparse(&current.join(name), random_size(&mut rng), random_time(&mut rng))?;
    }
    Ok(())
}

/// Creates a file that has a size but no content; an existing one with this name is replaced.
pub(crate) fn write_sparse(path: &Path, size: u64, modified: SystemTime) -> Result<(), GenerateError> {
    let file = File::create(path).map_err(at("create", path))?;
    file.set_len(size).map_err(at("set the size of", path))?;
    file.set_modified(modified).map_err(at("set the time of", path))
}

fn folder_name(number: usize, rng: &mut Rng) -> String {
    let word = WORDS[rng.usize(..WORDS.len())];
    match number % 10 {
        0 => format!("images/{word}/{number}"),
        1 => format!("releases/{}.{}/{word}-{number}", number / 100, number % 100),
        _ => format!("pool/main/{}/{word}-{number}", &word[..1]),
    }
}

fn random_size(rng: &mut Rng) -> u64 {
    let magnitude = rng.u32(0..=LARGEST_SIZE_LOG2);
    rng.u64(0..=1 << magnitude)
}

fn random_time(rng: &mut Rng) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(EARLIEST + rng.u64(0..TEN_YEARS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(folder: &Path) -> Vec<(String, u64, SystemTime)> {
        let mut files = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(current) = folders.pop() {
            for entry in fs::read_dir(&current).expect("folder") {
                let entry = entry.expect("entry");
                let metadata = entry.metadata().expect("metadata");
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else {
                    let name = entry.path().strip_prefix(folder).expect("below the folder").display().to_string();
                    files.push((name, metadata.len(), metadata.modified().expect("time")));
                }
            }
        }
        files.sort();
        files
    }

    #[test]
    fn seed_decides_everything() {
        let temporary = tempfile::tempdir().expect("temporary folder");
        let [a, b, c] = ["a", "b", "c"].map(|name| temporary.path().join(name));
        generate(&a, 333, 7).expect("first");
        generate(&b, 333, 7).expect("same");
        generate(&c, 333, 8).expect("other");
        assert_eq!(listing(&a).len(), 333);
        assert_eq!(listing(&a), listing(&b));
        assert_ne!(listing(&a), listing(&c));
    }
}
