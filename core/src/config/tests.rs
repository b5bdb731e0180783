//! Whole files, as operators write them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const FILE: &str = "mirrorbits.conf";

/// The example at the root of the repository.
const EXAMPLE: &str = include_str!("../../../mirrorbits.conf");

fn loaded(text: &str) -> Loaded {
    parse(text, Path::new(FILE)).unwrap_or_else(|error| panic!("refused:\n{error}"))
}

/// The configuration of a file that must not cause a warning.
fn config(text: &str) -> Config {
    let Loaded { config, warnings } = loaded(text);
    assert_eq!(warnings, Vec::<String>::new());
    config
}

/// The lines of the error that `text` causes.
fn errors(text: &str) -> Vec<String> {
    let error = parse(text, Path::new(FILE)).expect_err("accepted");
    error.to_string().lines().map(str::to_owned).collect()
}

/// The one error of a file that is good but for `line`.
fn error_of(line: &str) -> String {
    let errors = errors(&format!("Repository: /srv\n{line}\n"));
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].clone()
}

/// A file in the manner of those of Mirrorbits.
const MIRRORBITS_FILE: &str = r#"
# vim: set ft=yaml:

###################
##### GENERAL #####
###################

## Path to the local repository
Repository: /srv/repo

## Path to the templates (default autodetect)
Templates: /usr/share/mirrorbits/

## A local path or URL containing the JavaScript used by the templates.
# LocalJSPath:

## Default output mode
OutputMode: auto

## Host and port to listen on
ListenAddress: :8080

Gzip: false

AllowHTTPToHTTPSRedirects: true
SameDownloadInterval: 600

## Host and port of the Redis database server
RedisAddress: 10.0.0.1:6379
RedisPassword: 0123
RedisDB: 3

LogDir: /var/log/mirrorbits
TraceFileLocation: /trace
GeoipDatabasePath: /usr/share/GeoIP/
ConcurrentSync: 5
ScanInterval: 30
CheckInterval: 1
RepositoryScanInterval: 0
MaxLinkHeaders: 10
FixTimezoneOffsets: Yes
Hashes:
    SHA256: On
    SHA1: Off
    MD5: Off
DisallowRedirects: no
WeightDistributionRange: 2
DisableOnMissingFile: false
AllowOutdatedFiles:
    - Prefix: /images/
      Minutes: 540
Fallbacks:
    - URL: http://fallback1.example/mirror/
      CountryCode: fr
      ContinentCode: eu
    - URL: fallback2.example
"#;

#[test]
fn a_file_of_mirrorbits_loads_unchanged() {
    let config = config(MIRRORBITS_FILE);
    assert_eq!(config.repository, Path::new("/srv/repo"));
    assert_eq!(config.templates.as_deref(), Some(Path::new("/usr/share/mirrorbits/")));
    assert_eq!(config.local_js_path, "");
    assert_eq!(config.redis.address.expose(), "10.0.0.1:6379");
    assert_eq!(config.redis.password.expose(), "0123");
    assert_eq!(config.redis.database, 3);
    assert_eq!(config.database, DatabaseKind::Redis);
    assert_eq!(config.repository_scan_interval, None);
    assert!(config.fix_timezone_offsets && !config.disallow_redirects);
    assert_eq!(config.hashes, WantedHashes { sha1: false, sha256: true, md5: false });
    assert_eq!(config.weight_distribution_range, 2.0);
    assert_eq!(config.allow_outdated_files, [OutdatedRule { prefix: "/images/".to_owned(), minutes: 540 }]);
    let fallback = |url: &str, country: &str, continent: &str| Fallback {
        url: url.to_owned(),
        country_code: country.to_owned(),
        continent_code: continent.to_owned(),
    };
    let expected = [fallback("http://fallback1.example/mirror/", "FR", "EU"), fallback("fallback2.example/", "", "")];
    assert_eq!(config.fallbacks, expected);
}

