//! The HTTP client of health checks and trace files.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use std::collections::HashSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use tokio::sync::Semaphore;

/// Limits of one request (spec: 20 s to connect, 40 s in all).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const TIMEOUT: Duration = Duration::from_secs(40);

/// A trace file holds a number and perhaps a date; no more of it is read.
const TRACE_BYTES: usize = 4 << 10;

/// Names looked up at a time, of the 512 threads that tokio has for work that blocks: the store needs some, too.
const LOOKUPS_AT_ONCE: usize = 384;

/// How long a request waits for another lookup of the same name, and how often it looks.
const SAME_NAME_PATIENCE: Duration = Duration::from_secs(20);
const SAME_NAME_POLL: Duration = Duration::from_millis(10);

/// There is no client.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the HTTP client: {0}")]
pub(crate) struct HttpClientError(#[from] reqwest::Error);

/// Why a trace file says nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TraceError {
    /// It cannot be fetched.
    #[error("{0}")]
    Fetch(#[from] reqwest::Error),
    /// The server has none.
    #[error("got status code {0}")]
    Status(StatusCode),
    /// It does not begin with a number.
    #[error("it does not begin with a time in Unix seconds")]
    Content,
}

/// What a HEAD request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Status code.
    pub(crate) status: u16,
    /// `Content-Length`, where there was one.
    pub(crate) length: Option<u64>,
}

/// A client that follows no redirect, uses no proxy, keeps no connection and checks certificates against the roots of
/// the system.
#[derive(Clone, Debug)]
pub(crate) struct HttpClient(Client);

impl HttpClient {
    /// Sets the client up.
    pub(crate) fn new() -> Result<HttpClient, HttpClientError> {
        // Fails when a provider is installed already, and then it is this one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let lookups = Arc::new(Lookups::of_the_system());
        let builder = || {
            Client::builder()
                .no_proxy()
                .dns_resolver(Arc::clone(&lookups))
                .redirect(Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(TIMEOUT)
                .pool_max_idle_per_host(0)
                .user_agent(concat!("Mirrorbits/", env!("CARGO_PKG_VERSION"), " PING CHECK"))
        };
        match builder().build() {
            Ok(client) => Ok(HttpClient(client)),
            Err(error) => {
                tracing::warn!(%error, "no usable certificate roots (Debian: apt-get install ca-certificates): HTTPS mirrors will be down");
                let no_roots = rustls::ClientConfig::builder()
                    .with_root_certificates(rustls::RootCertStore::empty())
                    .with_no_client_auth();
                Ok(HttpClient(builder().tls_backend_preconfigured(no_roots).build()?))
            }
        }
    }

    /// Sends a HEAD request.
    pub(crate) async fn head(&self, url: &str) -> Result<Head, reqwest::Error> {
        // An error with the URL would show the password that may be in it.
        let response = self.0.head(url).send().await.map_err(reqwest::Error::without_url)?;
        let length = response.headers().get(reqwest::header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Head { status: response.status().as_u16(), length })
    }

    /// Fetches a trace file: its first word is a time in Unix seconds.
    pub(crate) async fn trace(&self, url: &str) -> Result<i64, TraceError> {
        let mut response = self.0.get(url).send().await.map_err(reqwest::Error::without_url)?;
        if response.status() != StatusCode::OK {
            return Err(TraceError::Status(response.status()));
        }
        let mut text = Vec::new();
        while let Some(part) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            let room = TRACE_BYTES.saturating_sub(text.len());
            text.extend_from_slice(part.get(..room).unwrap_or(&part));
            if text.len() >= TRACE_BYTES {
                break;
            }
        }
        trace_time(&text).ok_or(TraceError::Content)
    }
}

