//! A request is only ever sent to a mirror that really has that version of the file.
//!
//! Three mirrors, in three ways imperfect: one lacks files, one has a file of another size, one has a file of another
//! modification time. What each of them really has is read from its folder, not from anything the programs say.

use std::collections::BTreeSet;
use std::path::Path;

use crate::harness::host::Place;
use crate::harness::http::Response;
use crate::harness::redirector::Redirector;
use crate::harness::servers::{MirrorSite, MirrorSites};
use crate::harness::tree::{self, USUAL_TIME};

const PLACES: [Place; 4] = [Place::Paris, Place::NewYork, Place::Tokyo, Place::Nowhere];

/// Requests for each file from each place: with three mirrors that share the load, a wrong one that is drawn one time in
/// ten escapes 20 draws once in eight.
const REPEATS: usize = 20;

const FILES: [&str; 6] = [
    "everywhere.iso",
    "pool/main/everywhere_1.0.deb",
    "gone-from-lacking.iso",
    "gone/whole folder/file.bin",
    "other size.iso",
    "other-time.iso",
];

#[test]
fn requests_go_only_to_mirrors_that_have_this_version() {
    let mut redirector = Redirector::new();
    redirector.set("MaxLinkHeaders", 10);
    let source = redirector.repository();
    for name in FILES {
        tree::write(&source, name, format!("content of {name}").as_bytes(), USUAL_TIME);
    }
    let mirrors = MirrorSites::start(
        redirector.folder(),
        &[("lacking", Place::Paris), ("resized", Place::NewYork), ("retimed", Place::Tokyo)],
    );
    for site in &mirrors.sites {
        tree::copy(&source, &site.root);
    }
    let lacking = &mirrors.site("lacking").root;
    std::fs::remove_file(lacking.join("gone-from-lacking.iso")).expect("removal");
    std::fs::remove_dir_all(lacking.join("gone")).expect("removal");
    tree::write(&mirrors.site("resized").root, "other size.iso", b"another length", USUAL_TIME);
    tree::set_modified(&mirrors.site("retimed").root.join("other-time.iso"), USUAL_TIME - 60);

    redirector.start();
    redirector.scan_repository();
    for site in &mirrors.sites {
        redirector.use_mirror(site);
    }

    for name in FILES {
        let having: BTreeSet<&str> = mirrors
            .sites
            .iter()
            .filter(|site| is_same_version(&source.join(name), &site.root.join(name)))
            .map(|site| site.name.as_str())
            .collect();
        assert!(having.len() >= 2, "the test is to leave a choice for {name}: {having:?}");
        assert_only_named(&redirector, &mirrors.sites, name, &having);
    }
}

/// Asks for a file again and again in all ways and demands that all of `having`, and nothing else, is ever named.
fn assert_only_named(redirector: &Redirector, sites: &[MirrorSite], name: &str, having: &BTreeSet<&str>) {
    let target = format!("/{}", name.replace(' ', "%20"));
    let mut sent_to = BTreeSet::new();
    let mut named = BTreeSet::new();
    for place in PLACES {
        let client = format!("X-Forwarded-For: {}", place.client());
        for _ in 0..REPEATS {
            let redirect = redirector.get(&target, &[&client]);
            assert_eq!(redirect.status, 302, "{name}: {redirect:?}");
            sent_to.insert(owner(sites, redirect.location()));
            named.extend(linked(&redirect).into_iter().map(|url| owner(sites, url)));

            let document = redirector.get(&target, &[&client, "Accept: application/json"]).json();
            for mirror in document["MirrorList"].as_array().expect("MirrorList") {
                let site = owner(sites, mirror["AbsoluteURL"].as_str().expect("AbsoluteURL"));
                assert_eq!(mirror["Name"].as_str(), Some(site));
                named.insert(site);
            }
        }
    }
    assert!(sent_to.is_subset(having), "{name} is on {having:?}, yet requests went to {sent_to:?}");
    assert_eq!(&named, having, "{name}: mirrors named in Link headers and JSON");
}

/// The URLs of the Link header fields.
fn linked(response: &Response) -> Vec<&str> {
    let links = response.all("Link");
    assert!(!links.is_empty(), "no Link in {response:?}");
    links.iter().map(|link| link.split_once('<').and_then(|(_, rest)| rest.split_once('>')).expect("<URL>").0).collect()
}

fn owner<'a>(sites: &'a [MirrorSite], url: &str) -> &'a str {
    let owner = sites.iter().find(|site| url.starts_with(&site.http_url()));
    &owner.unwrap_or_else(|| panic!("{url} leads to no mirror")).name
}

fn is_same_version(source: &Path, copy: &Path) -> bool {
    let Ok(copy) = copy.metadata() else { return false };
    let source = source.metadata().expect("source file");
    source.len() == copy.len() && source.modified().expect("time") == copy.modified().expect("time")
}