#[test]
fn defaults_are_those_of_the_specification() {
    let config = config("Repository: /srv/repository");
    assert_eq!(config.output_mode, OutputMode::Auto);
    assert_eq!(config.listen_address, ListenAddress::AnyTcp(8080));
    assert!(!config.gzip && config.allow_http_to_https_redirects);
    assert_eq!(config.same_download_interval, Duration::from_secs(600));
    assert_eq!(config.redis.address.expose(), "127.0.0.1:6379");
    assert_eq!(config.log_dir, None);
    assert_eq!(config.geoip_database_path, Path::new("/usr/share/GeoIP/"));
    assert_eq!(config.concurrent_sync, 5);
    assert_eq!(config.scan_interval, Duration::from_secs(30 * 60));
    assert_eq!(config.check_interval, Duration::from_secs(60));
    assert_eq!(config.repository_scan_interval, Some(Duration::from_secs(5 * 60)));
    assert_eq!(config.max_link_headers, 10);
    assert_eq!(config.hashes, WantedHashes { sha1: false, sha256: true, md5: false });
    assert_eq!(config.weight_distribution_range, 1.5);
    assert_eq!(config.rpc_listen_address, "localhost:3390");
    assert_eq!(config.database, DatabaseKind::Embedded);
    assert_eq!(config.state_dir, Path::new("/var/lib/mirrorbits"));
    assert_eq!(config.index_dir(), Path::new("/var/lib/mirrorbits/index"));
    assert_eq!((config.shards, config.max_connections, config.runtime), (None, None, RuntimeKind::Auto));
    assert_eq!(config.metrics_listen_address.as_deref(), Some("localhost:9390"));
    assert_eq!(config.stats_retention, StatsRetention::default());
    let trusts = |address: &str| config.trusted_proxies.iter().any(|network| network.contains(&ip(address)));
    for address in ["127.0.0.1", "10.9.8.7", "172.31.0.1", "192.168.3.4", "::1", "fd00::1"] {
        assert!(trusts(address), "{address}");
    }
    for address in ["192.0.2.1", "172.32.0.1", "2001:db8::1", "fe80::1"] {
        assert!(!trusts(address), "{address}");
    }
}

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().expect("an address")
}

#[test]
fn the_example_holds_the_defaults() {
    assert_eq!(config(EXAMPLE), config("Repository: /srv/repository"));
}

/// A key that the example leaves out would be found by nobody.
#[test]
fn the_example_names_every_key() {
    let described = config("Repository: /srv/repository").to_string();
    for key in described.lines().filter_map(|line| line.split_once(':')).map(|(key, _)| key) {
        let (set, commented) = (format!("\n{key}:"), format!("\n#{key}:"));
        assert!(EXAMPLE.contains(&set) || EXAMPLE.contains(&commented), "{key}");
    }
}

/// Prose starts with `# `, a setting that waits for its `#` to be taken away with `#Key` or, inside one, with `#    `.
#[test]
fn what_the_example_comments_out_is_good_too() {
    let is_setting = |rest: &str| rest.starts_with("  ") || rest.starts_with(char::is_alphabetic);
    let set = |line: &'static str| line.strip_prefix('#').filter(|rest| is_setting(rest)).unwrap_or(line);
    let everything: Vec<&str> = EXAMPLE.lines().map(set).collect();

    let config = config(&everything.join("\n"));
    let defaults = loaded("Repository: /srv/repository").config;
    assert_eq!(config.database, DatabaseKind::Redis);
    let sentinels = ["10.0.0.1:26379", "10.0.0.2:26379"].map(|host| host.to_owned().into()).to_vec();
    let redis = RedisSettings { sentinel_master_name: "main".to_owned(), sentinels, ..defaults.redis.clone() };
    assert_eq!(config.redis, redis);
    assert_eq!(config.allow_outdated_files, [OutdatedRule { prefix: "/dists/".to_owned(), minutes: 540 }]);
    assert_eq!(config.fallbacks.len(), 1);
}

