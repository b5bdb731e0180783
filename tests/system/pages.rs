//! The pages for people: what they show, to whom, and that they cost downloads nothing.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use crate::harness::eventually;
use crate::harness::host::Place;
use crate::harness::http::{Connection, Response};
use crate::harness::near_and_far;
use crate::harness::redirector::{Redirector, get};
use crate::harness::redis::Redis;

const LIST: &str = "/file.iso?mirrorlist";
const ALL: &str = "/?mirrorstats";
const JSON: &str = "Accept: application/json";

fn from(place: Place) -> String {
    format!("X-Forwarded-For: {}", place.client())
}

/// The page at `target`, which must be one.
#[track_caller]
fn page(redirector: &Redirector, target: &str, headers: &[&str]) -> Response {
    let page = redirector.get(target, headers);
    assert_eq!(page.status, 200, "{page:?}");
    assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("Cache-Control"), Some("private, no-cache"));
    page
}

/// What a page says, with its escapes undone as far as addresses need it.
fn said(page: &Response) -> String {
    page.text().replace("&#x2f;", "/")
}

/// The part of a page from its table `id` on, up to the end of that table.
#[track_caller]
fn table<'p>(page: &'p str, id: &str) -> &'p str {
    let start = page.find(&format!("<caption id=\"{id}\">")).unwrap_or_else(|| panic!("no table {id} in {page}"));
    page[start..].split("</table>").next().unwrap_or_default()
}

#[test]
fn the_mirrors_of_a_file_are_shown_as_the_client_sees_them() {
    let mut redirector = Redirector::new();
    redirector.set("Hashes", "{SHA256: On, SHA1: On, MD5: On}");
    let (_mirrors, copies) = near_and_far::start(&mut redirector);
    redirector.mirrorbits(&["set", "near", "SponsorName=Near & Co", "SponsorURL=https://near.example/?a&b"]);

    let near = eventually("the sponsor is shown", || {
        let shown = said(&page(&redirector, LIST, &[&from(Place::Paris)]));
        if shown.contains("Near &amp; Co") { Ok(shown) } else { Err(shown) }
    });
    for part in [
        "<title>Mirrors of file.iso</title>",
        "<dd>/file.iso</dd>",
        "<dd>7 B</dd>",
        "2024-05-06 07:08:09 UTC",
        "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73",
        "Paris, France",
        "AS64496",
        "href=\"https://near.example/?a&amp;b\"",
    ] {
        assert!(near.contains(part), "`{part}` is missing in {near}");
    }
    let mirrors = table(&near, "mirrors");
    let place = |text: &str| mirrors.find(text).unwrap_or_else(|| panic!("`{text}` is missing in {mirrors}"));
    assert!(place("100 %") < place(&copies[0]) && place(&copies[0]) < place(&copies[1]), "the best first: {mirrors}");

    let elsewhere = format!("{LIST}&fromip={}", Place::Tokyo.client());
    let far = said(&page(&redirector, &elsewhere, &[&from(Place::Paris)]));
    assert!(far.contains("Tokyo, Japan") && !far.contains("Paris, France"), "{far}");
    assert!(table(&far, "mirrors").find(&copies[1]) < table(&far, "mirrors").find(&copies[0]), "{far}");
    let unknown = said(&page(&redirector, LIST, &[&from(Place::Nowhere)]));
    assert!(unknown.contains("It is not known where the client is"), "{unknown}");
    assert_eq!(redirector.get(&format!("{LIST}&fromip=nowhere"), &[]).status, 400);
    assert_eq!(redirector.get("/none?mirrorlist", &[]).status, 404);

    redirector.mirrorbits(&["disable", "far"]);
    let left_out = eventually("the disabled mirror is left out", || {
        let shown = said(&page(&redirector, LIST, &[&from(Place::Paris)]));
        if shown.contains("id=\"excluded\"") { Ok(shown) } else { Err(shown) }
    });
    assert!(table(&left_out, "excluded").contains("<td>Disabled</td>"), "{left_out}");
    assert!(!table(&left_out, "mirrors").contains(&copies[1]), "{left_out}");
}

