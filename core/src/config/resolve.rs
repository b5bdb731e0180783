//! Each key with its default and its check.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::address::{absolute, base_url, host_port, listen_address, network, redis_address};
use super::document::Entry;
use super::error::ConfigError;
use super::keys::{Checked, Findings, Keys, size, whole_number};
use super::{
    Config, DatabaseKind, Fallback, ListenAddress, Loaded, LogFormat, OutdatedRule, OutputMode, RedisSettings,
    RuntimeKind, ScanLimits, StatsRetention, WantedHashes,
};
use crate::secret::SecretUrl;

/// Names of the output modes.
pub(super) const OUTPUT_MODES: [(&str, OutputMode); 3] =
    [("auto", OutputMode::Auto), ("redirect", OutputMode::Redirect), ("json", OutputMode::Json)];

/// Names of the formats of the download log.
pub(super) const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

/// Names of the runtimes.
pub(super) const RUNTIMES: [(&str, RuntimeKind); 3] =
    [("auto", RuntimeKind::Auto), ("io_uring", RuntimeKind::IoUring), ("epoll", RuntimeKind::Epoll)];

/// Names of the databases; `None` stands for the choice by the keys of the file.
const DATABASES: [(&str, Option<DatabaseKind>); 3] =
    [("auto", None), ("embedded", Some(DatabaseKind::Embedded)), ("redis", Some(DatabaseKind::Redis))];

/// Loopback and the private ranges: RFC 1122 3.2.1.3, RFC 1918, RFC 4291 2.5.3, RFC 4193.
const TRUSTED_BY_DEFAULT: [IpNet; 6] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7)),
];

/// More shards than any machine has cores; a typing error above it.
const SHARDS_MAX: usize = 1024;
/// More connections than any process has descriptors.
const CONNECTIONS_MAX: usize = 1 << 20;

/// What the connections of a shard may hold: at least what a few of them need, and less than any machine's memory.
const CONNECTION_BUFFERS: RangeInclusive<usize> = 1 << 20..=1 << 40;
/// A thousand clients that do not read, each with the answers that are made before one is waited for.
const CONNECTION_BUFFERS_DEFAULT: usize = 64 << 20;

/// Resolves the keys of a file.
pub(super) fn resolve(entries: Vec<Entry>, file: &Path) -> Result<Loaded, ConfigError> {
    let mut findings = Findings::default();
    let mut keys = Keys::new(entries, file, &mut findings);
    let config = config(&mut keys);
    keys.finish();
    let Findings { problems, warnings } = findings;
    match config {
        Some(config) if problems.is_empty() => Ok(Loaded { config, warnings }),
        _ => Err(ConfigError::Invalid { file: file.to_owned(), problems }),
    }
}

/// Reads every key; `None` when there is no usable repository, which is then one of the problems.
fn config(keys: &mut Keys<'_>) -> Option<Config> {
    let any_redis_key = keys.any_set("Redis");
    let repository = keys.required("Repository", "must be the folder of the local copy of the repository", absolute);
    Some(Config {
        templates: keys.checked("Templates", None, optional_path),
        local_js_path: keys.text("LocalJSPath"),
        output_mode: keys.choice("OutputMode", OutputMode::Auto, &OUTPUT_MODES),
        listen_address: keys.checked("ListenAddress", ListenAddress::AnyTcp(8080), listen_address),
        gzip: keys.boolean("Gzip", false),
        allow_http_to_https_redirects: keys.boolean("AllowHTTPToHTTPSRedirects", true),
        same_download_interval: Duration::from_secs(keys.number("SameDownloadInterval", 600, 0..=u32::MAX).into()),
        redis: redis(keys),
        log_dir: keys.checked("LogDir", None, optional_path),
        log_format: keys.choice("LogFormat", LogFormat::Text, &LOG_FORMATS),
        trace_file_location: keys.text("TraceFileLocation"),
        geoip_database_path: keys.checked("GeoipDatabasePath", PathBuf::from("/usr/share/GeoIP/"), absolute),
        concurrent_sync: keys.number("ConcurrentSync", 5, 1..=65_535),
        scan_interval: minutes(keys.number("ScanInterval", 30, 1..=u32::MAX)),
        scan_limits: keys.section("ScanLimits", scan_limits),
        check_interval: minutes(keys.number("CheckInterval", 1, 1..=u32::MAX)),
        repository_scan_interval: match keys.number("RepositoryScanInterval", 5, 0..=u32::MAX) {
            0 => None,
            interval => Some(minutes(interval)),
        },
        max_link_headers: keys.number("MaxLinkHeaders", 10, 0..=65_535),
        fix_timezone_offsets: keys.boolean("FixTimezoneOffsets", false),
        hashes: keys.section("Hashes", |hashes| WantedHashes {
            sha256: hashes.boolean("SHA256", true),
            sha1: hashes.boolean("SHA1", false),
            md5: hashes.boolean("MD5", false),
        }),
        disallow_redirects: keys.boolean("DisallowRedirects", false),
        weight_distribution_range: keys.checked("WeightDistributionRange", 1.5, positive_number),
        disable_on_missing_file: keys.boolean("DisableOnMissingFile", false),
        allow_outdated_files: keys.sections("AllowOutdatedFiles", outdated_rule),
        fallbacks: keys.sections("Fallbacks", fallback),
        rpc_listen_address: keys.checked("RPCListenAddress", "localhost:3390".to_owned(), host_port),
        rpc_password: keys.secret("RPCPassword"),
        database: keys.choice("Database", None, &DATABASES).unwrap_or(if any_redis_key {
            DatabaseKind::Redis
        } else {
            DatabaseKind::Embedded
        }),
        state_dir: keys.checked("StateDir", PathBuf::from("/var/lib/mirrorbits"), absolute),
        shards: keys.checked("Shards", None, shards),
        runtime: keys.choice("Runtime", RuntimeKind::Auto, &RUNTIMES),
        max_connections: keys.checked("MaxConnections", None, max_connections),
        connection_buffers: keys.checked("ConnectionBuffersPerShard", CONNECTION_BUFFERS_DEFAULT, |text| {
            size(text, &CONNECTION_BUFFERS, "from 1MiB to 1024GiB")
        }),
        trusted_proxies: keys.texts("TrustedProxies", network).unwrap_or_else(|| TRUSTED_BY_DEFAULT.to_vec()),
        expose_private_fields: keys.boolean("ExposePrivateFields", false),
        metrics_listen_address: keys.checked("MetricsListenAddress", Some("localhost:9390".to_owned()), |text| {
            if text.is_empty() { Ok(None) } else { host_port(text).map(Some) }
        }),
        stats_retention: keys.section("StatsRetention", |retention| StatsRetention {
            days: retention.checked("Days", None, |text| whole_number(text, &(1..=u32::MAX)).map(Some)),
            months: retention.checked("Months", None, |text| whole_number(text, &(1..=u32::MAX)).map(Some)),
        }),
        repository: repository?,
    })
}

