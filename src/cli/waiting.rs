//! A sign of life while the daemon works: a spinner with what is done and for how long, where somebody sees it.
//!
//! The calls of Mirrorbits answer once, at the end, so there is nothing to draw a bar from; the time that passes is what is
//! known for sure.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

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
        let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_message(work);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            spinner.set_style(style);
        }
        spinner.enable_steady_tick(TICK);
        Waiting { spinner }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.spinner.finish_and_clear();
    }
}
