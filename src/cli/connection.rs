//! The way to the daemon: its address, the password, and a mirror by its name.

use std::error::Error as _;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::time::Duration;

use clap::Args;
use mb_core::mirror::{Found, Mirror, find_by_name};
use mb_core::secret::Secret;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::error::CommandError;
use crate::control::rpc::METADATA_KEY;
use crate::control::rpc::proto::cli_client::CliClient;
use crate::control::rpc::proto::{MatchRequest, MirrorId, MirrorIdRequest};
use crate::control::rpc::wire;

/// A daemon that needs longer to accept a connection is taken for unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between probes of a silent connection: a machine that went away during a long scan is noticed.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
/// The largest answer: a full mirror log with long error texts fits many times.
const LARGEST_ANSWER: usize = 64 << 20;

/// Options before the command.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Host of the daemon
    #[arg(short = 'h', value_name = "HOST", default_value = "localhost")]
    pub(super) host: String,
    /// Port of the daemon
    #[arg(short = 'p', value_name = "PORT", default_value_t = 3390)]
    pub(super) port: u16,
    /// Password of the daemon
    #[arg(short = 'P', value_name = "PASSWORD", default_value = "", hide_default_value = true)]
    pub(super) password: Secret,
    /// Ask for the password; without a terminal it is read from standard input
    #[arg(short = 'a')]
    pub(super) ask: bool,
    /// Show what is going on inside
    #[arg(long)]
    pub(super) debug: bool,
}

impl Options {
    /// Runs `command` to its end on this thread.
    pub(super) fn block_on<T>(
        &self,
        command: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        if self.debug {
            tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(io::stderr).init();
        }
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
    }

    fn address(&self) -> String {
        if self.host.contains(':') && !self.host.starts_with('[') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn password(&self) -> Result<MetadataValue<Ascii>, CommandError> {
        let password = if self.ask { ask_password()? } else { self.password.clone() };
        let mut value = MetadataValue::try_from(password.expose())
            .map_err(|_| CommandError::Password("control characters cannot be sent".to_owned()))?;
        // Logs of the HTTP library show it as such, and not its text.
        value.set_sensitive(true);
        Ok(value)
    }
}

/// From the terminal without showing it, else the first line of standard input.
fn ask_password() -> Result<Secret, CommandError> {
    let refuse = |error: io::Error| CommandError::Password(error.to_string());
    if io::stdin().is_terminal() {
        return rpassword::prompt_password("Password: ").map(Secret::new).map_err(refuse);
    }
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(refuse)?;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(Secret::new(line))
}

/// Adds the password to every call.
pub(super) struct WithPassword(MetadataValue<Ascii>);

impl Interceptor for WithPassword {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(METADATA_KEY, self.0.clone());
        Ok(request)
    }
}

/// A daemon that accepted the connection.
pub(super) struct Daemon {
    /// Its methods.
    pub(super) rpc: CliClient<InterceptedService<Channel, WithPassword>>,
}

impl Daemon {
    /// Connects to the daemon.
    pub(super) async fn connect(options: &Options) -> Result<Daemon, CommandError> {
        let password = options.password()?;
        let address = options.address();
        let connected = match Endpoint::from_shared(format!("http://{address}")) {
            Ok(endpoint) => {
                endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_keepalive(Some(TCP_KEEPALIVE)).connect().await
            }
            Err(error) => Err(error),
        };
        let channel = connected.map_err(|error| CommandError::Unreachable { address, reason: root_cause(&error) })?;
        let rpc =
            CliClient::with_interceptor(channel, WithPassword(password)).max_decoding_message_size(LARGEST_ANSWER);
        Ok(Daemon { rpc })
    }

    /// The one mirror that `identifier` names.
    pub(super) async fn find(&mut self, identifier: &str) -> Result<MirrorId, CommandError> {
        let request = MatchRequest { pattern: identifier.to_owned() };
        let mirrors = self.rpc.match_mirror(request).await?.into_inner().mirrors;
        match find_by_name(&mirrors, |mirror| &mirror.name, identifier) {
            Found::One(mirror) => Ok(mirror.clone()),
            Found::None => Err(CommandError::NoMirror(identifier.to_owned())),
            Found::Several(fitting) => Err(CommandError::SeveralMirrors {
                wanted: identifier.to_owned(),
                names: fitting.into_iter().map(|mirror| mirror.name.clone()).collect(),
            }),
        }
    }

    /// The record of the one mirror that `identifier` names.
    pub(super) async fn mirror(&mut self, identifier: &str) -> Result<Mirror, CommandError> {
        let id = self.find(identifier).await?.id;
        let message = self.rpc.mirror_info(MirrorIdRequest { id }).await?.into_inner();
        wire::mirror_from_wire(message).ok_or_else(|| CommandError::Answer(format!("mirror {id} came without its id")))
    }

    /// All mirrors, by ascending id.
    pub(super) async fn mirrors(&mut self) -> Result<Vec<Mirror>, CommandError> {
        let messages = self.rpc.list(()).await?.into_inner().mirrors;
        let mut mirrors: Vec<Mirror> = messages.into_iter().filter_map(wire::mirror_from_wire).collect();
        mirrors.sort_by_key(|mirror| mirror.id);
        Ok(mirrors)
    }
}

/// The innermost cause, since the outer ones only say "transport error".
fn root_cause(error: &tonic::transport::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    let mut depth = error.source();
    while let Some(inner) = depth {
        cause = inner;
        depth = inner.source();
    }
    cause.to_string()
}
