//! What `/readyz` tells: whether requests can be answered from an index, and what is not as it should be.
//!
//! Only a missing index makes the daemon unready. Nothing else keeps it from answering, so a balancer that took it out of
//! service for anything else would turn a trouble behind the scenes into one that clients see.

use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mb_core::foreign_text::ForeignText;
use mb_core::mirror::DownloadProtocol;
use mb_core::time::Timestamp;

use super::facts::{Facts, IndexerAnswer, StoreState};
use crate::http::date::http_date;
use crate::select::TableMirror;
use crate::stats::figures::Figures;

/// A repository that was not looked at for this many intervals of its scans is told of. Fewer would tell of a slow scan.
const SOURCE_INTERVALS: u32 = 3;
/// Added to that, for the scan itself. A guess: hashing many new files takes about as long.
const SOURCE_GRACE: Duration = Duration::from_secs(30 * 60);
/// GeoLite2 is published twice a week; older databases send clients of re-assigned networks to the wrong place.
const GEO_AGE_MAX: Duration = Duration::from_secs(60 * 24 * 3600);

/// What is told.
#[derive(Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether an index is loaded.
    pub ready: bool,
    /// What is not as it should be: part and reason.
    pub degraded: Vec<String>,
    /// What the answers come from.
    pub summary: String,
}

impl Readiness {
    /// What `facts` mean.
    pub fn of(facts: &Facts<'_>) -> Readiness {
        let rows = facts.snapshot.mirrors.rows();
        let enabled: Vec<&TableMirror> = rows.iter().filter(|row| row.mirror.state.enabled).collect();
        let up = enabled.iter().filter(|row| is_up(row)).count();
        let mut degraded = Vec::new();
        degraded.extend(source(facts));
        if let (0, 1..) = (up, enabled.len()) {
            degraded.push("mirrors: none that is enabled is up; fallbacks answer".to_owned());
        }
        degraded.extend(store(&facts.store));
        if let IndexerAnswer::Silent { reason } = &facts.indexer {
            degraded.push(format!("indexer: {reason}"));
        }
        degraded.extend(statistics(facts.figures));
        degraded.extend(geo(facts));
        let files = match &facts.snapshot.files {
            Some(files) => format!(
                "files generation {} of {}: {} files on {} mirrors",
                files.generation(),
                date(files.built()),
                files.len(),
                files.mirror_count()
            ),
            None => "no index: scan the repository by `mirrorbits refresh`, or wait until it is scanned".to_owned(),
        };
        let summary = format!("{files}; {up} of {} enabled mirrors are up", enabled.len());
        Readiness { ready: facts.snapshot.files.is_some(), degraded, summary }
    }

    /// As `/readyz` shows it: `ready` or `not ready`, the summary, and a line for each trouble.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n{}\n", if self.ready { "ready" } else { "not ready" }, self.summary);
        for trouble in &self.degraded {
            // Writing to a string cannot fail. A trouble is one line, whatever the text of an error has in it.
            let _ = writeln!(text, "degraded: {}", ForeignText::new(trouble));
        }
        text
    }
}

fn is_up(row: &TableMirror) -> bool {
    row.is_up(DownloadProtocol::Http) || row.is_up(DownloadProtocol::Https)
}

/// An index is as old as the look at the repository that it agrees with, which may be younger than its publication.
fn source(facts: &Facts<'_>) -> Option<String> {
    let limit = facts.source_interval? * SOURCE_INTERVALS + SOURCE_GRACE;
    let published = facts.snapshot.files.as_ref()?.built();
    let scanned = match &facts.indexer {
        IndexerAnswer::Told(activity) => activity.source.last_completed,
        IndexerAnswer::Silent { .. } | IndexerAnswer::NotWanted => Timestamp::NEVER,
    };
    let latest = published.max(scanned);
    (latest.elapsed_until(facts.now) > limit)
        .then(|| format!("index: the repository was last scanned on {}", date(latest)))
}

fn store(state: &StoreState) -> Option<String> {
    match state {
        StoreState::Unknown | StoreState::Up { .. } => None,
        StoreState::Down { since, reason } => Some(format!("store: down since {}: {reason}", date(*since))),
    }
}

fn statistics(figures: &Figures) -> Vec<String> {
    let mut told = Vec::new();
    let spooled = figures.spooled_downloads.load(Ordering::Relaxed);
    // While the store takes them, more may come at any time than it is asked to take at once.
    if spooled > 0 && figures.store_is_away.load(Ordering::Relaxed) {
        told.push(format!("statistics: {spooled} downloads wait on disk for the store"));
    }
    if figures.spool_has_failed.load(Ordering::Relaxed) {
        let waiting = figures.waiting_downloads.load(Ordering::Relaxed);
        told.push(format!("statistics: the spool cannot be written; {waiting} downloads are in memory alone"));
    }
    told
}

