//! What goes wrong with a command.

use std::io;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};

use mb_core::config::ConfigError;
use mb_core::store::migrate::MigrateError;
use tonic::{Code, Status};

use super::demo::DemoError;
use crate::control::daemon::DaemonError;
use crate::control::mirror_documents::DocumentError;
use crate::control::mirror_fields::FieldError;
use crate::pages::templates::TemplateError;

/// Why a command failed; the text is for people.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    /// Nobody answers at the daemon's address.
    #[error(
        "cannot reach the daemon at {address}: {reason}; is it running? Another address is given by -h HOST and -p PORT"
    )]
    Unreachable {
        /// `host:port`.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The daemon did not do what it was asked for.
    #[error("{}", status_text(.0))]
    Refused(Box<Status>),
    /// The name fits no mirror.
    #[error("no mirror fits {0:?}; `mirrorbits list` shows their names")]
    NoMirror(String),
    /// The name fits more than one mirror.
    #[error("{wanted:?} fits several mirrors, be more precise:\n  {}", names.join("\n  "))]
    SeveralMirrors {
        /// As it was typed.
        wanted: String,
        /// The mirrors it fits.
        names: Vec<String>,
    },
    /// The daemon sent something that it should not.
    #[error("the daemon's answer is not understood: {0}")]
    Answer(String),
    /// The templates that the configuration names.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A key or value of `set`.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// What came out of the editor.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A file that cannot be read or applied.
    #[error("{}: {reason}", file.display())]
    File {
        /// As it was named.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No editor is installed.
    #[error("there is no text editor: set the environment variable EDITOR to a command that edits a file")]
    NoEditor,
    /// The editor reported a failure.
    #[error("the editor `{editor}` failed: {status}")]
    Editor {
        /// Its command.
        editor: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// What was edited is not stored.
    #[error("{reason}\nWhat you wrote is kept in {}", path.display())]
    NotStored {
        /// Why.
        reason: Box<CommandError>,
        /// Where it is kept.
        path: PathBuf,
    },
    /// The configuration file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The databases cannot be copied.
    #[error("cannot migrate: {0}")]
    Migrate(#[from] MigrateError),
    /// The daemon does not start, or ended by itself.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The demo could not be set up, or ended by itself.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// Some mirrors could not be scanned; each was reported.
    #[error("{failed} of {all} scans failed")]
    Scans {
        /// How many failed.
        failed: usize,
        /// How many were tried.
        all: usize,
    },
    /// The operator's limit is over.
    #[error("not done within {0} seconds; the daemon stops what it was doing")]
    Timeout(u64),
    /// The password cannot be read or sent.
    #[error("password: {0}")]
    Password(String),
    /// The operator said no.
    #[error("nothing was changed")]
    Declined,
    /// The command makes no sense as it was typed.
    #[error("{0}")]
    Usage(&'static str),
    /// Standard output or the machine failed us.
    #[error("{0}")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// 2 for wrong usage, else 1.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            CommandError::Usage(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

impl From<Status> for CommandError {
    fn from(status: Status) -> CommandError {
        CommandError::Refused(Box::new(status))
    }
}

fn status_text(status: &Status) -> String {
    let message = status.message();
    match status.code() {
        Code::Unauthenticated => format!("access denied: {message}"),
        Code::Unavailable => format!("the connection to the daemon broke: {message}"),
        code if message.is_empty() => code.description().to_owned(),
        _ => message.to_owned(),
    }
}