/// Looks names up by the resolver of the system, which blocks a thread for as long as a name server is silent.
///
/// A lookup goes on when its request has been given up, so one name is looked up at most once at a time: a name whose
/// server never answers holds one thread, and other names are not held up by it.
struct Lookups {
    places: Arc<Semaphore>,
    under_way: Arc<Mutex<HashSet<String>>>,
    look_up: fn(&str) -> std::io::Result<Vec<SocketAddr>>,
}

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
enum LookupError {
    #[error("an earlier lookup of this name is still without an answer")]
    UnderWay,
    #[error("looking the name up: {0}")]
    Failed(#[from] std::io::Error),
    #[error("looking the name up failed by a defect of this program: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

impl Lookups {
    fn of_the_system() -> Lookups {
        Lookups::by(|name| Ok((name, 0).to_socket_addrs()?.collect()))
    }

    fn by(look_up: fn(&str) -> std::io::Result<Vec<SocketAddr>>) -> Lookups {
        Lookups { places: Arc::new(Semaphore::new(LOOKUPS_AT_ONCE)), under_way: Arc::default(), look_up }
    }

    fn addresses(&self, name: String) -> impl Future<Output = Result<Vec<SocketAddr>, LookupError>> + Send + 'static {
        let (places, under_way, look_up) = (Arc::clone(&self.places), Arc::clone(&self.under_way), self.look_up);
        async move {
            // The same name over HTTP and HTTPS: both ask at once.
            let started = std::time::Instant::now();
            let name = loop {
                if let Some(name) = UnderWay::begin(&name, &under_way) {
                    break name;
                }
                if started.elapsed() >= SAME_NAME_PATIENCE {
                    return Err(LookupError::UnderWay);
                }
                tokio::time::sleep(SAME_NAME_POLL).await;
            };
            // The semaphore is never closed.
            let place = places.acquire_owned().await.ok();
            let found = tokio::task::spawn_blocking(move || {
                let _place = place;
                look_up(&name.name)
            });
            Ok(found.await??)
        }
    }
}

impl Resolve for Lookups {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = self.addresses(name.as_str().to_owned());
        Box::pin(async move {
            let addresses: Addrs = Box::new(addresses.await?.into_iter());
            Ok(addresses)
        })
    }
}

/// A name that is being looked up.
struct UnderWay {
    name: String,
    names: Arc<Mutex<HashSet<String>>>,
}

impl UnderWay {
    /// `None` when it is being looked up already.
    fn begin(name: &str, names: &Arc<Mutex<HashSet<String>>>) -> Option<UnderWay> {
        let is_new = names.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        is_new.then(|| UnderWay { name: name.to_owned(), names: Arc::clone(names) })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

fn trace_time(text: &[u8]) -> Option<i64> {
    let first_word = text.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())?;
    std::str::from_utf8(first_word).ok()?.parse().ok().filter(|&seconds| seconds > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each check of a mirror whose name server is silent held one more thread, until none was left for any mirror.
    #[test]
    fn names_that_get_no_answer_hold_one_thread_each_and_no_other_name() {
        static SILENCE: Mutex<()> = Mutex::new(());
        let silence = SILENCE.lock().unwrap();
        let lookups = Lookups::by(|name| {
            if name.starts_with("silent") {
                drop(SILENCE.lock());
            }
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0))])
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for number in 0..LOOKUPS_AT_ONCE - 1 {
                let given_up = lookups.addresses(format!("silent-{}", number % 50));
                assert!(tokio::time::timeout(Duration::from_millis(1), given_up).await.is_err());
            }
            let found = tokio::time::timeout(Duration::from_secs(20), lookups.addresses("good".to_owned())).await;
            assert_eq!(found.unwrap().unwrap().len(), 1);
            assert_eq!(lookups.places.available_permits(), LOOKUPS_AT_ONCE - 50);
        });
        drop(silence);
    }

    #[test]
    fn the_first_word_of_a_trace_file_is_its_time() {
        assert_eq!(trace_time(b"1700000000\n"), Some(1_700_000_000));
        assert_eq!(trace_time(b" 1700000000 Tue Nov 14"), Some(1_700_000_000));
        for text in [&b""[..], b"Tue Nov 14", b"-5", b"0", b"17e8", b"\xff"] {
            assert_eq!(trace_time(text), None);
        }
    }
}
