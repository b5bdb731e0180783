//! The files of one mirror, as a scan lists them.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use mb_core::time::FileTime;

/// The files of one mirror: paths in one arena, so that a million of them cost little more than their bytes.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    paths: Vec<u8>,
    files: Vec<ListedFile>,
}

/// Where a path is in the arena, and the facts of the file.
#[derive(Clone, Copy, Debug)]
struct ListedFile {
    start: u32,
    length: u16,
    size: u64,
    modified: Option<FileTime>,
}

/// A file of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listed<'a> {
    /// Absolute within the repository.
    pub(crate) path: &'a [u8],
    /// Size in bytes.
    pub(crate) size: u64,
    /// Modification time as the mirror lists it; `None` when it does not.
    pub(crate) modified: Option<FileTime>,
}

/// A listing holds at most 4 GiB of paths, each of at most 65,535 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the mirror lists more than 4 GiB of file names, or a name beyond 65,535 bytes")]
pub(crate) struct ListingFull;

impl Listing {
    /// Adds a file whose path is `/` and then `relative`.
    pub(crate) fn push(&mut self, relative: &[u8], size: u64, modified: Option<FileTime>) -> Result<(), ListingFull> {
        let start = u32::try_from(self.paths.len()).map_err(|_| ListingFull)?;
        let length = u16::try_from(relative.len().saturating_add(1)).map_err(|_| ListingFull)?;
        self.paths.push(b'/');
        self.paths.extend_from_slice(relative);
        self.files.push(ListedFile { start, length, size, modified });
        Ok(())
    }

    /// Sorts by path and drops all but one entry of a path.
    pub(crate) fn sort(&mut self) {
        let paths = &self.paths;
        let path = |file: &ListedFile| path_in(paths, file);
        self.files.sort_unstable_by(|a, b| path(a).cmp(path(b)).then(a.start.cmp(&b.start)));
        self.files.dedup_by(|a, b| path(a) == path(b));
    }

    /// Number of files.
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// The files, in order.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = Listed<'_>> {
        self.files.iter().map(|file| self.listed(file))
    }

    /// Whether a path is listed; the listing must be sorted.
    pub(crate) fn contains(&self, path: &[u8]) -> bool {
        self.files.binary_search_by(|file| path_in(&self.paths, file).cmp(path)).is_ok()
    }

    fn listed(&self, file: &ListedFile) -> Listed<'_> {
        Listed { path: path_in(&self.paths, file), size: file.size, modified: file.modified }
    }
}

fn path_in<'a>(paths: &'a [u8], file: &ListedFile) -> &'a [u8] {
    let rest = paths.get(file.start as usize..).unwrap_or_default();
    rest.get(..usize::from(file.length)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorting_is_by_bytes_of_the_whole_path() {
        let mut listing = Listing::default();
        for path in ["a/x", "a.b", "a", "b", "a.b"] {
            listing.push(path.as_bytes(), 1, None).unwrap();
        }
        listing.sort();
        let paths: Vec<_> = listing.iter().map(|file| String::from_utf8_lossy(file.path).into_owned()).collect();
        assert_eq!(paths, ["/a", "/a.b", "/a/x", "/b"]);
        assert!(listing.contains(b"/a/x") && !listing.contains(b"/a/"));
    }

    #[test]
    fn a_path_beyond_the_limit_is_refused() {
        assert_eq!(Listing::default().push(&[b'a'; 65_535], 1, None), Err(ListingFull));
    }
}