#[test]
fn bad_values_are_named_with_line_key_and_what_is_allowed() {
    for (line, expected) in [
        ("WeightDistributionRange: -1", "WeightDistributionRange: -1: must be a number greater than 0"),
        ("WeightDistributionRange: .inf", "WeightDistributionRange: .inf: must be a number greater than 0"),
        ("WeightDistributionRange: 0", "WeightDistributionRange: 0: must be a number greater than 0"),
        ("Gzip: maybe", "Gzip: maybe: must be true or false (or Yes, No, On, Off)"),
        ("OutputMode: xml", "OutputMode: xml: must be one of auto, redirect, json"),
        ("Database: mysql", "Database: mysql: must be one of auto, embedded, redis"),
        ("Runtime: ''", "Runtime: empty: must be one of auto, io_uring, epoll"),
        ("ConcurrentSync: 0", "ConcurrentSync: 0: must be a whole number from 1 to 65535"),
        ("MaxLinkHeaders: ten", "MaxLinkHeaders: ten: must be a whole number from 0 to 65535"),
        ("ScanInterval: 1.5", "ScanInterval: 1.5: must be a whole number from 1 to 4294967295"),
        ("RedisDB: -1", "RedisDB: -1: must be a whole number from 0 to 4294967295"),
        ("Shards: 0", "Shards: 0: must be a whole number from 1 to 1024, or auto"),
        ("MaxConnections: 0", "MaxConnections: 0: must be a whole number from 1 to 1048576, or auto"),
        ("MaxConnections: 1048577", "MaxConnections: 1048577: must be a whole number from 1 to 1048576, or auto"),
        (
            "ListenAddress: 8080",
            "ListenAddress: 8080: must be host:port, :port or unix:/path, with an IPv6 address in brackets",
        ),
        ("ListenAddress: 'unix:'", "ListenAddress: unix:: must be a path"),
        (
            "RPCListenAddress: host",
            "RPCListenAddress: host: must be host:port or :port, with an IPv6 address in brackets",
        ),
        ("RedisAddress: host", "RedisAddress: host: must be host:port, or a rediss:// URL for TLS"),
        ("StateDir: ''", "StateDir: empty: must be a path"),
        ("Gzip: [true]", "Gzip: a list: must be a single value"),
        ("Hashes: On", "Hashes: On: must be a section of keys"),
        ("Hashes: {SHA1: 1}", "Hashes.SHA1: 1: must be true or false (or Yes, No, On, Off)"),
        (
            "TrustedProxies: [10.0.0.0/33]",
            "TrustedProxies: 10.0.0.0/33: must be an address or a network, as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32",
        ),
        ("TrustedProxies: 10.0.0.1", "TrustedProxies: 10.0.0.1: must be a list, as `[first, second]`"),
        (
            "AllowOutdatedFiles: [{Prefix: a}]",
            "AllowOutdatedFiles[].Prefix: a: must be the start of paths of the repository, beginning with a slash",
        ),
        (
            "AllowOutdatedFiles: [{Prefix: /, Minutes: -1}]",
            "AllowOutdatedFiles[].Minutes: -1: must be a whole number from 0 to 4294967295",
        ),
        ("Fallbacks: [x]", "Fallbacks: x: must be a section of keys, as `- Key: value`"),
        ("Fallbacks: [{CountryCode: FR}]", "Fallbacks[].URL: missing: must be the URL of a server that has every file"),
        (
            "Fallbacks: [{URL: x, CountryCode: France}]",
            "Fallbacks[].CountryCode: France: must be a country code of two letters, as FR",
        ),
        ("StatsRetention: {Days: 0}", "StatsRetention.Days: 0: must be a whole number from 1 to 4294967295"),
    ] {
        assert_eq!(error_of(line), format!("{FILE}:2: {expected}"));
    }
    assert_eq!(
        error_of("RedisSentinelMasterName: main"),
        format!(
            "{FILE}: RedisSentinels: missing: must list the host:port of at least one Sentinel when \
             RedisSentinelMasterName is set"
        )
    );
    let long = format!("ListenAddress: unix:/{}", "x".repeat(107));
    assert!(error_of(&long).ends_with("must have a path of at most 107 bytes after unix:"));
}

#[test]
fn all_problems_are_reported_at_once() {
    let errors = errors("Gzip: 2\nFallbacks:\n    - URL: ftp://host/\n    - URL: a b\nScanInterval: no\n");
    assert_eq!(errors.len(), 5, "{errors:#?}");
    assert_eq!(
        errors[0],
        "mirrorbits.conf: Repository: missing: must be the folder of the local copy of the repository"
    );
    for (error, start) in errors[1..].iter().zip([":1: Gzip:", ":5: ScanInterval:", ":3: Fallbacks", ":4: Fallbacks"]) {
        assert!(error.starts_with(&format!("{FILE}{start}")), "{error}");
    }
}

