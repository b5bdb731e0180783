//! Panics that tests bring about where a defect could, to see what becomes of the connection and of the others. In the program
//! itself there is nothing of it.

/// What is done to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is read from.
    Read,
    /// A request of it was answered, and is not counted yet.
    Answer,
    /// Its answers are written.
    Write,
    /// Its time is over.
    Late,
}

/// Panics if that was asked for.
#[cfg(not(test))]
#[inline(always)]
pub fn point(_: Step) {}

#[cfg(test)]
pub use provoked::{after, point};

#[cfg(test)]
mod provoked {
    use std::cell::Cell;

    use super::Step;

    thread_local! {
        /// Where to panic, and how often the place is passed before.
        static WANTED: Cell<Option<(Step, usize)>> = const { Cell::new(None) };
    }

    /// Has this thread panic at `step` once, when it has passed there so many times.
    pub fn after(passed: usize, step: Step) {
        WANTED.set(Some((step, passed)));
    }

    pub fn point(step: Step) {
        match WANTED.get() {
            Some((wanted, 0)) if wanted == step => {
                WANTED.set(None);
                panic!("provoked at {step:?}");
            }
            Some((wanted, passed)) if wanted == step => WANTED.set(Some((step, passed - 1))),
            _ => {}
        }
    }
}
