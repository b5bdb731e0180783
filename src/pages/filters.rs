//! How templates show numbers and times.
//!
//! A value that is not there shows as nothing, since most members may be missing; while a template is checked, it is a mistake.

use std::borrow::Cow;

use mb_core::foreign_text::ForeignText;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Adds the filters to `environment`.
pub fn add(environment: &mut Environment<'_>) {
    for name in ["e", "escape"] {
        environment
            .add_filter(name, |state: &mut State, value: Value| minijinja::filters::escape(state, &harmless(value)));
    }
    environment.add_filter("bytes", |state: &State, value: Value| shown(state, value, bytes));
    environment.add_filter("grouped", |state: &State, value: Value| shown(state, value, grouped));
    environment.add_filter("duration", |state: &State, value: Value| shown(state, value, duration));
    environment.add_filter("date", |state: &State, value: Value| shown(state, value, |value| date(value.as_str()?)));
    environment.add_filter("ago", |state: &State, value: Value, now: Value| {
        shown(state, value, |value| ago(value.as_str()?, now.as_str()?))
    });
}

/// Text with its control characters, and those of text direction, escaped as elsewhere: a mirror's
/// name must not turn the rest of its line around. Lines stay lines, and what is no text, or HTML
/// already, as it is.
pub fn harmless(value: Value) -> Value {
    let text = value.as_str().filter(|_| !value.is_safe());
    match text.map(|text| ForeignText::new(text).with_lines().at_most(usize::MAX).shown()) {
        Some(Cow::Owned(shown)) => Value::from(shown),
        _ => value,
    }
}

fn shown(state: &State, value: Value, show: impl FnOnce(&Value) -> Option<String>) -> Result<String, Error> {
    if value.is_undefined() && state.env().undefined_behavior() == UndefinedBehavior::SemiStrict {
        return Err(ErrorKind::UndefinedError.into());
    }
    Ok(show(&value).unwrap_or_default())
}

/// A size in units of 1024: `1.5 GiB`.
fn bytes(value: &Value) -> Option<String> {
    let mut size = f64::try_from(value.clone()).ok()?;
    if size < 1024.0 {
        return Some(format!("{size} B"));
    }
    let mut unit = "";
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        // What would be rounded to 1024 is the next unit's 1.
        if size < 1023.95 {
            break;
        }
        size /= 1024.0;
        unit = larger;
    }
    Some(format!("{size:.1} {unit}"))
}

/// A whole number with commas between its thousands: `1,234,567`.
fn grouped(value: &Value) -> Option<String> {
    let number = i128::try_from(value.clone()).ok()?;
    let digits = number.unsigned_abs().to_string();
    let mut text = if number < 0 { "-".to_owned() } else { String::new() };
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    Some(text)
}

/// Nanoseconds in the largest unit that leaves no fraction: `90 min`.
fn duration(value: &Value) -> Option<String> {
    const UNITS: [(i128, &str); 6] = [
        (3_600_000_000_000, "h"),
        (60_000_000_000, "min"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1000, "µs"),
        (1, "ns"),
    ];
    let nanoseconds = i128::try_from(value.clone()).ok()?;
    let (unit, name) = UNITS.into_iter().find(|(unit, _)| nanoseconds % unit == 0)?;
    Some(if nanoseconds == 0 { "0 s".to_owned() } else { format!("{} {name}", nanoseconds / unit) })
}

/// An RFC 3339 time as `2026-11-22 11:30:31 UTC`; one that was never set is `never`.
fn date(text: &str) -> Option<String> {
    let Some(time) = parse(text)? else { return Some("never".to_owned()) };
    let (day, clock) = (time.date(), time.time());
    let (hour, minute, second) = clock.as_hms();
    Some(format!("{day} {hour:02}:{minute:02}:{second:02} UTC"))
}

/// How long before `now` an RFC 3339 time was: `3 hours ago`.
fn ago(text: &str, now: &str) -> Option<String> {
    let Some(time) = parse(text)? else { return Some("never".to_owned()) };
    let seconds = (parse(now)?? - time).whole_seconds();
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    // Two of a unit at least, but for the smallest one: an hour ago may have been 119 minutes ago.
    let fitting = units.into_iter().find(|(length, _)| seconds >= 2 * length);
    Some(match fitting {
        Some((length, unit)) => format!("{} {unit}s ago", seconds / length),
        // Clocks of two machines may differ by a moment.
        None => "just now".to_owned(),
    })
}

/// A time in UTC; `Some(None)` for one that was never set.
fn parse(text: &str) -> Option<Option<OffsetDateTime>> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?.to_offset(time::UtcOffset::UTC);
    Some((time.year() > 1).then_some(time))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_have_one_decimal() {
        let shown = [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (3 << 29, "1.5 GiB")];
        for (size, text) in shown {
            assert_eq!(bytes(&Value::from(size)).as_deref(), Some(text));
        }
        assert_eq!(bytes(&Value::from((1_u64 << 20) - 1)).as_deref(), Some("1.0 MiB"));
        assert_eq!(bytes(&Value::from(u64::MAX)).as_deref(), Some("16384.0 PiB"));
        assert_eq!(bytes(&Value::from("x")), None);
    }

    #[test]
    fn durations_are_whole() {
        let shown = |nanoseconds: i64| duration(&Value::from(nanoseconds)).unwrap();
        assert_eq!([0, 7, 1_500_000].map(shown), ["0 s", "7 ns", "1500 µs"]);
        assert_eq!([1_000_000_000, 60_000_000_000, -5_400_000_000_000].map(shown), ["1 s", "1 min", "-90 min"]);
    }

    #[test]
    fn times_are_shown_in_utc() {
        assert_eq!(date("2026-11-22T13:30:31.5+02:00").as_deref(), Some("2026-11-22 11:30:31 UTC"));
        assert_eq!(date("0001-01-01T00:00:00Z").as_deref(), Some("never"));
        assert_eq!(date("yesterday"), None);
        let ago = |text: &str| ago(text, "2026-11-22T12:00:00Z").unwrap();
        assert_eq!(ago("2026-11-22T12:00:05Z"), "just now");
        assert_eq!(ago("2026-11-22T11:58:01Z"), "119 seconds ago");
        assert_eq!(ago("2026-11-22T11:00:00Z"), "60 minutes ago");
        assert_eq!(ago("2026-11-20T12:00:00Z"), "2 days ago");
        assert_eq!(ago("0001-01-01T00:00:00Z"), "never");
    }

    proptest! {
        #[test]
        fn groups_keep_the_number(number: i64) {
            let text = grouped(&Value::from(number)).unwrap();
            prop_assert_eq!(text.replace(',', ""), number.to_string());
            prop_assert!(text.trim_start_matches('-').rsplit(',').skip(1).all(|group| group.len() <= 3));
        }
    }
}