#[test]
fn unknown_keys_are_reported_once_and_ignored() {
    let text = "Repository: /srv\ngzip: on\nListenAdress: :1\nColour: red\nHashes:\n    SHA265: On\n";
    assert_eq!(
        loaded(text).warnings,
        [
            "mirrorbits.conf:6: unknown key Hashes.SHA265 is ignored; did you mean Hashes.SHA256?",
            "mirrorbits.conf:2: unknown key gzip is ignored; did you mean Gzip?",
            "mirrorbits.conf:3: unknown key ListenAdress is ignored; did you mean ListenAddress?",
            "mirrorbits.conf:4: unknown key Colour is ignored",
        ]
    );
}

/// A line of a password that a forgotten quote made a key was named.
#[test]
fn unknown_keys_that_do_not_look_like_keys_are_told_by_their_line() {
    for key in
        ["hunter2!", "'-hunter2'", "2hunter", "anna/hunter2", "hunter2-x", "hunter2.x", "h\u{fc}nter2", "' hunter2'"]
    {
        let text = format!("Repository: /srv\n{key}: 1\nHashes: {{{key}: 1}}\n");
        let expected = ["3: unknown key Hashes.(not shown) is ignored", "2: unknown key (not shown) is ignored"];
        assert_eq!(loaded(&text).warnings, expected.map(|warning| format!("{FILE}:{warning}")), "{key}");
    }
    let long = loaded(&format!("Repository: /srv\n{}: 1\n", "a".repeat(1_000))).warnings;
    assert_eq!(long, [format!("{FILE}:2: unknown key {}… (800 more bytes) is ignored", "a".repeat(200))]);
}

#[test]
fn a_key_without_a_value_has_its_default() {
    let nothing = "Repository: /srv/repository\nGzip:\nFallbacks:\nHashes:\nLogDir: ~\nRedisAddress: null\nShards:\n";
    assert_eq!(config(nothing), config("Repository: /srv/repository"));
}

#[test]
fn listen_addresses_have_three_forms() {
    let listen = |text: &str| config(&format!("Repository: /srv\nListenAddress: {text}")).listen_address;
    assert_eq!(listen(":80"), ListenAddress::AnyTcp(80));
    assert_eq!(listen("192.0.2.1:81"), ListenAddress::Tcp("192.0.2.1:81".parse().expect("an address")));
    assert_eq!(listen("'[2001:db8::1]:82'"), ListenAddress::Tcp("[2001:db8::1]:82".parse().expect("an address")));
    assert_eq!(listen("localhost:83"), ListenAddress::Tcp("127.0.0.1:83".parse().expect("an address")));
    assert_eq!(listen("unix:/run/mirrorbits.sock"), ListenAddress::Unix(PathBuf::from("/run/mirrorbits.sock")));
}

#[test]
fn trusted_proxies_are_networks_or_addresses() {
    let proxies = |text: &str| config(&format!("Repository: /srv\nTrustedProxies: {text}")).trusted_proxies;
    let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a network")).collect::<Vec<IpNet>>();
    assert_eq!(proxies("[10.1.2.3/8, 192.0.2.1]"), networks(&["10.0.0.0/8", "192.0.2.1/32"]));
    assert_eq!(proxies("['2001:db8::1']"), networks(&["2001:db8::1/128"]));
    assert_eq!(proxies("[]"), networks(&[]));
}

#[test]
fn any_redis_key_chooses_redis_unless_the_file_says_otherwise() {
    let database = |lines: &str| loaded(&format!("Repository: /srv\n{lines}")).config.database;
    assert_eq!(database("RedisDB: 0"), DatabaseKind::Redis);
    assert_eq!(database("RedisPassword: x\nDatabase: auto"), DatabaseKind::Redis);
    assert_eq!(database("RedisAddress: host:1\nDatabase: embedded"), DatabaseKind::Embedded);
    assert_eq!(database("RedisAddress:"), DatabaseKind::Embedded);
}

#[test]
fn relative_paths_count_from_the_working_directory() {
    let here = std::env::current_dir().expect("a working directory");
    let config = config("Repository: repo\nStateDir: ./state\nLogDir: log");
    assert_eq!(config.repository, here.join("repo"));
    assert_eq!(config.state_dir, here.join("state"));
    assert_eq!(config.log_dir, Some(here.join("log")));
}

