//! Writing one file so that it appears complete or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mb_core::time::Timestamp;
use rkyv::Serialize;
use rkyv::api::high::HighSerializer;
use rkyv::rancor;
use rkyv::ser::Serializer;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::ser::sharing::Share;
use rkyv::ser::writer::IoWriter;
use rkyv::util::with_arena;
use xxhash_rust::xxh3::Xxh3Default;

use super::error::{PublishError, PublishStep};
use super::{Observer, Point};
use crate::folder::{TEMPORARY_SUFFIX, file_name};
use crate::header::{HEADER_LENGTH, Header, Kind};

/// How much of small records is collected before it is hashed and written. Large tables bypass the buffer.
const BUFFER: usize = 256 << 10;

/// The writer that an archive goes through on its way to the file.
type ArchiveWriter<'w> = IoWriter<BufWriter<&'w mut HashingFile>>;

/// Writes a generation, brings it to the disk and gives it its name; the folder is still to be synced. Returns its path.
pub(crate) fn write_generation<T>(
    dir: &Path,
    kind: Kind,
    generation: u64,
    built: Timestamp,
    root: &T,
    observer: Observer<'_>,
) -> Result<PathBuf, PublishError>
where
    T: for<'w, 'a> Serialize<HighSerializer<ArchiveWriter<'w>, ArenaHandle<'a>, rancor::Error>>,
{
    let path = dir.join(file_name(kind, generation));
    let temporary = Temporary::create(&path)?;
    let observe = |observer: Observer<'_>, step, point| observer(point).map_err(temporary.failed(step));
    observe(observer, PublishStep::Create, Point::Created(kind))?;

    let header =
        write_payload(&temporary.file, kind, generation, built, root).map_err(temporary.failed(PublishStep::Write))?;
    observe(observer, PublishStep::Write, Point::PayloadWritten(kind))?;
    temporary.file.write_all_at(&header.encode(), 0).map_err(temporary.failed(PublishStep::Write))?;
    observe(observer, PublishStep::Write, Point::HeaderWritten(kind))?;
    temporary.file.sync_all().map_err(temporary.failed(PublishStep::Sync))?;
    observe(observer, PublishStep::Sync, Point::Synced(kind))?;
    temporary.rename(&path)?;
    Ok(path)
}

/// Replaces a small file; the folder is still to be synced.
pub(super) fn replace(path: &Path, content: &[u8], observer: Observer<'_>) -> Result<(), PublishError> {
    let temporary = Temporary::create(path)?;
    let observe = |observer: Observer<'_>, step, point| observer(point).map_err(temporary.failed(step));
    temporary.file.write_all_at(content, 0).map_err(temporary.failed(PublishStep::Write))?;
    observe(observer, PublishStep::Write, Point::CurrentWritten)?;
    temporary.file.sync_all().map_err(temporary.failed(PublishStep::Sync))?;
    observe(observer, PublishStep::Sync, Point::CurrentSynced)?;
    temporary.rename(path)
}

/// Writes the archive behind the place of the header, and returns the header that belongs there.
fn write_payload<T>(file: &File, kind: Kind, generation: u64, built: Timestamp, root: &T) -> io::Result<Header>
where
    T: for<'w, 'a> Serialize<HighSerializer<ArchiveWriter<'w>, ArenaHandle<'a>, rancor::Error>>,
{
    let mut file = HashingFile { file: file.try_clone()?, hasher: Xxh3Default::new(), written: 0, failure: None };
    let written = with_arena(|arena| {
        let writer = IoWriter::new(BufWriter::with_capacity(BUFFER, &mut file));
        let mut serializer = Serializer::new(writer, arena.acquire(), Share::new());
        rkyv::api::serialize_using::<_, rancor::Error>(root, &mut serializer).map_err(io::Error::other)?;
        serializer.into_writer().into_inner().into_inner().map(drop).map_err(io::IntoInnerError::into_error)
    });
    // The serialiser wraps errors beyond recognition; what really happened is kept beside it.
    if let Some(failure) = file.failure.take() {
        return Err(failure);
    }
    written?;
    Ok(Header { kind, generation, payload_length: file.written, payload_checksum: file.hasher.digest(), built })
}

/// Writes behind the place of the header, and hashes what it writes.
pub(crate) struct HashingFile {
    file: File,
    hasher: Xxh3Default,
    written: u64,
    failure: Option<io::Error>,
}

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.file.write_at(bytes, HEADER_LENGTH as u64 + self.written) {
            Ok(length) => {
                self.hasher.update(&bytes[..length]);
                self.written += length as u64;
                Ok(length)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let reported = io::Error::from(error.kind());
                self.failure.get_or_insert(error);
                Err(reported)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file under its temporary name, which goes when it does not come to its own.
struct Temporary {
    file: File,
    path: PathBuf,
    is_renamed: bool,
}

impl Temporary {
    fn create(path: &Path) -> Result<Temporary, PublishError> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(TEMPORARY_SUFFIX);
        let path = PathBuf::from(temporary);
        let file = File::options().write(true).create_new(true).open(&path);
        let file = file.map_err(|source| PublishError::io(PublishStep::Create, &path, source))?;
        Ok(Temporary { file, path, is_renamed: false })
    }

    fn failed(&self, step: PublishStep) -> impl Fn(io::Error) -> PublishError {
        move |source| PublishError::io(step, &self.path, source)
    }

    fn rename(mut self, path: &Path) -> Result<(), PublishError> {
        fs::rename(&self.path, path).map_err(self.failed(PublishStep::Rename))?;
        self.is_renamed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_renamed {
            // What stays here is removed by the next publication.
            let _ = fs::remove_file(&self.path);
        }
    }
}