#[test]
fn fallbacks_are_shown_in_the_place_of_mirrors() {
    let mut redirector = Redirector::new();
    redirector.set("Fallbacks", "[{URL: 'http://fallback.example.org/', CountryCode: fr}]");
    redirector.start_without_indexer();
    let shown = said(&page(&redirector, LIST, &[&from(Place::Paris)]));
    assert!(table(&shown, "mirrors").contains("href=\"http://fallback.example.org/file.iso\""), "{shown}");
    assert!(shown.contains("These servers do in their place"), "{shown}");
}

#[test]
fn heads_compression_and_pipelines_are_those_of_any_answer() {
    let mut redirector = Redirector::new();
    redirector.set("Gzip", "true");
    let (_mirrors, copies) = near_and_far::start(&mut redirector);
    let client = from(Place::Paris);
    for target in [LIST, ALL] {
        for headers in [vec![client.as_str()], vec![client.as_str(), JSON]] {
            let plain = redirector.get(target, &headers);
            let zipped = redirector.get(target, &[headers.clone(), vec!["Accept-Encoding: gzip"]].concat());
            assert_eq!((plain.header("Content-Encoding"), zipped.header("Content-Encoding")), (None, Some("gzip")));
            assert!(zipped.body.len() < plain.body.len());
            let mut unzipped = String::new();
            flate2::read::GzDecoder::new(&zipped.body[..]).read_to_string(&mut unzipped).expect("gzip");
            assert_eq!(without_ages(&unzipped), without_ages(plain.text()));
        }
    }

    // Each in its turn, and those behind a page wait for it.
    let mut connection = Connection::open(redirector.address()).expect("connection");
    let head = get(ALL, &[&client]).replace("GET", "HEAD");
    let redirect = get("/file.iso", &[&client]);
    let page = get(LIST, &[&client]);
    let requests = [redirect.as_str(), &page, &redirect, &head, &redirect, &page, &page, &redirect];
    connection.send(requests.concat().as_bytes()).expect("requests");
    for request in requests {
        if request == head {
            let answer = connection.receive_head().expect("an answer");
            let length: usize = answer.header("Content-Length").and_then(|text| text.parse().ok()).expect("a length");
            assert!(answer.status == 200 && length > 1000, "{answer:?}");
        } else {
            let answer = connection.receive().expect("an answer");
            match request == redirect {
                true => assert_eq!(answer.location(), copies[0]),
                false => assert!(said(&answer).contains("Mirrors of file.iso"), "{answer:?}"),
            }
        }
    }
    connection.send(get(LIST, &["Connection: close"]).as_bytes()).expect("request");
    assert_eq!(connection.receive().expect("an answer").header("Connection"), Some("close"));
    assert!(connection.is_closed());
}

/// A text without what depends on the second it was made in.
fn without_ages(text: &str) -> String {
    let lines = text
        .split_inclusive(['\n', ','])
        .filter(|line| !["ago", "just now", "As of", "\"Time\""].iter().any(|age| line.contains(age)));
    lines.collect()
}

#[test]
fn private_fields_are_shown_only_when_that_is_configured() {
    let mut redirector = Redirector::new();
    let (mirrors, _) = near_and_far::start(&mut redirector);
    let rsync = mirrors.site("near").rsync_url();
    redirector.mirrorbits(&["set", "near", "AdminEmail=admin@near.example", "Comment=secret"]);
    let answers = |redirector: &Redirector| -> Vec<String> {
        let requests = [(LIST, ""), (LIST, JSON), (ALL, ""), (ALL, JSON)];
        let answer = |(target, accept): (&str, &str)| match accept {
            "" => said(&page(redirector, target, &[])),
            accept => redirector.get(target, &[accept]).text().to_owned(),
        };
        requests.into_iter().map(answer).collect()
    };
    for answer in answers(&redirector) {
        for private in [&rsync, "admin@near.example", "secret"] {
            assert!(!answer.contains(private), "{private} in {answer}");
        }
    }
    redirector.set("ExposePrivateFields", "true").config_file();
    redirector.mirrorbits(&["reload"]);
    eventually("all of them are shown", || match answers(&redirector) {
        all if all.iter().all(|answer| answer.contains(&rsync)) && all[2].contains("secret") => Ok(()),
        all => Err(all.join("\n")),
    });
}

