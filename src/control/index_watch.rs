//! Follows the index folder: opens each new generation, checks it in full, and puts it before the shards.
//!
//! inotify tells of a publication at once; a look once a second finds what inotify lost. A generation that is refused is
//! reported once, and the one in use stays. A folder that is deleted and made anew is followed, too: numbers begin at 1
//! again there, so what is in use is told from what is published by more than its number.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, select};
use mb_core::fault;
use mb_core::geo::GeoDatabase;
use mb_core::priority::give_way;
use mb_core::supervise::{busy, keep_going};
use mb_index::{
    CURRENT_NAME, FileIndex, GenerationId, Kind, MirrorIndex, Opened, file_name, identify, open_newest_files,
    open_newest_mirrors, read_current,
};
use notify::event::ModifyKind;
use notify::{EventKind, RecursiveMode, Watcher};

use crate::handle::Settings;
use crate::select::MirrorTable;
use crate::snapshot::{Publication, Snapshot};

/// How long a publication may go unnoticed when inotify does not tell of it.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What the folder holds that is in use, and how to put newer ones in use.
pub struct IndexWatch {
    dir: PathBuf,
    publication: Arc<Publication>,
    /// Generations in use.
    files: Option<GenerationId>,
    mirrors: Option<GenerationId>,
    /// What was reported, so that a lasting trouble is reported once.
    reported: HashSet<String>,
}

/// Has the folder followed until it is dropped.
pub struct Following(#[expect(dead_code, reason = "that it is gone is what is told")] Sender<Infallible>);

impl IndexWatch {
    /// Opens the newest generations in `dir` that pass their checks.
    pub fn open(dir: &Path, settings: Arc<Settings>, geo: Arc<GeoDatabase>) -> IndexWatch {
        let mut reported = HashSet::new();
        let files = report(open_newest_files(dir), &mut reported);
        let mirrors = report(open_newest_mirrors(dir), &mut reported);
        match &files {
            Some(files) => {
                tracing::info!(
                    "files generation {}: {} files on {} mirrors",
                    files.generation(),
                    files.len(),
                    files.mirror_count()
                );
            }
            None => tracing::info!("there is no index yet; until the repository is scanned, fallbacks answer"),
        }
        let generations = (files.as_ref().map(FileIndex::id), mirrors.as_ref().map(MirrorIndex::id));
        let table = mirrors.as_ref().map(table_of).unwrap_or_default();
        let snapshot = Snapshot::new(settings, files.map(Arc::new), Arc::new(table), geo);
        IndexWatch {
            dir: dir.to_owned(),
            publication: Arc::new(Publication::new(snapshot)),
            files: generations.0,
            mirrors: generations.1,
            reported,
        }
    }

    /// Where snapshots are put.
    pub fn publication(&self) -> &Arc<Publication> {
        &self.publication
    }

    /// Follows the folder until the returned value is dropped, on a thread that gives way to shards: opening a large index takes
    /// a tenth of a second of a core.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn follow(mut self) -> io::Result<Following> {
        let (change, changes) = bounded(1);
        let mut watch = FolderWatch::new(&self.dir, change);
        if let Err(error) = watch.renew() {
            tracing::warn!(
                "{}: changes cannot be watched for ({error}); they are looked for once a second (is \
                 fs.inotify.max_user_instances used up?)",
                self.dir.display()
            );
        }
        let (follows, followed) = bounded(0);
        let work = move || {
            give_way();
            keep_going("index", || self.keep_up(&followed, &changes, &mut watch));
        };
        std::thread::Builder::new().name("index".to_owned()).spawn(work)?;
        Ok(Following(follows))
    }

    /// Looks at the folder whenever it changes, until nobody is on the other end of `followed`.
    fn keep_up(&mut self, followed: &Receiver<Infallible>, changes: &Receiver<()>, watch: &mut FolderWatch) {
        loop {
            fault::point("index");
            select! {
                recv(followed) -> _ => return,
                recv(changes) -> _ => {}
                default(LOOK_INTERVAL) => {}
            }
            let _busy = busy("index");
            // Before the look, which finds what is published until then. A folder that is still missing is watched later.
            let _ = watch.renew();
            self.look();
            self.publication.release_retired();
        }
    }

    /// Puts what `CURRENT` names in use, if it is not yet.
    fn look(&mut self) {
        let current = match read_current(&self.dir) {
            Ok(Some(current)) => current,
            Ok(None) => return,
            Err(error) => return report_once(&error.to_string(), &mut self.reported),
        };
        let files = self.open_if_new(Kind::Files, current.files, self.files, FileIndex::open);
        let mirrors = self.open_if_new(Kind::Mirrors, current.mirrors, self.mirrors, MirrorIndex::open);
        if files.is_none() && mirrors.is_none() {
            return;
        }
        if let Some(files) = &files {
            self.files = Some(files.id());
            tracing::info!(
                "files generation {}: {} files on {} mirrors",
                files.generation(),
                files.len(),
                files.mirror_count()
            );
        }
        if let Some(mirrors) = &mirrors {
            self.mirrors = Some(mirrors.id());
            tracing::debug!("mirrors generation {}", mirrors.generation());
        }
        self.reported.clear();
        let files = files.map(Arc::new);
        let mirrors = mirrors.map(|mirrors| Arc::new(table_of(&mirrors)));
        self.publication.update(|old| {
            let files = files.or_else(|| old.files.clone());
            let mirrors = mirrors.unwrap_or_else(|| old.mirrors.clone());
            Snapshot::new(old.settings.clone(), files, mirrors, old.geo.clone())
        });
    }

    fn open_if_new<T>(
        &mut self,
        kind: Kind,
        named: Option<u64>,
        in_use: Option<GenerationId>,
        open: impl Fn(&Path, u64) -> Result<T, mb_index::OpenError>,
    ) -> Option<T> {
        let generation = named?;
        let path = self.dir.join(file_name(kind, generation));
        // A file that was damaged since it was opened is no news: what is in use is a copy in memory.
        if let Some(in_use) = in_use.filter(|in_use| in_use.number == generation)
            && identify(&path).map_or(true, |published| published == in_use)
        {
            return None;
        }
        match open(&path, generation) {
            Ok(index) => Some(index),
            Err(error) => {
                let in_use = in_use.map_or("none".to_owned(), |in_use| in_use.number.to_string());
                report_once(&format!("{error}; in use stays generation {in_use}"), &mut self.reported);
                None
            }
        }
    }
}

