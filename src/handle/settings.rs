//! The configuration's part in answers.

use std::sync::Arc;
use std::time::Duration;

use mb_core::config::{Config, LogFormat, OutputMode};

use super::address::Networks;
use crate::pages::Templates;
use crate::select::Rules;
use crate::select::fallback::Fallback;

/// What of the configuration decides how requests are answered.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Rules of the selection.
    pub rules: Rules,
    /// Redirect or JSON.
    pub output_mode: OutputMode,
    /// Whether a client of plain HTTP may be sent to HTTPS.
    pub allow_http_to_https_redirects: bool,
    /// Alternatives in `Link` headers; 0: no header.
    pub max_link_headers: usize,
    /// Servers of last resort.
    pub fallbacks: Vec<Fallback>,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Networks,
    /// Show private fields of mirrors in JSON.
    pub expose_private_fields: bool,
    /// Compress documents for clients that accept it.
    pub gzip: bool,
    /// For how long a range request belongs to the download that was counted before it; zero counts each. Not for answers:
    /// it is here so that it changes with them.
    pub same_download_interval: Duration,
    /// How answers are logged; `None`: not at all. It is here for the same reason.
    pub download_log: Option<LogFormat>,
    /// Bytes that the connections of a shard may hold: unfinished requests and answers that were not taken. It is here for the same
    /// reason.
    pub connection_buffers: usize,
    /// What pages are made by. Not for answers of a shard either: they change with the rest.
    pub templates: Arc<Templates>,
    /// Echoed in JSON.
    pub local_js_path: String,
}

/// The settings of a configuration, with the built-in templates: its own have to be loaded.
impl From<&Config> for Settings {
    fn from(config: &Config) -> Settings {
        Settings {
            rules: Rules {
                weight_distribution_range: config.weight_distribution_range,
                fix_timezone_offsets: config.fix_timezone_offsets,
                allow_outdated_files: config.allow_outdated_files.clone(),
            },
            output_mode: config.output_mode,
            allow_http_to_https_redirects: config.allow_http_to_https_redirects,
            max_link_headers: config.max_link_headers,
            fallbacks: Fallback::prepare(&config.fallbacks),
            trusted_proxies: Networks::from(config.trusted_proxies.as_slice()),
            expose_private_fields: config.expose_private_fields,
            gzip: config.gzip,
            same_download_interval: config.same_download_interval,
            download_log: config.log_dir.is_some().then_some(config.log_format),
            connection_buffers: config.connection_buffers,
            templates: Templates::built_in(),
            local_js_path: config.local_js_path.clone(),
        }
    }
}
