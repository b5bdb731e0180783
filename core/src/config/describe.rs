//! The resolved values as text, for `mirrorbits config check`: one `Key: value` line each, in the form of the file, so that
//! the output is a configuration file itself. Passwords are masked.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::keys::SIZE_UNITS;
use super::resolve::{LOG_FORMATS, OUTPUT_MODES, RUNTIMES};
use super::{Config, DatabaseKind, ListenAddress};
use crate::secret::{HIDDEN, Secret};

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No `..`: a key that is added to the configuration and not here does not compile.
        let Config {
            repository,
            templates,
            local_js_path,
            output_mode,
            listen_address,
            gzip,
            allow_http_to_https_redirects,
            same_download_interval,
            redis,
            log_dir,
            log_format,
            trace_file_location,
            geoip_database_path,
            concurrent_sync,
            scan_interval,
            scan_limits,
            check_interval,
            repository_scan_interval,
            max_link_headers,
            fix_timezone_offsets,
            hashes,
            disallow_redirects,
            weight_distribution_range,
            disable_on_missing_file,
            allow_outdated_files,
            fallbacks,
            rpc_listen_address,
            rpc_password,
            database,
            state_dir,
            shards,
            runtime,
            connection_buffers,
            max_connections,
            trusted_proxies,
            expose_private_fields,
            metrics_listen_address,
            stats_retention,
        } = self;
        writeln!(f, "Repository: {}", path(repository))?;
        writeln!(f, "Templates: {}", optional(templates.as_deref().map(path)))?;
        writeln!(f, "LocalJSPath: {}", text(local_js_path))?;
        writeln!(f, "OutputMode: {}", name_of(&OUTPUT_MODES, *output_mode))?;
        writeln!(f, "ListenAddress: {}", text(&listen_address.to_string()))?;
        writeln!(f, "Gzip: {}", gzip)?;
        writeln!(f, "AllowHTTPToHTTPSRedirects: {}", allow_http_to_https_redirects)?;
        writeln!(f, "SameDownloadInterval: {}", same_download_interval.as_secs())?;
        writeln!(f, "RedisAddress: {}", text(&without_credentials(redis.address.expose())))?;
        writeln!(f, "RedisPassword: {}", password(&redis.password))?;
        writeln!(f, "RedisDB: {}", redis.database)?;
        writeln!(f, "RedisSentinelMasterName: {}", text(&redis.sentinel_master_name))?;
        let sentinels =
            redis.sentinels.iter().map(|host| format!("{{Host: {}}}", text(&without_credentials(host.expose()))));
        writeln!(f, "RedisSentinels: {}", list(sentinels))?;
        writeln!(f, "LogDir: {}", optional(log_dir.as_deref().map(path)))?;
        writeln!(f, "LogFormat: {}", name_of(&LOG_FORMATS, *log_format))?;
        writeln!(f, "TraceFileLocation: {}", text(trace_file_location))?;
        writeln!(f, "GeoipDatabasePath: {}", path(geoip_database_path))?;
        writeln!(f, "ConcurrentSync: {}", concurrent_sync)?;
        writeln!(f, "ScanInterval: {}", minutes(*scan_interval))?;
        let auto = |limit: Option<u64>| limit.map_or("auto".to_owned(), |limit| limit.to_string());
        writeln!(
            f,
            "ScanLimits: {{Files: {}, Bytes: {}, RejectedLines: {}, Seconds: {}}}",
            auto(scan_limits.files),
            auto(scan_limits.bytes),
            scan_limits.rejected_lines,
            auto(scan_limits.time.map(|time| time.as_secs()))
        )?;
        writeln!(f, "CheckInterval: {}", minutes(*check_interval))?;
        writeln!(f, "RepositoryScanInterval: {}", repository_scan_interval.map_or(0, minutes))?;
        writeln!(f, "MaxLinkHeaders: {}", max_link_headers)?;
        writeln!(f, "FixTimezoneOffsets: {}", fix_timezone_offsets)?;
        writeln!(f, "Hashes: {{SHA256: {}, SHA1: {}, MD5: {}}}", hashes.sha256, hashes.sha1, hashes.md5)?;
        writeln!(f, "DisallowRedirects: {}", disallow_redirects)?;
        writeln!(f, "WeightDistributionRange: {}", weight_distribution_range)?;
        writeln!(f, "DisableOnMissingFile: {}", disable_on_missing_file)?;
        let rules = allow_outdated_files.iter();
        let rules = rules.map(|rule| format!("{{Prefix: {}, Minutes: {}}}", text(&rule.prefix), rule.minutes));
        writeln!(f, "AllowOutdatedFiles: {}", list(rules))?;
        let fallbacks = fallbacks.iter().map(|fallback| {
            format!(
                "{{URL: {}, CountryCode: {}, ContinentCode: {}}}",
                text(&without_credentials(&fallback.url)),
                text(&fallback.country_code),
                text(&fallback.continent_code)
            )
        });
        writeln!(f, "Fallbacks: {}", list(fallbacks))?;
        writeln!(f, "RPCListenAddress: {}", text(rpc_listen_address))?;
        writeln!(f, "RPCPassword: {}", password(rpc_password))?;
        let database = match database {
            DatabaseKind::Embedded => "embedded",
            DatabaseKind::Redis => "redis",
        };
        writeln!(f, "Database: {database}")?;
        writeln!(f, "StateDir: {}", path(state_dir))?;
        writeln!(f, "Shards: {}", shards.map_or("auto".to_owned(), |count| count.to_string()))?;
        writeln!(f, "Runtime: {}", name_of(&RUNTIMES, *runtime))?;
        writeln!(f, "MaxConnections: {}", max_connections.map_or("auto".to_owned(), |count| count.to_string()))?;
        writeln!(f, "ConnectionBuffersPerShard: {}", size(*connection_buffers))?;
        writeln!(f, "TrustedProxies: {}", list(trusted_proxies.iter().map(|network| text(&network.to_string()))))?;
        writeln!(f, "ExposePrivateFields: {}", expose_private_fields)?;
        writeln!(f, "MetricsListenAddress: {}", optional(metrics_listen_address.as_deref().map(text)))?;
        let retention = stats_retention;
        let limits = [("Days", retention.days), ("Months", retention.months)];
        let limits = limits.iter().filter_map(|(unit, limit)| limit.map(|limit| format!("{unit}: {limit}")));
        writeln!(f, "StatsRetention: {{{}}}", limits.collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::AnyTcp(port) => write!(f, ":{port}"),
            ListenAddress::Unix(socket) => write!(f, "unix:{}", socket.display()),
        }
    }
}

