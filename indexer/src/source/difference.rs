//! What a walk changes in the stored source: pure, by one merge of two sorted sequences.

use std::cmp::Ordering;

use mb_core::config::WantedHashes;
use mb_core::store::{FileHashes, SourceChanges, SourceEntry, SourceEntryKind};
use mb_core::time::FileTime;

use super::walk::{Walk, Walked, WalkedKind};

/// A file to be hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HashTask {
    /// Absolute within the repository.
    pub(crate) path: Vec<u8>,
    /// Size that the walk saw.
    pub(crate) size: u64,
    /// Modification time that the walk saw.
    pub(crate) modified: FileTime,
    /// Hashes that are known and stay valid.
    pub(crate) known: FileHashes,
    /// Hashes to compute.
    pub(crate) wanted: WantedHashes,
    /// Whether the store has no file at this path yet.
    pub(crate) is_new: bool,
}

/// Everything that follows from comparing a walk with what is stored.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    /// Changes that need no hashing.
    pub(crate) changes: SourceChanges,
    /// Files that need hashing; a new one can be stored without hashes meanwhile, a changed one keeps its old entry.
    pub(crate) to_hash: Vec<HashTask>,
    /// Files that the walk found.
    pub(crate) files: u64,
    /// Files that were stored before.
    pub(crate) previous_files: u64,
    /// Files that are gone.
    pub(crate) removed_files: u64,
    /// Files that keep their entry since they could not be read.
    pub(crate) kept_unread: u64,
}

impl Difference {
    /// Whether this looks like an unmounted disk rather than a change: the repository is empty all of a sudden, or lost
    /// more than half of its files.
    pub(crate) fn is_suspicious(&self) -> bool {
        self.previous_files > 0 && (self.files + self.kept_unread == 0 || self.removed_files * 2 > self.previous_files)
    }
}

/// A comparison in progress: [`Comparison::previous`] takes the stored entries by ascending path.
#[derive(Debug)]
pub(crate) struct Comparison<'a> {
    walked: std::slice::Iter<'a, Walked>,
    unreadable: &'a [Vec<u8>],
    wanted: WantedHashes,
    rehash: bool,
    difference: Difference,
}

