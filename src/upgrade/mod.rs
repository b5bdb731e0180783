//! Handing the listening sockets over to a new process of this program, so that no client notices. `PROTOCOL.md` in this folder
//! is the contract between the two, which may be of different releases.
//!
//! - [`message`]: what they say
//! - [`channel`]: how it travels, descriptors included
//! - [`descriptor`]: what a received descriptor must be
//! - [`old`], [`new`]: what each does next, as functions of state and event
//! - [`hand_over`], [`inherit`]: the same at work
//! - [`program`]: the program that is started again

pub mod channel;
pub mod descriptor;
pub mod hand_over;
pub mod inherit;
pub mod message;
pub mod new;
pub mod old;
pub mod program;
