//! `export`: the mirrors for other programs.

use std::fmt::Write as _;
use std::io::Write as _;

use clap::{Args, ValueEnum};
use mb_core::mirror::Mirror;
use mb_core::secret::without_login;

use super::connection::Daemon;
use super::error::CommandError;

/// Stands for the country of a mirror that has none, since a line with an empty field would be misread.
const NO_COUNTRY: &str = "/";

/// Options of `export`.
#[derive(Args, Clone, Debug)]
pub(super) struct Export {
    /// Export rsync URLs
    #[arg(long, default_value_t = true)]
    rsync: bool,
    /// Export HTTP URLs
    #[arg(long, default_value_t = true)]
    http: bool,
    /// Export FTP URLs
    #[arg(long, default_value_t = true)]
    ftp: bool,
    /// Export disabled mirrors, too
    #[arg(long, default_value_t = true)]
    disabled: bool,
    /// What to write
    format: Format,
}

/// What to write.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Lines of country, URL without login, and e-mail address of the administrator, separated by
    /// tabs
    Mirmon,
}

impl Export {
    /// Prints the mirrors.
    pub(super) async fn run(self, daemon: &mut Daemon) -> Result<(), CommandError> {
        let mirrors = daemon.mirrors().await?;
        let Format::Mirmon = self.format;
        write!(super::terminal::stdout(), "{}", self.mirmon(&mirrors))?;
        Ok(())
    }

    fn mirmon(&self, mirrors: &[Mirror]) -> String {
        let mut text = String::new();
        for Mirror { settings, .. } in mirrors.iter().filter(|mirror| self.disabled || mirror.state.enabled) {
            let country = settings.country_codes.split_whitespace().next().unwrap_or(NO_COUNTRY);
            let urls =
                [(self.rsync, &settings.rsync_url), (self.http, &settings.http_url), (self.ftp, &settings.ftp_url)];
            for (_, url) in urls.into_iter().filter(|(wanted, url)| *wanted && !url.is_empty()) {
                // Mirmon's list is published with its report, and has no place for a password: a
                // login in it would be read by everybody, and not be used.
                let _ = writeln!(text, "{country}\t{}\t{}", without_login(url), settings.admin_email);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use mb_core::mirror::{MirrorId, MirrorSettings, MirrorState};

    use super::*;

    const ALL: Export = Export { rsync: true, http: true, ftp: true, disabled: true, format: Format::Mirmon };

    fn mirrors() -> Vec<Mirror> {
        let mirror = |id, countries: &str, rsync: &str, enabled| Mirror {
            id: MirrorId(id),
            settings: MirrorSettings {
                http_url: format!("http://m{id}/"),
                rsync_url: rsync.into(),
                admin_email: "ops@example.org".into(),
                country_codes: countries.into(),
                ..MirrorSettings::default()
            },
            state: MirrorState { enabled, ..MirrorState::default() },
        };
        vec![mirror(1, "FR BE", "rsync://m1/x/", true), mirror(2, "", "", false)]
    }

    #[test]
    fn each_url_is_a_line() {
        assert_eq!(
            ALL.mirmon(&mirrors()),
            "FR\trsync://m1/x/\tops@example.org\nFR\thttp://m1/\tops@example.org\n/\thttp://m2/\tops@example.org\n"
        );
    }

    /// The password of an rsync URL went into the list, and with it into what mirmon publishes.
    #[test]
    fn logins_are_left_out() {
        let mut mirrors = mirrors();
        mirrors[0].settings.rsync_url = "rsync://anna:hunter2@m1:8730/x/".into();
        assert_eq!(ALL.mirmon(&mirrors).lines().next(), Some("FR\trsync://m1:8730/x/\tops@example.org"));
    }

    #[test]
    fn what_is_not_wanted_is_left_out() {
        let lines = |export: &Export| export.mirmon(&mirrors()).lines().count();
        assert_eq!(lines(&Export { rsync: false, ..ALL }), 2);
        assert_eq!(lines(&Export { http: false, ..ALL }), 1);
        assert_eq!(lines(&Export { disabled: false, ..ALL }), 2);
    }
}