#[test]
fn the_description_is_a_configuration_and_keeps_passwords_to_itself() {
    let original = config(
        "Repository: '/srv/my: repo'\nTemplates: /t\nListenAddress: '[::1]:80'\nLocalJSPath: \"null\"\n\
         TraceFileLocation: \"a \\\"b\\\" #c\"\nRedisAddress: rediss://user:secret@host:1\nRedisPassword: secret\n\
         RPCPassword: secret\nFallbacks: [{URL: host, CountryCode: fr}]\nAllowOutdatedFiles: [{Prefix: '/a b', Minutes: 3}]\n\
         RedisSentinelMasterName: main\nRedisSentinels: [{Host: 'h:2'}, {Host: 'redis://:secret@h:3'}]\nShards: 3\nMaxConnections: 1048576\nStatsRetention: {Days: 9}\n\
         MetricsListenAddress: ''\nRPCListenAddress: ':3390'\nTrustedProxies: ['::1']\nRepositoryScanInterval: 0\n",
    );
    let description = original.to_string();
    let debug = format!("{original:?}");
    assert!(!description.contains("secret") && !debug.contains("secret"), "{description}\n{debug}");
    let described = config(&description);
    let masked = Secret::new("***".to_owned());
    let redis = RedisSettings {
        address: "rediss://***@host:1".to_owned().into(),
        password: masked.clone(),
        sentinels: vec!["h:2".to_owned().into(), "redis://***@h:3".to_owned().into()],
        ..original.redis.clone()
    };
    assert_eq!(described, Config { redis, rpc_password: masked, ..original });
}

#[test]
fn a_file_that_is_not_yaml_is_refused_with_its_line() {
    for (text, expected) in [
        ("Repository: /a\nB: c: d\n", "mirrorbits.conf:2: not a YAML file of keys and values: "),
        ("Repository: /a\nRepository: /b\n", "mirrorbits.conf:2: not a YAML file of keys and values: duplicated key"),
        ("- a\n- b\n", "mirrorbits.conf:1: not a YAML file of keys and values: write `Key: value` lines"),
        ("just words", "mirrorbits.conf:1: not a YAML file of keys and values: write `Key: value` lines"),
        ("? [a, b]\n: c\n", "mirrorbits.conf:1: not a YAML file of keys and values: a key must be a word"),
    ] {
        let errors = errors(text);
        assert!(errors.len() == 1 && errors[0].starts_with(expected), "{errors:?}");
    }
    assert_eq!(errors("").len(), 1);
    assert_eq!(errors("# nothing\n").len(), 1);
}

#[test]
fn marks_and_line_ends_of_other_systems_are_accepted() {
    assert_eq!(config("\u{feff}Repository: /srv\r\nGzip: On\r\n").repository, Path::new("/srv"));
}

#[test]
fn files_that_cannot_be_read_say_what_to_do() {
    let directory = tempfile::tempdir().expect("a folder");
    let missing = load(&directory.path().join("none.conf")).expect_err("loaded");
    assert!(matches!(&missing, ConfigError::Unreadable { cause, .. } if cause.kind() == io::ErrorKind::NotFound));
    assert!(missing.to_string().contains("none.conf") && missing.to_string().contains("-config"), "{missing}");
    assert!(load(directory.path()).expect_err("loaded").to_string().contains("name the file itself"));
    let binary = directory.path().join("binary.conf");
    fs::write(&binary, b"Repository: /srv\nGzip: \xff\n").expect("written");
    let error = load(&binary).expect_err("loaded").to_string();
    assert!(error.contains("binary.conf:2: not UTF-8"), "{error}");
}

proptest! {
    /// Whatever is in a file, it is accepted or refused with a message of one line for each problem.
    #[test]
    fn no_text_is_too_odd(text in "(Repository|Gzip|Fallbacks|Hashes|[-:,?\\[\\]{}#&*!|>'\"%@` \n\ta-c0-9\u{e9}]){0,40}") {
        if let Err(error) = parse(&text, Path::new(FILE)) {
            prop_assert!(error.to_string().lines().all(|line| line.starts_with(FILE)), "{error}");
        }
    }
}

