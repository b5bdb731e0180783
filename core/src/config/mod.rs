//! The configuration file: [`load`] reads what the operator typed and resolves it once into [`Config`], which cannot be
//! invalid.
//!
//! - `document`: from YAML to keys, texts and their lines
//! - `keys`: typed reading of keys, which collects every problem of a file instead of stopping at the first
//! - `resolve`: each key with its default and its check
//! - `address`: the forms of network addresses
//! - `describe`: the resolved values as text
//!
//! The keys are those of Mirrorbits, so that an existing file works unchanged, and a few of ours. `mirrorbits.conf` at the
//! root of the repository explains each to the operator.

mod address;
mod describe;
mod document;
mod error;
mod keys;
mod resolve;
#[cfg(test)]
mod tests;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::secret::{Secret, SecretUrl};

pub use error::{ConfigError, Problem};

/// What [`load`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The resolved configuration.
    pub config: Config,
    /// What the operator should know, one finished sentence each, with file and line: keys that mean nothing, values
    /// without effect.
    pub warnings: Vec<String>,
}

/// Reads and resolves a configuration file.
///
/// Relative paths in it count from the working directory; a host name in `ListenAddress` is looked up.
///
/// # Errors
/// The file cannot be read, is not YAML, or holds bad values; all of them are reported at once.
pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
    let bytes = fs::read(path).map_err(|cause| ConfigError::Unreadable { file: path.to_owned(), cause })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
        ConfigError::NotUtf8 { file: path.to_owned(), line }
    })?;
    parse(&text, path)
}

/// Resolves the text of a configuration file; `file` is what messages call it.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, file: &Path) -> Result<Loaded, ConfigError> {
    resolve::resolve(document::parse(text, file)?, file)
}

/// When to answer with JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputMode {
    /// JSON when the client accepts it.
    Auto,
    /// Always a redirect.
    Redirect,
    /// Always JSON.
    Json,
}

/// How the lines of the download log are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// As Mirrorbits does.
    Text,
    /// An object each.
    Json,
}

/// Where to accept connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `host:port`; a host name is resolved when the configuration is loaded.
    Tcp(SocketAddr),
    /// `:port`: IPv6 and IPv4.
    AnyTcp(u16),
    /// `unix:/path`.
    Unix(PathBuf),
}

/// Which backend holds the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    /// SQLite in `StateDir`.
    Embedded,
    /// Redis or Valkey.
    Redis,
}

/// On what the shards run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuntimeKind {
    /// io_uring where it can be had, else epoll.
    Auto,
    /// glommio.
    IoUring,
    /// tokio, one current-thread runtime per shard.
    Epoll,
}

/// Where Redis is and how to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSettings {
    /// `host:port`, or a `rediss://` URL for TLS.
    pub address: SecretUrl,
    /// Empty: no AUTH.
    pub password: Secret,
    /// Database number.
    pub database: u32,
    /// Master name for Sentinel; empty: no Sentinel.
    pub sentinel_master_name: String,
    /// `host:port` of each Sentinel, or a `redis://` or `rediss://` URL with its password.
    pub sentinels: Vec<SecretUrl>,
}

/// Which hashes of source files are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedHashes {
    /// SHA-1.
    pub sha1: bool,
    /// SHA-256.
    pub sha256: bool,
    /// MD5.
    pub md5: bool,
}

/// Up to how old a copy may be, below a path prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutdatedRule {
    /// Starts with a slash; compared byte by byte with the start of the path.
    pub prefix: String,
    /// Accepted age of a copy in minutes.
    pub minutes: u32,
}

/// A server of last resort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// Base URL, ending in a slash; may lack a scheme.
    pub url: String,
    /// Upper-case country code, or empty.
    pub country_code: String,
    /// Upper-case continent code, or empty.
    pub continent_code: String,
}

/// How long statistics are kept; `None` keeps them for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatsRetention {
    /// Daily counts, in days.
    pub days: Option<u32>,
    /// Monthly counts, in months.
    pub months: Option<u32>,
}

/// What one scan of a mirror may take; beyond it the scan fails and the earlier result stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanLimits {
    /// Entries of the listing; `None`: see [`ScanLimits::files_for`].
    pub files: Option<u64>,
    /// Bytes of the listing; `None`: see [`ScanLimits::bytes_for`].
    pub bytes: Option<u64>,
    /// Lines of the listing that are not understood, or whose path is not clean.
    pub rejected_lines: u64,
    /// Time; `None`: see [`ScanLimits::time_for`].
    pub time: Option<Duration>,
}

