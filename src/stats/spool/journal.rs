//! The file of the spool: appended to, cut back, or replaced as a whole, and never anything by halves.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::SpoolError;
use super::format::{self, HEADER_LENGTH};

/// What a disk that was full has to have: about what a busy node writes in half a second.
const ROOM: u64 = 1 << 20;

/// The file, up to the end of its last whole record.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Where the next record goes.
    length: u64,
    /// There may be something behind that, which has to go first: by chance it could be taken for records.
    ragged: bool,
}

impl Journal {
    /// Opens the file, and creates it where there is none. Returns the records in it, too; it is for the caller to cut what
    /// is not whole among them.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub(super) fn open(path: PathBuf) -> Result<(Journal, Vec<u8>), SpoolError> {
        let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(failed(&path, "opening it"))?;
        let mut journal = Journal { file, length: HEADER_LENGTH as u64, ragged: false, path };
        let mut content = fs::read(&journal.path).map_err(failed(&journal.path, "reading it"))?;
        let header = format::header();
        match content.first_chunk() {
            Some(found) => match format::version(found) {
                Some(format::VERSION) => {}
                Some(version) => return Err(SpoolError::Version { file: journal.path, version }),
                None => return Err(SpoolError::Foreign { file: journal.path }),
            },
            // The first writer died at once.
            None if header.starts_with(&content) => {
                let written = journal.file.write_all_at(&header, 0);
                written.map_err(failed(&journal.path, "writing its header"))?;
                return Ok((journal, Vec::new()));
            }
            None => return Err(SpoolError::Foreign { file: journal.path }),
        }
        journal.length = content.len() as u64;
        Ok((journal, content.split_off(HEADER_LENGTH)))
    }

    /// Length of all records.
    pub(super) fn length(&self) -> u64 {
        self.length - HEADER_LENGTH as u64
    }

    /// Appends records, all of them or none.
    ///
    /// # Errors
    /// [`SpoolError::File`].
    pub(super) fn append(&mut self, records: &[u8]) -> Result<(), SpoolError> {
        if self.ragged {
            self.cut(self.length())?;
        }
        if let Err(cause) = self.file.write_all_at(records, self.length) {
            self.ragged = true;
            // When that fails, too, it is tried again before the next record.
            let _ = self.cut(self.length());
            return Err(failed(&self.path, "appending to it")(cause));
        }
        self.length += records.len() as u64;
        Ok(())
    }

    /// Finds out whether the disk has [`ROOM`], by having it set aside and given back.
    ///
    /// # Errors
    /// [`SpoolError::File`].
    pub(super) fn find_room(&mut self) -> Result<(), SpoolError> {
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.length, ROOM) {
            // A file system that cannot tell.
            Ok(()) | Err(Errno::OPNOTSUPP) => self.cut(self.length()),
            Err(cause) => Err(failed(&self.path, "looking for room")(cause.into())),
        }
    }

    /// Drops what is behind the first `length` bytes of the records.
    ///
    /// # Errors
    /// [`SpoolError::File`].
    pub(super) fn cut(&mut self, length: u64) -> Result<(), SpoolError> {
        let length = length + HEADER_LENGTH as u64;
        self.file.set_len(length).map_err(failed(&self.path, "cutting it back"))?;
        (self.length, self.ragged) = (length, false);
        Ok(())
    }

    /// Has these records instead of all others. The disk is waited for, since otherwise a power cut could take more than the
    /// last seconds.
    ///
    /// # Errors
    /// [`SpoolError::File`]; the records stay as they are.
    pub(super) fn replace(&mut self, records: &[u8]) -> Result<(), SpoolError> {
        let path = self.path.with_extension("journal.new");
        let file = replacement(&path, records).inspect_err(|_| {
            // It is written anew the next time, whether it is there or not; it may be what fills the disk.
            let _ = fs::remove_file(&path);
        })?;
        fs::rename(&path, &self.path).map_err(failed(&self.path, "replacing it"))?;
        self.file = file;
        (self.length, self.ragged) = ((HEADER_LENGTH + records.len()) as u64, false);
        Ok(())
    }
}

fn replacement(path: &Path, records: &[u8]) -> Result<File, SpoolError> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => {
            return Err(failed(path, "removing what an earlier process left")(cause));
        }
        _ => {}
    }
    let opened = File::options().read(true).write(true).create_new(true).open(path);
    let mut file = opened.map_err(failed(path, "creating it"))?;
    file.write_all(&format::header()).map_err(failed(path, "writing its header"))?;
    file.write_all(records).map_err(failed(path, "writing it"))?;
    file.sync_data().map_err(failed(path, "syncing it"))?;
    Ok(file)
}

fn failed(file: &Path, step: &'static str) -> impl Fn(std::io::Error) -> SpoolError {
    move |cause| SpoolError::File { file: file.to_owned(), step, cause }
}

#[cfg(test)]
impl Journal {
    /// The file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Goes on with another file, which has the same content. Returns the one before.
    pub(super) fn exchange(&mut self, file: File) -> File {
        std::mem::replace(&mut self.file, file)
    }
}
