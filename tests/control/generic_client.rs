//! A client of another make: Python's grpcio with a `.proto` file that was written from the description of the interface.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use mb_core::link::Request;

use crate::indexer::{DONE, SCANNED, play_indexer};
use crate::server::Server;

/// Where `make test` installs grpcio: beside the folder of the programs under test.
fn python_packages() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_mirrorbits")).ancestors().nth(2).unwrap();
    let packages = target.join("python");
    assert!(
        packages.join("grpc_tools").is_dir(),
        "{} has no grpcio-tools: `make test` installs it from PyPI; without a network, install it there by hand",
        packages.display()
    );
    packages
}

#[test]
fn a_generic_client_drives_every_method() {
    let packages = python_packages();
    let server = Server::start("secret");
    server.publish_source();
    let indexer = play_indexer(&server, 2, |request, stream| {
        let answer = if matches!(request, Request::ScanMirror { .. }) { SCANNED } else { DONE };
        stream.write_all(answer).unwrap();
    });
    server.count_downloads(&[("2024-05-06", "/a.iso", 3), ("2024-05-06", "/b.txt", 1)]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control/generic_client/drive.py");
    let output = Command::new("python3")
        .arg("-B")
        .arg(script)
        .arg(server.address.to_string())
        .env("PYTHONPATH", packages)
        .output()
        .expect("python3, which `make test` installs");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "every method works\n");
    indexer.join().unwrap();
}
