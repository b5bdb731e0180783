//! The RPC server: what the command line, ours and that of Mirrorbits 0.6.1, speaks to.
//!
//! - [`proto`]: the generated messages, client and server
//! - [`wire`]: mirrors as messages
//! - `password`: who may call
//! - `tries`: who guesses passwords
//! - `call`: what each call is held to
//! - `settings`: what an operator enters, checked and brought into form
//! - `batch`: changes of many mirrors, received in parts
//! - `locate`: where a new mirror stands
//! - `downloads`: what is asked for of the statistics
//! - `explained`: [`explain`](super::explain)'s answers as messages
//! - [`Service`]: the methods

use std::sync::Arc;
use std::time::Duration;

use futures_lite::stream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;

mod batch;
mod call;
mod downloads;
mod explained;
mod locate;
mod password;
pub mod proto;
mod service;
pub(crate) mod settings;
mod tries;
pub mod wire;

pub use locate::Locate;
pub use password::{METADATA_KEY, PasswordCheck};
pub use service::{NOTICE_KEY, Parts, Service};

use super::connections::{Connections, Limits};
use super::control_socket::ControlSocket;
use call::Limited;
use proto::cli_server::CliServer;

/// Calls under way at the shutdown have this long to end. Those that do not, such as scans, end with the runtime.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Connections: people and scripts hold few, for the time of a command.
const LIMITS: Limits = Limits {
    purpose: "RPC",
    connections: 64,
    per_address: 32,
    opening: HTTP2_PREFACE,
    opening_time: Duration::from_secs(5),
    idle_time: Duration::from_secs(300),
};
/// Bytes by which every client of HTTP/2 begins (RFC 9113, section 3.4).
const HTTP2_PREFACE: usize = 24;
/// Bytes of a message: room for some thousand mirrors. Those of callers without the password are not read.
const MESSAGE_MAX: usize = 4 << 20;
/// Bytes of the header fields of a call: a few short ones and the password.
const HEADERS_MAX: u32 = 16 << 10;
/// Calls at a time on one connection.
const CALLS_MAX: u32 = 16;
/// How often a silent client is asked whether it is there, and how long its answer may take.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIME: Duration = Duration::from_secs(10);

/// Why the RPC server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The server ended by itself.
    #[error("the RPC server stopped: {0}")]
    Stopped(#[from] tonic::transport::Error),
    /// The compiled descriptors do not fit the reflection service.
    #[error("RPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Answers calls on `socket` until `shutdown`, and then waits briefly for those under way. In the meantime it publishes
/// again what a call stored and could not publish.
///
/// # Errors
/// The server ended before `shutdown`.
pub async fn serve(
    socket: ControlSocket,
    service: Service,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let check = service.password_check();
    let table = service.mirror_table();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let reflection_alpha = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .build_v1alpha()?;
    let incoming = stream::unfold((socket, Connections::new(LIMITS)), async |(socket, connections)| {
        let connection = connections.accept(&socket).await;
        mb_core::fault::point("rpc");
        Some((Ok::<_, std::io::Error>(connection), (socket, connections)))
    });
    let commands = CliServer::new(service).max_decoding_message_size(MESSAGE_MAX);
    let stopping = Arc::new(tokio::sync::Notify::new());
    let stop = Arc::clone(&stopping);
    let server = Server::builder()
        .max_concurrent_streams(CALLS_MAX)
        .http2_max_header_list_size(HEADERS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIME))
        .add_service(Limited(InterceptedService::new(commands, check.clone())))
        .add_service(Limited(InterceptedService::new(reflection, check.clone())))
        .add_service(Limited(InterceptedService::new(reflection_alpha, check)))
        .serve_with_incoming_shutdown(incoming, async move {
            shutdown.await;
            stop.notify_one();
        });
    let grace_is_over = async {
        stopping.notified().await;
        tokio::time::sleep(SHUTDOWN_GRACE).await;
    };
    tokio::select! {
        ended = server => Ok(ended?),
        () = grace_is_over => Ok(()),
        () = table.keep_published() => Ok(()),
    }
}
