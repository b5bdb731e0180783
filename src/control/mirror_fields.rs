//! A mirror as keys and values: what `show` prints, `set` takes and differences are told in.
//!
//! The printed form is YAML, one key per line in a fixed order, then a marker line and the comment as it is.

use std::fmt::Write as _;

use mb_core::foreign_text::ForeignText;
use mb_core::mirror::{AllowRedirects, Mirror};
use mb_core::secret::{WithoutPassword, is_key_like};

/// Separates the keys from the comment.
pub const COMMENT_MARKER: &str = "##### Comments go below this line #####";

/// Names the comment where it is set as the other keys are.
const COMMENT_KEY: &str = "Comment";

/// Longest key or value that an error shows, in characters.
pub const LONGEST_SHOWN: usize = 200;

/// Why a key cannot be set to a value. The text may hold what was typed: see [`FieldError::without_typed`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// No such key. The text is the key after a space, quoted and escaped, or empty.
    #[error("unknown key{0}: the keys are {keys}, {COMMENT_KEY}", keys = keys().collect::<Vec<_>>().join(", "))]
    UnknownKey(String),
    /// Not a value of the key's type.
    #[error("{key}: {value} is not allowed; give {allowed}")]
    Value {
        /// The key.
        key: &'static str,
        /// As it was given, quoted and escaped, or a stand-in for it.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

impl FieldError {
    /// The same error without what was typed, for when that may be a part of something else, such as a password.
    pub fn without_typed(self) -> FieldError {
        match self {
            FieldError::UnknownKey(_) => FieldError::UnknownKey(String::new()),
            FieldError::Value { key, allowed, .. } => FieldError::Value { key, value: NOT_SHOWN.to_owned(), allowed },
        }
    }
}

/// Stands for a value that is not shown.
const NOT_SHOWN: &str = "the value";

/// What was typed, for an error: quoted, escaped and cut. A value with a login or an assignment is not shown at all.
fn typed(text: &str) -> String {
    if text.contains(['@', ':', '=', '\n']) {
        return NOT_SHOWN.to_owned();
    }
    format!("\"{}\"", ForeignText::new(text).at_most(LONGEST_SHOWN))
}

/// Where a key's value is kept, which also tells its type.
enum Place {
    Text(fn(&mut Mirror) -> &mut String),
    Flag(fn(&mut Mirror) -> &mut bool),
    Score(fn(&mut Mirror) -> &mut i32),
    Degrees(fn(&mut Mirror) -> &mut f32),
    SystemNumber(fn(&mut Mirror) -> &mut u32),
    Redirects(fn(&mut Mirror) -> &mut AllowRedirects),
}

/// All keys, in the order of the printed form.
const FIELDS: [(&str, Place); 22] = [
    ("Name", Place::Text(|mirror| &mut mirror.settings.name)),
    ("HttpURL", Place::Text(|mirror| &mut mirror.settings.http_url)),
    ("RsyncURL", Place::Text(|mirror| &mut mirror.settings.rsync_url)),
    ("FtpURL", Place::Text(|mirror| &mut mirror.settings.ftp_url)),
    ("SponsorName", Place::Text(|mirror| &mut mirror.settings.sponsor_name)),
    ("SponsorURL", Place::Text(|mirror| &mut mirror.settings.sponsor_url)),
    ("SponsorLogoURL", Place::Text(|mirror| &mut mirror.settings.sponsor_logo_url)),
    ("AdminName", Place::Text(|mirror| &mut mirror.settings.admin_name)),
    ("AdminEmail", Place::Text(|mirror| &mut mirror.settings.admin_email)),
    ("CustomData", Place::Text(|mirror| &mut mirror.settings.custom_data)),
    ("ContinentOnly", Place::Flag(|mirror| &mut mirror.settings.continent_only)),
    ("CountryOnly", Place::Flag(|mirror| &mut mirror.settings.country_only)),
    ("ASOnly", Place::Flag(|mirror| &mut mirror.settings.as_only)),
    ("Score", Place::Score(|mirror| &mut mirror.settings.score)),
    ("Latitude", Place::Degrees(|mirror| &mut mirror.settings.latitude)),
    ("Longitude", Place::Degrees(|mirror| &mut mirror.settings.longitude)),
    ("ContinentCode", Place::Text(|mirror| &mut mirror.settings.continent_code)),
    ("CountryCodes", Place::Text(|mirror| &mut mirror.settings.country_codes)),
    ("ExcludedCountryCodes", Place::Text(|mirror| &mut mirror.settings.excluded_country_codes)),
    ("ASNum", Place::SystemNumber(|mirror| &mut mirror.settings.asn)),
    ("Enabled", Place::Flag(|mirror| &mut mirror.state.enabled)),
    ("AllowRedirects", Place::Redirects(|mirror| &mut mirror.settings.allow_redirects)),
];

/// The keys in the order of the printed form.
pub fn keys() -> impl Iterator<Item = &'static str> {
    FIELDS.iter().map(|(key, _)| *key)
}

