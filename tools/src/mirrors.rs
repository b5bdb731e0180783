//! Mirrors of a repository, made to be many and cheap.
//!
//! A mirror is an rsync module and an address of nginx, both leading to one of [`VARIANTS`] trees. The complete tree is the
//! repository itself; the others hard-link its files but for one in a hundred. So 50 mirrors of 200,000 files take
//! three trees of links instead of ten million inodes, and the scans still read a whole listing for each mirror.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;

use crate::places::PLACES;
use crate::repository::write_sparse;
use crate::{GenerateError, at};

/// As many mirrors as there are addresses for, 250 in each place.
pub(crate) const MAX_COUNT: usize = 250 * PLACES.len();

/// How a tree differs from the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// Not at all.
    Complete,
    /// Lacks files.
    Lacking,
    /// Has files of another size.
    OtherSize,
    /// Has files that are an hour older.
    OtherTime,
}

/// Mirror n gets variant n modulo their number: two of five are complete.
const VARIANTS: [Variant; 5] =
    [Variant::Complete, Variant::Lacking, Variant::Complete, Variant::OtherSize, Variant::OtherTime];

/// One file in so many differs.
const DIFFERS: usize = 100;

/// What to make.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) folder: PathBuf,
    pub(crate) source: PathBuf,
    pub(crate) count: usize,
    pub(crate) seed: u64,
    pub(crate) rsync_port: u16,
    pub(crate) http_port: u16,
}

/// Creates the trees and the configurations of their servers.
pub(crate) fn generate(request: &Request) -> Result<(), GenerateError> {
    if request.count > MAX_COUNT {
        return Err(GenerateError::TooManyMirrors(request.count));
    }
    fs::create_dir(&request.folder).map_err(at("create", &request.folder))?;
    let folder = fs::canonicalize(&request.folder).map_err(at("find", &request.folder))?;
    let source = fs::canonicalize(&request.source).map_err(at("find", &request.source))?;
    let mut rng = Rng::with_seed(request.seed);
    for variant in [Variant::Lacking, Variant::OtherSize, Variant::OtherTime] {
        link_tree(&source, &tree(&folder, &source, variant), variant, &mut rng)?;
    }

    let mirrors: Vec<Mirror> = (0..request.count).map(|number| Mirror::new(number, &folder, &source)).collect();
    let owner = fs::metadata(&folder).map_err(at("examine", &folder))?.uid();
    write(&folder.join("rsyncd.conf"), &rsyncd_conf(&mirrors, request.rsync_port, owner))?;
    write(&folder.join("nginx.conf"), &nginx_conf(&mirrors, &folder, request.http_port))?;
    let script = folder.join("add-mirrors.sh");
    write(&script, &add_script(&mirrors, request))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).map_err(at("make executable", &script))
}

/// A mirror to configure.
struct Mirror {
    name: String,
    address: String,
    root: PathBuf,
}

impl Mirror {
    fn new(number: usize, folder: &Path, source: &Path) -> Mirror {
        let place = &PLACES[number % PLACES.len()];
        Mirror {
            name: format!("mirror{number:04}"),
            address: format!("127.{}.0.{}", place.loopback, 1 + number / PLACES.len()),
            root: tree(folder, source, VARIANTS[number % VARIANTS.len()]),
        }
    }
}

fn tree(folder: &Path, source: &Path, variant: Variant) -> PathBuf {
    match variant {
        Variant::Complete => source.to_owned(),
        Variant::Lacking => folder.join("lacking"),
        Variant::OtherSize => folder.join("other-size"),
        Variant::OtherTime => folder.join("other-time"),
    }
}