fn table_of(mirrors: &MirrorIndex) -> MirrorTable {
    MirrorTable::new(mirrors.mirrors()).published(mirrors.generation(), mirrors.built())
}

fn report<T>(opened: Opened<T>, reported: &mut HashSet<String>) -> Option<T> {
    for refusal in &opened.refused {
        report_once(&refusal.to_string(), reported);
    }
    opened.index
}

fn report_once(trouble: &str, reported: &mut HashSet<String>) {
    if reported.insert(trouble.to_owned()) {
        tracing::error!("{trouble}");
    }
}

/// Tells by inotify when `CURRENT` in a folder is replaced, for as long as the folder is where it was.
struct FolderWatch {
    dir: PathBuf,
    changed: Sender<()>,
    /// Whether nothing is told any more: the watch belongs to a folder, which may have been deleted or moved since.
    is_lost: Arc<AtomicBool>,
    watcher: Option<notify::RecommendedWatcher>,
}

impl FolderWatch {
    /// A watch that is to be renewed before it tells anything.
    fn new(dir: &Path, changed: Sender<()>) -> FolderWatch {
        FolderWatch { dir: dir.to_owned(), changed, is_lost: Arc::new(AtomicBool::new(true)), watcher: None }
    }

    /// Begins to watch the folder of this name, unless that is done already.
    fn renew(&mut self) -> notify::Result<()> {
        if !self.is_lost.load(Ordering::Relaxed) {
            return Ok(());
        }
        // The one before goes first: it would tell of its folder's end once more.
        self.watcher = None;
        let is_lost = Arc::new(AtomicBool::new(false));
        let (dir, changed, lost) = (self.dir.clone(), self.changed.clone(), Arc::clone(&is_lost));
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let concerns = match &event {
                Ok(event) if event.kind.is_access() => false,
                Ok(event) => {
                    let is_gone = matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)));
                    if is_gone && event.paths.contains(&dir) {
                        lost.store(true, Ordering::Relaxed);
                    }
                    event.paths.iter().any(|path| path.file_name().is_some_and(|name| name == CURRENT_NAME))
                }
                Err(_) => true,
            };
            if concerns {
                // A change that has not been seen yet stands for this one, too.
                let _ = changed.try_send(());
            }
        })?;
        watcher.watch(&self.dir, RecursiveMode::NonRecursive)?;
        (self.watcher, self.is_lost) = (Some(watcher), is_lost);
        Ok(())
    }
}