impl<'a> Comparison<'a> {
    /// A comparison with nothing stored yet seen. With `rehash`, known hashes are not trusted.
    pub(crate) fn new(walk: &'a Walk, wanted: WantedHashes, rehash: bool) -> Comparison<'a> {
        Comparison {
            walked: walk.entries.iter(),
            unreadable: &walk.unreadable,
            wanted,
            rehash,
            difference: Difference::default(),
        }
    }

    /// Takes the next stored entry.
    pub(crate) fn previous(&mut self, stored: SourceEntry) {
        self.difference.previous_files += u64::from(is_file(&stored.kind));
        while let Some(walked) = self.walked.as_slice().first() {
            match walked.path.cmp(&stored.path) {
                Ordering::Less => {
                    self.walked.next();
                    self.new_entry(walked);
                }
                Ordering::Equal => {
                    self.walked.next();
                    self.same_path(walked, &stored.kind);
                    return;
                }
                Ordering::Greater => break,
            }
        }
        self.missing(stored);
    }

    /// The result, once all stored entries were taken.
    pub(crate) fn finish(mut self) -> Difference {
        while let Some(walked) = self.walked.next() {
            self.new_entry(walked);
        }
        self.difference
    }

    fn missing(&mut self, stored: SourceEntry) {
        let is_file = is_file(&stored.kind);
        if self.unreadable.iter().any(|unread| is_at_or_below(&stored.path, unread)) {
            self.difference.kept_unread += u64::from(is_file);
            return;
        }
        self.difference.removed_files += u64::from(is_file);
        self.difference.changes.removals.push(stored.path);
    }

    fn new_entry(&mut self, walked: &Walked) {
        match &walked.kind {
            &WalkedKind::File { size, modified } => self.file(walked, size, modified, FileHashes::default(), None),
            other => self.upsert(walked, stored_kind(other)),
        }
    }

    fn same_path(&mut self, walked: &Walked, stored: &SourceEntryKind) {
        match (&walked.kind, stored) {
            (
                &WalkedKind::File { size, modified },
                &SourceEntryKind::File { size: old_size, modified: old_modified, hashes },
            ) => {
                let unchanged = size == old_size && modified == old_modified;
                let known = if unchanged { hashes } else { FileHashes::default() };
                self.file(walked, size, modified, known, Some(unchanged));
            }
            (&WalkedKind::File { size, modified }, _) => {
                self.file(walked, size, modified, FileHashes::default(), None);
            }
            (other, stored) => {
                let kind = stored_kind(other);
                self.difference.removed_files += u64::from(is_file(stored));
                if kind != *stored {
                    self.upsert(walked, kind);
                }
            }
        }
    }

    /// `unchanged` is `None` when no file is stored at the path.
    fn file(&mut self, walked: &Walked, size: u64, modified: FileTime, known: FileHashes, unchanged: Option<bool>) {
        self.difference.files += 1;
        let wanted = WantedHashes {
            sha1: self.wanted.sha1 && (self.rehash || known.sha1.is_none()),
            sha256: self.wanted.sha256 && (self.rehash || known.sha256.is_none()),
            md5: self.wanted.md5 && (self.rehash || known.md5.is_none()),
        };
        if wanted.sha1 || wanted.sha256 || wanted.md5 {
            let is_new = unchanged.is_none();
            self.difference.to_hash.push(HashTask { path: walked.path.clone(), size, modified, known, wanted, is_new });
        } else if unchanged != Some(true) {
            self.upsert(walked, SourceEntryKind::File { size, modified, hashes: known });
        }
    }

    fn upsert(&mut self, walked: &Walked, kind: SourceEntryKind) {
        self.difference.changes.upserts.push(SourceEntry { path: walked.path.clone(), kind });
    }
}

fn is_file(kind: &SourceEntryKind) -> bool {
    matches!(kind, SourceEntryKind::File { .. })
}

fn is_at_or_below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

fn stored_kind(kind: &WalkedKind) -> SourceEntryKind {
    match kind {
        &WalkedKind::File { size, modified } => SourceEntryKind::File { size, modified, hashes: FileHashes::default() },
        WalkedKind::Directory => SourceEntryKind::Directory,
        WalkedKind::Alias(target) => SourceEntryKind::Alias { target: target.clone() },
        WalkedKind::Forbidden => SourceEntryKind::Forbidden,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: WantedHashes = WantedHashes { sha1: false, sha256: true, md5: false };

    fn walked(path: &str, size: u64) -> Walked {
        Walked { path: path.into(), kind: WalkedKind::File { size, modified: FileTime(7) } }
    }

    fn stored(path: &str, size: u64) -> SourceEntry {
        let hashes = FileHashes { sha256: Some([1; 32]), ..FileHashes::default() };
        SourceEntry { path: path.into(), kind: SourceEntryKind::File { size, modified: FileTime(7), hashes } }
    }

    fn compare(walk: &Walk, stored: Vec<SourceEntry>, wanted: WantedHashes, rehash: bool) -> Difference {
        let mut comparison = Comparison::new(walk, wanted, rehash);
        stored.into_iter().for_each(|entry| comparison.previous(entry));
        comparison.finish()
    }

    fn paths(tasks: &[HashTask]) -> Vec<&str> {
        tasks.iter().map(|task| std::str::from_utf8(&task.path).unwrap()).collect()
    }

    #[test]
    fn only_new_and_changed_files_are_hashed() {
        let walk = Walk { entries: vec![walked("/a", 1), walked("/b", 2), walked("/new", 3)], unreadable: vec![] };
        let difference = compare(&walk, vec![stored("/a", 1), stored("/b", 9), stored("/gone", 1)], SHA256, false);
        assert_eq!(paths(&difference.to_hash), ["/b", "/new"]);
        assert_eq!(difference.to_hash.iter().map(|task| task.is_new).collect::<Vec<_>>(), [false, true]);
        assert_eq!(difference.changes.removals, [b"/gone"]);
        assert!(difference.changes.upserts.is_empty());
    }

    #[test]
    fn a_hash_that_is_newly_wanted_is_the_only_one_computed() {
        let walk = Walk { entries: vec![walked("/a", 1)], unreadable: vec![] };
        let both = WantedHashes { md5: true, ..SHA256 };
        let difference = compare(&walk, vec![stored("/a", 1)], both, false);
        let task = &difference.to_hash[0];
        assert_eq!(task.wanted, WantedHashes { sha1: false, sha256: false, md5: true });
        assert_eq!(task.known.sha256, Some([1; 32]));
    }

    #[test]
    fn rehash_trusts_no_known_hash() {
        let walk = Walk { entries: vec![walked("/a", 1)], unreadable: vec![] };
        assert_eq!(paths(&compare(&walk, vec![stored("/a", 1)], SHA256, true).to_hash), ["/a"]);
    }

    #[test]
    fn without_hashes_a_changed_file_is_stored_at_once() {
        let walk = Walk { entries: vec![walked("/a", 1), walked("/b", 2)], unreadable: vec![] };
        let nothing = WantedHashes { sha256: false, ..SHA256 };
        let difference = compare(&walk, vec![stored("/a", 1), stored("/b", 9)], nothing, false);
        assert!(difference.to_hash.is_empty());
        assert_eq!(difference.changes.upserts.len(), 1);
    }

    #[test]
    fn what_cannot_be_read_keeps_its_entry() {
        let walk = Walk { entries: vec![], unreadable: vec![b"/dir".to_vec()] };
        let before = vec![stored("/dir/a", 1), stored("/dir2/b", 1)];
        let difference = compare(&walk, before, SHA256, false);
        assert_eq!(difference.kept_unread, 1);
        assert_eq!(difference.changes.removals, [b"/dir2/b"]);
    }

    #[test]
    fn losing_more_than_half_is_suspicious() {
        let before = || vec![stored("/a", 1), stored("/b", 1), stored("/c", 1), stored("/d", 1)];
        let half = Walk { entries: vec![walked("/a", 1), walked("/b", 1)], unreadable: vec![] };
        assert!(!compare(&half, before(), SHA256, false).is_suspicious());
        let quarter = Walk { entries: vec![walked("/a", 1)], unreadable: vec![] };
        assert!(compare(&quarter, before(), SHA256, false).is_suspicious());
        assert!(compare(&Walk::default(), before(), SHA256, false).is_suspicious());
        assert!(!compare(&Walk::default(), vec![], SHA256, false).is_suspicious());
    }
}
