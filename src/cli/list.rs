//! `list`: the mirrors and their state as a table.

use std::cmp::Reverse;
use std::io::Write as _;

use clap::Args;
use jiff::fmt::strtime;
use mb_core::foreign_text::ForeignText;
use mb_core::mirror::{DownloadProtocol, Mirror, UrlScheme};
use mb_core::secret::WithoutPassword;
use mb_core::time::Timestamp;

use super::connection::Daemon;
use super::error::CommandError;
use super::table::aligned;

/// Options of `list`.
#[derive(Args, Clone, Debug)]
pub(super) struct List {
    /// Show the HTTP URLs
    #[arg(long)]
    http: bool,
    /// Show the rsync URLs
    #[arg(long)]
    rsync: bool,
    /// Show the FTP URLs
    #[arg(long)]
    ftp: bool,
    /// Show country and continent
    #[arg(long)]
    location: bool,
    /// Show the state and since when it lasts
    #[arg(long, default_value_t = true)]
    state: bool,
    /// Show the score
    #[arg(long)]
    score: bool,
    /// Only mirrors that are disabled
    #[arg(long)]
    disabled: bool,
    /// Only mirrors that are enabled
    #[arg(long)]
    enabled: bool,
    /// Only mirrors that are down, be it over one protocol
    #[arg(long)]
    down: bool,
}

impl List {
    /// Prints the table.
    pub(super) async fn run(self, daemon: &mut Daemon) -> Result<(), CommandError> {
        let mirrors = daemon.mirrors().await?;
        write!(super::terminal::stdout(), "{}", self.table(mirrors))?;
        Ok(())
    }

    fn table(&self, mut mirrors: Vec<Mirror>) -> String {
        mirrors.retain(|mirror| self.includes(mirror));
        mirrors.sort_by(|a, b| {
            (Reverse(a.state.since), &a.settings.name).cmp(&(Reverse(b.state.since), &b.settings.name))
        });
        let mut rows = vec![self.header()];
        rows.extend(mirrors.iter().map(|mirror| self.row(mirror)));
        aligned(&rows)
    }

    fn includes(&self, mirror: &Mirror) -> bool {
        (!self.disabled || !mirror.state.enabled)
            && (!self.enabled || mirror.state.enabled)
            && (!self.down || offered(mirror).any(|protocol| !mirror.state.health(protocol).up))
    }

    fn header(&self) -> Vec<String> {
        let columns = [
            (true, "Identifier"),
            (self.score, "SCORE"),
            (self.http, "HTTP"),
            (self.rsync, "RSYNC"),
            (self.ftp, "FTP"),
            (self.location, "LOCATION"),
            (self.state, "STATE"),
            (self.state, "SINCE"),
        ];
        columns.into_iter().filter(|(shown, _)| *shown).map(|(_, title)| title.to_owned()).collect()
    }

    fn row(&self, mirror: &Mirror) -> Vec<String> {
        let settings = &mirror.settings;
        let mut row = vec![ForeignText::new(&settings.name).to_string()];
        if self.score {
            row.push(settings.score.to_string());
        }
        let urls = [(self.http, &settings.http_url), (self.rsync, &settings.rsync_url), (self.ftp, &settings.ftp_url)];
        row.extend(urls.into_iter().filter(|(shown, _)| *shown).map(|(_, url)| WithoutPassword(url).to_string()));
        if self.location {
            let country = settings.country_codes.split_whitespace().next().unwrap_or("/");
            row.push(format!("{country} ({})", settings.continent_code));
        }
        if self.state {
            row.push(shown_state(mirror));
            row.push(since(mirror.state.since));
        }
        row
    }
}

/// The download protocols that the mirror's URL offers; HTTP first.
fn offered(mirror: &Mirror) -> impl Iterator<Item = DownloadProtocol> {
    let scheme = UrlScheme::of(&mirror.settings.http_url);
    [DownloadProtocol::Http, DownloadProtocol::Https].into_iter().filter(move |&protocol| scheme.offers(protocol))
}

/// The state, or why the record cannot be used.
fn shown_state(mirror: &Mirror) -> String {
    match &mirror.state.unreadable {
        Some(invalid) => format!("invalid: {}", invalid.reason),
        None => state(mirror),
    }
}

