//! What clients see on the wire: each test is a part of the HTTP interface, asked of the real daemon byte by byte.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use crate::harness::eventually;
use crate::harness::host::Place;
use crate::harness::http::{Connection, Response};
use crate::harness::redirector::{Redirector, get};
use crate::harness::servers::MirrorSites;
use crate::harness::tree::{self, USUAL_TIME};

/// [`USUAL_TIME`] in the forms of RFC 9110, section 5.6.7.
const USUAL_TIME_FORMS: [&str; 3] =
    ["Mon, 06 May 2024 07:08:09 GMT", "Monday, 06-May-24 07:08:09 GMT", "Mon May  6 07:08:09 2024"];

/// Names that need percent-encoding, and how they are written in a URL.
const ENCODED_NAMES: [(&str, &str); 6] = [
    ("with space.txt", "with%20space.txt"),
    ("100%.txt", "100%25.txt"),
    ("a#b.txt", "a%23b.txt"),
    ("really?.txt", "really%3F.txt"),
    ("größe.txt", "gr%C3%B6%C3%9Fe.txt"),
    ("%41.txt", "%2541.txt"),
];

const PARIS: &str = "X-Forwarded-For: 192.0.2.1";
const JSON: &str = "Accept: application/json";

/// A redirector with a mirror in Paris and one in New York that both have every file.
fn served() -> (Redirector, MirrorSites) {
    served_with(|_| {})
}