proptest! {
    /// A line of a password that YAML folded into the value before it was shown.
    #[test]
    fn no_message_shows_a_password(
        key in "(RPCPassword|RedisPassword|Gzip|ListenAddress|RedisAddress|Repository|Fallbacks|Hashes|RPCPasword|Hashes: \\{SHA1)",
        before in "(: |: '|: \"|: \\[|: \\{a: |:\n  |: On\n  |: \\|\n  |: >\n  |: \\[a,\n  |:\n- |:\n- URL: )",
        around in "(RPCPassword: |redis://u:|redis://:p/|http://u:|a\n  |a\n  b: |'|\"|RPCPassword=|&|!|\\*)",
        after in "(|@a.example/|\n  x|'|\"|\\]|\\}|: b|@a b|\n: b|, c\\]|:6379)",
        rest in "(|RedisPassword: b\n|Gzip: perhaps\n|  x: y\n)",
    ) {
        // What stands alone after a key of no password, or is a URL without a login, is none.
        prop_assume!(key.contains("Pas") || ["a\n", "://", "RPCPassword="].iter().any(|part| around.contains(part)));
        let text = format!("Repository: /srv\n{key}{before}{around}hunter2{after}\n{rest}");
        let shown = match parse(&text, Path::new(FILE)) {
            Ok(loaded) => format!("{:?}", loaded.warnings),
            Err(error) => error.to_string(),
        };
        prop_assert!(!shown.contains("hunter2"), "{text:?}: {shown}");
    }
}

#[test]
fn sizes_have_units() {
    let buffers =
        |text: &str| config(&format!("Repository: /srv\nConnectionBuffersPerShard: {text}")).connection_buffers;
    assert_eq!(config("Repository: /srv").connection_buffers, 64 << 20);
    for (text, bytes) in
        [("1048576", 1 << 20), ("2048KiB", 2 << 20), ("1 MiB", 1 << 20), ("50MB", 50_000_000), ("1024gib", 1 << 40)]
    {
        assert_eq!(buffers(text), bytes, "{text}");
    }
    for bad in ["1048575", "1025GiB", "64M", "-1", "1.5MiB", "MiB", "99999999999999999999GiB"] {
        assert_eq!(
            error_of(&format!("ConnectionBuffersPerShard: {bad}")),
            format!(
                "{FILE}:2: ConnectionBuffersPerShard: {bad}: must be a size in bytes from 1MiB to 1024GiB, as 65536, 64KiB or \
                 50MB"
            )
        );
    }
    for (text, shown) in [("64MiB", "64MiB"), ("1048577", "1048577"), ("1536KiB", "1536KiB"), ("2GB", "1953125KiB")] {
        let config = config(&format!("Repository: /srv\nConnectionBuffersPerShard: {text}"));
        assert!(config.to_string().contains(&format!("\nConnectionBuffersPerShard: {shown}\n")), "{config}");
    }
}

#[test]
fn limits_of_a_scan_follow_the_repository_and_the_interval_unless_they_are_numbers() {
    let limits = |text: &str| config(&format!("Repository: /srv\n{text}")).scan_limits;
    let automatic = limits("ScanLimits: {Files: auto, Bytes: AUTO}");
    assert_eq!(automatic, ScanLimits::default());
    assert_eq!((automatic.files_for(0), automatic.files_for(3_000_000)), (1_000_000, 7_000_000));
    assert_eq!((automatic.bytes_for(1_000_000), automatic.rejected_lines), (256_000_000, 10_000));
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3_600));
    assert_eq!((automatic.time_for(minute), automatic.time_for(30 * minute)), (hour, 2 * hour));
    let set = limits("ScanLimits: {Files: 5, Bytes: 6, RejectedLines: 0, Seconds: 7}");
    assert_eq!((set.files_for(3_000_000), set.bytes_for(1), set.rejected_lines), (5, 6, 0));
    assert_eq!(set.time_for(hour), Duration::from_secs(7));
    assert_eq!(
        error_of("ScanLimits: {Files: 0}"),
        format!("{FILE}:2: ScanLimits.Files: 0: must be a whole number from 1 to 1125899906842624, or auto")
    );
}
