//! Mirrors as operators write them in YAML: one in the printed form, to be edited, or a list of them, to be applied.
//!
//! Values stay the text that was typed until their key tells what they are: a country code `NO` is no false.

use std::collections::HashSet;
use std::fmt::Display;

use mb_core::foreign_text::ForeignText;
use mb_core::mirror::Mirror;
use saphyr::{MarkedYaml, ScalarStyle, YamlData, YamlLoader};
use saphyr_parser::Parser;

use super::mirror_fields::{self, COMMENT_MARKER, FieldError, LONGEST_SHOWN};

/// What is wrong with a document.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Not YAML.
    #[error("line {line}: {cause}")]
    NotYaml {
        /// Counted from 1.
        line: usize,
        /// What the parser stumbled over.
        cause: String,
    },
    /// YAML of another shape.
    #[error("line {line}: {expected} expected")]
    Shape {
        /// Counted from 1.
        line: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// A key or its value.
    #[error("line {line}: {error}")]
    Field {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        error: FieldError,
    },
    /// More than one mistake.
    #[error("{}", shown_mistakes(.0))]
    Several(Vec<DocumentError>),
    /// A key is there twice, or a mirror.
    #[error("line {line}: {key} is given twice", key = ForeignText::new(key).at_most(LONGEST_SHOWN))]
    Twice {
        /// Of the second one, counted from 1.
        line: usize,
        /// The key, or the name of a mirror, or what stands for one that may be a part of a secret.
        key: String,
    },
    /// A mirror without `Name`.
    #[error("line {line}: a mirror of the list needs a Name")]
    NoName {
        /// Where the mirror starts, counted from 1.
        line: usize,
    },
}

/// Mistakes that are shown one by one; the others are counted.
const MISTAKES_SHOWN: usize = 20;

/// `mistakes`, one a line: the first `MISTAKES_SHOWN`, then how many more there are.
pub fn shown_mistakes<T: Display>(mistakes: &[T]) -> String {
    let mut lines: Vec<String> = mistakes.iter().take(MISTAKES_SHOWN).map(T::to_string).collect();
    let more = mistakes.len().saturating_sub(MISTAKES_SHOWN);
    if more > 0 {
        lines.push(format!("and {more} more mistakes"));
    }
    lines.join("\n")
}

/// A key and what was typed after it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    line: usize,
    key: String,
    value: String,
    /// The value is a single line that starts on that of its key, so that no part of it can belong to another key.
    alone: bool,
}

/// A mirror of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Where it starts, counted from 1.
    pub line: usize,
    fields: Vec<Field>,
}

impl Listed {
    /// Sets what the list says in `mirror`; the rest stays.
    ///
    /// # Errors
    /// A key is unknown, or a value is not of its type.
    pub fn apply_to(&self, mirror: &mut Mirror) -> Result<(), DocumentError> {
        set_all(&self.fields, mirror)
    }
}

/// Sets in `mirror` what `text`, its printed form after somebody edited it, says. Keys that are gone stay as they were, and
/// so does the comment when its marker is gone.
///
/// # Errors
/// The text is not YAML, a key is unknown, or a value is not of its type. Part of it may be set in `mirror`.
pub fn read_edited(text: &str, mirror: &mut Mirror) -> Result<(), DocumentError> {
    let (yaml, comment) = match text.split_once(COMMENT_MARKER) {
        Some((yaml, comment)) => (yaml, Some(comment.trim())),
        None => (text, None),
    };
    if let Some(node) = parse(yaml)? {
        set_all(&fields(node)?, mirror)?;
    }
    if let Some(comment) = comment {
        comment.clone_into(&mut mirror.settings.comment);
    }
    Ok(())
}

/// Reads a list of mirrors, each of which needs a `Name` that no other has.
///
/// # Errors
/// The text is not YAML, or not such a list. Keys and values are looked at by [`Listed::apply_to`].
pub fn read_list(text: &str) -> Result<Vec<Listed>, DocumentError> {
    let Some(node) = parse(text)? else { return Ok(Vec::new()) };
    let line = line_of(&node);
    let elements = match node.data {
        YamlData::Sequence(elements) => elements,
        _ => return Err(DocumentError::Shape { line, expected: "a list of mirrors, `- Name: …`," }),
    };
    let mut mirrors: Vec<Listed> = Vec::new();
    let mut names = HashSet::new();
    let mut mistakes = Vec::new();
    for element in elements {
        match listed(element) {
            Ok((mirror, _)) if names.insert(mirror.name.clone()) => mirrors.push(mirror),
            Ok((Listed { line, name, .. }, alone)) => {
                let key = if alone { name } else { "the mirror".to_owned() };
                mistakes.push(DocumentError::Twice { line, key });
            }
            Err(mistake) => mistakes.push(mistake),
        }
    }
    match mistakes.pop() {
        None => Ok(mirrors),
        Some(mistake) if mistakes.is_empty() => Err(mistake),
        Some(last) => {
            mistakes.push(last);
            Err(DocumentError::Several(mistakes))
        }
    }
}

