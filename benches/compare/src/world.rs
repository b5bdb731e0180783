//! What is served: an index folder and a store with invented files, mirrors and places, as the indexer would leave them.
//!
//! The files index is built from records directly, not from a repository on a disk: a million files and 400 scans of them
//! take too long for a comparison that is to be run often.

use std::path::{Path, PathBuf};

use fastrand::Rng;
use mb_core::mirror::{DownloadProtocol, MirrorId, MirrorSettings, ScanProtocol};
use mb_core::store::{EmbeddedStore, FileHashes, Store, SyncRecord};
use mb_core::time::{FileTime, Timestamp};
use mb_index::{Exception, FileRecord, FilesBuilder, FilesModel, Publisher};

use crate::BenchError;
use crate::places::{self, COUNTRIES};

/// The file that only the first mirror has.
pub(crate) const ONLY_ON_FIRST: &str = "/only-on-the-first-mirror.iso";

/// Files in one folder.
const FILES_PER_FOLDER: usize = 25;

/// One file in so many has a copy of another size on one mirror, where mirrors are not complete.
const EXCEPTION_EVERY: usize = 20;

/// What a world is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) files: usize,
    pub(crate) mirrors: u32,
    /// Distinct sets of mirrors that files are on; 1: all mirrors have all files.
    pub(crate) sets: usize,
}

/// A folder that a daemon can serve from.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) size: Size,
    pub(crate) folder: PathBuf,
}

impl World {
    /// Creates `folder` with everything in it.
    pub(crate) fn create(folder: PathBuf, size: Size) -> Result<World, BenchError> {
        let world = World { size, folder };
        std::fs::create_dir_all(world.folder.join("repository")).map_err(BenchError::at("create", &world.folder))?;
        std::fs::create_dir_all(world.state_dir()).map_err(BenchError::at("create", &world.folder))?;
        places::write(&world.folder.join("geo"))?;
        let store = EmbeddedStore::open(&world.state_dir())?;
        for number in 0..size.mirrors {
            add_mirror(&store, number)?;
        }
        let mut publishing = Publisher::new(&world.index_dir()).lock()?;
        publishing.publish(Some(&world.model(0)?), &store.mirrors()?)?;
        Ok(world)
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.folder.join("state")
    }

    pub(crate) fn index_dir(&self) -> PathBuf {
        self.state_dir().join("index")
    }

    /// The files; another `revision` has other sizes.
    pub(crate) fn model(&self, revision: u64) -> Result<FilesModel, BenchError> {
        let Size { files, mirrors, sets } = self.size;
        let ids: Vec<MirrorId> = (1..=mirrors).map(MirrorId).collect();
        let mut builder = FilesBuilder::new(&ids, true);
        let patterns = patterns(builder.set_words(), mirrors, sets);
        let first_only = {
            let mut words = vec![0; builder.set_words()];
            words.iter_mut().take(1).for_each(|word| *word = 1);
            words
        };
        let push = |builder: &mut FilesBuilder, path: &str, number: usize, words: &[u64], exceptions: &[Exception]| {
            let hashes = FileHashes { sha256: Some([number as u8; 32]), ..FileHashes::default() };
            let (size, set) = (number as u64 + revision, builder.intern_set(words));
            let modified = FileTime::from_seconds(1_700_000_000 + number as i64);
            builder.push_file(FileRecord { path: path.as_bytes(), size, modified, hashes, set, exceptions })
        };
        push(&mut builder, ONLY_ON_FIRST, 0, &first_only, &[])?;
        let exception = [Exception { mirror: 0, size: 1, modified: None }];
        for number in 0..files {
            let pattern = &patterns[number % patterns.len()];
            let differs =
                sets > 1 && number % EXCEPTION_EVERY == 0 && pattern.first().is_some_and(|word| word & 1 == 0);
            push(&mut builder, &path(number), number, pattern, if differs { &exception } else { &[] })?;
        }
        Ok(builder.finish())
    }

