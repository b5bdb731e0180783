//! The direction of dependencies, as docs/architecture.md draws it.
//!
//! `core` and `index` know neither program, the programs do not know each other, and what decides about a request knows
//! no runtime, store, clock, file system or logger: time, randomness and configuration are its arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Parts of the workspace that a package may depend on, for building and running.
const ALLOWED: [(&str, &[&str]); 8] = [
    ("mb-core", &[]),
    ("mb-index", &["mb-core"]),
    ("mb-indexer", &["mb-core", "mb-index"]),
    ("mirrorbits", &["mb-core", "mb-index"]),
    ("mb-tools", &["mb-core", "mb-index"]),
    ("mb-load", &[]),
    ("mb-soak", &["mb-load"]),
    ("mb-bench", &["mb-core", "mb-index", "mb-load"]),
];

/// Where nothing but decisions is allowed.
const PURE: [&str; 4] = ["src/handle.rs", "src/handle", "src/http", "src/select"];

/// Names that bring in a runtime, the outside world or a clock. Addresses, times and `io::Write` into memory are values.
const OUTSIDE: [&str; 29] = [
    "glommio",
    "tokio",
    "futures",
    "socket2",
    "rustix",
    "libc::",
    "std::fs",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "std::env",
    "std::process",
    "std::thread",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "SystemTime::now",
    "Instant::now",
    "mb_core::store",
    "rusqlite",
    "tracing",
    "println!",
    "crate::control",
    "crate::shard",
    "crate::cli",
];

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn packages_depend_in_one_direction() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(workspace())
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let members: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    assert_eq!(members, allowed.keys().copied().collect(), "each package of the workspace has its place in ALLOWED");

    for package in packages {
        let name = package["name"].as_str().expect("name");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let on = dependency["name"].as_str().expect("name of a dependency");
            if members.contains(on) && dependency["kind"] != "dev" {
                assert!(allowed[name].contains(&on), "{name} must not depend on {on}");
            }
        }
    }
}

#[test]
fn decisions_know_nothing_of_the_outside() {
    let mut files = Vec::new();
    for part in PURE {
        let of_part = sources(&workspace().join(part));
        assert!(!of_part.is_empty(), "{part} is gone: say in PURE where its code went");
        files.extend(of_part);
    }
    let test_only: Vec<PathBuf> = files.iter().flat_map(|file| test_only_files(file)).collect();
    files.retain(|file| !test_only.contains(file));

    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("source");
        found.extend(
            code_lines(&text)
                .flat_map(|(number, line)| OUTSIDE.iter().map(move |name| (number, line, *name)))
                .filter(|(_, line, name)| mentions(line, name))
                .map(|(number, line, name)| format!("{}:{number}: {name}: {}", file.display(), line.trim())),
        );
    }
    assert!(found.is_empty(), "time, randomness, files and sockets belong to the callers:\n{}", found.join("\n"));
}

/// The Rust files of a file or folder.
fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let files = entries.flat_map(|entry| sources(&entry.expect("entry").path()));
    files.filter(|file| file.extension().is_some_and(|e| e == "rs")).collect()
}

/// What comes before a module that is compiled for tests only.
const TEST_ONLY: &str = "#[cfg(test)]\nmod ";

/// The files of the test-only modules that `module` declares.
fn test_only_files(module: &Path) -> Vec<PathBuf> {
    let folder = if module.ends_with("mod.rs") { module.with_file_name("") } else { module.with_extension("") };
    let text = fs::read_to_string(module).expect("source");
    let declared = text.split(TEST_ONLY).skip(1).filter_map(|rest| rest.lines().next()?.strip_suffix(';'));
    declared.map(|name| folder.join(format!("{name}.rs"))).collect()
}

/// Numbered lines without comments, up to the tests at the end of a file.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let tests = text.match_indices(TEST_ONLY).find(|(start, _)| {
        text[start + TEST_ONLY.len()..].lines().next().is_some_and(|declaration| declaration.ends_with('{'))
    });
    let code = &text[..tests.map_or(text.len(), |(start, _)| start)];
    (1..).zip(code.lines()).map(|(number, line)| (number, line.split("//").next().unwrap_or_default()))
}

/// Whether `line` has `name` as a word of its own: `Instant`, not `InstantView`.
fn mentions(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(start, _)| {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        !line[..start].ends_with(is_word) && !line[start + name.len()..].starts_with(is_word)
    })
}

#[test]
fn tests_are_told_from_code() {
    let code = |text| code_lines(text).map(|(number, _)| number).collect::<Vec<_>>();
    assert_eq!(code("a\n#[cfg(test)]\nmod tests;\nb\n"), [1, 2, 3, 4]);
    assert_eq!(code("a\n#[cfg(test)]\nmod tests {\nb\n}\n"), [1]);
}

#[test]
fn words_are_told_from_parts_of_words() {
    assert!(mentions("use tokio::net;", "tokio"));
    assert!(mentions("let now = Instant::now();", "Instant::now"));
    assert!(!mentions("crate::control_flow()", "crate::control"));
    assert!(!mentions("fn my_tokio_like()", "tokio"));
}
