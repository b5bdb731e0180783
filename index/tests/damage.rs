//! Whatever happens to a file on its disk, it is refused with a reason, and the generation before it is served.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

use mb_core::mirror::{AllowRedirects, Health, Mirror, MirrorId, MirrorSettings, MirrorState, ScanProtocol};
use mb_core::store::FileHashes;
use mb_core::time::{FileTime, Timestamp};
use mb_index::{
    Exception, FileIndex, FileRecord, FilesBuilder, FilesModel, Kind, MirrorIndex, OpenError, Publisher, check_current,
    file_name, identify, open_newest_files, open_newest_mirrors, verify,
};

fn files() -> FilesModel {
    let mut builder = FilesBuilder::new(&[MirrorId(1), MirrorId(2)], false);
    let set = builder.intern_set(&[0b10]);
    let hashes = FileHashes { sha1: Some([1; 20]), sha256: None, md5: Some([2; 16]) };
    let exceptions = [Exception { mirror: 0, size: 7, modified: Some(FileTime(8)) }];
    for path in [&b"/a/one"[..], b"/a/two", b"/b"] {
        builder
            .push_file(FileRecord { path, size: 3, modified: FileTime(4), hashes, set, exceptions: &exceptions })
            .unwrap();
    }
    builder.push_alias(b"/link", b"/a").unwrap();
    builder.finish()
}

fn mirror(id: u32) -> Mirror {
    Mirror {
        id: MirrorId(id),
        settings: MirrorSettings {
            name: format!("mirror-{id}"),
            http_url: "https://a.mirror.example/with/a/long/path/".into(),
            rsync_url: "rsync://a.mirror.example/module/".into(),
            ftp_url: "ftp://a.mirror.example/".into(),
            sponsor_name: "Sponsor \u{e9}".into(),
            sponsor_url: "https://sponsor.example/".into(),
            sponsor_logo_url: "https://sponsor.example/logo.png".into(),
            admin_name: "Ada".into(),
            admin_email: "ada@mirror.example".into(),
            custom_data: "custom".into(),
            continent_only: true,
            country_only: false,
            as_only: true,
            score: -7,
            latitude: 48.5,
            longitude: -2.25,
            continent_code: "EU".into(),
            country_codes: "FR DE".into(),
            excluded_country_codes: "US".into(),
            asn: 64496,
            comment: "a comment that is longer than what fits inline".into(),
            allow_redirects: AllowRedirects::Disallowed,
        },
        state: MirrorState {
            enabled: true,
            http: Health { up: true, down_reason: String::new() },
            https: Health { up: false, down_reason: "Got status code 500".into() },
            since: Timestamp(1),
            timezone_offset_ms: -3_600_000,
            last_sync: Timestamp(2),
            last_successful_sync: Timestamp(3),
            last_successful_sync_protocol: ScanProtocol::Ftp,
            last_successful_sync_precision_ns: 1_000_000_000,
            last_mod_time: Timestamp(4),
            unreadable: None,
        },
    }
}

/// An index folder with two generations of both kinds.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        for _ in 0..2 {
            Publisher::new(folder.dir()).lock().unwrap().publish(Some(&files()), &[mirror(1), mirror(2)]).unwrap();
        }
        folder
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    fn path(&self, kind: Kind, generation: u64) -> PathBuf {
        self.dir().join(file_name(kind, generation))
    }

    /// Puts other bytes under the name of a file, as a new file, since the old one may be mapped.
    fn replace(&self, kind: Kind, generation: u64, bytes: &[u8]) {
        let path = self.path(kind, generation);
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }

    fn open(&self, kind: Kind, generation: u64) -> Result<(), OpenError> {
        let path = self.path(kind, generation);
        match kind {
            Kind::Files => FileIndex::open(&path, generation).map(drop),
            Kind::Mirrors => MirrorIndex::open(&path, generation).map(drop),
        }
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let folder = Folder::new();
    for kind in [Kind::Files, Kind::Mirrors] {
        let good = fs::read(folder.path(kind, 2)).unwrap();
        for byte in 0..good.len() {
            // All bits of the header, one of each byte behind it.
            for bit in if byte < 64 { 0..8 } else { byte % 8..byte % 8 + 1 } {
                let mut bytes = good.clone();
                bytes[byte] ^= 1 << bit;
                folder.replace(kind, 2, &bytes);
                assert!(folder.open(kind, 2).is_err(), "{kind}: byte {byte}, bit {bit}");
                assert!(verify(&folder.path(kind, 2)).is_err(), "{kind}: byte {byte}, bit {bit}");
            }
        }
    }
}

