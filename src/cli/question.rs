//! Questions whose answer is no unless it is yes.

use std::io::{self, BufRead as _, Write as _};

use super::error::CommandError;

/// Asks on standard error and reads the answer from standard input, be it a terminal or not.
///
/// # Errors
/// [`CommandError::Declined`] when the answer is not yes.
pub(super) fn confirm(question: &str) -> Result<(), CommandError> {
    write!(super::terminal::stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CommandError::Declined),
    }
}
