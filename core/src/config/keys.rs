//! Typed reading of keys. Each reading names its key, its default and what is allowed; problems are collected and the
//! default stands in, so that one look at a file finds all of them. A key that nobody reads is unknown.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;

use super::document::{Element, Entry, Value};
use super::error::Problem;
use crate::foreign_text::ForeignText;
use crate::secret::{Secret, is_key_like};

/// What was found in a file besides its values.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
}

/// The keys of a file, or those inside a key.
pub(super) struct Keys<'f> {
    entries: Vec<Entry>,
    /// Every name that was asked for.
    known: Vec<&'static str>,
    /// What to put before a name in messages: `Hashes.`, or nothing.
    prefix: String,
    /// Line of the key around these.
    line: Option<usize>,
    file: &'f Path,
    findings: &'f mut Findings,
}

/// How a text becomes a value; the error is what is allowed, as "must be …".
pub(super) type Checked<T> = Result<T, String>;

impl<'f> Keys<'f> {
    pub(super) fn new(entries: Vec<Entry>, file: &'f Path, findings: &'f mut Findings) -> Keys<'f> {
        Keys { entries, known: Vec::new(), prefix: String::new(), line: None, file, findings }
    }

    /// Whether a key whose name starts with `start` has a value and was not read yet.
    pub(super) fn any_set(&self, start: &str) -> bool {
        self.entries.iter().any(|entry| entry.name.starts_with(start) && !matches!(entry.value, Value::Nothing))
    }

    /// A text, checked by `check`; `default` without one.
    pub(super) fn checked<T>(&mut self, name: &'static str, default: T, check: impl FnOnce(&str) -> Checked<T>) -> T {
        let Some((line, value)) = self.take(name) else { return default };
        self.check(line, name, value, check).unwrap_or(default)
    }

    /// As [`Keys::checked`], but it is a problem when there is no value. `allowed` says what is then missing.
    pub(super) fn required<T>(
        &mut self,
        name: &'static str,
        allowed: &str,
        check: impl FnOnce(&str) -> Checked<T>,
    ) -> Option<T> {
        match self.take(name) {
            Some((line, value)) => self.check(line, name, value, check),
            None => {
                let line = self.line;
                self.problem(line, name, None, allowed.to_owned());
                None
            }
        }
    }

    /// Any text; empty without one.
    pub(super) fn text(&mut self, name: &'static str) -> String {
        self.checked(name, String::new(), |text| Ok(text.to_owned()))
    }

    /// A password, empty by default.
    pub(super) fn secret(&mut self, name: &'static str) -> Secret {
        self.checked(name, Secret::default(), |text| Ok(Secret::new(text.to_owned())))
    }

    /// A boolean of YAML 1.1, as the files of Mirrorbits have them: true, yes, on and their opposites.
    pub(super) fn boolean(&mut self, name: &'static str, default: bool) -> bool {
        self.checked(name, default, |text| match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Ok(true),
            "false" | "no" | "off" | "n" => Ok(false),
            _ => Err("must be true or false (or Yes, No, On, Off)".to_owned()),
        })
    }

    /// A whole number within `range`.
    pub(super) fn number<T>(&mut self, name: &'static str, default: T, range: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + Display,
    {
        self.checked(name, default, |text| whole_number(text, &range))
    }

    /// One of the `choices`, in upper or lower case.
    pub(super) fn choice<T: Copy>(&mut self, name: &'static str, default: T, choices: &[(&str, T)]) -> T {
        self.checked(name, default, |text| {
            let found = choices.iter().find(|(choice, _)| choice.eq_ignore_ascii_case(text));
            found.map(|&(_, value)| value).ok_or_else(|| {
                let names: Vec<&str> = choices.iter().map(|&(choice, _)| choice).collect();
                format!("must be one of {}", names.join(", "))
            })
        })
    }

    /// The keys inside a key; `read` sees none when the key has no value.
    pub(super) fn section<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Keys<'_>) -> T) -> T {
        let (line, entries) = match self.take(name) {
            None => (None, Vec::new()),
            Some((line, Value::Keys(entries))) => (Some(line), entries),
            Some((line, other)) => {
                self.problem(Some(line), name, Some(shown(&other)), "must be a section of keys".to_owned());
                (Some(line), Vec::new())
            }
        };
        self.inside(format!("{}{name}.", self.prefix), line, entries, read)
    }

    /// A list of sections; `read` gives `None` for one that has problems.
    pub(super) fn sections<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(&mut Keys<'_>) -> Option<T>,
    ) -> Vec<T> {
        let mut values = Vec::new();
        for Element { line, value } in self.list(name, "must be a list of sections, each starting with `- `") {
            match value {
                Value::Keys(entries) => {
                    values.extend(self.inside(format!("{}{name}[].", self.prefix), Some(line), entries, &mut read));
                }
                other => {
                    let allowed = "must be a section of keys, as `- Key: value`".to_owned();
                    self.problem(Some(line), name, Some(shown(&other)), allowed);
                }
            }
        }
        values
    }

    /// A list of texts, each checked by `check`; `None` when the key has no value.
    pub(super) fn texts<T>(&mut self, name: &'static str, check: impl Fn(&str) -> Checked<T>) -> Option<Vec<T>> {
        let set = self.entries.iter().any(|entry| entry.name == name && !matches!(entry.value, Value::Nothing));
        let elements = self.list(name, "must be a list, as `[first, second]`");
        let values =
            elements.into_iter().filter_map(|Element { line, value }| self.check(line, name, value, &check)).collect();
        set.then_some(values)
    }

    /// Reports that a key is missing whose value another key makes necessary.
    pub(super) fn missing(&mut self, name: &'static str, allowed: &str) {
        self.problem(None, name, None, allowed.to_owned());
    }

    /// Adds a warning about the whole file.
    pub(super) fn warn(&mut self, text: &str) {
        self.findings.warnings.push(format!("{}: {text}", self.file.display()));
    }

    /// Warns of every key that nobody asked for.
    pub(super) fn finish(self) {
        for entry in &self.entries {
            let nearest = nearest(&entry.name, &self.known);
            let name = shown_key(&entry.name, nearest.is_some());
            let hint = match nearest {
                Some(name) => format!("; did you mean {}{name}?", self.prefix),
                None => String::new(),
            };
            self.findings.warnings.push(format!(
                "{}:{}: unknown key {}{name} is ignored{hint}",
                self.file.display(),
                entry.line,
                self.prefix
            ));
        }
    }

    fn inside<T>(
        &mut self,
        prefix: String,
        line: Option<usize>,
        entries: Vec<Entry>,
        read: impl FnOnce(&mut Keys<'_>) -> T,
    ) -> T {
        let mut keys =
            Keys { entries, known: Vec::new(), prefix, line, file: self.file, findings: &mut *self.findings };
        let value = read(&mut keys);
        keys.finish();
        value
    }

    fn list(&mut self, name: &'static str, allowed: &str) -> Vec<Element> {
        match self.take(name) {
            None => Vec::new(),
            Some((_, Value::List(elements))) => elements,
            Some((line, other)) => {
                self.problem(Some(line), name, Some(shown(&other)), allowed.to_owned());
                Vec::new()
            }
        }
    }

    /// Takes a key's value out; `None` when it has none.
    fn take(&mut self, name: &'static str) -> Option<(usize, Value)> {
        self.known.push(name);
        let place = self.entries.iter().position(|entry| entry.name == name)?;
        let Entry { line, value, .. } = self.entries.remove(place);
        (!matches!(value, Value::Nothing)).then_some((line, value))
    }

    fn check<T>(&mut self, line: usize, name: &str, value: Value, check: impl FnOnce(&str) -> Checked<T>) -> Option<T> {
        let checked = match &value {
            Value::Text(text) | Value::Folded(text) => check(text),
            _ => Err("must be a single value".to_owned()),
        };
        checked.map_err(|allowed| self.problem(Some(line), name, Some(shown(&value)), allowed)).ok()
    }

    fn problem(&mut self, line: Option<usize>, name: &str, value: Option<String>, allowed: String) {
        self.findings.problems.push(Problem { line, key: format!("{}{name}", self.prefix), value, allowed });
    }
}

