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
use tokio::task::JoinSet;

use super::Watch;
use crate::control::connections::{Connection, Connections, Limits};
use crate::control::control_socket::ControlSocket;
use crate::metrics::exposition;
use crate::metrics::readiness::Readiness;

/// Prometheus keeps one connection, a balancer a few, also behind one address.
const LIMITS: Limits = Limits {
    purpose: "metrics",
    connections: 64,
    per_address: 32,
    opening: 1,
    opening_time: Duration::from_secs(10),
    idle_time: IDLE_TIME,
};
/// How long a connection may wait for a request, and the request take: longer than Prometheus waits by default between two.
const IDLE_TIME: Duration = Duration::from_secs(90);
/// Bytes of a request's head, and how many fields it may have: what scrapers and balancers send is a tenth of it.
const HEAD_MAX: usize = 16 << 10;
const HEADER_FIELDS_MAX: usize = 64;

const PLAIN: &str = "text/plain; charset=utf-8";

/// Serves what `watch` sees, and collects for it; never returns. Drop the future to end both.
pub async fn serve(socket: ControlSocket, watch: Arc<Watch>) {
    tokio::join!(watch.collect(), accept(socket, Arc::clone(&watch)));
}

async fn accept(socket: ControlSocket, watch: Arc<Watch>) {
    let places = Connections::new(LIMITS);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = places.accept(&socket) => {
                connections.spawn(connection(accepted, Arc::clone(&watch)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(connection: Connection, watch: Arc<Watch>) {
    let peer = connection.peer();
    let service = service_fn(|request| {
        let call = peer.call();
        let answer = answer(request, &watch);
        async {
            let _call = call;
            answer.await
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIME)
        .max_buf_size(HEAD_MAX)
        .max_headers(HEADER_FIELDS_MAX)
        .serve_connection(TokioIo::new(connection), service)
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
