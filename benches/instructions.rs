//! Instructions of each step of a request, counted by callgrind: the same on a busy machine and on an idle one, so that a
//! regression of a few percent shows. `make instructions` runs it.
//!
//! The counts are compared with those in `instructions.txt`; one that has grown by more than [`TOLERANCE`] fails the run.
//! `cargo bench --bench instructions -- --save` records what is counted now.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

mod steps;
mod world;

use steps::STEPS;
use world::{Size, World};

/// Small, since callgrind is slow: what grows with size is not instructions but cache misses.
const SIZE: Size = Size { files: 2000, mirrors: 50, sets: 20 };
/// Calls of each step that are counted.
const CALLS: u64 = 2000;
/// Growth that fails, in percent: another compiler or C library must not.
const TOLERANCE: f64 = 10.0;
/// Says that this process is the one under callgrind.
const COUNTED: &str = "--counted";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    if arguments.iter().any(|argument| argument == COUNTED) {
        let world = World::new(SIZE);
        for step in STEPS {
            steps::with(&world, step, |once| dumped_step(once));
        }
        return ExitCode::SUCCESS;
    }
    // `cargo test` starts benchmarks, too, but not for this.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let recorded_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt");
    let counts = count();
    if arguments.iter().any(|argument| argument == "--save") {
        let lines = counts.iter().fold(String::new(), |mut lines, (step, count)| {
            let _ = writeln!(lines, "{step}\t{count}");
            lines
        });
        fs::write(&recorded_in, lines).expect("recorded counts");
    }
    compare(&counts, &recorded(&recorded_in))
}

/// After what callgrind dumps. It and [`counted_calls`] are told to callgrind by their names, and do not become one: for one
/// function it does one thing only.
#[inline(never)]
fn dumped_step(once: &mut dyn FnMut()) {
    counted_calls(once);
    black_box(());
}

/// What callgrind collects.
#[inline(never)]
fn counted_calls(once: &mut dyn FnMut()) {
    for _ in 0..CALLS {
        once();
    }
    black_box(());
}

/// Instructions per call of each step.
fn count() -> Vec<(&'static str, u64)> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = folder.path().join("callgrind.out");
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--quiet"])
        .args(["--toggle-collect=*counted_calls*", "--dump-after=*dumped_step*"])
        .arg(format!("--callgrind-out-file={}", output.display()))
        .arg(env::current_exe().expect("this program"))
        .arg(COUNTED)
        .status()
        .expect("valgrind, which `make instructions` installs");
    assert!(status.success(), "valgrind: {status}");
    let dump = |number: usize| PathBuf::from(format!("{}.{number}", output.display()));
    (1..).zip(STEPS).map(|(number, step)| (step, total(&dump(number)) / CALLS)).collect()
}

/// The total of a dump.
fn total(dump: &Path) -> u64 {
    let text = fs::read_to_string(dump).expect("a dump for each step");
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")));
    total.and_then(|total| total.trim().parse().ok()).expect("a total in a dump")
}

fn recorded(file: &Path) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    lines.filter_map(|(step, count)| Some((step.to_owned(), count.parse().ok()?))).collect()
}

fn compare(counts: &[(&str, u64)], recorded: &BTreeMap<String, u64>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for &(step, count) in counts {
        let change = recorded.get(step).map(|&before| (count as f64 - before as f64) * 100.0 / before.max(1) as f64);
        match change {
            Some(change) if change > TOLERANCE => {
                println!("{step:20}{count:8} instructions {change:+6.1} %  too many");
                code = ExitCode::FAILURE;
            }
            Some(change) => println!("{step:20}{count:8} instructions {change:+6.1} %"),
            None => println!("{step:20}{count:8} instructions"),
        }
    }
    code
}
