//! The runtimes that shards run on, and the test of what this machine allows.

pub mod glommio;
pub mod probe;