#[test]
fn every_wrong_length_is_refused() {
    let folder = Folder::new();
    for kind in [Kind::Files, Kind::Mirrors] {
        let good = fs::read(folder.path(kind, 2)).unwrap();
        for length in 0..good.len() {
            folder.replace(kind, 2, &good[..length]);
            let error = folder.open(kind, 2).unwrap_err();
            assert!(matches!(error, OpenError::Length { found, .. } if found == length as u64), "{error}");
        }
        folder.replace(kind, 2, &[&good[..], b"\0"].concat());
        assert!(matches!(folder.open(kind, 2), Err(OpenError::Length { .. })));
    }
}

#[test]
fn a_file_under_another_name_is_refused() {
    let folder = Folder::new();
    for (kind, other) in [(Kind::Files, Kind::Mirrors), (Kind::Mirrors, Kind::Files)] {
        let older = fs::read(folder.path(kind, 1)).unwrap();
        let swapped = fs::read(folder.path(other, 1)).unwrap();
        folder.replace(kind, 2, &older);
        let error = folder.open(kind, 2).unwrap_err();
        assert!(matches!(error, OpenError::Generation { expected: 2, found: 1, .. }), "{error}");
        assert!(matches!(verify(&folder.path(kind, 2)), Err(OpenError::Generation { .. })));
        folder.replace(kind, 1, &swapped);
        let error = folder.open(kind, 1).unwrap_err();
        assert!(
            matches!(error, OpenError::Kind { expected, found, .. } if expected == kind && found == other),
            "{error}"
        );
        folder.replace(kind, 1, &older);
    }
    assert!(matches!(FileIndex::open(folder.dir(), 1), Err(OpenError::Io { .. })));
    assert!(matches!(FileIndex::open(&folder.path(Kind::Files, 9), 9), Err(OpenError::Io { .. })));
}

