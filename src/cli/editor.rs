//! The operator's editor.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use super::error::CommandError;

/// Looked for in `PATH`, in this order, when `EDITOR` is not set.
const EDITORS: [&str; 4] = ["editor", "vi", "emacs", "nano"];

/// What the shell would take apart, join or replace.
const SHELL_SYNTAX: &str = "'\"\\$`;&|<>(){}~#\n";

/// A command that edits the file whose name is appended to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Editor {
    command: OsString,
}

impl Editor {
    /// `$EDITOR`, else the first of the usual editors that is installed.
    pub(super) fn find() -> Result<Editor, CommandError> {
        let chosen = env::var_os("EDITOR").filter(|command| !command.as_bytes().trim_ascii().is_empty());
        let search = env::var_os("PATH").unwrap_or_default();
        let command = chosen.or_else(|| EDITORS.into_iter().find(|name| is_in(&search, name)).map(OsString::from));
        command.map(|command| Editor { command }).ok_or(CommandError::NoEditor)
    }

    /// Lets the operator edit `file`, and waits for the end.
    pub(super) fn open(&self, file: &Path) -> io::Result<ExitStatus> {
        if let Some(words) = self.command.to_str().and_then(unquoted_sed) {
            return Command::new(&words[0]).args(&words[1..]).arg(file).status();
        }
        let mut script = self.command.clone();
        script.push(" \"$@\"");
        Command::new("sh").arg("-c").arg(script).arg("sh").arg(file).status()
    }
}

impl fmt::Display for Editor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.command.display().fmt(f)
    }
}

fn is_in(search: &OsStr, program: &str) -> bool {
    env::split_paths(search).any(|folder| folder.join(program).is_file())
}

/// The words of a `sed` command with a substitution that holds spaces and is not quoted, such as
/// `sed -i s/^Score:.*/Score: 5/`; `None` for any other command.
///
/// Scripts give it as `EDITOR`, and the shell would break it at the spaces.
fn unquoted_sed(command: &str) -> Option<Vec<String>> {
    if command.contains(|c| SHELL_SYNTAX.contains(c)) {
        return None;
    }
    let mut typed = command.split_whitespace();
    let program = typed.next().filter(|program| Path::new(program).file_name() == Some(OsStr::new("sed")))?;
    let mut words = vec![program.to_owned()];
    let mut joined = false;
    while let Some(word) = typed.next() {
        let mut word = word.to_owned();
        while is_open_substitution(&word) {
            word.push(' ');
            word.push_str(typed.next()?);
            joined = true;
        }
        words.push(word);
    }
    joined.then_some(words)
}

/// Whether `word` starts as `s/old/new/` does, with any delimiter, and ends before the last of the three.
fn is_open_substitution(word: &str) -> bool {
    let mut letters = word.chars();
    let (Some('s'), Some(delimiter)) = (letters.next(), letters.next()) else { return false };
    !delimiter.is_alphanumeric() && delimiter != '.' && letters.filter(|&letter| letter == delimiter).count() < 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unquoted_substitution_stays_in_one_piece() {
        let words = |command| unquoted_sed(command).map(|words| words.join("|"));
        assert_eq!(words("sed -i s/^Score:.*/Score: 5/"), Some("sed|-i|s/^Score:.*/Score: 5/".into()));
        assert_eq!(words("/usr/bin/sed -i -e s,a b,c d,g -n"), Some("/usr/bin/sed|-i|-e|s,a b,c d,g|-n".into()));
    }

    #[test]
    fn everything_else_is_left_to_the_shell() {
        for command in [
            "sed -i s/a/b/",
            "sed -i 's/^Score:.*/Score: 5/'",
            "sed -i s/a/b",
            "sed -f script.sed",
            "vim",
            "emacsclient -a emacs -t",
            "code --wait",
            "",
        ] {
            assert_eq!(unquoted_sed(command), None, "{command}");
        }
    }

    #[test]
    fn installed_editors_are_found_in_the_search_path() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("nano"), "").unwrap();
        assert!(is_in(folder.path().as_os_str(), "nano"));
        assert!(!is_in(folder.path().as_os_str(), "vi"));
        assert!(!is_in(OsStr::new(""), "nano"));
    }
}
