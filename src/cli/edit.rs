//! `edit`: the settings of a mirror in the operator's editor.
//!
//! What was typed is never lost: when it cannot be stored and is not tried again, the message tells where the file is kept.

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use clap::Args;
use mb_core::mirror::Mirror;
use tempfile::NamedTempFile;

use super::connection::Daemon;
use super::editor::Editor;
use super::error::CommandError;
use super::settings::print_difference;
use crate::control::mirror_documents;
use crate::control::mirror_fields;
use crate::control::rpc::wire;

const INTRODUCTION: &str = "# Change what you like, save and quit. Without a change nothing happens.\n\n";

/// Options of `edit`.
#[derive(Args, Debug)]
pub(super) struct Edit {
    /// Name of the mirror, or a part of it that fits no other
    identifier: String,
}

impl Edit {
    /// Opens the editor, stores what was changed and prints the difference.
    pub(super) async fn run(self, daemon: &mut Daemon) -> Result<(), CommandError> {
        let editor = Editor::find()?;
        let mirror = daemon.mirror(&self.identifier).await?;
        let original = format!("{INTRODUCTION}{}", mirror_fields::to_yaml(&mirror));
        let file = temporary_file(&original)?;
        loop {
            let edited = edit(&editor, file.path());
            let text = fs::read_to_string(file.path());
            if matches!(&text, Ok(text) if *text == original) {
                edited?;
                writeln!(super::terminal::stderr(), "The settings are as they were: nothing was changed")?;
                return Ok(());
            }
            let stored = match (edited, text) {
                (Ok(()), Ok(text)) => store(daemon, &mirror, &text).await,
                (Ok(()), Err(error)) => Err(error.into()),
                (Err(error), _) => Err(error),
            };
            match stored {
                Ok(difference) => {
                    print_difference(&difference)?;
                    writeln!(super::terminal::stderr(), "Mirror '{}' edited successfully", mirror.settings.name)?;
                    return Ok(());
                }
                Err(error) if !io::stdin().is_terminal() => return Err(keep(file, error)),
                Err(error) if try_again(&error)? => {}
                Err(_) => return Err(keep(file, CommandError::Declined)),
            }
        }
    }
}

fn temporary_file(content: &str) -> Result<NamedTempFile, CommandError> {
    let mut file = tempfile::Builder::new().prefix("mirrorbits-").suffix(".yaml").tempfile()?;
    file.write_all(content.as_bytes())?;
    file.flush()?;
    Ok(file)
}

fn edit(editor: &Editor, file: &Path) -> Result<(), CommandError> {
    match editor.open(file)? {
        status if status.success() => Ok(()),
        status => Err(CommandError::Editor { editor: editor.to_string(), status }),
    }
}

/// Stores the mirror as `text` says and returns the difference.
async fn store(daemon: &mut Daemon, mirror: &Mirror, text: &str) -> Result<String, CommandError> {
    let mut changed = mirror.clone();
    mirror_documents::read_edited(text, &mut changed)?;
    Ok(daemon.rpc.update_mirror(wire::mirror_to_wire(&changed)).await?.into_inner().diff)
}

/// Tells what went wrong and asks whether to edit again.
fn try_again(error: &CommandError) -> Result<bool, CommandError> {
    loop {
        write!(super::terminal::stderr(), "{error}\nRetry? [Y/n] ")?;
        let mut answer = String::new();
        if io::stdin().lock().read_line(&mut answer)? == 0 {
            return Ok(false);
        }
        match answer.trim().to_ascii_lowercase().as_str() {
            "" | "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            _ => {}
        }
    }
}

/// The error, with the place where the file stays.
fn keep(file: NamedTempFile, error: CommandError) -> CommandError {
    match file.keep() {
        Ok((_, path)) => CommandError::NotStored { reason: Box::new(error), path },
        Err(lost) => lost.error.into(),
    }
}
