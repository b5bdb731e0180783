//! The HTTP client of health checks and trace files.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};

/// Limits of one request (spec: 20 s to connect, 40 s in all).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const TIMEOUT: Duration = Duration::from_secs(40);

/// A trace file holds a number and perhaps a date; no more of it is read.
const TRACE_BYTES: usize = 4 << 10;

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
        let builder = || {
            Client::builder()
                .no_proxy()
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
        let response = self.0.head(url).send().await?;
        let length = response.headers().get(reqwest::header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Head { status: response.status().as_u16(), length })
    }

    /// Fetches a trace file: its first word is a time in Unix seconds.
    pub(crate) async fn trace(&self, url: &str) -> Result<i64, TraceError> {
        let mut response = self.0.get(url).send().await?;
        if response.status() != StatusCode::OK {
            return Err(TraceError::Status(response.status()));
        }
        let mut text = Vec::new();
        while let Some(part) = response.chunk().await? {
            text.extend_from_slice(&part);
            if text.len() >= TRACE_BYTES {
                text.truncate(TRACE_BYTES);
                break;
            }
        }
        trace_time(&text).ok_or(TraceError::Content)
    }
}

fn trace_time(text: &[u8]) -> Option<i64> {
    let first_word = text.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())?;
    std::str::from_utf8(first_word).ok()?.parse().ok().filter(|&seconds| seconds > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_of_a_trace_file_is_its_time() {
        assert_eq!(trace_time(b"1700000000\n"), Some(1_700_000_000));
        assert_eq!(trace_time(b" 1700000000 Tue Nov 14"), Some(1_700_000_000));
        for text in [&b""[..], b"Tue Nov 14", b"-5", b"0", b"17e8", b"\xff"] {
            assert_eq!(trace_time(text), None);
        }
    }
}
