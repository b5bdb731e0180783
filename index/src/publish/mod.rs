//! Publishing generations, so that whoever opens the folder finds a complete one at any moment, and after any crash.
//!
//! Each new file is written under a temporary name, synced and renamed; the folder is synced; then `CURRENT` is replaced
//! in the same way. Until that last rename the old generations are current, from then on the new ones. Two generations
//! of each kind are kept, so that a reader can fall back; what is older, and what a publisher that died left behind, is
//! unlinked. Published files are never modified or truncated; a
//! reader copies them, so that one which is truncated all the same harms nobody who has it open.

mod error;
mod lock;
mod write;

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mb_core::mirror::Mirror;
use mb_core::time::Timestamp;

pub use error::{PublishError, PublishStep};

use crate::current::{Current, CurrentError, read_current, render};
use crate::files::builder::FilesModel;
use crate::folder::{CURRENT_NAME, TEMPORARY_SUFFIX, file_name, generations};
use crate::header::Kind;
use crate::mirrors::{MirrorRecord, MirrorsArchive, verify_mirror};
use crate::open::{open_newest_files, open_newest_mirrors};
use write::replace;
pub(crate) use write::write_generation;

/// How long to wait for another publisher. Writing a million files takes about a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// The points between which a publication can be interrupted; tests stop it at each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// The temporary file of a kind exists and is empty.
    Created(Kind),
    /// It has its records, but no header.
    PayloadWritten(Kind),
    /// It is complete.
    HeaderWritten(Kind),
    /// It is on disk.
    Synced(Kind),
    /// It has its name.
    Renamed(Kind),
    /// The names are on disk.
    FolderSynced,
    /// The new `CURRENT` is complete under its temporary name.
    CurrentWritten,
    /// It is on disk.
    CurrentSynced,
    /// The new generations are current.
    CurrentRenamed,
    /// And will be after a crash.
    CurrentFolderSynced,
    /// Old generations are gone.
    Pruned,
}

/// Is told of each point that was reached, and may fail the publication there.
pub(crate) type Observer<'a> = &'a mut dyn FnMut(Point) -> io::Result<()>;

/// An index folder to publish into.
#[derive(Clone, Debug)]
pub struct Publisher {
    dir: PathBuf,
}

impl Publisher {
    /// For the index in `dir`, which is made when it does not exist.
    pub fn new(dir: &Path) -> Publisher {
        Publisher { dir: dir.to_owned() }
    }

    /// Waits for other publishers, in this process or another, and keeps them waiting until the lock is dropped.
    ///
    /// # Errors
    /// [`PublishError::Busy`] when another publisher holds the lock for more than 10 seconds; [`PublishError::Io`].
    pub fn lock(&self) -> Result<PublishLock, PublishError> {
        fs::create_dir_all(&self.dir)
            .map_err(|source| PublishError::io(PublishStep::CreateFolder, &self.dir, source))?;
        Ok(PublishLock { dir: self.dir.clone(), _file: lock::acquire(&self.dir, PATIENCE)? })
    }
}

/// The right to publish. Read the store while you hold it: then what is published last is also what is newest.
#[derive(Debug)]
pub struct PublishLock {
    dir: PathBuf,
    /// The lock ends when this is closed, also by the end of the process.
    _file: File,
}