/// A mirror of a list, and whether its name stands on lines of its own.
fn listed(element: MarkedYaml<'_>) -> Result<(Listed, bool), DocumentError> {
    let line = line_of(&element);
    let fields = fields(element)?;
    let name_field = fields.iter().find(|field| field.key.eq_ignore_ascii_case("Name"));
    let alone = name_field.is_some_and(|field| field.alone);
    let name = name_field.map(|field| field.value.clone()).filter(|name| !name.is_empty());
    let name = name.ok_or(DocumentError::NoName { line })?;
    Ok((Listed { name, line, fields }, alone))
}

/// The first document of `text`; `None` when there is none.
fn parse(text: &str) -> Result<Option<MarkedYaml<'_>>, DocumentError> {
    let mut loader = YamlLoader::<MarkedYaml<'_>>::default();
    loader.early_parse(false);
    let loaded = Parser::new_from_str(text).load(&mut loader, false);
    if let Some(error) = loaded.err().as_ref().or(loader.error()) {
        return Err(DocumentError::NotYaml { line: error.marker().line(), cause: error.info().to_owned() });
    }
    let document = loader.into_documents().into_iter().next();
    Ok(document.filter(|node| !is_nothing(&node.data)))
}

fn is_nothing<'t>(data: &YamlData<'t, MarkedYaml<'t>>) -> bool {
    match data {
        YamlData::BadValue => true,
        YamlData::Representation(text, ScalarStyle::Plain, _) => text.is_empty(),
        _ => false,
    }
}

fn fields(node: MarkedYaml<'_>) -> Result<Vec<Field>, DocumentError> {
    let line = line_of(&node);
    let YamlData::Mapping(pairs) = node.data else {
        return Err(DocumentError::Shape { line, expected: "`Key: value` lines" });
    };
    let mut fields: Vec<Field> = Vec::new();
    for (key, value) in pairs {
        let line = line_of(&key);
        let key = scalar(key)?;
        if fields.iter().any(|field| field.key.eq_ignore_ascii_case(&key)) {
            let known = mirror_fields::keys().any(|known| known.eq_ignore_ascii_case(&key));
            let key = if known { key } else { "a key".to_owned() };
            return Err(DocumentError::Twice { line, key });
        }
        let alone = value.span.start.line() == line && value.span.end.line() == line;
        fields.push(Field { line, key, value: scalar(value)?, alone });
    }
    Ok(fields)
}

/// The text of a scalar as it was typed, without its quotes; empty for YAML's null.
fn scalar(node: MarkedYaml<'_>) -> Result<String, DocumentError> {
    let line = line_of(&node);
    match node.data {
        YamlData::Representation(text, ScalarStyle::Plain, _) => match text.as_ref() {
            "~" | "null" | "Null" | "NULL" => Ok(String::new()),
            text => Ok(text.to_owned()),
        },
        YamlData::Representation(text, ..) => Ok(text.into_owned()),
        YamlData::BadValue => Ok(String::new()),
        YamlData::Tagged(_, inner) => scalar(*inner),
        _ => Err(DocumentError::Shape { line, expected: "a single value" }),
    }
}

fn line_of(node: &MarkedYaml<'_>) -> usize {
    node.span.start.line().max(1)
}