/// Sets `key`, in any case, to what `value` says. `Comment` is a key, too, though it is not printed as one.
///
/// # Errors
/// The key is unknown, or the value is not of its type.
pub fn set(mirror: &mut Mirror, key: &str, value: &str) -> Result<(), FieldError> {
    if key.eq_ignore_ascii_case(COMMENT_KEY) {
        value.clone_into(&mut mirror.settings.comment);
        return Ok(());
    }
    let (key, place) = FIELDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(key)).ok_or_else(|| {
        FieldError::UnknownKey(if is_key_like(key) { format!(" {}", typed(key)) } else { String::new() })
    })?;
    let refuse = |allowed| FieldError::Value { key, value: typed(value), allowed };
    match place {
        Place::Text(at) => value.clone_into(at(mirror)),
        Place::Flag(at) => *at(mirror) = flag(value).ok_or_else(|| refuse("true or false"))?,
        Place::Score(at) => *at(mirror) = value.parse().map_err(|_| refuse("a whole number"))?,
        Place::Degrees(at) => {
            let degrees: f32 = value.parse().map_err(|_| refuse("degrees, such as 48.8566"))?;
            *at(mirror) = degrees;
        }
        Place::SystemNumber(at) => *at(mirror) = value.parse().map_err(|_| refuse("a number from 0 to 4294967295"))?,
        Place::Redirects(at) => {
            *at(mirror) = match value {
                "" | "null" | "~" => AllowRedirects::Default,
                value => match flag(value).ok_or_else(|| refuse("null, true or false"))? {
                    true => AllowRedirects::Allowed,
                    false => AllowRedirects::Disallowed,
                },
            };
        }
    }
    Ok(())
}

/// The printed form of `mirror`, ending in a line break.
pub fn to_yaml(mirror: &Mirror) -> String {
    let mut yaml = lines(mirror).join("\n");
    let _ = writeln!(yaml, "\n{COMMENT_MARKER}");
    if !mirror.settings.comment.is_empty() {
        let _ = writeln!(yaml, "{}", mirror.settings.comment.trim_end_matches('\n'));
    }
    yaml
}

/// Lines `- old` and `+ new` for what differs; empty when nothing does. Passwords in URLs are hidden, also where they are
/// what differs.
pub fn difference(old: &Mirror, new: &Mirror) -> String {
    let mut difference = String::new();
    let (old_shown, new_shown) = (lines(&without_passwords(old)), lines(&without_passwords(new)));
    let differs = lines(old).into_iter().zip(lines(new)).map(|(old, new)| old != new);
    for ((old, new), differs) in old_shown.into_iter().zip(new_shown).zip(differs) {
        if differs {
            let _ = writeln!(difference, "- {old}\n+ {new}");
        }
    }
    if old.settings.comment != new.settings.comment {
        for line in old.settings.comment.lines() {
            let _ = writeln!(difference, "- {line}");
        }
        for line in new.settings.comment.lines() {
            let _ = writeln!(difference, "+ {line}");
        }
    }
    difference
}