impl Default for ScanLimits {
    fn default() -> ScanLimits {
        ScanLimits { files: None, bytes: None, rejected_lines: 10_000, time: None }
    }
}

impl ScanLimits {
    /// Entries that a listing may have, with `source` files in the repository: twice as many and 1,000,000 unless the
    /// configuration has a number.
    pub fn files_for(&self, source: u64) -> u64 {
        self.files.unwrap_or_else(|| source.saturating_mul(2).saturating_add(1_000_000))
    }

    /// Bytes that a listing of at most `files` entries may have: 256 for each unless the configuration has a number. A line
    /// of an rsync listing has about 50 bytes beside the path.
    pub fn bytes_for(&self, files: u64) -> u64 {
        self.bytes.unwrap_or_else(|| files.saturating_mul(256))
    }

    /// How long a scan may take: four times the interval between two, and at least an hour, unless the configuration has
    /// a number.
    pub fn time_for(&self, scan_interval: Duration) -> Duration {
        self.time.unwrap_or_else(|| scan_interval.saturating_mul(4).max(Duration::from_secs(3_600)))
    }
}

/// The resolved configuration. Every value has passed its check; `core/src/config` documents the keys in spec order.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Local copy of the repository, absolute.
    pub repository: PathBuf,
    /// Folder of page templates; `None`: the built-in ones.
    pub templates: Option<PathBuf>,
    /// Echoed in JSON.
    pub local_js_path: String,
    /// Redirect or JSON.
    pub output_mode: OutputMode,
    /// Where downloads are served.
    pub listen_address: ListenAddress,
    /// Compress JSON and HTML.
    pub gzip: bool,
    /// Whether a client of plain HTTP may be sent to HTTPS.
    pub allow_http_to_https_redirects: bool,
    /// Range requests within this time are one download; zero counts each.
    pub same_download_interval: Duration,
    /// Redis connection.
    pub redis: RedisSettings,
    /// Folder of `downloads.log`; `None`: no log.
    pub log_dir: Option<PathBuf>,
    /// How its lines are written.
    pub log_format: LogFormat,
    /// Path of the trace file on mirrors; empty: none.
    pub trace_file_location: String,
    /// Folder of `GeoLite2-City.mmdb` and `GeoLite2-ASN.mmdb`.
    pub geoip_database_path: PathBuf,
    /// Mirrors scanned at a time, at least 1.
    pub concurrent_sync: usize,
    /// Between two scans of a mirror.
    pub scan_interval: Duration,
    /// What one scan of a mirror may take.
    pub scan_limits: ScanLimits,
    /// Between two health checks of a mirror.
    pub check_interval: Duration,
    /// Between two scans of the source; `None`: on request only.
    pub repository_scan_interval: Option<Duration>,
    /// Alternatives in `Link` headers; 0: no header.
    pub max_link_headers: usize,
    /// Correct the time zones of mirrors.
    pub fix_timezone_offsets: bool,
    /// Hashes of source files.
    pub hashes: WantedHashes,
    /// A mirror that answers a health check with a redirect is down.
    pub disallow_redirects: bool,
    /// Factor on the closest distance within which load is distributed; greater than 0, finite.
    pub weight_distribution_range: f32,
    /// Disable a mirror whose health check answers 404.
    pub disable_on_missing_file: bool,
    /// Which copies may be out of date; the first matching rule counts.
    pub allow_outdated_files: Vec<OutdatedRule>,
    /// Servers of last resort.
    pub fallbacks: Vec<Fallback>,
    /// Where the RPC server listens, `host:port`.
    pub rpc_listen_address: String,
    /// Password of the RPC server; empty: none.
    pub rpc_password: Secret,
    /// Backend of the store.
    pub database: DatabaseKind,
    /// Folder of everything this program keeps, absolute.
    pub state_dir: PathBuf,
    /// Number of shards; `None`: one per core the process may run on.
    pub shards: Option<usize>,
    /// On what shards run.
    pub runtime: RuntimeKind,
    /// Bytes that the connections of one shard may hold: unfinished requests, and answers that clients have not taken.
    pub connection_buffers: usize,
    /// Most connections of the process; `None`: as many as its descriptors allow.
    pub max_connections: Option<usize>,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Show private fields of mirrors in JSON.
    pub expose_private_fields: bool,
    /// Where metrics are served, `host:port`; `None`: nowhere.
    pub metrics_listen_address: Option<String>,
    /// How long statistics are kept.
    pub stats_retention: StatsRetention,
}

impl Config {
    /// Folder of the index files.
    pub fn index_dir(&self) -> PathBuf {
        self.state_dir.join("index")
    }
}