/// `disabled`, or `up` and `down` of the protocols that the mirror offers: once when they agree, else HTTP/HTTPS.
pub(super) fn state(mirror: &Mirror) -> String {
    if !mirror.state.enabled {
        return "disabled".to_owned();
    }
    let mut words = Vec::new();
    for protocol in offered(mirror) {
        let word = if mirror.state.health(protocol).up { "up" } else { "down" };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.join("/")
}

fn since(time: Timestamp) -> String {
    jiff::Timestamp::from_second(time.0)
        .and_then(|time| strtime::format("(%a, %d %b %Y %H:%M:%S UTC)", time))
        .unwrap_or_else(|_| "(unknown)".to_owned())
}

#[cfg(test)]
mod tests {
    use mb_core::mirror::{Health, MirrorId, MirrorSettings, MirrorState};

    use super::*;

    const NAMES_ONLY: List = List {
        http: false,
        rsync: false,
        ftp: false,
        location: false,
        state: false,
        score: false,
        disabled: false,
        enabled: false,
        down: false,
    };

    fn mirror(name: &str, http_url: &str, enabled: bool, up: [bool; 2], since: i64) -> Mirror {
        let health = |up| Health { up, down_reason: String::new() };
        Mirror {
            id: MirrorId(1),
            settings: MirrorSettings {
                name: name.into(),
                http_url: http_url.into(),
                continent_code: "EU".into(),
                country_codes: "FR BE".into(),
                score: 5,
                ..MirrorSettings::default()
            },
            state: MirrorState {
                enabled,
                http: health(up[0]),
                https: health(up[1]),
                since: Timestamp(since),
                ..MirrorState::default()
            },
        }
    }

    fn mirrors() -> Vec<Mirror> {
        vec![
            mirror("old", "http://old/", true, [true, false], 0),
            mirror("newest.example.org", "newest/", true, [true, false], 1_136_214_245),
            mirror("off", "https://off/", false, [false, false], 1_000_000_000),
            mirror("broken", "https://broken/", true, [true, false], 1_000_000_000),
        ]
    }

    #[test]
    fn names_alone_are_one_a_line_newest_change_first() {
        assert_eq!(NAMES_ONLY.table(mirrors()), "Identifier\nnewest.example.org\nbroken\noff\nold\n");
    }

    #[test]
    fn states_are_those_of_the_offered_protocols() {
        let list = List { state: true, ..NAMES_ONLY };
        let expected = "\
Identifier\t\tSTATE\t\tSINCE
newest.example.org\tup/down\t\t(Mon, 02 Jan 2006 15:04:05 UTC)
broken\t\t\tdown\t\t(Sun, 09 Sep 2001 01:46:40 UTC)
off\t\t\tdisabled\t(Sun, 09 Sep 2001 01:46:40 UTC)
old\t\t\tup\t\t(Thu, 01 Jan 1970 00:00:00 UTC)
";
        assert_eq!(list.table(mirrors()), expected);
    }

    #[test]
    fn columns_come_in_their_order() {
        let list = List { http: true, rsync: true, ftp: true, location: true, score: true, ..NAMES_ONLY };
        let table = list.table(mirrors());
        let cells =
            |line: &str| line.split('\t').filter(|cell| !cell.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let mut lines = table.lines();
        assert_eq!(cells(lines.next().unwrap()), ["Identifier", "SCORE", "HTTP", "RSYNC", "FTP", "LOCATION"]);
        assert_eq!(cells(lines.next().unwrap()), ["newest.example.org", "5", "newest/", "FR (EU)"]);
    }

    #[test]
    fn filters_leave_what_they_say() {
        let names = |list: &List| list.table(mirrors()).lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(names(&List { disabled: true, ..NAMES_ONLY }), ["off"]);
        assert_eq!(names(&List { enabled: true, ..NAMES_ONLY }), ["newest.example.org", "broken", "old"]);
        assert_eq!(names(&List { down: true, ..NAMES_ONLY }), ["newest.example.org", "broken", "off"]);
        assert_eq!(names(&List { down: true, enabled: true, ..NAMES_ONLY }), ["newest.example.org", "broken"]);
    }
}
