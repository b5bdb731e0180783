//! What requests are answered from: a small index with everything that an index can hold, three mirrors and two fallbacks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mb_core::config;
use mb_core::geo::GeoDatabase;
use mb_core::mirror::{Health, Mirror, MirrorId, MirrorSettings, MirrorState};
use mb_core::store::FileHashes;
use mb_core::time::FileTime;
use mb_index::{
    Exception, FileIndex, FileRecord, FilesBuilder, FilesModel, Publisher, open_newest_files, open_newest_mirrors,
};
use mirrorbits::handle::Settings;
use mirrorbits::select::MirrorTable;
use mirrorbits::snapshot::Snapshot;
use tempfile::TempDir;

const CONFIG: &str = "
Repository: /srv
MaxLinkHeaders: 5
Gzip: true
TrustedProxies: [10.0.0.0/8]
AllowOutdatedFiles: [{Prefix: /old/, Minutes: 60}]
Fallbacks:
  - {URL: 'http://fallback.example/', CountryCode: fr, ContinentCode: eu}
  - {URL: 'other.example/pub/', CountryCode: us, ContinentCode: na}
";

/// A folder that is gone with the process, in memory where that is possible.
pub fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder for temporary files")
}

/// The geo databases of the tests.
pub fn geo_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/geo")
}

/// The files: plain ones, outdated ones, names that are no text, aliases of each kind, and a link that leaves the repository.
pub fn files() -> FilesModel {
    let mut builder = FilesBuilder::new(&[MirrorId(1), MirrorId(2), MirrorId(3)], false);
    let all = builder.intern_set(&[0b111]);
    let two = builder.intern_set(&[0b110]);
    let none = builder.intern_set(&[0]);
    let hashes = FileHashes { sha1: Some([1; 20]), sha256: Some([3; 32]), md5: Some([2; 16]) };
    let modified = FileTime::from_seconds(1_700_000_000);
    let exception = Exception { mirror: 0, size: 7, modified: Some(FileTime::from_seconds(1_600_000_000)) };
    let mut push = |path: &[u8], set, exceptions: &[Exception]| {
        let record = FileRecord { path, size: 5, modified, hashes, set, exceptions };
        builder.push_file(record).expect("ascending paths");
    };
    push(b"/a b%?&<>'\".iso", all, &[]);
    push(b"/a.iso", all, &[]);
    push(b"/d/e/f", two, &[exception]);
    push(b"/none", none, &[]);
    push(b"/old/o", two, &[exception]);
    push(b"/\xff\xfe", all, &[]);
    builder.push_alias(b"/alias", b"/d").expect("an alias");
    builder.push_alias(b"/file-alias", b"/a.iso").expect("an alias");
    builder.push_alias(b"/loop-a", b"/loop-b").expect("an alias");
    builder.push_alias(b"/loop-b", b"/loop-a").expect("an alias");
    builder.push_forbidden(b"/out").expect("a forbidden link");
    builder.finish()
}

/// A mirror that is up.
pub fn mirror(id: u32, settings: MirrorSettings) -> Mirror {
    let up = || Health { up: true, down_reason: String::new() };
    Mirror {
        id: MirrorId(id),
        settings,
        state: MirrorState { enabled: true, http: up(), https: up(), ..MirrorState::default() },
    }
}

/// The mirrors.
pub fn mirrors() -> Vec<Mirror> {
    let settings = |name: &str, url: &str, country: &str, continent: &str| MirrorSettings {
        name: name.to_owned(),
        http_url: url.to_owned(),
        country_codes: country.to_owned(),
        continent_code: continent.to_owned(),
        latitude: 48.0,
        longitude: 2.0,
        asn: 64496,
        ..MirrorSettings::default()
    };
    vec![
        mirror(1, settings("one", "http://one.example/pub/", "FR", "EU")),
        mirror(2, settings("two", "https://two.example/", "DE", "EU")),
        mirror(3, settings("three", "three.example/x/", "US", "NA")),
    ]
}

/// The index in `folder`, which is published first.
pub fn index(folder: &Path) -> FileIndex {
    let mut publishing = Publisher::new(folder).lock().expect("the lock");
    publishing.publish(Some(&files()), &mirrors()).expect("space on the disk");
    open_newest_files(folder).index.expect("the index just published")
}

/// All of it.
pub fn snapshot(folder: &Path) -> Snapshot {
    let files = Arc::new(index(folder));
    let mirrors = open_newest_mirrors(folder).index.expect("the mirrors just published").mirrors();
    with_mirrors(files, mirrors)
}

/// All of it with other mirrors.
pub fn with_mirrors(files: Arc<FileIndex>, mirrors: Vec<Mirror>) -> Snapshot {
    let (geo, errors) = GeoDatabase::load(&geo_folder());
    assert!(errors.is_empty(), "{errors:?}");
    let config = config::parse(CONFIG, Path::new("fuzz.conf")).expect("a configuration").config;
    Snapshot::new(Arc::new(Settings::from(&config)), Some(files), Arc::new(MirrorTable::new(mirrors)), Arc::new(geo))
}
