//! The files of the demo, in a temporary folder.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::DemoError;
use super::ports::Ports;

/// A mirror of the demo.
#[derive(Clone, Copy, Debug)]
pub(super) struct DemoMirror {
    /// As the commands know it; also its rsync module and its folder.
    pub(super) name: &'static str,
    /// Where the geo databases place `address` and `client`.
    pub(super) city: &'static str,
    /// Where its nginx listens.
    pub(super) address: Ipv4Addr,
    /// A client nearby.
    pub(super) client: Ipv4Addr,
    /// Whether it lacks [`NEWEST`], as a mirror does that was not synchronised yet.
    late: bool,
}

/// One mirror for each of three continents.
pub(super) const MIRRORS: [DemoMirror; 3] = [
    DemoMirror {
        name: "paris",
        city: "Paris",
        address: Ipv4Addr::new(127, 33, 0, 1),
        client: Ipv4Addr::new(192, 0, 2, 1),
        late: false,
    },
    DemoMirror {
        name: "new-york",
        city: "New York",
        address: Ipv4Addr::new(127, 1, 0, 1),
        client: Ipv4Addr::new(192, 0, 2, 97),
        late: false,
    },
    DemoMirror {
        name: "tokyo",
        city: "Tokyo",
        address: Ipv4Addr::new(127, 81, 0, 1),
        client: Ipv4Addr::new(192, 0, 2, 161),
        late: true,
    },
];

impl DemoMirror {
    /// Base of its downloads.
    pub(super) fn http_url(&self, ports: &Ports) -> String {
        format!("http://{}:{}/", self.address, ports.mirrors)
    }

    /// Its rsync module.
    pub(super) fn rsync_url(&self, ports: &Ports) -> String {
        format!("rsync://{}:{}/{}/", Ipv4Addr::LOCALHOST, ports.rsync, self.name)
    }
}

/// On every mirror.
pub(super) const EVERYWHERE: &str = "images/demo-1.0.iso";
/// Not on every mirror.
pub(super) const NEWEST: &str = "images/demo-1.1.iso";
/// A symbolic link to [`NEWEST`].
pub(super) const LATEST: &str = "images/latest.iso";
/// Has to be percent-encoded in URLs.
pub(super) const WITH_SPACE: &str = "docs/Read me.txt";

/// The regular files of the repository with their sizes in bytes.
const FILES: [(&str, usize); 4] = [("README.txt", 60), (WITH_SPACE, 600), (EVERYWHERE, 262_144), (NEWEST, 300_000)];

/// 2026-01-01: what every file was last changed on; Unix seconds.
const MODIFIED: Duration = Duration::from_secs(1_767_225_600);

/// The temporary folder, complete.
#[derive(Debug)]
pub(super) struct Folder {
    folder: TempDir,
    ports: Ports,
}

impl Folder {
    /// Writes everything.
    pub(super) fn create(ports: Ports) -> Result<Folder, DemoError> {
        let folder = tempfile::Builder::new()
            .prefix("mirrorbits-demo-")
            .tempdir()
            .map_err(at("create a folder in", &std::env::temp_dir()))?;
        let folder = Folder { folder, ports };
        for (name, size) in FILES {
            folder.write_repository_file("repository", name, size)?;
            for mirror in &MIRRORS {
                if !(mirror.late && name == NEWEST) {
                    folder.write_repository_file(&format!("mirrors/{}", mirror.name), name, size)?;
                }
            }
        }
        let link = folder.path().join("repository").join(LATEST);
        symlink("demo-1.1.iso", &link).map_err(at("create", &link))?;
        for (name, database) in [
            ("GeoLite2-City.mmdb", &include_bytes!("geo/GeoLite2-City.mmdb")[..]),
            ("GeoLite2-ASN.mmdb", &include_bytes!("geo/GeoLite2-ASN.mmdb")[..]),
        ] {
            folder.write(&format!("geo/{name}"), database)?;
        }
        folder.write("mirrorbits.conf", folder.daemon_configuration().as_bytes())?;
        folder.write("rsyncd.conf", folder.rsync_configuration().as_bytes())?;
        folder.write("nginx/nginx.conf", folder.nginx_configuration().as_bytes())?;
        Ok(folder)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The ports in its configurations.
    pub(super) fn ports(&self) -> &Ports {
        &self.ports
    }

    /// The daemon's configuration.
    pub(super) fn configuration(&self) -> PathBuf {
        self.path().join("mirrorbits.conf")
    }

    /// Removes it with all files.
    pub(super) fn remove(self) -> Result<(), DemoError> {
        let path = self.path().to_owned();
        self.folder.close().map_err(at("remove", &path))
    }

    fn write_repository_file(&self, root: &str, name: &str, size: usize) -> Result<(), DemoError> {
        let content: Vec<u8> = name.bytes().chain([b'\n']).cycle().take(size).collect();
        let path = self.write(&format!("{root}/{name}"), &content)?;
        File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH + MODIFIED))
            .map_err(at("set the time of", &path))
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf, DemoError> {
        let path = self.path().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(at("create", parent))?;
        }
        fs::write(&path, content).map_err(at("write", &path))?;
        Ok(path)
    }

    fn daemon_configuration(&self) -> String {
        let (folder, Ports { redirector, rpc, .. }) = (self.path().display(), self.ports);
        format!(
            "Repository: {folder}/repository\nStateDir: {folder}/state\nGeoipDatabasePath: {folder}/geo\n\
             Database: embedded\nListenAddress: 127.0.0.1:{redirector}\nRPCListenAddress: 127.0.0.1:{rpc}\n\
             MetricsListenAddress: ''\n"
        )
    }

    /// Started by root, the daemon would read as nobody, who cannot enter a temporary folder.
    fn rsync_configuration(&self) -> String {
        let mut text = String::from("use chroot = no\nreverse lookup = no\nread only = yes\n");
        if rustix::process::geteuid().is_root() {
            text.push_str("uid = 0\ngid = 0\n");
        }
        for mirror in &MIRRORS {
            text.push_str(&format!("[{0}]\npath = {1}/mirrors/{0}\n", mirror.name, self.path().display()));
        }
        text
    }

    /// One process without a master: ending it ends nginx.
    fn nginx_configuration(&self) -> String {
        let folder = self.path().join("nginx");
        let folder = folder.display();
        let mut text = format!(
            "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n\
             access_log off;\nclient_body_temp_path {folder}/body;\nproxy_temp_path {folder}/proxy;\n\
             fastcgi_temp_path {folder}/fastcgi;\nuwsgi_temp_path {folder}/uwsgi;\nscgi_temp_path {folder}/scgi;\n"
        );
        for mirror in &MIRRORS {
            let (address, port, root) = (mirror.address, self.ports.mirrors, self.path().display());
            text.push_str(&format!("server {{ listen {address}:{port}; root {root}/mirrors/{}; }}\n", mirror.name));
        }
        text.push_str("}\n");
        text
    }
}

fn at<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> DemoError + 'a {
    move |source| DemoError::File { step, path: path.to_owned(), source }
}