/// A text as YAML: quoted unless it is plainly a word, a path or an address. JSON strings are YAML.
fn text(value: &str) -> String {
    let plain = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-:".contains(&byte))
        && value.starts_with(|first: char| first == '/' || first == ':' || first.is_ascii_alphanumeric())
        && !value.ends_with(':')
        && !value.eq_ignore_ascii_case("null");
    if plain { value.to_owned() } else { serde_json::Value::from(value).to_string() }
}

fn path(value: &Path) -> String {
    text(&value.to_string_lossy())
}

fn optional(value: Option<String>) -> String {
    value.unwrap_or_else(|| text(""))
}

fn password(value: &Secret) -> String {
    if value.is_empty() { text("") } else { text(HIDDEN) }
}

/// A Redis URL may hold a user's name and password.
fn without_credentials(address: &str) -> String {
    match (address.split_once("://"), address.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{HIDDEN}@{host}"),
        (None, Some((_, host))) => format!("{HIDDEN}@{host}"),
        _ => address.to_owned(),
    }
}

fn list(values: impl Iterator<Item = String>) -> String {
    format!("[{}]", values.collect::<Vec<_>>().join(", "))
}

fn minutes(duration: Duration) -> u64 {
    duration.as_secs() / 60
}

/// A number of bytes, in the largest binary unit that it is a whole number of.
fn size(bytes: usize) -> String {
    let units = SIZE_UNITS.iter().filter(|(name, unit)| name.ends_with("iB") && bytes.is_multiple_of(*unit));
    match units.max_by_key(|(_, unit)| *unit) {
        Some((name, unit)) if bytes > 0 => format!("{}{name}", bytes / unit),
        _ => bytes.to_string(),
    }
}

/// The name of a value that is in its table.
fn name_of<T: PartialEq + Copy>(names: &[(&'static str, T)], value: T) -> &'static str {
    names.iter().find(|&&(_, named)| named == value).map_or("", |&(name, _)| name)
}
