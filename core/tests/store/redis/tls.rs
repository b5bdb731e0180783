//! TLS, with certificates made for the test.

use std::env;
use std::path::Path;
use std::process::Command;

use mb_core::config::RedisSettings;
use mb_core::secret::Secret;
use mb_core::store::{RedisStore, Store};

use super::server::{Server, free_port};
use crate::suite::settings;

/// Makes an authority and a certificate of `localhost` in `folder`.
fn make_certificates(folder: &Path) {
    for line in [
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca",
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.csr -subj /CN=localhost \
         -addext subjectAltName=DNS:localhost",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -copy_extensions copy",
    ] {
        let output = Command::new("openssl").args(line.split_whitespace()).current_dir(folder).output();
        let output = output.unwrap_or_else(|error| panic!("openssl: {error}; `make test` installs it"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_server_with_tls_is_used_when_its_certificate_is_trusted() {
    let folder = tempfile::tempdir().expect("a folder");
    make_certificates(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let port = free_port();
    let _server = Server::start(&[
        &format!("tls-port {port}"),
        &format!("tls-cert-file {}", path("server.pem")),
        &format!("tls-key-file {}", path("server.key")),
        &format!("tls-ca-cert-file {}", path("ca.pem")),
        "tls-auth-clients no",
        "requirepass sesame",
    ]);
    // Which authorities are trusted is a matter of the process, so this is one of its own.
    for (authorities, outcome) in [(path("ca.pem"), "added"), (path("server.key"), "not trusted")] {
        let output = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "redis::tls::second_process", "--ignored", "--nocapture"])
            .env("SSL_CERT_FILE", authorities)
            .env_remove("SSL_CERT_DIR")
            .env("MB_TEST_REDIS", format!("rediss://:sesame@localhost:{port}"))
            .output()
            .expect("started");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains(&format!("outcome: {outcome}")), "{text}");
    }
}

#[test]
#[ignore = "runs in the second process of the test above"]
fn second_process() {
    let address = env::var("MB_TEST_REDIS").expect("set by the first process");
    let store = RedisStore::open(&RedisSettings {
        address: address.into(),
        password: Secret::default(),
        database: 0,
        sentinel_master_name: String::new(),
        sentinels: Vec::new(),
    });
    match store.expect("opened").add_mirror(&settings("one")) {
        Ok(_) => println!("outcome: added"),
        Err(error) if error.to_string().contains("not trusted") => println!("outcome: not trusted"),
        Err(error) => panic!("{error}"),
    }
}