fn served_with(configure: impl FnOnce(&mut Redirector)) -> (Redirector, MirrorSites) {
    let mut redirector = Redirector::new();
    configure(&mut redirector);
    let repository = redirector.repository();
    tree::write(&repository, "file.iso", b"content", USUAL_TIME);
    tree::write(&repository, "folder/inner.bin", b"inner content", USUAL_TIME);
    for (name, _) in ENCODED_NAMES {
        tree::write(&repository, name, name.as_bytes(), USUAL_TIME);
    }
    symlink("file.iso", repository.join("link.iso")).expect("link to a file");
    symlink("folder", repository.join("latest")).expect("link to a folder");
    symlink("/etc", repository.join("outside")).expect("link out of the repository");
    let mirrors = MirrorSites::start(redirector.folder(), &[("paris", Place::Paris), ("new-york", Place::NewYork)]);
    for site in &mirrors.sites {
        tree::copy(&repository, &site.root);
    }
    redirector.start();
    redirector.scan_repository();
    for site in &mirrors.sites {
        redirector.use_mirror(site);
    }
    eventually("both mirrors are used", || {
        let answer = redirector.get("/file.iso", &[PARIS]);
        if answer.all("Link").len() == 2 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    (redirector, mirrors)
}

#[test]
fn redirect_names_the_nearest_mirror_and_the_others() {
    let (redirector, mirrors) = served();
    let [paris, new_york] = ["paris", "new-york"].map(|name| format!("{}file.iso", mirrors.site(name).http_url()));

    let answer = redirector.get("/file.iso", &[PARIS]);
    assert_eq!(answer.status_line, "HTTP/1.1 302 Found");
    assert_eq!(answer.location(), paris);
    assert_eq!(answer.header("Cache-Control"), Some("private, no-cache"));
    assert_eq!(answer.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.header("Content-Length"), Some("0"));
    let server = answer.header("Server").expect("Server");
    assert!(server.starts_with("Mirrorbits/"), "{server}");
    let date = answer.header("Date").expect("Date");
    assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
    assert_eq!(
        answer.all("Link"),
        [format!("<{paris}>; rel=duplicate; pri=1; geo=fr"), format!("<{new_york}>; rel=duplicate; pri=2; geo=us"),]
    );

    let american = format!("X-Forwarded-For: {}", Place::NewYork.client());
    assert_eq!(redirector.get("/file.iso", &[&american]).location(), new_york);

    let mut connection = Connection::open(redirector.address()).expect("connection");
    connection.send(format!("HEAD /file.iso HTTP/1.1\r\nHost: x\r\n{PARIS}\r\n\r\n").as_bytes()).expect("HEAD");
    let head = connection.receive_head().expect("answer to HEAD");
    let without_date =
        |response: &Response| response.headers.iter().filter(|(name, _)| name != "Date").cloned().collect::<Vec<_>>();
    assert_eq!((head.status, without_date(&head)), (302, without_date(&answer)));
}

#[test]
fn client_address_is_believed_of_trusted_proxies_only() {
    let (redirector, mirrors) = served();
    let paris = format!("{}file.iso", mirrors.site("paris").http_url());
    // Read from the right; 10.0.0.1 is a trusted proxy, what a client wrote in front of its own address is not believed.
    for forwarded in ["192.0.2.1", "192.0.2.97, 192.0.2.1", "192.0.2.97, 192.0.2.1, 10.0.0.1", "::ffff:192.0.2.1"] {
        let answer = redirector.get("/file.iso", &[&format!("X-Forwarded-For: {forwarded}")]);
        assert_eq!(answer.location(), paris, "X-Forwarded-For: {forwarded}");
    }
    let (distrustful, mirrors) = served_with(|redirector| {
        redirector.set("TrustedProxies", "[203.0.113.0/24]");
    });
    let document = distrustful.get("/file.iso", &[JSON, PARIS]).json();
    assert_eq!(document["IP"], "127.0.0.1", "{document}");
    assert_eq!(document["MirrorList"].as_array().map(Vec::len), Some(mirrors.sites.len()));
}

/// The names of the members of a JSON document in their order, each with the path of names that leads to it.
fn member_names(document: &str) -> Vec<String> {
    struct Names<'a> {
        prefix: String,
        found: &'a mut Vec<String>,
    }
    impl<'de> serde::de::DeserializeSeed<'de> for Names<'_> {
        type Value = ();
        fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            deserializer.deserialize_any(self)
        }
    }
    impl<'de> serde::de::Visitor<'de> for Names<'_> {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("JSON")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(name) = map.next_key::<String>()? {
                let path = format!("{}{name}", self.prefix);
                self.found.push(path.clone());
                map.next_value_seed(Names { prefix: format!("{path}."), found: self.found })?;
            }
            Ok(())
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
            let prefix = self.prefix;
            while seq.next_element_seed(Names { prefix: prefix.clone(), found: &mut *self.found })?.is_some() {}
            Ok(())
        }
        fn visit_bool<E>(self, _: bool) -> Result<(), E> {
            Ok(())
        }
        fn visit_i64<E>(self, _: i64) -> Result<(), E> {
            Ok(())
        }
        fn visit_u64<E>(self, _: u64) -> Result<(), E> {
            Ok(())
        }
        fn visit_f64<E>(self, _: f64) -> Result<(), E> {
            Ok(())
        }
        fn visit_str<E>(self, _: &str) -> Result<(), E> {
            Ok(())
        }
        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }
    }
    let mut found = Vec::new();
    let names = Names { prefix: String::new(), found: &mut found };
    serde::de::DeserializeSeed::deserialize(names, &mut serde_json::Deserializer::from_str(document)).expect("JSON");
    found
}

