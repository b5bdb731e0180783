//! What is made of the metrics outside of this program: promtool, the dashboard, the alerts, the documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use regex::Regex;

use super::{from_paris, in_use, settled};
use crate::harness::eventually;
use crate::harness::metrics::{Page, scrape, wait_for};
use crate::harness::redirector::Redirector;

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(in_repository(path)).expect("a file of the repository")
}

/// Runs promtool, which must find nothing wrong.
fn promtool(arguments: &[&str], input: Stdio) {
    let output = Command::new("promtool").args(arguments).stdin(input).output();
    let output = output.expect("promtool, which `make test` installs");
    let told = [output.stdout, output.stderr].map(|told| String::from_utf8_lossy(&told).into_owned()).concat();
    assert!(output.status.success(), "promtool {arguments:?}: {}\n{told}", output.status);
}

fn lint(redirector: &Redirector, page: &Page) {
    let file = redirector.folder().join("metrics.txt");
    fs::write(&file, &page.text).expect("a page");
    promtool(&["check", "metrics"], Stdio::from(fs::File::open(file).expect("a page")));
}

/// Names, types and labels of the table in docs/metrics.md.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let row = Regex::new(r"(?m)^\| `(\w+)` \| (\w+) \|([\w, ]*)\|").expect("a pattern");
    let documentation = text("docs/metrics.md");
    let rows = row.captures_iter(&documentation).map(|row| {
        let labels = row[3].split(',').map(str::trim).filter(|label| !label.is_empty()).map(str::to_owned).collect();
        (row[1].to_owned(), (row[2].to_owned(), labels))
    });
    rows.collect()
}

/// A mirror whose name is a trap, a mirror that is down, every sort of answer: all metrics are there, as documented, and
/// promtool has nothing to say about them.
#[test]
fn the_page_is_what_the_documentation_says() {
    let mut redirector = Redirector::new();
    let _mirrors = in_use(&mut redirector);
    let hostile = r#"a"}\,id="9"#;
    redirector.mirrorbits(&["add", "-http", "http://127.0.0.1:1/", "-rsync", "rsync://127.0.0.1:1/m/", hostile]);
    redirector.mirrorbits(&["add", "-http", "http://127.0.0.1:1/", &"ß".repeat(127)]);
    assert!(!redirector.run(&["scan", "-enable", hostile]).status.success(), "nobody answers there");
    let escaped = r#"mirror="a\"}\\,id=\"9",id="3""#;
    wait_for(&redirector, &format!("mirrorbits_mirror_enabled{{{escaped}}}"), 0.0);
    wait_for(&redirector, &format!("mirrorbits_mirror_scans_total{{{escaped},result=\"failed\"}}"), 1.0);
    wait_for(&redirector, "mirrorbits_store_up", 1.0);
    for _ in 0..3 {
        assert_eq!(from_paris(&redirector, "GET", "/file.iso", "A: b"), 302);
    }
    let page = settled(&redirector);
    let short = page.text.lines().filter(|line| line.contains('ß')).all(|line| line.len() < 250);
    assert!(short, "{}", page.text);
    lint(&redirector, &page);

    let documented = documented();
    let found: BTreeSet<&String> = page.families.keys().collect();
    assert_eq!(found, documented.keys().collect(), "docs/metrics.md lists what is served");
    for (name, (kind, labels)) in &documented {
        assert_eq!(&page.families[name], kind, "type of {name}");
        // Labels of a hostile name look like labels to this test, not to promtool.
        let shown: BTreeSet<String> = page.labels(name);
        assert_eq!(&shown, labels, "labels of {name}");
    }
}

/// A page without mirrors and index is as valid.
#[test]
fn the_page_of_an_empty_daemon_is_valid() {
    let mut redirector = Redirector::new();
    redirector.with_metrics().start_without_indexer();
    eventually("a page", || if scrape(&redirector).text.is_empty() { Err("empty".to_owned()) } else { Ok(()) });
    lint(&redirector, &scrape(&redirector));
}

#[test]
fn alerts_ring_when_they_should() {
    let rules = in_repository("contrib/prometheus/alerts.yml");
    promtool(&["check", "rules", rules.to_str().expect("a path")], Stdio::null());
    let tests = in_repository("contrib/prometheus/alerts.test.yml");
    promtool(&["test", "rules", tests.to_str().expect("a path")], Stdio::null());
    assert_known(&text("contrib/prometheus/alerts.yml"));
}

/// promtool checks expressions in rules only, so each expression of the dashboard becomes a rule.
#[test]
fn the_dashboard_asks_for_what_there_is() {
    let dashboard: serde_json::Value = serde_json::from_str(&text("contrib/grafana/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let expressions: Vec<&str> = targets.map(|target| target["expr"].as_str().expect("an expression")).collect();
    assert!(expressions.len() > 20, "{}", expressions.len());
    let rules = expressions.iter().enumerate().map(|(number, expression)| {
        let expression = expression.replace("$__rate_interval", "5m").replace("$instance", ".*");
        serde_json::json!({"record": format!("panel:{number}"), "expr": expression})
    });
    let rules = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules.collect::<Vec<_>>()}]});
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("dashboard.yml");
    fs::write(&file, rules.to_string()).expect("rules");
    promtool(&["check", "rules", file.to_str().expect("a path")], Stdio::null());
    assert_known(&expressions.join("\n"));
}

/// Every metric that `text` names is documented, and so served.
fn assert_known(text: &str) {
    let documented = documented();
    let name = Regex::new(r"\bmirrorbits_\w+").expect("a pattern");
    let named: BTreeSet<&str> = name.find_iter(text).map(|found| found.as_str()).collect();
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        let family = name.strip_suffix("_bucket").unwrap_or(name);
        assert!(documented.contains_key(family), "there is no metric {name}");
    }
}