fn scan_limits(limits: &mut Keys<'_>) -> ScanLimits {
    let default = ScanLimits::default();
    ScanLimits {
        files: limits.checked("Files", default.files, number_or_auto),
        bytes: limits.checked("Bytes", default.bytes, number_or_auto),
        rejected_lines: limits.number("RejectedLines", default.rejected_lines, 0..=u64::from(u32::MAX)),
        time: limits
            .checked("Seconds", None, |text| number_or_auto(text).map(|seconds| seconds.map(Duration::from_secs))),
    }
}

/// A whole number, or `None` for `auto`.
fn number_or_auto(text: &str) -> Checked<Option<u64>> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(None);
    }
    // As much as YAML of other programs can write; a typing error above it.
    whole_number(text, &(1..=1 << 50)).map(Some).map_err(|allowed| format!("{allowed}, or auto"))
}

fn redis(keys: &mut Keys<'_>) -> RedisSettings {
    let settings = RedisSettings {
        address: keys.checked("RedisAddress", SecretUrl::from("127.0.0.1:6379".to_owned()), redis_address),
        password: keys.secret("RedisPassword"),
        database: keys.number("RedisDB", 0, 0..=u32::MAX),
        sentinel_master_name: keys.text("RedisSentinelMasterName"),
        sentinels: keys.sections("RedisSentinels", |sentinel| {
            sentinel.required("Host", "must be host:port of a Sentinel", redis_address)
        }),
    };
    match (settings.sentinel_master_name.is_empty(), settings.sentinels.is_empty()) {
        (false, true) => keys.missing(
            "RedisSentinels",
            "must list the host:port of at least one Sentinel when RedisSentinelMasterName is set",
        ),
        (true, false) => keys.warn("RedisSentinels has no effect without RedisSentinelMasterName"),
        _ => {}
    }
    settings
}

fn outdated_rule(keys: &mut Keys<'_>) -> Option<OutdatedRule> {
    let allowed = "must be the start of paths of the repository, beginning with a slash";
    let prefix = keys.required("Prefix", allowed, |text| {
        if text.starts_with('/') { Ok(text.to_owned()) } else { Err(allowed.to_owned()) }
    });
    let minutes = keys.number("Minutes", 0, 0..=u32::MAX);
    Some(OutdatedRule { prefix: prefix?, minutes })
}

fn fallback(keys: &mut Keys<'_>) -> Option<Fallback> {
    let url = keys.required("URL", "must be the URL of a server that has every file", base_url);
    let country_code = keys.checked("CountryCode", String::new(), |text| two_letters(text, "country", "FR"));
    let continent_code = keys.checked("ContinentCode", String::new(), |text| two_letters(text, "continent", "EU"));
    Some(Fallback { url: url?, country_code, continent_code })
}

fn two_letters(text: &str, of: &str, example: &str) -> Checked<String> {
    let good = text.is_empty() || (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic()));
    if good { Ok(text.to_ascii_uppercase()) } else { Err(format!("must be a {of} code of two letters, as {example}")) }
}

fn positive_number(text: &str) -> Checked<f32> {
    text.parse()
        .ok()
        .filter(|number: &f32| number.is_finite() && *number > 0.0)
        .ok_or_else(|| "must be a number greater than 0".to_owned())
}

fn shards(text: &str) -> Checked<Option<usize>> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(None);
    }
    whole_number(text, &(1..=SHARDS_MAX)).map(Some).map_err(|allowed| format!("{allowed}, or auto"))
}

fn max_connections(text: &str) -> Checked<Option<usize>> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(None);
    }
    whole_number(text, &(1..=CONNECTIONS_MAX)).map(Some).map_err(|allowed| format!("{allowed}, or auto"))
}

fn optional_path(text: &str) -> Checked<Option<PathBuf>> {
    if text.is_empty() { Ok(None) } else { absolute(text).map(Some) }
}

fn minutes(count: u32) -> Duration {
    Duration::from_secs(u64::from(count) * 60)
}