#[test]
fn json_has_the_members_of_the_reference_in_its_order() {
    let (redirector, mirrors) = served();
    let answer = redirector.get("/file.iso", &[PARIS, JSON]);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("Content-Type"), Some("application/json; charset=utf-8"));
    assert_eq!(answer.header("Cache-Control"), Some("private, no-cache"));

    let document = answer.json();
    assert_eq!(document["FileInfo"]["Path"], "/file.iso");
    assert_eq!(document["FileInfo"]["Size"], 7);
    assert_eq!(document["FileInfo"]["ModTime"], "2024-05-06T07:08:09Z");
    assert_eq!(
        document["FileInfo"]["Sha256"], "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73",
        "SHA-256 of `content`"
    );
    assert_eq!(document["IP"], "192.0.2.1");
    assert_eq!(document["ClientInfo"]["City"], "Paris");
    assert_eq!(document["ClientInfo"]["ASNum"], 64496);
    let first = &document["MirrorList"][0];
    assert_eq!(first["Name"], "paris");
    assert_eq!(first["AbsoluteURL"], mirrors.site("paris").http_url());
    assert_eq!(first["RsyncURL"], "", "private unless ExposePrivateFields");
    assert_eq!(first["CountryCodes"], "FR");
    assert_eq!(first["Latitude"], 48.8566);

    let mut names = member_names(answer.text());
    names.dedup();
    let mut mirror_names: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix("MirrorList.")).collect();
    mirror_names.truncate(mirror_names.iter().skip(1).position(|name| *name == "ID").map_or(usize::MAX, |n| n + 1));
    // Never down, never asked to allow redirects: members that may be left out are left out.
    assert_eq!(
        mirror_names.join(" "),
        "ID Name HttpURL RsyncURL FtpURL SponsorName SponsorURL SponsorLogoURL AdminName AdminEmail CustomData \
         ContinentOnly CountryOnly ASOnly Score Latitude Longitude ContinentCode CountryCodes ExcludedCountryCodes Asnum \
         Comment Enabled StateSince Distance ComputedScore LastSync LastSuccessfulSync \
         LastSuccessfulSyncProtocol LastSuccessfulSyncPrecision LastModTime AbsoluteURL"
    );
    let other_names: Vec<&str> =
        names.iter().filter(|name| !name.starts_with("MirrorList.")).map(String::as_str).collect();
    assert_eq!(
        other_names.join(" "),
        "FileInfo FileInfo.Path FileInfo.Size FileInfo.ModTime FileInfo.Sha256 IP ClientInfo ClientInfo.CountryCode \
         ClientInfo.ContinentCode ClientInfo.City ClientInfo.Country ClientInfo.Latitude ClientInfo.Longitude \
         ClientInfo.ASName ClientInfo.ASNum MirrorList LocalJSPath"
    );

    // The whole list with weights and reasons.
    redirector.mirrorbits(&["disable", "new-york"]);
    let list = eventually("the disabled mirror is excluded", || {
        let list = redirector.get("/file.iso?mirrorlist", &[PARIS, JSON]).json();
        if list["ExcludedList"][0]["Name"] == "new-york" { Ok(list) } else { Err(list.to_string()) }
    });
    assert_eq!(list["ExcludedList"][0]["ExcludeReason"], "Disabled");
    assert_eq!(list["MirrorList"][0]["Name"], "paris");
    assert_eq!(list["MirrorList"][0]["Weight"], 100.0);

    let pretty = redirector.get("/file.iso?pretty", &[PARIS, JSON]);
    assert!(pretty.text().starts_with("{\n"), "{pretty:?}");
    assert_eq!(pretty.json()["FileInfo"], document["FileInfo"]);
}

#[test]
fn names_are_decoded_once_and_encoded_again() {
    let (redirector, mirrors) = served();
    let base = mirrors.site("paris").http_url();
    for (name, encoded) in ENCODED_NAMES {
        let answer = redirector.get(&format!("/{encoded}"), &[PARIS]);
        assert_eq!(answer.location(), format!("{base}{encoded}"));
        assert!(answer.all("Link")[0].starts_with(&format!("<{base}{encoded}>;")), "{answer:?}");
        let document = redirector.get(&format!("/{encoded}"), &[PARIS, JSON]).json();
        assert_eq!(document["FileInfo"]["Path"], format!("/{name}"));
    }
    // As few clients write it, but RFC 3986 has it: an escape of a character that needs none.
    assert_eq!(redirector.get("/%66ile.iso", &[PARIS]).location(), format!("{base}file.iso"));
    for invalid in ["/%", "/%4", "/%zz", "/file.iso%"] {
        assert_eq!(redirector.get(invalid, &[]).status, 400, "{invalid}");
    }
    assert_eq!(redirector.get("/file.iso%00", &[]).status, 404);
}

