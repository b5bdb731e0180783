//! What can be wrong with a configuration file, as the operator reads it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a configuration file cannot be used.
#[derive(Debug)]
pub enum ConfigError {
    /// It cannot be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// It is not UTF-8 text.
    NotUtf8 {
        /// The file.
        file: PathBuf,
        /// Line of the first bad byte, counted from 1.
        line: usize,
    },
    /// It is not a YAML mapping.
    NotYaml {
        /// The file.
        file: PathBuf,
        /// Where reading stopped, counted from 1.
        line: usize,
        /// What is wrong there.
        cause: String,
    },
    /// Values are missing or not allowed.
    Invalid {
        /// The file.
        file: PathBuf,
        /// Everything that is wrong with it, in the order in which the keys are checked; never empty.
        problems: Vec<Problem>,
    },
}

/// One value that is missing or not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its line, counted from 1; `None` when a key is missing from the whole file.
    pub line: Option<usize>,
    /// Its key; keys inside others as `Hashes.SHA1`, of list elements as `Fallbacks[].URL`.
    pub key: String,
    /// The value as typed; `None` when it is missing.
    pub value: Option<String>,
    /// What is allowed: "must be …".
    pub allowed: String,
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConfigError::Unreadable { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Unreadable { file, cause } => write!(f, "{}: {cause}; {}", file.display(), remedy(cause)),
            ConfigError::NotUtf8 { file, line } => {
                write!(f, "{}:{line}: not UTF-8 text: convert the file, for example with iconv", file.display())
            }
            ConfigError::NotYaml { file, line, cause } => {
                write!(f, "{}:{line}: not a YAML file of keys and values: {cause}", file.display())
            }
            ConfigError::Invalid { file, problems } => {
                for (place, problem) in problems.iter().enumerate() {
                    if place > 0 {
                        f.write_str("\n")?;
                    }
                    problem.write(f, file)?;
                }
                Ok(())
            }
        }
    }
}

impl Problem {
    fn write(&self, f: &mut fmt::Formatter<'_>, file: &Path) -> fmt::Result {
        write!(f, "{}", file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        let value = match self.value.as_deref() {
            None => "missing",
            Some("") => "empty",
            Some(value) => value,
        };
        write!(f, ": {}: {value}: {}", self.key, self.allowed)
    }
}

fn remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::NotFound => {
            "create it (mirrorbits.conf of the distribution is an example), or name another with -config"
        }
        io::ErrorKind::PermissionDenied => "make it readable for the user that this program runs as",
        io::ErrorKind::IsADirectory => "name the file itself with -config",
        _ => "name another with -config",
    }
}
