//! Folders of files with given contents and times: the repository and its copies.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The modification time that files get unless told otherwise: 2024-05-06 07:08:09 UTC, in Unix seconds.
pub(crate) const USUAL_TIME: u64 = 1_714_979_289;

/// Writes a file with its folders and sets its time (Unix seconds).
pub(crate) fn write(root: &Path, name: &str, content: &[u8], modified: u64) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("a file has a folder")).expect("folder of a test file");
    fs::write(&path, content).expect("test file");
    set_modified(&path, modified);
}

/// Sets the modification time of a file, in Unix seconds.
pub(crate) fn set_modified(path: &Path, modified: u64) {
    let file = File::options().write(true).open(path).expect("test file");
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(modified)).expect("time of a test file");
}

/// Copies files and folders with their modification times; symbolic links are left out, as rsync's listing does.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder of a copy");
    for entry in fs::read_dir(from).expect("folder to copy") {
        let entry = entry.expect("entry to copy");
        let kind = entry.file_type().expect("kind of an entry");
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), &target).expect("copy of a file");
            let modified = entry.metadata().and_then(|m| m.modified()).expect("time of a file");
            File::options().write(true).open(&target).and_then(|f| f.set_modified(modified)).expect("time of a copy");
        }
    }
}
