//! From YAML to keys, texts and their lines.
//!
//! Values stay the text that was typed, whatever YAML would make of it: a password `0123` is no number, and what `On`
//! means depends on its key.

use std::path::Path;

use saphyr::{MarkedYaml, Marker, ScalarStyle, YamlData, YamlLoader};
use saphyr_parser::Parser;

use super::error::ConfigError;

/// A key with its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Line of the key, counted from 1.
    pub(super) line: usize,
    pub(super) value: Value,
}

/// What is written after a key, or as an element of a list.
#[derive(Debug)]
pub(super) enum Value {
    /// Nothing, or YAML's null: as if the key were not there.
    Nothing,
    /// A scalar, as typed but without its quotes.
    Text(String),
    /// A scalar of several lines, or on another line than its key: YAML folds what follows a forgotten quote or colon, or is
    /// indented by mistake, into such a value, so that a part of it may belong to another key.
    Folded(String),
    /// A list.
    List(Vec<Element>),
    /// Keys inside the key.
    Keys(Vec<Entry>),
}

/// An element of a list.
#[derive(Debug)]
pub(super) struct Element {
    /// Its first line, counted from 1.
    pub(super) line: usize,
    pub(super) value: Value,
}

/// Reads the first YAML document of `text`, which must be a mapping, or empty.
pub(super) fn parse(text: &str, file: &Path) -> Result<Vec<Entry>, ConfigError> {
    let not_yaml = |line: usize, cause: String| ConfigError::NotYaml { file: file.to_owned(), line, cause };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);

    let mut loader = YamlLoader::<MarkedYaml<'_>>::default();
    loader.early_parse(false);
    let loaded = Parser::new_from_str(text).load(&mut loader, false);
    if let Some(error) = loaded.err().as_ref().or(loader.error()) {
        return Err(not_yaml(error.marker().line(), describe(error.info(), error.marker())));
    }
    let Some(document) = loader.into_documents().into_iter().next() else { return Ok(Vec::new()) };
    let line = document.span.start.line();
    match value_of(document, line).map_err(|(line, cause)| not_yaml(line, cause))? {
        Value::Nothing => Ok(Vec::new()),
        Value::Keys(entries) => Ok(entries),
        Value::Text(_) | Value::Folded(_) | Value::List(_) => {
            Err(not_yaml(line.max(1), "write `Key: value` lines".to_owned()))
        }
    }
}

/// The error with its column. The line itself is not shown: any line may be part of a password, by its key, as a further line
/// of a text, or because a quote or colon is missing.
fn describe(info: &str, marker: &Marker) -> String {
    format!("{info}, at column {}", marker.col() + 1)
}

/// The value of a node that belongs to `owner`, the line of its key, or the line and the reason why it has none.
fn value_of(node: MarkedYaml<'_>, owner: usize) -> Result<Value, (usize, String)> {
    let line = node.span.start.line();
    let is_alone = line == owner && node.span.end.line() == owner;
    match node.data {
        YamlData::Representation(text, style, _) => Ok(match (style, text.as_ref()) {
            (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Value::Nothing,
            _ if is_alone => Value::Text(text.into_owned()),
            _ => Value::Folded(text.into_owned()),
        }),
        YamlData::Sequence(elements) => elements
            .into_iter()
            .map(|element| {
                let line = element.span.start.line();
                Ok(Element { line, value: value_of(element, line)? })
            })
            .collect::<Result<_, _>>()
            .map(Value::List),
        YamlData::Mapping(pairs) => pairs
            .into_iter()
            .map(|(key, value)| {
                let line = key.span.start.line();
                match key.data {
                    YamlData::Representation(name, ..) => {
                        Ok(Entry { name: name.into_owned(), line, value: value_of(value, line)? })
                    }
                    _ => Err((line, "a key must be a word".to_owned())),
                }
            })
            .collect::<Result<_, _>>()
            .map(Value::Keys),
        YamlData::Tagged(_, inner) => value_of(*inner, owner),
        YamlData::BadValue => Ok(Value::Nothing),
        YamlData::Value(_) | YamlData::Alias(_) => Err((line, "not a text, a list or keys".to_owned())),
    }
}
