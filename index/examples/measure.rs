//! Times and sizes of a large index: `cargo run --release -p mb-index --example measure -- [files] [mirrors]`.

use std::time::{Duration, Instant};

use mb_core::mirror::{Mirror, MirrorId, MirrorSettings, MirrorState};
use mb_core::store::FileHashes;
use mb_core::time::FileTime;
use mb_index::{
    Entry, Exception, FileRecord, FilesBuilder, FilesModel, Publisher, open_newest_files, open_newest_mirrors,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| arguments.next().map_or(Ok(default), |argument| argument.parse::<u32>());
    let (files, mirrors) = (number(1_000_000)?, number(400)?);
    let dir = tempfile::tempdir()?;

    let (model, built) = timed(|| build(files, mirrors));
    let model = model?;
    let records: Vec<Mirror> = (1..=mirrors).map(mirror).collect();
    let mut lock = Publisher::new(dir.path()).lock()?;
    let (current, published) = timed(|| lock.publish(Some(&model), &records));
    drop(model);
    let mut mirrors_only: Vec<Duration> = (0..21).map(|_| timed(|| lock.publish(None, &records)).1).collect();
    mirrors_only.sort_unstable();
    let bytes = std::fs::metadata(dir.path().join(format!("files-{}", current?.files.unwrap_or_default())))?.len();
    let (opened, open_time) = timed(|| open_newest_files(dir.path()));
    let index = opened.index.ok_or("the index was refused")?;
    let (_, mirrors_open_time) = timed(|| open_newest_mirrors(dir.path()).index.map(|index| index.mirrors()));
    let path_bytes: usize = index.files().map(|file| file.path().len()).sum();
    let per_file = (bytes as f64 - path_bytes as f64) / f64::from(files) - 32.0;

    println!("{files} files, {mirrors} mirrors, {} sets, {} other entries", index.set_count(), index.entries().len());
    println!("build {built:?}, publish {published:?}, open and verify {open_time:?}");
    println!("mirror table: publish {:?} (median), open and decode {mirrors_open_time:?}", mirrors_only[10]);
    println!("{bytes} bytes; {per_file:.1} bytes per file besides its path and SHA-256");

    let mut order: Vec<u32> = (0..files).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for at in (1..order.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(at, (state % (at as u64 + 1)) as usize);
    }
    let present: Vec<Vec<u8>> = order.iter().map(|&row| index.file(row).path().to_owned()).collect();
    let absent: Vec<Vec<u8>> = present.iter().map(|path| [path, &b"x"[..]].concat()).collect();
    let mut scratch = Vec::with_capacity(4096);
    for (what, paths) in [("present", &present), ("absent", &absent)] {
        let (found, time) =
            timed(|| paths.iter().filter(|path| matches!(index.resolve(path, &mut scratch), Entry::File(_))).count());
        println!("{what} paths: {:?} each, {found} found", time / files.max(1));
    }
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

/// 25 files in a directory; 2000 distinct mirror sets; every twentieth file differs on one mirror; one alias in every
/// hundredth directory.
fn build(files: u32, mirrors: u32) -> Result<FilesModel, mb_index::BuildError> {
    let ids: Vec<MirrorId> = (1..=mirrors).map(MirrorId).collect();
    let mut builder = FilesBuilder::new(&ids, true);
    let mut words = vec![0; builder.set_words()];
    for number in 0..files {
        let path = format!("/pool/main/{:06}/package-{number:07}_1.0-1_amd64.deb", number / 25).into_bytes();
        for (word, bits) in (0u64..).zip(&mut words) {
            *bits = (u64::from(number % 2000) << 8 | word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        if let (Some(last), spare @ 1..) = (words.last_mut(), mirrors % 64) {
            *last &= (1 << spare) - 1;
        }
        if let Some(first) = words.first_mut() {
            *first &= !1;
        }
        let set = builder.intern_set(&words);
        let exception = Exception { mirror: 0, size: 1, modified: None };
        let exceptions = if number % 20 == 0 && mirrors > 0 { &[exception][..] } else { &[] };
        let hashes = FileHashes { sha256: Some([number as u8; 32]), ..FileHashes::default() };
        let (size, modified) = (u64::from(number), FileTime::from_seconds(i64::from(number)));
        builder.push_file(FileRecord { path: &path, size, modified, hashes, set, exceptions })?;
    }
    for directory in (0..files / 25).step_by(100) {
        builder.push_alias(format!("/pool/main/{directory:06}/latest").as_bytes(), b"/pool/main")?;
    }
    Ok(builder.finish())
}

fn mirror(id: u32) -> Mirror {
    let settings = MirrorSettings {
        name: format!("mirror-{id}"),
        http_url: format!("https://mirror-{id}.example.org/pub/linux/"),
        rsync_url: format!("rsync://mirror-{id}.example.org/linux/"),
        country_codes: "FR".into(),
        ..MirrorSettings::default()
    };
    Mirror { id: MirrorId(id), settings, state: MirrorState::default() }
}
