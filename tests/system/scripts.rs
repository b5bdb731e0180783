//! The lines that operators have in their scripts since Mirrorbits, run by a shell on the real programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use crate::harness::host::Place;
use crate::harness::redirector::Redirector;
use crate::harness::servers::MirrorSites;
use crate::harness::tree::{self, USUAL_TIME};

/// A shell that runs `script`. Its `mirrorbits` speaks to the daemon of `redirector` unless told otherwise; `H` is the
/// daemon's host.
fn shell(redirector: &Redirector, script: &str) -> Command {
    let programs = redirector.folder().join("bin");
    fs::create_dir_all(&programs).expect("folder of programs");
    let wrapper = programs.join("mirrorbits");
    let rpc = redirector.rpc_address();
    let real = env!("CARGO_BIN_EXE_mirrorbits");
    fs::write(&wrapper, format!("#!/bin/sh\nexec {real} -h {} -p {} \"$@\"\n", rpc.ip(), rpc.port())).expect("wrapper");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("mode of the wrapper");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).env("PATH", format!("{}:{path}", programs.display())).env("H", rpc.ip().to_string());
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

/// What `script` printed; it must succeed.
fn run(redirector: &Redirector, script: &str) -> String {
    printed(script, shell(redirector, script).output().expect("sh"))
}

fn printed(script: &str, output: Output) -> String {
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).expect("output in UTF-8")
}

#[test]
fn the_scripts_of_operators_work_as_written() {
    let mut redirector = Redirector::new();
    tree::write(&redirector.repository(), "file.iso", b"content", USUAL_TIME);
    let mirrors = MirrorSites::start(redirector.folder(), &[("paris", Place::Paris), ("tokyo", Place::Tokyo)]);
    for site in &mirrors.sites {
        tree::copy(&redirector.repository(), &site.root);
    }

    let waiting = "while ! mirrorbits list; do sleep 0.1; done";
    let mut waiting_shell = shell(&redirector, waiting).spawn().expect("sh");
    redirector.start();
    let status = waiting_shell.wait().expect("end of the shell");
    assert!(status.success(), "{waiting}: {status}");

    for site in &mirrors.sites {
        run(
            &redirector,
            &format!("mirrorbits add -http={} -rsync={} {}", site.http_url(), site.rsync_url(), site.name),
        );
    }
    assert_eq!(run(&redirector, "mirrorbits list -state=false | tail -n +2 | sort"), "paris\ntokyo\n");

    run(&redirector, "mirrorbits refresh");
    let scanned = run(&redirector, "mirrorbits scan -all -enable -timeout=120");
    let report = "1 files indexed, 1 known and 0 removed\n  ∟ Enabled\n";
    assert_eq!(scanned, format!("Scanning paris... {report}Scanning tokyo... {report}"));

    run(&redirector, "EDITOR='sed -i s/^Score:.*/Score: 5/' mirrorbits edit paris");
    assert!(run(&redirector, "mirrorbits show paris").contains("\nScore: 5\n"));
    run(&redirector, "EDITOR=\"sed -i 's/^Score:.*/Score: 6/'\" mirrorbits edit PARIS");
    assert_eq!(run(&redirector, "mirrorbits list -score -state=false | grep paris | cut -f 3"), "6\n");

    run(&redirector, "for m in $(mirrorbits list -state=false | tail -n +2); do mirrorbits disable $m; done");
    assert_eq!(run(&redirector, "mirrorbits list -disabled | grep -c disabled"), "2\n");
    run(&redirector, "mirrorbits remove -f tokyo");
    assert_eq!(run(&redirector, "mirrorbits list -state=false | tail -n +2"), "paris\n");
    assert!(run(&redirector, "mirrorbits logs -l 1 paris").ends_with("UTC: Mirror disabled\n"));
}

#[test]
fn a_password_comes_through_a_pipe() {
    let mut redirector = Redirector::new();
    redirector.set("RPCPassword", "pw");
    redirector.start_without_indexer();
    assert_eq!(run(&redirector, "echo pw | mirrorbits -h $H -p 3390 -a list | head -n 1 | cut -f 1"), "Identifier\n");
    let refused = shell(&redirector, "echo wrong | mirrorbits -h $H -p 3390 -a list").output().expect("sh");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("access denied"), "{refused:?}");
}
