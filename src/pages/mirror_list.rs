//! What the template of a mirror list gets to see: the document that clients of JSON get, and a few members that only a page
//! needs.

use mb_core::path;
use mb_core::time::Timestamp;
use serde_json::{Map, Value, json};

use crate::http::date::append_rfc3339;

/// Members that a page may turn into links. They are free text, so that one may hold more than an address.
const LINKS: [&str; 2] = ["SponsorURL", "SponsorLogoURL"];

/// The members for the mirror list of the file at `path` from its `document`, at the time `now`.
///
/// # Errors
/// The document is no JSON object.
pub fn context(document: &[u8], path: &[u8], now: Timestamp) -> serde_json::Result<Map<String, Value>> {
    let mut members: Map<String, Value> = serde_json::from_slice(document)?;
    withhold_unsafe_links(&mut members);
    let mut encoded = Vec::new();
    path::percent_encode(path.strip_prefix(b"/").unwrap_or(path), &mut encoded);
    members.insert("URLPath".to_owned(), json!(String::from_utf8_lossy(&encoded)));
    let mut time = Vec::new();
    append_rfc3339(&mut time, now.0, 0);
    members.insert("Time".to_owned(), json!(String::from_utf8_lossy(&time)));
    Ok(members)
}

/// Empties what is no web address in the members of all mirrors that pages turn into links: escaping does not keep
/// `javascript:…` from being one.
pub fn withhold_unsafe_links(members: &mut Map<String, Value>) {
    let lists = members.iter_mut().filter(|(name, _)| ["MirrorList", "ExcludedList"].contains(&name.as_str()));
    let mirrors = lists.filter_map(|(_, list)| list.as_array_mut()).flatten();
    for mirror in mirrors.filter_map(Value::as_object_mut) {
        let links = mirror.iter_mut().filter(|(name, _)| LINKS.contains(&name.as_str()));
        for (_, link) in links.filter(|(_, link)| !link.as_str().is_some_and(is_web_address)) {
            *link = json!("");
        }
    }
}

/// Whether `url` leads to a web page and nowhere else.
fn is_web_address(url: &str) -> bool {
    let starts_with = |scheme: &str| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    starts_with("http://") || starts_with("https://")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_page_knows_how_the_file_is_named_in_urls() {
        let members = context(b"{\"IP\":\"::1\"}", b"/pool/a b\xff.iso", Timestamp(0)).unwrap();
        let expected = json!({"IP": "::1", "URLPath": "pool/a%20b%FF.iso", "Time": "1970-01-01T00:00:00Z"});
        assert_eq!(Value::Object(members), expected);
        assert!(context(b"[]", b"/", Timestamp(0)).is_err());
    }

    #[test]
    fn links_lead_to_web_pages_only() {
        for list in ["MirrorList", "ExcludedList"] {
            let kept = |url: &str| {
                let mut document = json!({list: [{"SponsorURL": url, "SponsorLogoURL": url, "Name": url}]});
                withhold_unsafe_links(document.as_object_mut().unwrap());
                assert_eq!(document[list][0]["SponsorURL"], document[list][0]["SponsorLogoURL"]);
                assert_eq!(document[list][0]["Name"], url);
                document[list][0]["SponsorURL"] == url
            };
            assert!(kept("https://sponsor.example/") && kept("HTTP://sponsor.example/"));
            for other in
                ["javascript:alert(1)", " javascript:alert(1)", "data:text/html,x", "//host/", "sponsor.example", "h"]
            {
                assert!(!kept(other), "{other}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_passes_has_the_scheme_of_the_web(url in "(?i)(https?|java|data)?:?/{0,2}.{0,9}") {
            let lower = url.to_ascii_lowercase();
            prop_assert_eq!(is_web_address(&url), lower.starts_with("http://") || lower.starts_with("https://"));
        }
    }
}
