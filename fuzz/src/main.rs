//! Fuzz targets of everything that reads bytes from outside, in one program, which `fuzz/run` starts.
//!
//! The environment says what it does: `FUZZ_TARGET` names the target; with `FUZZ_WRITE_SEEDS` it writes the target's made
//! seeds into that folder and ends; without a target it lists all, each with the length of its longest input.
//!
//! - `targets`: one module for each
//! - `oracle`: what an input may cost
//! - `world`: the index, mirrors and places that requests are answered from

#![no_main]

mod oracle;
mod targets;
mod world;

use std::path::Path;
use std::process::exit;
use std::sync::OnceLock;

use targets::{TARGETS, Target};

/// The target that this process fuzzes.
static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

fn choose() -> &'static Target {
    let Ok(name) = std::env::var("FUZZ_TARGET") else {
        for target in TARGETS {
            println!("{} {}", target.name, target.longest);
        }
        exit(0);
    };
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        eprintln!("FUZZ_TARGET is {name}, which is no target");
        exit(2);
    };
    if let Some(folder) = std::env::var_os("FUZZ_WRITE_SEEDS") {
        (target.seeds)(Path::new(&folder));
        exit(0);
    }
    target
}

libfuzzer_sys::fuzz_target!(
    init: {
        let target = CHOSEN.get_or_init(choose);
        // What is made once, when it is first used, is not among what an input costs.
        (target.run)(b"\0\0");
    },
    |input: &[u8]| {
        let target = CHOSEN.get_or_init(choose);
        oracle::run(&target.limits, target.run, input);
    }
);
