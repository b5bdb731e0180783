//! A sign of life while the daemon works: a spinner with what is done and for how long, where somebody sees it.
//!
//! The calls of Mirrorbits answer once, at the end, so there is nothing to draw a bar from; the time that passes is what is
//! known for sure.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mb_core::foreign_text::ForeignText;

/// Between two pictures of the spinner.
const TICK: Duration = Duration::from_millis(100);

/// A line on standard error until it is dropped; nothing unless standard output and standard error are terminals.
pub(super) struct Waiting {
    spinner: ProgressBar,
}

impl Waiting {
    /// Shows that `work` is being done.
    pub(super) fn show(work: String) -> Waiting {
        if !io::stdout().is_terminal() || !io::stderr().is_terminal() {
            return Waiting { spinner: ProgressBar::hidden() };
        }
        let target = ProgressDrawTarget::stderr();
        let spinner = ProgressBar::with_draw_target(None, target).with_message(message(&work));
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            spinner.set_style(style);
        }
        spinner.enable_steady_tick(TICK);
        Waiting { spinner }
    }
}

/// `work` as the spinner shows it: the library writes it to the terminal itself, and names of
/// mirrors are foreign text.
fn message(work: &str) -> String {
    ForeignText::new(work).to_string()
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.spinner.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of a mirror that another program wrote cleared the operator's screen while it was
    /// scanned.
    #[test]
    fn names_of_mirrors_do_not_reach_the_terminal_raw() {
        assert_eq!(message("Scanning a\x1b[2J\u{202e}b\nc"), "Scanning a\\x1b[2J\\u{202e}b\\nc");
    }
}