    /// A configuration for a daemon on these addresses.
    pub(crate) fn write_config(
        &self,
        name: &str,
        runtime: &str,
        shards: usize,
        ports: [u16; 2],
    ) -> Result<PathBuf, BenchError> {
        let text = format!(
            "Repository: {0}/repository\nStateDir: {0}/state\nGeoipDatabasePath: {0}/geo\nDatabase: embedded\n\
             ListenAddress: 127.0.0.1:{1}\nRPCListenAddress: 127.0.0.1:{2}\nMetricsListenAddress: ''\nShards: {shards}\n\
             Runtime: {runtime}\nRepositoryScanInterval: 0\nGzip: true\n",
            self.folder.display(),
            ports[0],
            ports[1],
        );
        let path = self.folder.join(format!("{name}.conf"));
        std::fs::write(&path, text).map_err(BenchError::at("write", &path))?;
        Ok(path)
    }

    /// Base URLs of the mirrors, as redirects begin with them.
    pub(crate) fn mirror_urls(&self) -> Vec<String> {
        (0..self.size.mirrors).map(url).collect()
    }
}

/// Path of a file; ascending with its number.
pub(crate) fn path(number: usize) -> String {
    format!("/pool/main/{:06}/package-{number:07}_1.0-1_amd64.deb", number / FILES_PER_FOLDER)
}

/// Name of a mirror.
pub(crate) fn mirror_name(number: u32) -> String {
    format!("mirror{number:04}")
}

fn url(number: u32) -> String {
    format!("http://{}.example.org/pub/linux/", mirror_name(number))
}

/// The distinct sets, as words of bits.
fn patterns(words: usize, mirrors: u32, sets: usize) -> Vec<Vec<u64>> {
    let complete: Vec<u64> = (0..words)
        .map(|word| {
            let bits = (mirrors as usize).saturating_sub(word * 64).min(64);
            if bits == 64 { u64::MAX } else { (1 << bits) - 1 }
        })
        .collect();
    let mut random = Rng::with_seed(1);
    // Most mirrors have most files: three of four, by chance.
    let drawn = |_| complete.iter().map(|word| word & (random.u64(..) | random.u64(..))).collect();
    if sets <= 1 { vec![complete] } else { (0..sets).map(drawn).collect() }
}

fn add_mirror(store: &dyn Store, number: u32) -> Result<(), BenchError> {
    let mut random = Rng::with_seed(number.into());
    let country = &COUNTRIES[random.usize(..COUNTRIES.len())];
    let id = store.add_mirror(&MirrorSettings {
        name: mirror_name(number),
        http_url: url(number),
        rsync_url: format!("rsync://{}.example.org/linux/", mirror_name(number)),
        country_codes: country.code.to_owned(),
        continent_code: country.continent.to_owned(),
        latitude: country.latitude + random.f32() * 10.0 - 5.0,
        longitude: country.longitude + random.f32() * 10.0 - 5.0,
        asn: 64_496 + number % 16,
        ..MirrorSettings::default()
    })?;
    let now = Timestamp::now();
    let sync = SyncRecord {
        started: now,
        protocol: ScanProtocol::Rsync,
        precision_ns: 1_000_000_000,
        timezone_offset_ms: 0,
        last_mod_time: None,
    };
    store.record_sync(id, &sync)?;
    store.set_enabled(id, true, now)?;
    store.set_health(id, DownloadProtocol::Http, None, now)?;
    Ok(())
}

/// Writes a list of requests for wrk: `requests` lines with a path and a client's address.
pub(crate) fn write_requests(path: &Path, size: Size, requests: usize) -> Result<(), BenchError> {
    use std::fmt::Write as _;

    let mut random = Rng::with_seed(2);
    let mut text = String::new();
    for _ in 0..requests {
        let file = self::path(random.usize(..size.files));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{file} {}", places::random_client(&mut random));
    }
    std::fs::write(path, text).map_err(BenchError::at("write", path))
}