/// What a mirror is called is written by its operator, and read by anybody.
#[test]
fn text_of_mirrors_does_no_harm() {
    let mut redirector = Redirector::new();
    let _mirrors = near_and_far::start(&mut redirector);
    let script = "<script>alert(1)</script>";
    redirector.mirrorbits(&["set", "near", &format!("SponsorName={script}"), "SponsorURL=javascript:alert(1)"]);
    redirector.mirrorbits(&[
        "set",
        "far",
        &format!("SponsorName=\"'>{script}"),
        "SponsorURL=https://x/\"onclick=alert(1)",
    ]);
    redirector.mirrorbits(&["add", "-http", "http://third.example/", "<script>alert(2)<script>"]);
    for target in [LIST, ALL] {
        let shown = eventually("the sponsors are shown", || {
            let shown = page(&redirector, target, &[]).text().to_owned();
            if shown.contains("&lt;script&gt;alert(1)") { Ok(shown) } else { Err(shown) }
        });
        for harm in ["<script", "javascript:", "\"onclick"] {
            assert!(!shown.contains(harm), "{harm} in {shown}");
        }
    }
    let refused = redirector.get(&format!("{LIST}&fromip=%3Cscript%3E"), &[]);
    assert_eq!((refused.status, refused.text().contains('<')), (400, false));
}

/// The number that `mirrorbits stats` prints for a mirror's downloads.
fn printed(redirector: &Redirector, mirror: &str) -> u64 {
    let text = redirector.mirrorbits(&["stats", "mirror", mirror]);
    let line = text.lines().find(|line| line.starts_with("Download requests:")).expect("a count");
    line.split_whitespace().last().and_then(|word| word.parse().ok()).expect("a number")
}

/// The redirects to `near` and `far` in the download log, which ends with one to `last`.
fn logged(redirector: &Redirector, last: &str) -> [u64; 2] {
    let file = redirector.folder().join("downloads.log");
    let log = eventually("the last redirect is logged", || {
        let log = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
        if log.contains(&format!("ip:{last} ")) { Ok(log) } else { Err(log) }
    });
    assert!(!log.contains(&format!("ip:{} ", VIEWER)), "pages are not logged: {log}");
    ["near", "far"].map(|name| log.lines().filter(|line| line.contains(&format!(" mirror:{name} "))).count() as u64)
}

/// A client that only looks at pages.
const VIEWER: &str = "192.0.2.3";

#[test]
fn counts_are_those_of_the_command_line_in_both_stores() {
    for with_redis in [false, true] {
        let mut redirector = Redirector::new();
        let redis = with_redis.then(|| Redis::start(redirector.folder()));
        if let Some(redis) = &redis {
            redirector.set("Database", "redis").set("RedisAddress", redis.address());
        }
        let folder = redirector.folder().display().to_string();
        redirector.set("LogDir", folder);
        let _mirrors = near_and_far::start(&mut redirector);
        for target in [LIST, ALL] {
            page(&redirector, target, &[&format!("X-Forwarded-For: {VIEWER}")]);
        }
        for client in [Place::Tokyo.client(), "192.0.2.4"] {
            assert_eq!(redirector.get("/file.iso", &[&format!("X-Forwarded-For: {client}")]).status, 302);
        }
        let expected = logged(&redirector, "192.0.2.4");
        eventually("the downloads are counted", || match ["near", "far"].map(|name| printed(&redirector, name)) {
            counted if counted == expected => Ok(()),
            counted => Err(format!("{counted:?} instead of {expected:?}")),
        });
        let document = eventually("the downloads are shown", || {
            let document = redirector.get(ALL, &[JSON]).json();
            let downloads = &document["Today"]["Downloads"];
            if *downloads == expected.iter().sum::<u64>() { Ok(document) } else { Err(document.to_string()) }
        });
        let [far, near] = [0, 1].map(|place| &document["MirrorList"][place]);
        assert_eq!((far["Name"].as_str(), near["Name"].as_str()), (Some("far"), Some("near")));
        for span in ["Today", "Month", "Total"] {
            assert_eq!([near, far].map(|mirror| mirror[span]["Downloads"].as_u64()), expected.map(Some));
            assert_eq!(near[span]["Bytes"], 7 * expected[0], "of a file of 7 bytes");
            let shares = [near, far].map(|mirror| mirror[span]["DownloadsShare"].as_f64().expect("a share"));
            assert!((shares[0] + shares[1] - 100.0).abs() < 0.01, "{document}");
        }
        assert_eq!((&near["State"], &near["LastSuccessfulSyncProtocol"]), (&"up".into(), &0.into()));
        let shown = said(&page(&redirector, ALL, &[]));
        let row = table(&shown, "downloads").split("<tr>").find(|row| row.contains(">near</th>")).expect("a row");
        assert!(row.contains(&format!("<td class=\"number\">{}<span", expected[0])), "{row}");
        assert!(table(&shown, "states").contains("by rsync"), "{shown}");
    }
}

