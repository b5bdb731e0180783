//! Command-line options as Go's `flag` package reads them: `-config` means the same as `--config`, and `--f` as `-f`.
//!
//! Existing scripts write long options with one dash. [`normalise`] rewrites an argument list to the usual form, so that
//! a common argument parser can read it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Rewrites `-name` and `-name=value` to two dashes where `name` is one of `long_options`, and `--x` and `--x=value` to
/// one dash where `x` is a single character that is not. Everything else is kept, and all that follows a bare `--`.
///
/// An argument that only looks like an option because it is the value of the one before (`-comment -config`) is
/// rewritten, too: such a value has to be joined by `=`.
pub fn normalise(arguments: impl Iterator<Item = OsString>, long_options: &[&str]) -> Vec<OsString> {
    let mut options_ended = false;
    arguments
        .map(|argument| {
            options_ended |= argument == "--";
            if options_ended { argument } else { normalise_one(argument, long_options) }
        })
        .collect()
}

fn normalise_one(argument: OsString, long_options: &[&str]) -> OsString {
    let bytes = argument.as_bytes();
    let (dashes, rest) = match bytes {
        [b'-', b'-', rest @ ..] => (2, rest),
        [b'-', rest @ ..] => (1, rest),
        _ => return argument,
    };
    let name = rest.split(|&byte| byte == b'=').next().unwrap_or(rest);
    let is_long = long_options.iter().any(|option| OsStr::new(option).as_bytes() == name);
    match dashes {
        1 if is_long => OsString::from_vec([b"--", rest].concat()),
        2 if !is_long && name.len() == 1 => OsString::from_vec([b"-", rest].concat()),
        _ => argument,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalised(arguments: &[&str]) -> Vec<String> {
        let long_options = ["config", "state", "http"];
        normalise(arguments.iter().map(OsString::from), &long_options)
            .into_iter()
            .map(|argument| argument.into_string().unwrap())
            .collect()
    }

    #[test]
    fn long_options_get_two_dashes() {
        assert_eq!(normalised(&["x", "-config", "a.conf"]), ["x", "--config", "a.conf"]);
        assert_eq!(normalised(&["-state=false", "-http=http://a/?b=c"]), ["--state=false", "--http=http://a/?b=c"]);
        assert_eq!(normalised(&["--config=a"]), ["--config=a"]);
    }

    #[test]
    fn short_options_get_one_dash() {
        assert_eq!(normalised(&["--f", "-f", "--p=3390"]), ["-f", "-f", "-p=3390"]);
    }

    #[test]
    fn what_is_no_known_option_is_kept() {
        assert_eq!(normalised(&["-", "-x", "-configs", "config", ""]), ["-", "-x", "-configs", "config", ""]);
    }

    #[test]
    fn nothing_is_touched_after_two_dashes() {
        assert_eq!(normalised(&["-state", "--", "-config"]), ["--state", "--", "-config"]);
    }

    #[test]
    fn names_that_are_not_utf8_are_kept() {
        let odd = OsString::from_vec(vec![b'-', 0xff, b'=', 0xfe]);
        assert_eq!(normalise([odd.clone()].into_iter(), &["config"]), [odd]);
    }
}
