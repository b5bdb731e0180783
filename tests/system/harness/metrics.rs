//! A page of metrics, taken apart.

use std::collections::{BTreeMap, BTreeSet};

use super::eventually;
use super::http::{Connection, Response};
use super::redirector::{Redirector, get};

/// What Prometheus would make of a page. Lines that it would not understand fail the test.
#[derive(Debug)]
pub(crate) struct Page {
    /// As it came.
    pub(crate) text: String,
    /// Name and type of the families.
    pub(crate) families: BTreeMap<String, String>,
    /// Values by name and labels, as written.
    samples: BTreeMap<String, f64>,
}

impl Page {
    fn parse(text: String) -> Page {
        let mut page = Page { text: String::new(), families: BTreeMap::new(), samples: BTreeMap::new() };
        for line in text.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').expect("name and type");
                assert!(page.families.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is there twice");
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
                let value = value.parse().unwrap_or_else(|_| panic!("no number: {line:?}"));
                assert!(page.samples.insert(series.to_owned(), value).is_none(), "{series} is there twice");
            }
        }
        Page { text, ..page }
    }

    /// The value of a series, written as on the page.
    pub(crate) fn value(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }

    /// The sum of all series that start like this.
    pub(crate) fn sum(&self, start: &str) -> f64 {
        self.samples.iter().filter(|(series, _)| series.starts_with(start)).map(|(_, value)| value).sum()
    }

    /// The names of the labels that series of `family` have, but for `le`.
    pub(crate) fn labels(&self, family: &str) -> BTreeSet<String> {
        let of_family = self.samples.keys().filter_map(|series| series.strip_prefix(family)?.strip_prefix('{'));
        let names = of_family.flat_map(|labels| labels.split("=\"").map(|part| part.rsplit(['"', ',', '{']).next()));
        let names = names.flatten().filter(|name| name.chars().all(|c| c.is_ascii_lowercase()) && !name.is_empty());
        names.map(str::to_owned).collect()
    }

    /// Every counter with its value.
    pub(crate) fn counters(&self) -> impl Iterator<Item = (&str, f64)> {
        let is_counter =
            |series: &str| self.families.get(series.split('{').next()?).filter(|kind| *kind == "counter").map(drop);
        self.samples
            .iter()
            .filter(move |(series, _)| is_counter(series).is_some())
            .map(|(s, value)| (s.as_str(), *value))
    }
}

/// Asks for a page of the metrics' server.
pub(crate) fn ask(redirector: &Redirector, target: &str) -> Response {
    let mut connection = eventually("a connection for metrics", || {
        Connection::open(redirector.metrics_address()).map_err(|error| error.to_string())
    });
    connection.send(get(target, &[]).as_bytes()).expect("request");
    connection.receive().expect("answer")
}

/// The metrics of this moment.
pub(crate) fn scrape(redirector: &Redirector) -> Page {
    let response = ask(redirector, "/metrics");
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    Page::parse(response.text().to_owned())
}

/// The sum of a family over all its labels.
pub(crate) fn total(redirector: &Redirector, family: &str) -> f64 {
    scrape(redirector).sum(&format!("{family}{{"))
}

/// Waits until a series has this value, and returns the page.
pub(crate) fn wait_for(redirector: &Redirector, series: &str, value: f64) -> Page {
    eventually(&format!("{series} {value}"), || {
        let page = scrape(redirector);
        if page.value(series) == Some(value) { Ok(page) } else { Err(page.text) }
    })
}

/// Waits until `/readyz` answers with `status` and a text that has `text`.
pub(crate) fn wait_for_readiness(redirector: &Redirector, status: u16, text: &str) {
    eventually(&format!("/readyz {status} with `{text}`"), || {
        let response = ask(redirector, "/readyz");
        if response.status == status && response.text().contains(text) { Ok(()) } else { Err(format!("{response:?}")) }
    });
}