/// The mirror with `***` for the password of each URL.
fn without_passwords(mirror: &Mirror) -> Mirror {
    let mut mirror = mirror.clone();
    for (key, place) in &FIELDS {
        if let Place::Text(at) = place
            && key.ends_with("URL")
        {
            let shown = WithoutPassword(at(&mut mirror)).to_string();
            *at(&mut mirror) = shown;
        }
    }
    mirror
}

/// `Key: value` of every key.
fn lines(mirror: &Mirror) -> Vec<String> {
    // The table has only mutable access; one copy here is simpler than every row twice.
    let mut mirror = mirror.clone();
    FIELDS.iter().map(|(key, place)| format!("{key}: {}", value(place, &mut mirror))).collect()
}

fn value(place: &Place, mirror: &mut Mirror) -> String {
    match place {
        Place::Text(at) => scalar(at(mirror)),
        Place::Flag(at) => at(mirror).to_string(),
        Place::Score(at) => at(mirror).to_string(),
        Place::Degrees(at) => at(mirror).to_string(),
        Place::SystemNumber(at) => at(mirror).to_string(),
        Place::Redirects(at) => match at(mirror) {
            AllowRedirects::Default => "null".to_owned(),
            AllowRedirects::Allowed => "true".to_owned(),
            AllowRedirects::Disallowed => "false".to_owned(),
        },
    }
}

fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// `text` as a YAML string: plain where that cannot be taken for anything else, else in double quotes (YAML 1.2, 7.3.1).
fn scalar(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Narrower than YAML allows, so that every parser, of YAML 1.1 or 1.2, reads a string.
fn is_plain(text: &str) -> bool {
    let starts_as_word = text.starts_with(|c: char| c.is_alphabetic() || c == '/');
    let is_safe = |c: char| c.is_alphanumeric() || " -_./:@+,=%~()?&".contains(c);
    let is_keyword = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word));
    let looks_like_number = text.eq_ignore_ascii_case("nan") || text.eq_ignore_ascii_case("inf");
    starts_as_word
        && text.chars().all(is_safe)
        && !is_keyword
        && !looks_like_number
        && !text.contains(": ")
        && !text.ends_with([':', ' '])
}

#[cfg(test)]
mod tests {
    use mb_core::mirror::{MirrorId, MirrorSettings, MirrorState};
    use proptest::prelude::*;
    use saphyr::{LoadableYamlNode, Yaml};

    use super::*;

    fn mirror() -> Mirror {
        let settings = MirrorSettings {
            name: "paris".into(),
            http_url: "http://a.example/".into(),
            sponsor_name: "Cheese: & \"Wine\" # 1".into(),
            latitude: 48.8566,
            longitude: 2.0,
            country_codes: "NO SE".into(),
            asn: 64496,
            comment: "first\nsecond".into(),
            ..MirrorSettings::default()
        };
        Mirror { id: MirrorId(1), settings, state: MirrorState::default() }
    }

    #[test]
    fn a_mirror_is_printed_key_by_key() {
        let expected = r##"Name: paris
HttpURL: http://a.example/
RsyncURL: ""
FtpURL: ""
SponsorName: "Cheese: & \"Wine\" # 1"
SponsorURL: ""
SponsorLogoURL: ""
AdminName: ""
AdminEmail: ""
CustomData: ""
ContinentOnly: false
CountryOnly: false
ASOnly: false
Score: 0
Latitude: 48.8566
Longitude: 2
ContinentCode: ""
CountryCodes: NO SE
ExcludedCountryCodes: ""
ASNum: 64496
Enabled: false
AllowRedirects: null
##### Comments go below this line #####
first
second
"##;
        assert_eq!(to_yaml(&mirror()), expected);
    }