#[test]
fn links_lead_to_their_targets_and_never_out() {
    let (redirector, mirrors) = served();
    let base = mirrors.site("paris").http_url();
    assert_eq!(redirector.get("/link.iso", &[PARIS]).location(), format!("{base}file.iso"));
    assert_eq!(redirector.get("/latest/inner.bin", &[PARIS]).location(), format!("{base}folder/inner.bin"));

    for path in ["/outside", "/outside/passwd"] {
        let answer = redirector.get(path, &[]);
        assert_eq!((answer.status, answer.text().trim_end()), (403, "Forbidden"), "{path}");
    }
    let missing = redirector.get("/missing.iso", &[]);
    assert_eq!((missing.status, missing.text().trim_end()), (404, "Not Found"));
    assert!(missing.header("Content-Type").is_some_and(|t| t.starts_with("text/plain")), "{missing:?}");

    for folder in ["/", "/folder"] {
        let answer = redirector.get(folder, &[]);
        assert_eq!(answer.status, 503, "{folder}");
        assert!(answer.header("Retry-After").is_some_and(|s| s.parse::<u32>().is_ok()), "{answer:?}");
    }
}

#[test]
fn unclean_paths_are_sent_to_the_clean_one() {
    let (redirector, _mirrors) = served();
    for (unclean, clean) in [
        ("//file.iso", "/file.iso"),
        ("/./file.iso", "/file.iso"),
        ("/folder/../file.iso", "/file.iso"),
        ("/../../file.iso", "/file.iso"),
        ("/folder//inner.bin?https=1&x", "/folder/inner.bin?https=1&x"),
        ("//with%20space.txt", "/with%20space.txt"),
    ] {
        let answer = redirector.get(unclean, &[]);
        assert_eq!(answer.status, 301, "{unclean}");
        assert_eq!(answer.location(), clean, "{unclean}");
    }
}

