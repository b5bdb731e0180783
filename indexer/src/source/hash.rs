//! Hashing: one pass over a file for all hashes that are wanted of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use mb_core::config::WantedHashes;
use mb_core::store::FileHashes;
use md5::Md5;
use rayon::prelude::*;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::difference::HashTask;
use super::walk::{file_system_path, modified};
use crate::progress::Cancellation;

/// Read at a time: large enough that system calls and disk seeks vanish beside hashing.
const READ_BYTES: usize = 1 << 20;

/// What became of hashing a file.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Its hashes, the known ones included.
    Hashed(FileHashes),
    /// It is not what the walk saw any more; the next scan takes it up again.
    Changed,
    /// It cannot be read.
    Failed(io::Error),
    /// Hashing was cancelled.
    Cancelled,
}

/// Hashes files in parallel; the outcomes are in the order of the tasks.
pub(super) fn hash_all(root: &Path, tasks: &[HashTask], cancellation: &Cancellation) -> Vec<Outcome> {
    tasks
        .par_iter()
        .with_max_len(1)
        .map(|task| match hash_file(root, task, cancellation) {
            Ok(outcome) => outcome,
            Err(cause) => Outcome::Failed(cause),
        })
        .collect()
}

fn hash_file(root: &Path, task: &HashTask, cancellation: &Cancellation) -> io::Result<Outcome> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(file_system_path(root, &task.path))?;
    if !is_as_walked(&file, task)? {
        return Ok(Outcome::Changed);
    }
    let mut hashers = Hashers::new(task.wanted);
    let mut buffer = vec![0; usize::try_from(task.size).unwrap_or(READ_BYTES).clamp(1, READ_BYTES)];
    loop {
        if cancellation.is_cancelled() {
            return Ok(Outcome::Cancelled);
        }
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => hashers.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(if is_as_walked(&file, task)? { Outcome::Hashed(hashers.finish(task.known)) } else { Outcome::Changed })
}

fn is_as_walked(file: &File, task: &HashTask) -> io::Result<bool> {
    let metadata = file.metadata()?;
    Ok(metadata.is_file() && metadata.len() == task.size && modified(&metadata) == task.modified)
}

struct Hashers {
    sha1: Option<Sha1>,
    sha256: Option<Sha256>,
    md5: Option<Md5>,
}

impl Hashers {
    fn new(wanted: WantedHashes) -> Hashers {
        Hashers {
            sha1: wanted.sha1.then(Sha1::new),
            sha256: wanted.sha256.then(Sha256::new),
            md5: wanted.md5.then(Md5::new),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        if let Some(sha1) = &mut self.sha1 {
            sha1.update(bytes);
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
    }

    fn finish(self, known: FileHashes) -> FileHashes {
        FileHashes {
            sha1: self.sha1.map(|hasher| hasher.finalize().into()).or(known.sha1),
            sha256: self.sha256.map(|hasher| hasher.finalize().into()).or(known.sha256),
            md5: self.md5.map(|hasher| hasher.finalize().into()).or(known.md5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: WantedHashes = WantedHashes { sha1: true, sha256: true, md5: true };

    fn task(root: &Path, wanted: WantedHashes) -> HashTask {
        let metadata = root.join("f").metadata().unwrap();
        HashTask {
            path: b"/f".to_vec(),
            size: metadata.len(),
            modified: modified(&metadata),
            known: FileHashes::default(),
            wanted,
            is_new: true,
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_published_test_vectors_of_abc() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), "abc").unwrap();
        let outcomes = hash_all(folder.path(), &[task(folder.path(), ALL)], &Cancellation::default());
        let [Outcome::Hashed(hashes)] = &outcomes[..] else { panic!("{outcomes:?}") };
        assert_eq!(hex(&hashes.sha1.unwrap()), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(hex(&hashes.md5.unwrap()), "900150983cd24fb0d6963f7d28e17f72");
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(&hashes.sha256.unwrap()), sha256);
    }

    #[test]
    fn a_file_that_is_no_longer_what_the_walk_saw_gets_no_hash() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), "abc").unwrap();
        let task = task(folder.path(), ALL);
        std::fs::write(folder.path().join("f"), "abcd").unwrap();
        let outcomes = hash_all(folder.path(), &[task], &Cancellation::default());
        assert!(matches!(outcomes[..], [Outcome::Changed]), "{outcomes:?}");
    }

    #[test]
    fn a_known_hash_is_kept_beside_a_computed_one() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), "abc").unwrap();
        let mut task = task(folder.path(), WantedHashes { sha1: false, sha256: false, md5: true });
        task.known.sha1 = Some([9; 20]);
        let outcomes = hash_all(folder.path(), &[task], &Cancellation::default());
        let [Outcome::Hashed(hashes)] = &outcomes[..] else { panic!("{outcomes:?}") };
        assert_eq!(hashes.sha1, Some([9; 20]));
        assert!(hashes.md5.is_some() && hashes.sha256.is_none());
    }
}
