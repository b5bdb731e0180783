//! HTTP/1.x, bytes in and bytes out: no sockets, no clock, no configuration.
//!
//! - [`request`]: a request head from the bytes received, with its limits
//! - [`target`]: the path and the query of a request
//! - [`body`]: how much of a request's body is still to be dropped
//! - [`reader`]: requests with their bodies, from bytes that arrive in pieces
//! - [`response`]: a response head and body, appended to an output buffer
//! - [`json`]: JSON text as Go's `encoding/json` writes it
//! - [`date`]: points in time as HTTP and JSON write them

// Their input decides: what is cut out of it, and what is counted in it, is checked.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

pub mod body;
pub mod date;
pub mod json;
pub mod reader;
pub mod request;
pub mod response;
pub mod target;

#[cfg(test)]
mod found_by_fuzzing;
