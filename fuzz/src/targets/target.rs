//! Request targets and repository paths.

use mb_core::path::{clean, is_clean, percent_decode, percent_encode};
use mirrorbits::http::target::{Parameters, Target};

/// The target.
pub fn run(input: &[u8]) {
    check_path(input);
    let Some(target) = Target::parse(input) else { return };
    assert!(target.path.starts_with(b"/"), "a path without a slash");
    assert!(!target.path.contains(&b'?'), "a path with a query");
    let parameters = Parameters::of(&target);
    assert_eq!(parameters, Parameters::of(&target));
    let length: usize = target.parameters().map(|(name, value)| name.len() + value.len()).sum();
    assert!(length <= input.len(), "parameters are more than the target");
    check_path(target.path);
}

fn check_path(path: &[u8]) {
    let mut decoded = Vec::new();
    let is_valid = percent_decode(path, &mut decoded).is_ok();
    assert!(decoded.len() <= path.len(), "decoding makes it longer");
    if !path.contains(&b'%') {
        assert!(is_valid && decoded == path, "what is not escaped is changed");
    }
    let cleaned = clean(&decoded);
    assert!(is_clean(&cleaned), "{} is not clean", cleaned.escape_ascii());
    assert_eq!(clean(&cleaned), cleaned, "cleaning twice changes it");
    assert!(cleaned.len() <= decoded.len() + 1, "cleaning makes it longer");
    assert_eq!(is_clean(&decoded), cleaned == decoded, "{}", decoded.escape_ascii());
    let is_above = |segment: &[u8]| matches!(segment, b".." | b".");
    assert!(!cleaned.split(|&byte| byte == b'/').any(is_above), "{} climbs", cleaned.escape_ascii());
    let mut encoded = Vec::new();
    percent_encode(&cleaned, &mut encoded);
    let is_safe = |byte: &u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}?#[] ".contains(byte);
    assert!(encoded.iter().all(is_safe), "{} is no path of a URL", encoded.escape_ascii());
    let mut again = Vec::new();
    assert!(percent_decode(&encoded, &mut again).is_ok(), "what was encoded cannot be decoded");
    assert_eq!(again, cleaned, "encoding loses something");
}
