//! The mirrors' servers: a real rsync daemon and a real nginx.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::eventually;
use super::host::{Host, Place};
use super::program::Program;

/// A mirror: a tree of files behind HTTP and rsync.
#[derive(Debug)]
pub(crate) struct MirrorSite {
    /// Its name, also that of its rsync module.
    pub(crate) name: String,
    /// Its files.
    pub(crate) root: PathBuf,
    host: Host,
    rsync: SocketAddr,
}

const HTTP_PORT: u16 = 8080;
const RSYNC_PORT: u16 = 8730;

impl MirrorSite {
    /// Base of its downloads.
    pub(crate) fn http_url(&self) -> String {
        format!("http://{}/", self.host.port(HTTP_PORT))
    }

    /// Its rsync module.
    pub(crate) fn rsync_url(&self) -> String {
        format!("rsync://{}/{}/", self.rsync, self.name)
    }
}

/// Mirrors that one rsync daemon and one nginx serve.
#[derive(Debug)]
pub(crate) struct MirrorSites {
    /// The mirrors, in the order given.
    pub(crate) sites: Vec<MirrorSite>,
    _rsync_host: Host,
    rsyncd: Program,
    nginx: Program,
}

impl MirrorSites {
    /// Serves a new empty tree below `folder` for each name.
    pub(crate) fn start(folder: &Path, mirrors: &[(&str, Place)]) -> MirrorSites {
        let rsync_host = Host::claim(Place::Nowhere);
        let rsync = rsync_host.port(RSYNC_PORT);
        let sites: Vec<MirrorSite> = mirrors
            .iter()
            .map(|&(name, place)| {
                let root = folder.join("mirrors").join(name);
                fs::create_dir_all(&root).expect("folder of a mirror");
                MirrorSite { name: name.to_owned(), root, host: Host::claim(place), rsync }
            })
            .collect();
        let rsyncd = start_rsyncd(folder, rsync, &sites);
        let nginx = start_nginx(folder, &sites);
        let mut all = MirrorSites { sites, _rsync_host: rsync_host, rsyncd, nginx };
        all.wait_until_ready();
        all
    }

    /// The mirror with this name.
    pub(crate) fn site(&self, name: &str) -> &MirrorSite {
        self.sites.iter().find(|site| site.name == name).unwrap_or_else(|| panic!("no mirror {name}"))
    }

    fn wait_until_ready(&mut self) {
        let addresses: Vec<SocketAddr> =
            self.sites.iter().flat_map(|site| [site.rsync, site.host.port(HTTP_PORT)]).collect();
        for address in addresses {
            eventually("a mirror's server", || {
                self.rsyncd.assert_running();
                self.nginx.assert_running();
                TcpStream::connect(address).map_err(|e| format!("{address}: {e}"))
            });
        }
    }
}

/// One module per mirror. Started by root, the daemon would read as nobody, who cannot enter a temporary folder.
fn start_rsyncd(folder: &Path, address: SocketAddr, sites: &[MirrorSite]) -> Program {
    let mut config = String::from("use chroot = no\nreverse lookup = no\nread only = yes\nlist = yes\n");
    if rustix::process::geteuid().is_root() {
        config.push_str("uid = 0\ngid = 0\n");
    }
    for site in sites {
        let _ = write!(config, "[{}]\npath = {}\n", site.name, site.root.display());
    }
    let file = folder.join("rsyncd.conf");
    fs::write(&file, config).expect("rsyncd.conf");
    let mut command = Command::new("rsync");
    command.args(["--daemon", "--no-detach", "--log-file=/dev/stderr", "--config"]).arg(&file);
    command.args(["--address", &address.ip().to_string(), "--port", &address.port().to_string()]);
    Program::start("rsyncd", &mut command, folder)
}

/// One process without a master, so that ending it leaves no worker behind.
fn start_nginx(folder: &Path, sites: &[MirrorSite]) -> Program {
    let scratch = folder.join("nginx");
    fs::create_dir_all(&scratch).expect("folder of nginx");
    let mut config = format!(
        "daemon off;\nmaster_process off;\nerror_log stderr warn;\npid {0}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n\
         client_body_temp_path {0}/body;\nproxy_temp_path {0}/proxy;\nfastcgi_temp_path {0}/fastcgi;\n\
         uwsgi_temp_path {0}/uwsgi;\nscgi_temp_path {0}/scgi;\n",
        scratch.display()
    );
    if rustix::process::geteuid().is_root() {
        config.insert_str(0, "user root;\n");
    }
    for site in sites {
        let _ = writeln!(config, "server {{ listen {}; root {}; }}", site.host.port(HTTP_PORT), site.root.display());
    }
    config.push_str("}\n");
    let file = scratch.join("nginx.conf");
    fs::write(&file, config).expect("nginx.conf");
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&scratch).arg("-c").arg(&file).args(["-e", "stderr"]);
    Program::start("nginx", &mut command, folder)
}
