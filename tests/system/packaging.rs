//! What packages install beside the programs.

use std::fs;
use std::path::Path;
use std::process::Command;

fn contrib(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib").join(name)
}

/// Runs systemd-analyze on the units, with our program in the place of the installed one; returns what it printed.
fn analyze(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("folder");
    for name in ["mirrorbits.service", "mirrorbits.socket"] {
        let unit = fs::read_to_string(contrib("systemd").join(name)).expect("unit");
        assert!(name.ends_with(".socket") || unit.contains("/usr/bin/mirrorbits daemon"), "{unit}");
        let unit = unit.replace("/usr/bin/mirrorbits", env!("CARGO_BIN_EXE_mirrorbits"));
        fs::write(folder.path().join(name), unit).expect("copy of a unit");
    }
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .arg("mirrorbits.service")
        .current_dir(folder.path())
        .env("SYSTEMD_UNIT_PATH", format!("{}:", folder.path().display()))
        .output()
        .expect("systemd-analyze; `make test` installs what tests need");
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "systemd-analyze {arguments:?}: {printed}");
    printed
}

#[test]
fn systemd_understands_the_units() {
    let complaints = analyze(&["verify", "--man=no"]);
    let ours: Vec<_> = complaints.lines().filter(|line| line.contains("mirrorbits")).collect();
    assert!(ours.is_empty(), "{ours:?}");
}

#[test]
fn the_service_is_exposed_to_little() {
    // systemd counts exposure from 0 (none) to 10; the threshold is ten times that. Without any hardening it is 9.6.
    analyze(&["security", "--offline=yes", "--threshold=20", "--no-pager"]);
}

#[test]
fn the_debian_package_is_complete() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("manifest");
    let (_, package) = manifest.split_once("[package.metadata.deb]").expect("metadata of the package");
    let package = package.split("\n[").next().unwrap_or_default();
    for installed in [
        "usr/bin/",
        "etc/mirrorbits.conf",
        "usr/share/man/man8/",
        "usr/share/bash-completion/completions/mirrorbits",
        "usr/share/zsh/vendor-completions/_mirrorbits",
        "usr/share/fish/vendor_completions.d/mirrorbits.fish",
        "usr/lib/sysusers.d/mirrorbits.conf",
    ] {
        assert!(package.contains(installed), "{installed} is missing");
    }
    let sources = package.lines().filter_map(|line| line.trim().strip_prefix("[\"")?.split('"').next());
    for source in sources.filter(|source| !source.starts_with("target/")) {
        assert!(
            Path::new(env!("CARGO_MANIFEST_DIR")).join(source).exists(),
            "{source} is to be installed and is missing"
        );
    }
}
