//! HTTP/1.x, bytes in and bytes out: no sockets, no clock, no configuration.
//!
//! - [`request`]: a request head from the bytes received, with its limits
//! - [`target`]: the path and the query of a request
//! - [`body`]: how much of a request's body is still to be dropped
//! - [`response`]: a response head and body, appended to an output buffer
//! - [`json`]: JSON text as Go's `encoding/json` writes it
//! - [`date`]: points in time as HTTP and JSON write them

pub mod body;
pub mod date;
pub mod json;
pub mod request;
pub mod response;
pub mod target;