#[test]
fn a_damaged_newest_generation_is_reported_and_the_one_before_is_served() {
    let folder = Folder::new();
    for kind in [Kind::Files, Kind::Mirrors] {
        let mut bytes = fs::read(folder.path(kind, 2)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        folder.replace(kind, 2, &bytes);
    }
    let opened = open_newest_files(folder.dir());
    assert_eq!(opened.index.unwrap().generation(), 1);
    assert!(matches!(&opened.refused[..], [OpenError::Checksum { path }] if path.ends_with("files-2")));
    let opened = open_newest_mirrors(folder.dir());
    assert_eq!(opened.index.unwrap().generation(), 1);
    assert!(matches!(&opened.refused[..], [OpenError::Checksum { path }] if path.ends_with("mirrors-2")));

    fs::remove_file(folder.path(Kind::Files, 1)).unwrap();
    let opened = open_newest_files(folder.dir());
    assert!(opened.index.is_none());
    assert_eq!(opened.refused.len(), 1);
    let nowhere = open_newest_files(&folder.dir().join("nowhere"));
    assert!(nowhere.index.is_none() && nowhere.refused.is_empty(), "{:?}", nowhere.refused);
}

#[test]
fn an_open_generation_outlives_its_file() {
    let folder = Folder::new();
    let index = open_newest_files(folder.dir()).index.unwrap();
    for _ in 0..3 {
        Publisher::new(folder.dir()).lock().unwrap().publish(Some(&files()), &[]).unwrap();
    }
    assert!(!folder.path(Kind::Files, 2).exists());
    assert_eq!(index.files().map(|file| file.path()).collect::<Vec<_>>(), [&b"/a/one"[..], b"/a/two", b"/b"]);
}

#[test]
fn mirrors_come_out_as_they_were_put_in() {
    let folder = Folder::new();
    let plain = Mirror { id: MirrorId(3), settings: MirrorSettings::default(), state: MirrorState::default() };
    let mut other = mirror(4);
    other.settings.allow_redirects = AllowRedirects::Allowed;
    other.settings.country_only = true;
    other.settings.as_only = false;
    other.state.http = Health { up: false, down_reason: "Unreachable".into() };
    other.state.https.up = true;
    other.state.enabled = false;
    other.state.last_successful_sync_protocol = ScanProtocol::Http;
    let mirrors = [mirror(1), plain, other];
    let before = Timestamp::now();
    Publisher::new(folder.dir()).lock().unwrap().publish(None, &mirrors).unwrap();
    let index = open_newest_mirrors(folder.dir()).index.unwrap();
    assert_eq!(index.mirrors(), mirrors);
    assert_eq!(index.generation(), 3);
    assert!(index.built() >= before);
}

/// A look at headers and lengths, which an indexer takes once a second at what it has published.
#[test]
fn what_is_deleted_truncated_or_exchanged_is_seen_without_reading_it_all() {
    let looked_at = |damage: &dyn Fn(&Path)| {
        let folder = Folder::new();
        assert!(check_current(folder.dir()).is_ok());
        damage(folder.dir());
        check_current(folder.dir())
    };
    let file = |dir: &Path, kind, generation| dir.join(file_name(kind, generation));
    for kind in [Kind::Files, Kind::Mirrors] {
        let truncated = looked_at(&|dir| {
            let file = fs::File::options().write(true).open(file(dir, kind, 2)).unwrap();
            file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        });
        assert!(matches!(truncated, Err(OpenError::Length { .. })), "{truncated:?}");
        let deleted = looked_at(&|dir| fs::remove_file(file(dir, kind, 2)).unwrap());
        assert!(matches!(deleted, Err(OpenError::Io { .. })), "{deleted:?}");
        let exchanged = looked_at(&|dir| fs::rename(file(dir, kind, 1), file(dir, kind, 2)).map(drop).unwrap());
        assert!(matches!(exchanged, Err(OpenError::Generation { expected: 2, found: 1, .. })), "{exchanged:?}");
        // What is not in use may be damaged.
        assert!(looked_at(&|dir| fs::remove_file(file(dir, kind, 1)).unwrap()).is_ok());
    }
    let missing = looked_at(&|dir| fs::remove_dir_all(dir).unwrap());
    assert!(matches!(missing, Err(OpenError::NotPublished { kind: Kind::Files, .. })), "{missing:?}");
    let damaged = looked_at(&|dir| fs::write(dir.join("CURRENT"), "").unwrap());
    assert!(matches!(damaged, Err(OpenError::Current(_))), "{damaged:?}");
}

#[test]
fn generations_of_one_number_in_two_folders_are_told_apart() {
    let (folder, other) = (Folder::new(), tempfile::tempdir().unwrap());
    for _ in 0..2 {
        let other_files = FilesBuilder::new(&[MirrorId(1)], false).finish();
        Publisher::new(other.path()).lock().unwrap().publish(Some(&other_files), &[mirror(1)]).unwrap();
    }
    for kind in [Kind::Files, Kind::Mirrors] {
        let ids = [folder.dir(), other.path()].map(|dir| identify(&dir.join(file_name(kind, 2))).unwrap());
        assert_eq!(ids[0].number, ids[1].number);
        assert_ne!(ids[0], ids[1], "{kind}");
    }
    let path = folder.dir().join(file_name(Kind::Files, 2));
    assert_eq!(identify(&path).unwrap(), FileIndex::open(&path, 2).unwrap().id());
    let path = folder.dir().join(file_name(Kind::Mirrors, 2));
    assert_eq!(identify(&path).unwrap(), MirrorIndex::open(&path, 2).unwrap().id());
}