/// Units of sizes, in bytes.
pub(super) const SIZE_UNITS: [(&str, usize); 7] = [
    ("B", 1),
    ("kB", 1000),
    ("MB", 1000 * 1000),
    ("GB", 1000 * 1000 * 1000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// A number of bytes within `range`: a whole number, and a unit or none. `allowed` says what `range` is.
pub(super) fn size(text: &str, range: &RangeInclusive<usize>, allowed: &str) -> Checked<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim_start() {
        "" => Some(1),
        unit => SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|&(_, bytes)| bytes),
    };
    let bytes = number.parse::<usize>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    bytes
        .filter(|bytes| range.contains(bytes))
        .ok_or_else(|| format!("must be a size in bytes {allowed}, as 65536, 64KiB or 50MB"))
}

/// A whole number within `range`.
pub(super) fn whole_number<T: FromStr + PartialOrd + Display>(text: &str, range: &RangeInclusive<T>) -> Checked<T> {
    text.parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
}

/// Characters of a refused value or unknown key that a message shows.
const SHOWN_CHARACTERS_MAX: usize = 200;

/// What a message shows of a value: nothing that may hold a password, no control character, and not more than
/// [`SHOWN_CHARACTERS_MAX`].
fn shown(value: &Value) -> String {
    match value {
        Value::Nothing => String::new(),
        Value::Text(text) if may_hold_secret(text) => "***".to_owned(),
        Value::Folded(_) => "***".to_owned(),
        Value::Text(text) => shortened(text),
        Value::List(_) => "a list".to_owned(),
        Value::Keys(_) => "a section of keys".to_owned(),
    }
}

/// Whether a text names a secret, has the form of a URL with a login, or is more than a word: a further line of a text whose
/// quote or colon is missing is taken for part of the value before it.
fn may_hold_secret(text: &str) -> bool {
    let lower = text.to_lowercase();
    // The @ after a login may be missing by mistake; a port is hidden with it.
    let is_url_with_colon = text.split_once("://").is_some_and(|(_, rest)| rest.contains(':'));
    text.contains('@')
        || is_url_with_colon
        || text.contains(['\n', '\r'])
        || ["password", "passwd", "secret", "token"].iter().any(|word| lower.contains(word))
}

/// The start of a text, escaped.
fn shortened(text: &str) -> String {
    ForeignText::new(text).at_most(SHOWN_CHARACTERS_MAX).to_string()
}

/// What a warning shows of an unknown key: one that looks like a key, but none that may be a
/// password run together with its key. Any other is told by its line.
fn shown_key(name: &str, hint: bool) -> String {
    if is_key_like(name) && (hint || !may_hold_secret(name)) { shortened(name) } else { "(not shown)".to_owned() }
}

/// The known name that was probably meant: the same but for case, or at most two slips away.
fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let name = name.to_lowercase();
    known
        .iter()
        .map(|candidate| (strsim::osa_distance(&name, &candidate.to_lowercase()), *candidate))
        .filter(|&(slips, candidate)| slips <= 2 && slips * 3 <= candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}
