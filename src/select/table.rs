//! The mirrors of one generation, with everything worked out that does not depend on a request.

use std::sync::Arc;

use mb_core::mirror::{DownloadProtocol, Mirror, MirrorId, UrlScheme, absolute_url, is_harmless_url};
use mb_core::time::Timestamp;

use super::distance::{Point, Position};

/// A country or continent code, comparable in one instruction.
///
/// The geo databases know two-letter codes only. A code of a mirror that is no two ASCII characters can therefore never
/// match a client; all such codes are [`Code::FOREIGN`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Code(u16);

impl Code {
    /// No code.
    pub const NONE: Code = Code(0);
    /// A code that no client has.
    pub const FOREIGN: Code = Code(1);

    /// The code written as `text`.
    pub fn of(text: &str) -> Code {
        match text.as_bytes() {
            [] => Code::NONE,
            &[first, second] if first.is_ascii_graphic() && second.is_ascii_graphic() => {
                Code(u16::from_be_bytes([first, second]))
            }
            _ => Code::FOREIGN,
        }
    }
}

/// A mirror, prepared.
#[derive(Clone, Debug)]
pub struct TableMirror {
    /// The record.
    pub mirror: Mirror,
    /// What its URL offers.
    pub scheme: UrlScheme,
    /// Its base URL for downloads over HTTP; meaningless when that is not offered.
    pub http_url: String,
    /// Its base URL for downloads over HTTPS; meaningless when that is not offered.
    pub https_url: String,
    /// Where it is.
    pub position: Position,
    /// The continent it stands on.
    pub continent: Code,
    /// Countries; the first one is where it stands.
    pub countries: Vec<Code>,
    /// Countries whose clients it does not serve.
    pub excluded_countries: Vec<Code>,
}

impl TableMirror {
    /// The publisher leaves invalid records out. Should a published table hold a URL or a country, the two values that
    /// header fields show, that could end a header line all the same, its mirror is not selectable.
    fn new(mut mirror: Mirror) -> TableMirror {
        let settings = &mirror.settings;
        let harmless_countries =
            settings.country_codes.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | ',' | '-'));
        if !is_harmless_url(&settings.http_url) || !harmless_countries {
            mirror.settings.http_url.clear();
            mirror.settings.country_codes.clear();
            mirror.state.enabled = false;
        }
        let settings = &mirror.settings;
        let codes = |text: &str| text.split_ascii_whitespace().map(Code::of).collect::<Vec<_>>();
        TableMirror {
            scheme: UrlScheme::of(&settings.http_url),
            http_url: absolute_url(&settings.http_url, DownloadProtocol::Http),
            https_url: absolute_url(&settings.http_url, DownloadProtocol::Https),
            position: Point { latitude: settings.latitude, longitude: settings.longitude }.into(),
            continent: Code::of(&settings.continent_code),
            countries: codes(&settings.country_codes),
            excluded_countries: codes(&settings.excluded_country_codes),
            mirror,
        }
    }

    /// Base URL for downloads by `protocol`.
    pub fn url(&self, protocol: DownloadProtocol) -> &str {
        match protocol {
            DownloadProtocol::Http => &self.http_url,
            DownloadProtocol::Https => &self.https_url,
        }
    }

    /// Whether downloads by `protocol` are offered and the latest check found them working.
    pub fn is_up(&self, protocol: DownloadProtocol) -> bool {
        self.scheme.offers(protocol) && self.mirror.state.health(protocol).up
    }

    /// The country it stands in.
    pub fn first_country(&self) -> Code {
        self.countries.first().copied().unwrap_or(Code::NONE)
    }
}

/// Where a table comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The generation's number.
    pub generation: u64,
    /// When it was published.
    pub at: Timestamp,
}

/// What a redirect shows of a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown<'t> {
    /// Base URL.
    pub url: &'t [u8],
    /// Lower-case first country; empty when unknown.
    pub geo_label: &'t [u8],
}

/// What redirects show of all mirrors, side by side: a redirect names a few random ones, and would wait for the memory of
/// each record.
#[derive(Clone, Debug, Default)]
struct Texts {
    bytes: Vec<u8>,
    /// By row, over HTTP and over HTTPS.
    places: Vec<[TextPlace; 2]>,
}

/// Where in the bytes a URL starts, where it ends and the label starts, and where that ends.
#[derive(Clone, Copy, Debug)]
struct TextPlace {
    start: u32,
    label: u32,
    end: u32,
}

impl Texts {
    fn of(rows: &[TableMirror]) -> Texts {
        let mut texts = Texts::default();
        for row in rows {
            let countries = row.mirror.settings.country_codes.split_ascii_whitespace();
            let label = countries.clone().next().unwrap_or_default().to_ascii_lowercase();
            let mut add = |url: &str| {
                let start = texts.bytes.len() as u32;
                texts.bytes.extend_from_slice(url.as_bytes());
                let middle = texts.bytes.len() as u32;
                texts.bytes.extend_from_slice(label.as_bytes());
                TextPlace { start, label: middle, end: texts.bytes.len() as u32 }
            };
            texts.places.push([add(&row.http_url), add(&row.https_url)]);
        }
        texts
    }

