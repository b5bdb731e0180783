//! The HTTP server of metrics and health: three pages for few clients, which must not hold each other up.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body, Bytes};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Watch;
use crate::control::control_socket::ControlSocket;
use crate::metrics::exposition;
use crate::metrics::readiness::Readiness;

/// Connections at a time. Prometheus keeps one, a balancer a few; more are taken when others end.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take to send a request, and a connection may wait for one: longer than Prometheus waits by default
/// between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);
/// How long accepting pauses when the process or the system has no descriptors or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

const PLAIN: &str = "text/plain; charset=utf-8";

/// Serves what `watch` sees, and keeps it seeing; never returns. Drop the future to end both.
pub async fn serve(socket: ControlSocket, watch: Arc<Watch>) {
    tokio::join!(watch.run(), accept(socket, Arc::clone(&watch)));
}

async fn accept(socket: ControlSocket, watch: Arc<Watch>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = socket.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok(stream) => {
                    connections.spawn(connection(stream, Arc::clone(&watch)));
                }
                Err(error) => {
                    tracing::warn!("a connection for metrics cannot be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, watch: Arc<Watch>) {
    let service = service_fn(|request| answer(request, &watch));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!("a connection for metrics ended: {error}");
    }
}

async fn answer(request: Request<impl Body>, watch: &Watch) -> Result<Response<Full<Bytes>>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = page(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "Method Not Allowed\n".to_owned());
        refusal.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return Ok(refusal);
    }
    Ok(match request.uri().path() {
        "/metrics" => match watch.look(exposition::page).await {
            Ok(text) => page(StatusCode::OK, exposition::CONTENT_TYPE, text),
            Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n")),
        },
        "/healthz" => page(StatusCode::OK, PLAIN, "alive\n".to_owned()),
        "/readyz" => {
            let readiness = watch.look(Readiness::of).await;
            let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            page(status, PLAIN, readiness.text())
        }
        _ => page(StatusCode::NOT_FOUND, PLAIN, "There are /metrics, /healthz and /readyz\n".to_owned()),
    })
}

fn page(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}
