//! Messages, client and server generated from `proto/mirrorbits.proto`.
#![allow(missing_docs, reason = "the messages are documented in the .proto file and in the reference they follow")]

tonic::include_proto!("_");

/// The compiled `.proto` file, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mirrorbits.fds"));
