//! A reload: everything is loaded and checked first, then all of it takes effect, or nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mb_core::config::{self, Config, ConfigError};
use mb_core::geo::{GeoDatabase, GeoError};

use super::prepare::missing;
use crate::pages::templates::{TemplateError, Templates};

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each wraps the error that tells")]
pub(super) enum ReloadError {
    #[error("{0}\nNothing was changed")]
    Config(#[from] ConfigError),
    #[error("{0}\nNothing was changed")]
    Geo(GeoError),
    #[error("{0}\nNothing was changed")]
    Template(#[from] TemplateError),
}

/// What was loaded.
pub(super) struct Reloaded {
    /// In effect from now on: the file's, but with the old values of keys that need a new process.
    pub(super) config: Config,
    pub(super) geo: GeoDatabase,
    pub(super) missing_geo: Vec<PathBuf>,
    pub(super) templates: Arc<Templates>,
    /// For the operator.
    pub(super) notices: Vec<String>,
}

impl Reloaded {
    /// Loads `file`, and the databases and templates that it names, for a daemon that runs with `current` and lacks `missing_geo`. Blocks.
    pub(super) fn load(file: &Path, current: &Config, missing_geo: &[PathBuf]) -> Result<Reloaded, ReloadError> {
        let loaded = config::load(file)?;
        let mut notices = loaded.warnings;
        let config = keep_fixed(loaded.config, current, &mut notices);
        let (geo, errors) = GeoDatabase::load(&config.geoip_database_path);
        let still_missing = missing(&errors);
        for error in errors {
            if !is_old_news(&error, missing_geo) {
                return Err(ReloadError::Geo(error));
            }
            notices.push(error.to_string());
        }
        let loaded = Templates::load(config.templates.as_deref())?;
        notices.extend(loaded.notices);
        Ok(Reloaded { config, geo, missing_geo: still_missing, templates: loaded.templates, notices })
    }
}

/// Whether a database was not there before either. One that is there and damaged is always news.
fn is_old_news(error: &GeoError, missing: &[PathBuf]) -> bool {
    match error {
        GeoError::Unreadable { path, source } => {
            source.kind() == std::io::ErrorKind::NotFound && missing.contains(path)
        }
        GeoError::Invalid { .. } => false,
    }
}

/// Puts the current values back where a running process cannot change, and tells the operator which these are.
fn keep_fixed(mut config: Config, current: &Config, notices: &mut Vec<String>) -> Config {
    let fixed = [
        ("Shards", config.shards != current.shards),
        ("MaxConnections", config.max_connections != current.max_connections),
        ("Runtime", config.runtime != current.runtime),
        ("StateDir", config.state_dir != current.state_dir),
        ("Database", config.database != current.database),
        ("Redis…", config.redis != current.redis),
    ];
    for (key, _) in fixed.iter().filter(|(_, is_changed)| *is_changed) {
        notices.push(format!("{key}: the new value takes effect with the next upgrade or restart"));
    }
    config.shards = current.shards;
    config.max_connections = current.max_connections;
    config.runtime = current.runtime;
    config.state_dir.clone_from(&current.state_dir);
    config.database = current.database;
    config.redis.clone_from(&current.redis);
    config
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const GEO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/geo");

    fn config(text: &str) -> Config {
        config::parse(text, Path::new("a.conf")).unwrap().config
    }

    #[test]
    fn keys_of_the_process_keep_their_values_and_are_told() {
        let current = config("Repository: /r\nShards: 2\nStateDir: /s\nMaxLinkHeaders: 3");
        let new =
            config("Repository: /other\nShards: 4\nRuntime: epoll\nStateDir: /t\nRedisAddress: a:1\nMaxLinkHeaders: 4");
        let mut notices = Vec::new();
        let kept = keep_fixed(new, &current, &mut notices);
        assert_eq!(kept, Config { repository: "/other".into(), max_link_headers: 4, ..current });
        let keys: Vec<_> = notices.iter().filter_map(|notice| notice.split(':').next()).collect();
        assert_eq!(keys, ["Shards", "Runtime", "StateDir", "Database", "Redis…"]);
    }

    #[test]
    fn a_database_that_was_never_there_is_a_notice_and_one_that_vanished_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.conf");
        fs::write(&file, format!("Repository: /r\nGeoipDatabasePath: {}", folder.path().display())).unwrap();
        let current = config::load(&file).unwrap().config;
        let (_, errors) = GeoDatabase::load(folder.path());
        let absent = missing(&errors);
        let reloaded = Reloaded::load(&file, &current, &absent).unwrap();
        assert_eq!((reloaded.notices.len(), reloaded.missing_geo.len()), (2, 2));
        assert!(matches!(Reloaded::load(&file, &current, &[]), Err(ReloadError::Geo(_))));

        for name in [mb_core::geo::CITY_FILE, mb_core::geo::ASN_FILE] {
            fs::copy(Path::new(GEO).join(name), folder.path().join(name)).unwrap();
        }
        let reloaded = Reloaded::load(&file, &current, &absent).unwrap();
        assert_eq!((reloaded.notices.len(), reloaded.missing_geo.len()), (0, 0));
        fs::write(folder.path().join(mb_core::geo::CITY_FILE), "damaged").unwrap();
        assert!(matches!(Reloaded::load(&file, &current, &absent), Err(ReloadError::Geo(_))));
    }

    #[test]
    fn a_bad_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.conf");
        fs::write(&file, "Repository: /r\nShards: many").unwrap();
        let error = Reloaded::load(&file, &config("Repository: /r"), &[]).err().unwrap().to_string();
        assert!(error.contains("a.conf:2: Shards") && error.contains("Nothing was changed"), "{error}");
    }
}
