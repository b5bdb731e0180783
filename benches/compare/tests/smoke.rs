//! The whole comparison once, with tiny numbers: every server starts, answers every workload and ends, nothing is left behind.
//! What it measures here means nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Folders of runs that are beside the programs now.
fn leftovers() -> BTreeSet<std::path::PathBuf> {
    let programs = Path::new(env!("CARGO_BIN_EXE_mb-bench")).parent().expect("folder of the programs");
    let entries = std::fs::read_dir(programs).expect("programs").map(|entry| entry.expect("entry").path());
    entries.filter(|path| path.display().to_string().contains("mb-bench-")).collect()
}

#[test]
fn a_tiny_comparison_has_every_row() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let json = folder.path().join("bench.json");
    let before = leftovers();
    let output = Command::new(env!("CARGO_BIN_EXE_mb-bench"))
        .args([
            "--rounds",
            "1",
            "--seconds",
            "1",
            "--files",
            "2000",
            "--mirrors",
            "10",
            "--idle",
            "20",
            "--rate",
            "200",
        ])
        .args(["--only", "idle,lists,change,spread,swap,index", "--servers", "floor,nginx,epoll"])
        .arg("--json")
        .arg(&json)
        .output()
        .expect("mb-bench");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(leftovers().difference(&before).count(), 0);

    let table = String::from_utf8(output.stdout).expect("UTF-8");
    let rows = |server: &str| table.lines().filter(|line| line.contains(&format!("| {server} |"))).count();
    assert_eq!((rows("epoll floor"), rows("nginx")), (1, 1), "{table}");
    let results: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&json).expect("results")).expect("results in JSON");
    let swaps = results["swaps"].as_array().expect("swaps");
    assert!(!swaps.is_empty() && swaps.iter().all(|swap| swap["failed"] == 0), "{results:#}");
    let lists = results["lists"].as_array().expect("mirror lists");
    assert!(lists.len() == 2 && lists.iter().all(|row| row["failed"] == 0), "{results:#}");
    assert!(lists[0]["times"] == 0 && lists[1]["times"].as_u64() > Some(0), "{results:#}");
    assert!(results["change_ms"][0].as_f64().is_some_and(|time| time > 0.0), "{results:#}");
    assert!(results["spread"][0].as_f64().is_some_and(|part| (0.5..1.0).contains(&part)), "{results:#}");
    assert!(results["index"]["bytes_per_file"].as_f64().is_some_and(|bytes| bytes > 0.0), "{results:#}");
}
