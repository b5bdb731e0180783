//! Which mirrors have which file: sets of mirrors, each stored once, and the copies that differ.

use super::super::archive::{ExceptionRow, UNKNOWN_TIME};
use super::super::set::{SetId, contains};
use super::{BuildError, Exception, FilesBuilder, path_of_row};

impl FilesBuilder {
    /// Words of 64 bits in a mirror set. Bit `n % 64` of word `n / 64` is the mirror with ordinal `n`.
    pub fn set_words(&self) -> usize {
        self.archive.mirror_ids.len().div_ceil(64)
    }

    /// The number of a mirror set; equal sets have equal numbers.
    ///
    /// # Panics
    /// When there are not [`FilesBuilder::set_words`] words, or a bit beyond the last mirror is set.
    pub fn intern_set(&mut self, words: &[u64]) -> SetId {
        if let Some(&id) = self.sets.get(words) {
            return id;
        }
        assert_eq!(words.len(), self.set_words(), "a mirror set has one bit for each mirror");
        let spare = self.set_words() * 64 - self.archive.mirror_ids.len();
        assert!(
            words.last().is_none_or(|&last| last.leading_zeros() as usize >= spare),
            "a mirror set names a mirror that is not in the table"
        );
        let id = SetId(self.archive.set_count);
        self.archive.set_count += 1;
        self.archive.set_words.extend_from_slice(words);
        self.sets.insert(words.into(), id);
        id
    }

    /// Says which mirrors have each file, for all files that were pushed and in their order, whatever was said when they
    /// were pushed. `copies_of` is given a file's place, adds its exceptions to an empty list, and returns the words of its
    /// set.
    ///
    /// The files can so be read back and compared with what the mirrors have before anything is known of their copies.
    ///
    /// # Errors
    /// [`BuildError::Exceptions`], [`BuildError::TooMany`]; the builder is of no use then.
    ///
    /// # Panics
    /// As [`FilesBuilder::intern_set`].
    pub fn place_copies<'c>(
        &mut self,
        mut copies_of: impl FnMut(usize, &mut Vec<Exception>) -> &'c [u64],
    ) -> Result<(), BuildError> {
        self.archive.exceptions.clear();
        self.archive.set_words.clear();
        self.archive.set_count = 0;
        self.sets.clear();
        let mut exceptions = Vec::new();
        for row in 0..self.archive.rows.len() {
            exceptions.clear();
            let set = self.intern_set(copies_of(row, &mut exceptions));
            self.check_copies(path_of_row(&self.archive, &self.archive.rows[row]), set, &exceptions)?;
            let (start, length) = self.push_exceptions(&exceptions)?;
            let row = &mut self.archive.rows[row];
            (row.set, row.exceptions_start, row.exceptions_length) = (set.0, start, length);
        }
        Ok(())
    }

    /// Appends exceptions to the table; returns where they start and how many they are.
    pub(super) fn push_exceptions(&mut self, exceptions: &[Exception]) -> Result<(u32, u16), BuildError> {
        let too_many = || BuildError::TooMany { what: "exceptions" };
        let length = u16::try_from(exceptions.len()).map_err(|_| too_many())?;
        let start = u32::try_from(self.archive.exceptions.len()).map_err(|_| too_many())?;
        self.archive.exceptions.extend(exceptions.iter().map(|exception| ExceptionRow {
            size: exception.size,
            modified: exception.modified.map_or(UNKNOWN_TIME, |time| time.0.max(UNKNOWN_TIME + 1)),
            mirror: exception.mirror,
            reserved: [0; 4],
        }));
        Ok((start, length))
    }

    pub(super) fn check_copies(&self, path: &[u8], set: SetId, exceptions: &[Exception]) -> Result<(), BuildError> {
        let stride = self.set_words();
        if set.0 >= self.archive.set_count {
            return Err(BuildError::UnknownSet { path: path.into(), set: set.0 });
        }
        let words = &self.archive.set_words[set.0 as usize * stride..][..stride];
        let mut least = 0;
        for exception in exceptions {
            let mirror = exception.mirror;
            let known = (mirror as usize) < self.archive.mirror_ids.len();
            if mirror < least || !known || contains(words.iter().copied(), mirror) {
                return Err(BuildError::Exceptions { path: path.into(), mirror });
            }
            least = mirror + 1;
        }
        Ok(())
    }
}
