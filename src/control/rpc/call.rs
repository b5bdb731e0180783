//! What every call is held to: it is counted for its connection, and it has a limit of time unless its
//! work lasts on purpose.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{self, Service, http};
use tonic::server::NamedService;

use crate::control::connections::Peer;

/// How long a call may take: the store answers in milliseconds, or gives up by limits of its own;
/// statistics of many days are read in seconds. A guess.
const CALL_TIME: Duration = Duration::from_secs(60);
/// Calls that scan, or wait for another process, and end by limits of their own.
const LASTING: [&str; 4] = ["ScanMirror", "RefreshRepository", "Reload", "Upgrade"];

/// A service whose calls are limited.
#[derive(Clone, Debug)]
pub(super) struct Limited<S>(pub(super) S);

impl<S: NamedService> NamedService for Limited<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<Body>> for Limited<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: codegen::Body<Data = codegen::Bytes> + Send + 'static,
    B::Error: Into<codegen::StdError>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let call = request.extensions().get::<Peer>().map(|peer| (peer.call(), peer.addresses.clone()));
        let call = call.map(|(call, addresses)| {
            // Where tonic looks for the address of the other end.
            request.extensions_mut().insert(addresses);
            call
        });
        let limit = time_limit(request.uri().path());
        let answer = self.0.call(request);
        Box::pin(async move {
            let _call = call;
            let answer = async { answer.await.map(|response| response.map(Body::new)) };
            let Some(limit) = limit else { return answer.await };
            match tokio::time::timeout(limit, answer).await {
                Ok(answer) => answer,
                Err(_) => {
                    let reason = format!(
                        "the daemon could not answer within {} s: the store or a disk may not answer; what was to be \
                         changed may be changed later",
                        limit.as_secs()
                    );
                    Ok(Status::deadline_exceeded(reason).into_http())
                }
            }
        })
    }
}

/// How long a call of the method at `path` may take.
fn time_limit(path: &str) -> Option<Duration> {
    let method = path.rsplit('/').next().unwrap_or_default();
    (!LASTING.contains(&method)).then_some(CALL_TIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_work_that_lasts_has_no_limit() {
        assert_eq!(time_limit("/CLI/ScanMirror"), None);
        assert_eq!(time_limit("/CLI/RefreshRepository"), None);
        assert_eq!(time_limit("/CLI/List"), Some(CALL_TIME));
        assert_eq!(time_limit(""), Some(CALL_TIME));
    }
}