#[test]
fn methods_other_than_get_and_head_are_refused() {
    let (redirector, _mirrors) = served();
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let answer = redirector.request(format!("{method} /file.iso HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        assert_eq!((answer.status, answer.header("Allow")), (405, Some("GET, HEAD")), "{method}");
    }
    let answer = redirector.request(b"OPTIONS /file.iso HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(answer.status, 204);
    assert!(answer.header("Allow").is_some_and(|allow| allow.contains("GET, HEAD")), "{answer:?}");
}

#[test]
fn unchanged_files_and_checksums() {
    let (redirector, _mirrors) = served();
    for since in USUAL_TIME_FORMS.into_iter().chain(["Tue, 07 May 2024 00:00:00 GMT"]) {
        let answer = redirector.get("/file.iso", &[&format!("If-Modified-Since: {since}")]);
        assert_eq!(answer.status, 304, "{since}");
        assert_eq!(answer.header("Last-Modified"), Some(USUAL_TIME_FORMS[0]));
    }
    for since in ["Mon, 06 May 2024 07:08:08 GMT", "yesterday", ""] {
        let answer = redirector.get("/file.iso", &[&format!("If-Modified-Since: {since}")]);
        assert_eq!(answer.status, 302, "{since}");
    }

    let sha256 = redirector.get("/folder/inner.bin?sha256", &[]);
    assert_eq!(sha256.status, 200);
    assert_eq!(sha256.header("Content-Type"), Some("text/plain; charset=UTF-8"));
    let (hash, name) = sha256.text().split_once("  ").expect("hash and name");
    assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
    assert_eq!(name, "inner.bin");
    let md5 = redirector.get("/file.iso?md5", &[]);
    assert_eq!((md5.status, md5.text().trim_end()), (404, "Hash type not supported"));
}

#[test]
fn connections_are_kept_and_pipelined() {
    let (redirector, mirrors) = served();
    let base = mirrors.site("paris").http_url();
    let mut connection = Connection::open(redirector.address()).expect("connection");

    // Answers come in the order of the requests, a refused one among them.
    let targets = ["/file.iso", "/missing.iso", "/folder/inner.bin", "/link.iso"];
    let requests: String = targets.iter().map(|target| get(target, &[PARIS])).collect();
    connection.send(requests.repeat(20).as_bytes()).expect("pipelined requests");
    for round in 0..20 {
        let answers = targets.map(|_| connection.receive().expect("answer"));
        assert_eq!(answers.each_ref().map(|answer| answer.status), [302, 404, 302, 302], "round {round}");
        assert_eq!(answers[0].location(), format!("{base}file.iso"));
        assert_eq!(answers[2].location(), format!("{base}folder/inner.bin"));
    }

    // A request in pieces.
    for piece in get("/file.iso", &[PARIS]).as_bytes().chunks(7) {
        connection.send(piece).expect("piece of a request");
    }
    assert_eq!(connection.receive().expect("answer").status, 302);

    // A small body is read and dropped; what follows is the next request.
    connection.send(b"POST /file.iso HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde").expect("POST");
    connection.send(get("/file.iso", &[PARIS]).as_bytes()).expect("GET");
    assert_eq!(connection.receive().expect("answer").status, 405);
    assert_eq!(connection.receive().expect("answer").status, 302);

    connection.send(get("/file.iso", &["Connection: close"]).as_bytes()).expect("last request");
    assert_eq!(connection.receive().expect("answer").status, 302);
    assert!(connection.is_closed());

    let mut old = Connection::open(redirector.address()).expect("connection");
    old.send(b"GET /file.iso HTTP/1.0\r\n\r\n").expect("HTTP/1.0");
    assert_eq!(old.receive().expect("answer").status, 302);
    assert!(old.is_closed(), "HTTP/1.0 closes unless asked to keep alive");
}

#[test]
fn malformed_and_oversized_requests_are_answered_and_harm_nobody() {
    let (redirector, _mirrors) = served();
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(9000));
    let many_fields = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-A: b\r\n".repeat(120));
    let large_head = format!("GET / HTTP/1.1\r\nHost: x\r\nX-A: {}\r\n\r\n", "a".repeat(33_000));
    let cases: [(&str, u16); 13] = [
        ("GET /file.iso HTTP/1.1\r\n\r\n", 400),
        ("GET /file.iso HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        ("GET\r\n\r\n", 400),
        ("GET /file.iso\r\n\r\n", 400),
        ("\u{1}\u{2}\u{3} / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: surprise\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", 413),
        (&long_target, 414),
        (&many_fields, 431),
        (&large_head, 431),
    ];
    for (request, status) in cases {
        let start: String = request.chars().take(60).collect();
        let mut connection = Connection::open(redirector.address()).expect("connection");
        // The server may close before all of a large request is sent.
        let _ = connection.send(request.as_bytes());
        let answer = connection.receive().unwrap_or_else(|e| panic!("{e} after {start:?}"));
        assert_eq!(answer.status, status, "{start:?}");
        assert!(connection.is_closed(), "{start:?}");
    }
    assert_eq!(redirector.get("/file.iso", &[]).status, 302);
}

#[test]
fn fallbacks_answer_when_no_mirror_can() {
    let (redirector, _mirrors) = served_with(|redirector| {
        redirector.set(
            "Fallbacks",
            "[{URL: 'https://far.example/pub', CountryCode: jp}, {URL: near.example, CountryCode: fr}]",
        );
    });
    for name in ["paris", "new-york"] {
        redirector.mirrorbits(&["disable", name]);
    }
    let answer = eventually("a fallback answers", || {
        let answer = redirector.get("/with%20space.txt", &[PARIS]);
        if answer.location().contains("example") { Ok(answer) } else { Err(format!("{answer:?}")) }
    });
    assert_eq!(answer.location(), "https://near.example/with%20space.txt");
    let document = redirector.get("/file.iso", &[PARIS, JSON]).json();
    assert_eq!(document["Fallback"], true);
    assert_eq!(document["MirrorList"][0]["Name"], "fallback1");
}

/// A client that sends nothing, or only half a request, used to keep its connection as long as one between two requests.
#[test]
fn an_unfinished_first_request_is_ended_after_ten_seconds() {
    let mut redirector = Redirector::new();
    redirector.start_without_indexer();
    let started = Instant::now();
    let open = |bytes: &[u8]| {
        let mut client = TcpStream::connect(redirector.address()).expect("connection");
        client.set_read_timeout(Some(Duration::from_secs(30))).expect("timeout");
        client.write_all(bytes).expect("part of a request");
        client
    };
    let (mut silent, mut unfinished) = (open(b""), open(b"GET /file.iso HTT"));
    let mut answer = Vec::new();
    unfinished.read_to_end(&mut answer).expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 408 Request Timeout\r\n"), "{}", answer.escape_ascii());
    assert_eq!(silent.read_to_end(&mut answer).expect("the end"), 0, "there is nothing to say to silence");
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(9) && took < Duration::from_secs(25), "{took:?}");
}