/// Hard-links the files of `source` below `target`, but for those that differ.
fn link_tree(source: &Path, target: &Path, variant: Variant, rng: &mut Rng) -> Result<(), GenerateError> {
    fs::create_dir(target).map_err(at("create", target))?;
    for entry in fs::read_dir(source).map_err(at("read", source))? {
        let entry = entry.map_err(at("read", source))?;
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        let metadata = entry.metadata().map_err(at("examine", &from))?;
        if metadata.is_dir() {
            link_tree(&from, &to, variant, rng)?;
        } else if metadata.is_file() {
            if rng.usize(..DIFFERS) != 0 {
                fs::hard_link(&from, &to).map_err(at("link", &to))?;
                continue;
            }
            let modified = metadata.modified().map_err(at("examine", &from))?;
            match variant {
                Variant::Complete | Variant::Lacking => {}
                Variant::OtherSize => write_sparse(&to, metadata.len() + 1, modified)?,
                Variant::OtherTime => write_sparse(&to, metadata.len(), modified - Duration::from_secs(3600))?,
            }
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), GenerateError> {
    fs::write(path, text).map_err(at("write", path))
}

/// `owner` is the user to read as where root starts the daemon, which would otherwise read as nobody.
fn rsyncd_conf(mirrors: &[Mirror], port: u16, owner: u32) -> String {
    let mut text = format!(
        "# rsync --daemon --no-detach --config=rsyncd.conf\naddress = 127.0.0.1\nport = {port}\nuse chroot = no\n\
         reverse lookup = no\nread only = yes\nuid = {owner}\n"
    );
    for mirror in mirrors {
        let _ = write!(text, "[{}]\npath = {}\n", mirror.name, mirror.root.display());
    }
    text
}

fn nginx_conf(mirrors: &[Mirror], folder: &Path, port: u16) -> String {
    let mut text = format!(
        "# nginx -c {0}/nginx.conf -e stderr\ndaemon off;\nmaster_process off;\npid {0}/nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 1024; }}\nhttp {{\naccess_log off;\n",
        folder.display()
    );
    for mirror in mirrors {
        let _ = writeln!(text, "server {{ listen {}:{port}; root {}; }}", mirror.address, mirror.root.display());
    }
    text.push_str("}\n");
    text
}

fn add_script(mirrors: &[Mirror], request: &Request) -> String {
    let mut text = String::from("#!/bin/sh\n# Adds the mirrors to a running daemon, scans and enables them.\nset -e\n");
    for Mirror { name, address, .. } in mirrors {
        let Request { rsync_port, http_port, .. } = request;
        let _ = writeln!(
            text,
            "mirrorbits \"$@\" add -http http://{address}:{http_port}/ -rsync rsync://127.0.0.1:{rsync_port}/{name}/ {name}"
        );
    }
    for Mirror { name, .. } in mirrors {
        let _ = writeln!(text, "mirrorbits \"$@\" scan -enable {name}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository;

    /// Size and time of the files of a tree, by their path below it.
    fn files(root: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
        let mut found = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("folder").map(|entry| entry.expect("entry")) {
                let metadata = entry.metadata().expect("metadata");
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else {
                    let path = entry.path().strip_prefix(root).expect("below the root").to_owned();
                    found.push((path, metadata.len(), metadata.modified().expect("time")));
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn each_variant_differs_in_its_own_way() {
        let temporary = tempfile::tempdir().expect("temporary folder");
        let [source, folder] = ["source", "mirrors"].map(|name| temporary.path().join(name));
        repository::generate(&source, 2000, 1).expect("repository");
        let request =
            Request { folder: folder.clone(), source: source.clone(), count: 5, seed: 1, rsync_port: 1, http_port: 2 };
        generate(&request).expect("mirrors");

        let all = files(&source);
        let lacking = files(&folder.join("lacking"));
        assert!(lacking.len() < all.len() && lacking.len() > all.len() * 95 / 100, "{}", lacking.len());

        let other_size = files(&folder.join("other-size"));
        let sizes = all.iter().zip(&other_size).filter(|(a, b)| a.1 != b.1).count();
        assert!((1..100).contains(&sizes), "{sizes}");
        assert!(all.iter().zip(&other_size).all(|(a, b)| a.0 == b.0 && a.2 == b.2));

        let other_time = files(&folder.join("other-time"));
        let times = all.iter().zip(&other_time).filter(|(a, b)| a.2 != b.2).count();
        assert!((1..100).contains(&times), "{times}");
        assert!(all.iter().zip(&other_time).all(|(a, b)| a.0 == b.0 && a.1 == b.1));
    }
}