fn geo(facts: &Facts<'_>) -> Vec<String> {
    let databases = ["City", "ASN"].into_iter().zip(facts.snapshot.geo.built());
    let told = databases.filter_map(|(database, built)| match built {
        None => Some(format!("geo: there is no {database} database; `GeoipDatabasePath` is where it belongs")),
        Some(built) if built.elapsed_until(facts.now) > GEO_AGE_MAX => {
            Some(format!("geo: the {database} database is of {}; fetch a newer one", date(built)))
        }
        Some(_) => None,
    });
    told.collect()
}

fn date(time: Timestamp) -> String {
    String::from_utf8_lossy(&http_date(time.0)).into_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use mb_core::config;
    use mb_core::geo::GeoDatabase;
    use mb_core::link::Activity;
    use mb_core::mirror::{Health, Mirror, MirrorId, MirrorSettings, MirrorState};

    use super::*;
    use crate::handle::Settings;
    use crate::metrics::facts::IndexerEnds;
    use crate::metrics::tally::durations;
    use crate::metrics::totals::Totals;
    use crate::select::MirrorTable;
    use crate::snapshot::Snapshot;

    const NOW: Timestamp = Timestamp(1_800_000_000);

    fn snapshot(up: bool) -> Snapshot {
        let config = config::parse("Repository: /srv\n", std::path::Path::new("test.conf")).unwrap().config;
        let mirror = Mirror {
            id: MirrorId(1),
            settings: MirrorSettings { http_url: "http://m/".to_owned(), ..MirrorSettings::default() },
            state: MirrorState { enabled: true, http: Health { up, ..Health::default() }, ..MirrorState::default() },
        };
        let table = MirrorTable::new(vec![mirror]);
        Snapshot::new(Arc::new(Settings::from(&config)), None, Arc::new(table), Arc::new(GeoDatabase::default()))
    }

    fn readiness(up: bool, store: StoreState, indexer: IndexerAnswer, figures: &Figures) -> Readiness {
        let totals = Totals::new(Vec::new()).unwrap();
        Readiness::of(&Facts {
            now: NOW,
            started: NOW,
            totals: &totals,
            recent_durations: durations().unwrap(),
            snapshot: &snapshot(up),
            store,
            indexer,
            figures,
            panics: BTreeMap::new(),
            restarts: BTreeMap::new(),
            busy: BTreeMap::new(),
            dropped_log_lines: 0,
            indexer_ends: IndexerEnds::default(),
            source_interval: Some(Duration::from_secs(300)),
        })
    }

    #[test]
    fn what_is_wrong_is_told_and_only_a_missing_index_is_unready() {
        let down = StoreState::Down { since: NOW, reason: "refused\nready".to_owned() };
        let silent = IndexerAnswer::Silent { reason: "killed".to_owned() };
        let figures = Figures {
            spooled_downloads: 7.into(),
            spool_has_failed: true.into(),
            store_is_away: true.into(),
            ..Figures::default()
        };
        let told = readiness(false, down, silent, &figures);
        assert!(!told.ready);
        let text = told.text();
        assert!(text.starts_with("not ready\nno index: "), "{text}");
        for trouble in [
            "mirrors: none",
            "store: down since",
            "refused\\nready",
            "indexer: killed",
            "7 downloads",
            "the spool cannot",
            "no City",
            "no ASN",
        ] {
            assert!(text.contains(trouble), "`{trouble}` is missing in\n{text}");
        }
        assert_eq!(text.lines().skip(2).filter(|line| !line.starts_with("degraded: ")).count(), 0, "{text}");
    }

    #[test]
    fn what_is_as_it_should_be_is_not_told() {
        let told = readiness(
            true,
            StoreState::Up { since: NOW },
            IndexerAnswer::Told(Activity::default()),
            &Figures::default(),
        );
        assert!(told.degraded.iter().all(|trouble| trouble.starts_with("geo: ")), "{told:?}");
        let busy = Figures { spooled_downloads: 7.into(), ..Figures::default() };
        let told = readiness(true, StoreState::Unknown, IndexerAnswer::NotWanted, &busy);
        assert!(told.degraded.iter().all(|trouble| trouble.starts_with("geo: ")), "{told:?}");
    }
}