fn set_all(fields: &[Field], mirror: &mut Mirror) -> Result<(), DocumentError> {
    for Field { line, key, value, alone } in fields {
        mirror_fields::set(mirror, key, value).map_err(|error| {
            // What looks like a key may be a further line of a value.
            let is_shown = *alone && matches!(error, FieldError::Value { .. });
            let error = if is_shown { error } else { error.without_typed() };
            DocumentError::Field { line: *line, error }
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mb_core::mirror::{AllowRedirects, MirrorId, MirrorSettings, MirrorState};
    use proptest::prelude::*;

    use super::*;

    fn mirror() -> Mirror {
        let settings = MirrorSettings {
            name: "paris".into(),
            http_url: "http://a.example/".into(),
            country_codes: "NO SE".into(),
            score: 3,
            comment: "first\nsecond".into(),
            allow_redirects: AllowRedirects::Allowed,
            ..MirrorSettings::default()
        };
        Mirror { id: MirrorId(1), settings, state: MirrorState::default() }
    }

    fn edited(text: &str) -> Result<Mirror, DocumentError> {
        let mut mirror = mirror();
        read_edited(text, &mut mirror).map(|()| mirror)
    }

    #[test]
    fn what_is_edited_is_set_and_the_rest_stays() {
        let text =
            "# a note\nScore: 5\nCountryCodes: NO\nSponsorName: 'Cheese: & Wine'\nEnabled: on\nAllowRedirects: null\n";
        let changed = edited(text).unwrap();
        assert_eq!((changed.settings.score, changed.settings.country_codes.as_str()), (5, "NO"));
        assert_eq!(changed.settings.sponsor_name, "Cheese: & Wine");
        assert_eq!(changed.settings.allow_redirects, AllowRedirects::Default);
        assert!(changed.state.enabled);
        assert_eq!((changed.settings.name.as_str(), changed.settings.comment.as_str()), ("paris", "first\nsecond"));
    }

    #[test]
    fn the_comment_is_what_follows_the_marker() {
        let changed = edited(&format!("Score: 3\n{COMMENT_MARKER}\n\n a: [b\n\n")).unwrap();
        assert_eq!(changed.settings.comment, "a: [b");
        assert_eq!(edited(&format!("{COMMENT_MARKER}\n")).unwrap().settings.comment, "");
        assert_eq!(edited("").unwrap(), mirror());
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        let mistakes = [
            ("Name: x\nScore: [", "line 3: while parsing"),
            ("Name: x: y", "line 1: mapping values are not allowed"),
            ("\nColour: red", "line 2: unknown key: the keys are"),
            ("Score: much", "line 1: Score: \"much\" is not allowed; give a whole number"),
            ("Score:", "line 1: Score: \"\" is not allowed"),
            ("Score: 1\nscore: 2", "line 2: score is given twice"),
            ("Name: [a, b]", "line 1: a single value expected"),
            ("- Name: x", "line 1: `Key: value` lines expected"),
            ("just text", "line 1: `Key: value` lines expected"),
        ];
        for (text, message) in mistakes {
            let error = edited(text).unwrap_err().to_string();
            assert!(error.starts_with(message), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_list_names_each_mirror_once() {
        let list = read_list("- Name: a\n  Score: 1\n  Comment: |\n    one\n    two\n- {Name: b}\n").unwrap();
        assert_eq!(list.iter().map(|mirror| mirror.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let mut changed = mirror();
        list[0].apply_to(&mut changed).unwrap();
        assert_eq!((changed.settings.score, changed.settings.comment.as_str()), (1, "one\ntwo\n"));
        assert_eq!(read_list("# nothing\n").unwrap(), []);
        assert_eq!(read_list("- Score: 1"), Err(DocumentError::NoName { line: 1 }));
        assert_eq!(read_list("- Name: a\n- Name: a"), Err(DocumentError::Twice { line: 2, key: "a".into() }));
        assert!(read_list("Name: a").unwrap_err().to_string().contains("a list of mirrors"));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(
            texts in prop::collection::vec("\\PC*|(true|NO|1e3|~|null|- a|a: b|#)", 5),
            comment in "[ -~\n]*",
            score in any::<i32>(),
            latitude in -90_f32..90.0,
        ) {
            let mut written = mirror();
            let settings = &mut written.settings;
            settings.sponsor_name.clone_from(&texts[0]);
            settings.admin_name.clone_from(&texts[1]);
            settings.custom_data.clone_from(&texts[2]);
            settings.country_codes.clone_from(&texts[3]);
            settings.rsync_url.clone_from(&texts[4]);
            settings.comment = comment.trim().to_owned();
            settings.score = score;
            settings.latitude = latitude;
            prop_assume!(!texts.iter().any(|text| text.contains(COMMENT_MARKER)));
            prop_assert_eq!(edited(&mirror_fields::to_yaml(&written)).unwrap(), written);
        }

        /// A line of a password was shown as a key or a value that is not allowed.
        #[test]
        fn no_error_shows_a_password(
            before in "(Score|Enabled|RsyncURL|Colour|Name):( |\n|\n  | \"| '| \\[| \\{a: | \\|\n  |\n - | !x )",
            around in "(|rsync://u:|rsync://u:p/|'|\"|\\[|a: |\n  )",
            after in "(|@a.example/m/|\n  x|\"|\\]|\\}|: b|\n: b|'\nScore: x|\nScore: x)",
        ) {
            // What stands alone after a key of no URL is no password.
            let is_part = before.contains(['\n', '[', '{', '|']) || around.contains("//") || around.contains('\n');
            prop_assume!(is_part || before.starts_with("RsyncURL"));
            let text = format!("{before}{around}hunter2{after}\n");
            for text in [text.clone(), format!("- {}\n", text.trim_end().replace('\n', "\n  "))] {
                let mut changed = mirror();
                let error = match read_list(&text) {
                    Ok(list) => list.iter().find_map(|mirror| mirror.apply_to(&mut changed).err()),
                    Err(error) => Some(error),
                };
                let shown = format!("{:?}", error.map(|error| error.to_string()));
                prop_assert!(!shown.contains("hunter2"), "{text:?}: {shown}");
                let shown = format!("{:?}", edited(&text).map(|_| ()).map_err(|error| error.to_string()));
                prop_assert!(!shown.contains("hunter2"), "{text:?}: {shown}");
            }
        }

        #[test]
        fn no_text_is_a_panic(text in "[-:\\[\\]{}#&*!|>'\"%@`, \nNameScore1]*") {
            let _ = edited(&text);
            let _ = read_list(&text);
        }
    }
}