/// The mirrors and their states are in memory. Only the counts need the store, and their page says so.
#[test]
fn pages_are_there_while_the_store_is_not() {
    let mut redirector = Redirector::new();
    let mut redis = Redis::start(redirector.folder());
    redirector.set("Database", "redis").set("RedisAddress", redis.address());
    let _mirrors = near_and_far::start(&mut redirector);
    redirector.mirrorbits(&["disable", "far"]);
    let without_counts = |redirector: &Redirector| {
        eventually("the page has no counts", || {
            let shown = page(redirector, ALL, &[]).text().to_owned();
            if shown.contains("not available at the moment") { Ok(shown) } else { Err(shown) }
        })
    };
    redis.signal(Signal::STOP);
    let shown = without_counts(&redirector);
    assert!(shown.contains("near") && shown.contains("disabled"), "{shown}");
    assert!(said(&page(&redirector, LIST, &[])).contains("Mirrors of file.iso"), "it needs no store");
    redis.signal(Signal::CONT);
    eventually("the counts are back", || match redirector.get(ALL, &[JSON]).json() {
        document if document["Today"].is_object() => Ok(()),
        document => Err(document.to_string()),
    });

    redis.kill();
    without_counts(&redirector);
    let document = redirector.get(ALL, &[JSON]).json();
    assert_eq!((document.get("Today"), document["MirrorList"][1]["Name"].as_str()), (None, Some("near")));
    redis.start_again();
    eventually("the counts are back", || match redirector.get(ALL, &[JSON]).json() {
        document if document["Total"].is_object() => Ok(()),
        document => Err(document.to_string()),
    });
}

/// More pages at once than anybody waits for: each is answered, or refused, and downloads go on all the while.
#[test]
fn a_crowd_that_looks_at_pages_holds_up_no_download() {
    let mut redirector = Redirector::new();
    let (_mirrors, copies) = near_and_far::start(&mut redirector);
    let client = from(Place::Paris);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let downloads = scope.spawn(|| {
            let mut connection = Connection::open(redirector.address()).expect("connection");
            let mut answered = 0;
            while !is_over.load(Ordering::Relaxed) {
                connection.send(get("/file.iso", &[&client]).as_bytes()).expect("request");
                assert_eq!(connection.receive().expect("an answer").location(), copies[0]);
                answered += 1;
            }
            answered
        });
        let mut crowd: Vec<_> = (0..300).map(|_| Connection::open(redirector.address()).expect("connection")).collect();
        for (number, connection) in crowd.iter_mut().enumerate() {
            connection.send(get([LIST, ALL][number % 2], &[&client]).as_bytes()).expect("request");
        }
        let mut shown = 0;
        for connection in &mut crowd {
            let answer = connection.receive().expect("an answer");
            match answer.status {
                200 => shown += 1,
                503 => assert!(answer.header("Retry-After").is_some(), "{answer:?}"),
                _ => panic!("{answer:?}"),
            }
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(shown > 0 && downloads.join().expect("downloads") > 0);
    });
}