impl PublishLock {
    /// The current generations; `None` when nothing was published yet. Where `CURRENT` is damaged or missing, they are
    /// those that readers fall back to.
    ///
    /// # Errors
    /// [`PublishError::Current`] when `CURRENT` cannot be read at all.
    pub fn current(&self) -> Result<Option<Current>, PublishError> {
        match read_current(&self.dir) {
            Ok(Some(current)) => Ok(Some(current)),
            Ok(None) | Err(CurrentError::Damaged { .. }) => {
                let files = open_newest_files(&self.dir).index.map(|index| index.generation());
                let mirrors = open_newest_mirrors(&self.dir).index.map(|index| index.generation());
                let is_empty = files.is_none() && mirrors.is_none();
                Ok((!is_empty).then_some(Current { files, mirrors }))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Publishes a new files generation, if there is one, and a new mirror table, and makes both current in one step.
    /// Without files the current ones stay current. Returns what is current now.
    ///
    /// # Errors
    /// [`PublishError`]. What was current before stays current. Only when it is the last sync of the folder, or the
    /// unlinking of old generations, that fails, do readers see the new generations already.
    pub fn publish(&mut self, files: Option<&FilesModel>, mirrors: &[Mirror]) -> Result<Current, PublishError> {
        self.publish_observed(files, mirrors, &mut |_| Ok(()))
    }

    fn publish_observed(
        &mut self,
        files: Option<&FilesModel>,
        mirrors: &[Mirror],
        observer: Observer<'_>,
    ) -> Result<Current, PublishError> {
        let mirrors = records(mirrors)?;
        let previous = self.current()?.unwrap_or_default();
        self.remove_temporaries()?;
        let built = Timestamp::now();
        let mut unnamed = Unnamed::default();
        let mut next = previous;
        if let Some(files) = files {
            let generation = self.next_generation(Kind::Files, previous)?;
            unnamed.0.push(write_generation(&self.dir, Kind::Files, generation, built, &files.archive, observer)?);
            self.observe(Point::Renamed(Kind::Files), PublishStep::Rename, observer)?;
            next.files = Some(generation);
        }
        let generation = self.next_generation(Kind::Mirrors, previous)?;
        unnamed.0.push(write_generation(&self.dir, Kind::Mirrors, generation, built, &mirrors, observer)?);
        self.observe(Point::Renamed(Kind::Mirrors), PublishStep::Rename, observer)?;
        next.mirrors = Some(generation);
        self.sync_folder(Point::FolderSynced, observer)?;

        replace(&self.dir.join(CURRENT_NAME), render(next).as_bytes(), observer)?;
        unnamed.0.clear();
        self.observe(Point::CurrentRenamed, PublishStep::Rename, observer)?;
        self.sync_folder(Point::CurrentFolderSynced, observer)?;

        self.prune(Kind::Mirrors, previous.mirrors, next.mirrors)?;
        if files.is_some() {
            self.prune(Kind::Files, previous.files, next.files)?;
        }
        self.observe(Point::Pruned, PublishStep::Prune, observer)?;
        Ok(next)
    }

    /// One more than any number in use, so that a number never comes to mean something else, even when `CURRENT` is lost.
    fn next_generation(&self, kind: Kind, current: Current) -> Result<u64, PublishError> {
        let used =
            generations(&self.dir, kind).map_err(|source| PublishError::io(PublishStep::List, &self.dir, source))?;
        let greatest = used.into_iter().chain(current.generation(kind)).max().unwrap_or(0);
        greatest
            .checked_add(1)
            .ok_or_else(|| PublishError::NumbersUsedUp { path: self.dir.join(file_name(kind, greatest)) })
    }

    fn sync_folder(&self, point: Point, observer: Observer<'_>) -> Result<(), PublishError> {
        let synced = File::open(&self.dir).and_then(|folder| folder.sync_all());
        synced.map_err(|source| PublishError::io(PublishStep::SyncFolder, &self.dir, source))?;
        self.observe(point, PublishStep::SyncFolder, observer)
    }

    fn observe(&self, point: Point, step: PublishStep, observer: Observer<'_>) -> Result<(), PublishError> {
        observer(point).map_err(|source| PublishError::io(step, &self.dir, source))
    }

    /// Removes what publishers that died left behind: the lock is ours, so nobody is writing.
    fn remove_temporaries(&self) -> Result<(), PublishError> {
        let failed = |source| PublishError::io(PublishStep::List, &self.dir, source);
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().ends_with(TEMPORARY_SUFFIX) {
                unlink(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Keeps the new generation, and the one that was current before, or else the newest of the others.
    fn prune(&self, kind: Kind, previous: Option<u64>, newest: Option<u64>) -> Result<(), PublishError> {
        let mut others =
            generations(&self.dir, kind).map_err(|source| PublishError::io(PublishStep::List, &self.dir, source))?;
        others.retain(|&generation| Some(generation) != newest);
        let kept = others.iter().copied().find(|&other| Some(other) == previous).or(others.iter().copied().max());
        for generation in others.into_iter().filter(|&other| Some(other) != kept) {
            unlink(&self.dir.join(file_name(kind, generation)))?;
        }
        Ok(())
    }
}

/// The records to be written, by ascending id, with the rules of the format checked.
fn records(mirrors: &[Mirror]) -> Result<MirrorsArchive, PublishError> {
    let mut sorted: Vec<&Mirror> = mirrors.iter().collect();
    sorted.sort_by_key(|mirror| mirror.id);
    let mut previous_id = 0;
    for mirror in &sorted {
        verify_mirror(previous_id, mirror.id.0, mirror.settings.latitude, mirror.settings.longitude)
            .map_err(|source| PublishError::Mirror { name: mirror.settings.name.clone(), source })?;
        previous_id = mirror.id.0;
    }
    Ok(MirrorsArchive { mirrors: sorted.into_iter().map(MirrorRecord::from).collect() })
}

/// Unlinks a file that may be gone already.
fn unlink(path: &Path) -> Result<(), PublishError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PublishError::io(PublishStep::Prune, path, error)),
        _ => Ok(()),
    }
}

/// Generations that have their names but are not current yet. When the publication fails they go, since on a full disk
/// they would be in the way of the next one.
#[derive(Default)]
struct Unnamed(Vec<PathBuf>);

impl Drop for Unnamed {
    fn drop(&mut self) {
        for path in &self.0 {
            // What stays here is removed by the publication after the next one.
            let _ = fs::remove_file(path);
        }
    }
}