    #[test]
    fn every_key_takes_its_type_of_value() {
        let values = [
            ("Score", "-5", "Score: -5"),
            ("score", "7", "Score: 7"),
            ("Latitude", "-1.5", "Latitude: -1.5"),
            ("ASNum", "4294967295", "ASNum: 4294967295"),
            ("Enabled", "true", "Enabled: true"),
            ("CountryOnly", "On", "CountryOnly: true"),
            ("AllowRedirects", "false", "AllowRedirects: false"),
            ("AllowRedirects", "null", "AllowRedirects: null"),
            ("CountryCodes", "NO", "CountryCodes: \"NO\""),
            ("SponsorName", "", "SponsorName: \"\""),
        ];
        for (key, value, line) in values {
            let mut mirror = mirror();
            set(&mut mirror, key, value).unwrap();
            assert!(lines(&mirror).iter().any(|printed| printed == line), "{key}={value}: {:?}", lines(&mirror));
        }
    }

    #[test]
    fn wrong_keys_and_values_are_refused_with_what_is_allowed() {
        let refusals = [
            ("Colour", "red", "the keys are Name, HttpURL"),
            ("Score", "much", "a whole number"),
            ("Latitude", "north", "degrees"),
            ("ASNum", "-1", "a number from 0"),
            ("Enabled", "maybe", "true or false"),
            ("AllowRedirects", "2", "null, true or false"),
        ];
        for (key, value, allowed) in refusals {
            let mut changed = mirror();
            let message = set(&mut changed, key, value).unwrap_err().to_string();
            assert!(message.contains(allowed), "{message}");
            assert_eq!(changed, mirror());
        }
    }

    /// `set` named whatever stood before the equals sign, a part of a password too.
    #[test]
    fn an_unknown_key_is_named_when_it_looks_like_one() {
        let message = |key: &str| set(&mut mirror(), key, "x").unwrap_err().to_string();
        assert!(message("Colour").starts_with("unknown key \"Colour\": the keys are"));
        for key in ["hunter2!", "-hunter2", "2hunter", "hunter2 x", "anna/hunter2", "hunter2.x", "h\u{fc}nter2", ""] {
            assert!(message(key).starts_with("unknown key: the keys are"), "{key}: {}", message(key));
        }
        let long = message(&"a".repeat(10_000));
        assert!(long.len() < 1_000, "{long}");
    }

    #[test]
    fn a_difference_names_old_and_new() {
        let mut new = mirror();
        new.settings.score = 5;
        new.settings.comment = "third".into();
        assert_eq!(difference(&mirror(), &new), "- Score: 0\n+ Score: 5\n- first\n- second\n+ third\n");
        assert_eq!(difference(&new, &new), "");
    }

    /// A changed password was printed by `set`, `edit` and `apply`.
    #[test]
    fn a_difference_shows_no_password() {
        let (mut old, mut new) = (mirror(), mirror());
        old.settings.rsync_url = "rsync://user:hunter2@a.example/m/".into();
        new.settings.rsync_url = "rsync://user:hun/ter3@a.example/m/".into();
        new.settings.ftp_url = "ftp://user:hunter4@a.example/".into();
        let shown = difference(&old, &new);
        assert_eq!(shown.lines().count(), 4, "{shown}");
        assert!(shown.contains("***") && !shown.contains("hun") && !shown.contains("ter"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_back_by_a_yaml_parser(text in "\\PC*|[ -~\n\t]*|(true|NO|1e3|0x1f|~|- a|a: b|.inf)") {
            let mut mirror = mirror();
            mirror.settings.sponsor_name.clone_from(&text);
            mirror.settings.comment.clear();
            let yaml = to_yaml(&mirror);
            let documents = Yaml::load_from_str(&yaml).unwrap();
            prop_assert_eq!(documents[0]["SponsorName"].as_str(), Some(text.as_str()));
        }
    }
}
