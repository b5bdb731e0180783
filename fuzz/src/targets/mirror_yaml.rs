//! Mirrors in YAML: what `apply` and `edit` read.

use mb_core::mirror::{Mirror, MirrorId, MirrorSettings, MirrorState};
use mirrorbits::control::mirror_documents::{read_edited, read_list};
use mirrorbits::control::mirror_fields::to_yaml;

/// The text, read as a list and as an edited mirror.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match read_list(text) {
        Ok(listed) => {
            for mirror in listed {
                let mut changed = plain();
                if let Err(error) = mirror.apply_to(&mut changed) {
                    check_message(&error.to_string());
                }
            }
        }
        Err(error) => check_message(&error.to_string()),
    }
    let mut changed = plain();
    match read_edited(text, &mut changed) {
        Ok(()) => {
            // Printed and read again it is the same; a comment is kept without the white space around it.
            changed.settings.comment = changed.settings.comment.trim().to_owned();
            let mut again = plain();
            let yaml = to_yaml(&changed);
            read_edited(&yaml, &mut again).unwrap_or_else(|error| panic!("{error} in what was printed: {yaml:?}"));
            // Numbers that are none are not equal to themselves.
            if changed.settings.latitude.is_finite() && changed.settings.longitude.is_finite() {
                assert_eq!(again, changed, "{yaml:?}");
            }
        }
        Err(error) => check_message(&error.to_string()),
    }
}

/// An error says where and what is allowed; it repeats little of the document.
fn check_message(message: &str) {
    assert!(message.len() < 4096, "a message of {} bytes", message.len());
    assert!(!message.contains(|c: char| c.is_control() && c != '\n'), "control characters: {message:?}");
}

fn plain() -> Mirror {
    let settings =
        MirrorSettings { name: "a".to_owned(), http_url: "http://a.example/".to_owned(), ..Default::default() };
    Mirror { id: MirrorId(1), settings, state: MirrorState::default() }
}
