//! Mirror records of Redis as other programs write them: what is selectable harms no answer.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use mb_core::mirror::{Mirror, MirrorId};
use mb_index::FileIndex;
use mirrorbits::handle::{Handler, Peer, Settings};
use mirrorbits::http::request::{Parsed, parse};
use mirrorbits::http::response::Envelope;
use mirrorbits::select::MirrorTable;
use mirrorbits::snapshot::Snapshot;

use crate::world;

/// Between two fields.
const SEPARATOR: u8 = 0x1e;
const DATE: &[u8; 29] = b"Sun, 22 Nov 2026 12:00:00 GMT";

struct World {
    /// Kept from input to input, as a shard does: its caches take tens of megabytes.
    handler: Handler,
    settings: Arc<Settings>,
    files: Arc<FileIndex>,
    geo: Arc<mb_core::geo::GeoDatabase>,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new({
        let folder = world::folder();
        let snapshot = Arc::new(world::snapshot(folder.path()));
        let Snapshot { settings, files, geo, .. } = &*snapshot;
        World {
            handler: Handler::new(snapshot.clone(), 1),
            settings: settings.clone(),
            files: files.clone().expect("files"),
            geo: geo.clone(),
        }
    });
}

/// Fields `name=value`, separated by 0x1E.
pub fn run(input: &[u8]) {
    let mut fields = HashMap::new();
    for field in input.split(|&byte| byte == SEPARATOR) {
        let equals = field.iter().position(|&byte| byte == b'=').unwrap_or(field.len());
        let (name, value) = field.split_at(equals);
        fields.insert(name.to_owned(), value.get(1..).unwrap_or_default().to_owned());
    }
    let mirror = mb_core::store::fuzzing::mirror(MirrorId(1), b"one", &fields);
    assert_eq!(mirror.id, MirrorId(1));
    // What is put before the shards; one that is refused is disabled, whatever the record says.
    let mut published = mirror.publishable();
    if mirror.invalid().is_none() {
        published.state.enabled = true;
        published.state.http.up = true;
        published.state.https.up = true;
    } else {
        assert!(!published.state.enabled, "an invalid record is enabled");
    }
    WORLD.with_borrow_mut(|world| answer_with(world, published));
}

fn answer_with(world: &mut World, mirror: Mirror) {
    let table = Arc::new(MirrorTable::new(vec![mirror]));
    let snapshot = Snapshot::new(world.settings.clone(), Some(world.files.clone()), table, world.geo.clone());
    world.handler.adopt(Arc::new(snapshot));
    world.handler.reseed(1);
    for target in
        ["/a.iso", "/a.iso?https=1", "/a.iso?https=0", "/a%20b%25%3f&<>'\".iso", "/a.iso?mirrorlist", "/d/e/f"]
    {
        for accept in ["*/*", "application/json"] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n");
            let Parsed::Complete { request, .. } = parse(head.as_bytes()) else { continue };
            let envelope = Envelope { date: DATE, persistence: request.persistence, head_only: false };
            let mut out = Vec::new();
            let outcome = world.handler.handle(&request, Peer::Local, envelope, &mut out);
            if outcome.is_offloaded {
                assert!(out.is_empty());
                if let Some(document) = world.handler.take_document() {
                    check_json(&document.write(false));
                }
                continue;
            }
            let end = out.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
            check_head(&out[..end]);
            let body = &out[end + 4..];
            if accept == "application/json" && body.starts_with(b"{") {
                check_json(body);
            }
        }
    }
}

fn check_json(text: &[u8]) {
    let json = serde_json::from_slice::<serde_json::Value>(text);
    json.unwrap_or_else(|error| panic!("{error}: {}", text.escape_ascii()));
}

fn check_head(head: &[u8]) {
    const KNOWN: &[&str] = &[
        "Date",
        "Server",
        "Location",
        "Link",
        "Content-Length",
        "Content-Type",
        "Vary",
        "Cache-Control",
        "Connection",
        "Last-Modified",
        "Content-Encoding",
    ];
    for line in head.split(|&byte| byte == b'\n').skip(1) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let is_text = line.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
        assert!(is_text, "control bytes in {}", line.escape_ascii());
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(0);
        let name = std::str::from_utf8(&line[..colon]).unwrap_or_default();
        assert!(KNOWN.contains(&name), "an unknown field: {}", line.escape_ascii());
        if name == "Location" {
            let url = line[colon + 1..].trim_ascii();
            let is_url = url.starts_with(b"http://") || url.starts_with(b"https://");
            let is_plain = url.iter().all(|byte| byte.is_ascii_graphic() && !b"\"<>".contains(byte));
            assert!(is_url && is_plain, "no URL: {}", line.escape_ascii());
        }
    }
}