    #[expect(clippy::indexing_slicing, reason = "a panic is better than a redirect to another mirror, or to none")]
    fn get(&self, row: u32, protocol: DownloadProtocol) -> Shown<'_> {
        let of_row = &self.places[row as usize];
        let TextPlace { start, label, end } = match protocol {
            DownloadProtocol::Http => of_row[0],
            DownloadProtocol::Https => of_row[1],
        };
        let (start, label, end) = (start as usize, label as usize, end as usize);
        Shown { url: &self.bytes[start..label], geo_label: &self.bytes[label..end] }
    }
}

/// All mirrors of a generation by ascending id. A mirror's place in it is its *row*.
#[derive(Clone, Debug, Default)]
pub struct MirrorTable {
    rows: Vec<TableMirror>,
    texts: Texts,
    /// The ids by row, for those who keep rows for longer than the table.
    ids: Arc<[MirrorId]>,
    /// Numbers of all autonomous systems that a mirror stands in, ascending.
    asns: Vec<u32>,
    published: Option<Published>,
}

impl MirrorTable {
    /// Prepares `mirrors`.
    pub fn new(mut mirrors: Vec<Mirror>) -> MirrorTable {
        mirrors.sort_by_key(|mirror| mirror.id);
        let rows: Vec<_> = mirrors.into_iter().map(TableMirror::new).collect();
        let ids = rows.iter().map(|row| row.mirror.id).collect();
        let mut asns: Vec<u32> = rows.iter().map(|row| row.mirror.settings.asn).filter(|&asn| asn != 0).collect();
        asns.sort_unstable();
        asns.dedup();
        MirrorTable { texts: Texts::of(&rows), rows, ids, asns, published: None }
    }

    /// The same table, as one that comes from a generation of the index.
    pub fn published(self, generation: u64, at: Timestamp) -> MirrorTable {
        MirrorTable { published: Some(Published { generation, at }), ..self }
    }

    /// The generation that it comes from; `None` for one that was made otherwise.
    pub fn generation(&self) -> Option<Published> {
        self.published
    }

    /// How many mirrors there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no mirror.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The mirror in `row`, which must be below [`MirrorTable::len`].
    #[expect(clippy::indexing_slicing, reason = "a panic is better than the facts of another mirror")]
    pub fn row(&self, row: u32) -> &TableMirror {
        &self.rows[row as usize]
    }

    /// What a redirect to the mirror in `row`, which must be below [`MirrorTable::len`], shows of it.
    pub fn shown(&self, row: u32, protocol: DownloadProtocol) -> Shown<'_> {
        self.texts.get(row, protocol)
    }

    /// All mirrors in row order.
    pub fn rows(&self) -> &[TableMirror] {
        &self.rows
    }

    /// The ids of all mirrors in row order.
    pub fn ids(&self) -> &Arc<[MirrorId]> {
        &self.ids
    }

    /// The row of the mirror `id`.
    pub fn find(&self, id: MirrorId) -> Option<u32> {
        self.rows.binary_search_by_key(&id, |row| row.mirror.id).ok().map(|row| row as u32)
    }

    /// A number, from 1 up, for the autonomous system `asn` if a mirror stands in it. Clients of all other ones are alike to
    /// the rules.
    pub fn place_of_asn(&self, asn: u32) -> Option<u32> {
        self.asns.binary_search(&asn).ok().map(|place| (place as u32).wrapping_add(1))
    }
}

#[cfg(test)]
mod tests {
    use mb_core::mirror::{Health, MirrorSettings, MirrorState};

    use super::*;

    fn row(http_url: &str, country_codes: &str) -> TableMirror {
        let settings = MirrorSettings {
            name: "m".into(),
            http_url: http_url.into(),
            country_codes: country_codes.into(),
            ..MirrorSettings::default()
        };
        let up = Health { up: true, down_reason: String::new() };
        let state = MirrorState { enabled: true, http: up.clone(), https: up, ..MirrorState::default() };
        TableMirror::new(Mirror { id: MirrorId(1), settings, state })
    }

    /// A table that another program made, or a damaged one, could put header fields of its own into each redirect.
    #[test]
    fn a_row_that_could_split_an_answer_is_not_selectable() {
        assert!(row("http://a.example/", "FR DE").mirror.state.enabled);
        for url in
            ["http://a/\r\nSet-Cookie: x=y/", "http://a/\n/", "http://a/\0/", "http://a b/", "http://a/>/", "\u{85}/"]
        {
            let row = row(url, "FR");
            assert!(!row.mirror.state.enabled, "{url:?}");
            for url in [&row.mirror.settings.http_url, &row.http_url, &row.https_url] {
                assert!(is_harmless_url(url), "{url:?}");
            }
        }
        for codes in ["FR\r\nSet-Cookie:x=y", "F\0", "\"", "FR;geo=x", "é"] {
            let table = MirrorTable::new(vec![row("http://a.example/", codes).mirror]);
            assert!(!table.row(0).mirror.state.enabled, "{codes:?}");
            assert_eq!(table.shown(0, DownloadProtocol::Http).geo_label, b"", "{codes:?}");
        }
    }
}
