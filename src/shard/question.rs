//! An answer that comes from outside the shard, and the connection that waits for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{mpsc, oneshot};

use crate::handle::Handler;
use crate::handle::outcome::{Kind, Outcome};
use crate::http::date::HTTP_DATE_LENGTH;
use crate::http::request::{Method, Persistence, Request};
use crate::http::response::{self, Content, Envelope, Response, Status};
use crate::http::target::{Directive, Parameters, Target};
use crate::pages::{self, Form, Subject};
use crate::stats::file_statistics::{self, Asked};

/// Where shards put what they cannot answer by themselves. The queues are bounded, and no shard waits for room in them.
#[derive(Clone)]
pub struct Questions {
    /// About the counts of a file.
    pub statistics: mpsc::Sender<file_statistics::Question>,
    /// For pages and long documents.
    pub pages: mpsc::Sender<pages::Question>,
}

impl Questions {
    /// Passes `request` on, which `handler` answered last, and offloaded with `outcome`.
    pub fn ask(&self, outcome: &Outcome, handler: &mut Handler, request: &Request<'_>) -> Pending {
        let parameters = Target::parse(request.target).map(|target| Parameters::of(&target)).unwrap_or_default();
        let (sender, receiver) = oneshot::channel();
        let is_taken = match page_of(outcome, handler, request, &parameters) {
            Some((subject, form)) => {
                let accepts_gzip = request.accepts_gzip;
                let settings = Arc::clone(&handler.snapshot().settings);
                let is_download = outcome.kind == Kind::Json;
                let question = pages::Question { subject, form, is_download, accepts_gzip, settings, answer: sender };
                self.pages.try_send(question).is_ok()
            }
            None => {
                let period = match parameters.directive {
                    Directive::Stats { period } => period,
                    _ => b"",
                };
                let path = handler.path(outcome).to_owned();
                let question = file_statistics::Question { path, asked: Asked::new(period), answer: sender };
                self.statistics.try_send(question).is_ok()
            }
        };
        Pending {
            answer: is_taken.then_some(receiver),
            kind: outcome.kind,
            status: outcome.status,
            persistence: request.persistence,
            head_only: request.method == Method::Head,
        }
    }
}

/// The page or document that `request` wants; `None` for what is none.
fn page_of(
    outcome: &Outcome,
    handler: &mut Handler,
    request: &Request<'_>,
    parameters: &Parameters<'_>,
) -> Option<(Subject, Form)> {
    let json = Form::Json { pretty: parameters.pretty };
    if outcome.kind == Kind::MirrorStatistics {
        let subject = Subject::MirrorStatistics { mirrors: Arc::clone(&handler.snapshot().mirrors) };
        return Some((subject, if request.accepts_json { json } else { Form::Page }));
    }
    let document = handler.take_document()?;
    let subject = Subject::MirrorList { path: handler.path(outcome).to_owned(), document };
    Some((subject, if outcome.kind == Kind::MirrorListPage { Form::Page } else { json }))
}

/// A request whose answer is on its way.
pub struct Pending {
    /// `None` when the question was not taken.
    answer: Option<oneshot::Receiver<Content>>,
    /// What the answer counts as, unless it cannot be had.
    kind: Kind,
    status: Status,
    persistence: Persistence,
    head_only: bool,
}

impl Pending {
    /// Waits for the answer, which is then appended to `out`; that it cannot be had, when the question was
    /// not taken or dropped. Returns what the answer counts as.
    pub fn poll(
        &mut self,
        context: &mut Context<'_>,
        date: &[u8; HTTP_DATE_LENGTH],
        out: &mut Vec<u8>,
    ) -> Poll<(Kind, Status)> {
        let content = match &mut self.answer {
            Some(receiver) => std::task::ready!(Pin::new(receiver).poll(context)).ok(),
            None => None,
        };
        let envelope = Envelope { date, persistence: self.persistence, head_only: self.head_only };
        match content {
            Some(content) => {
                content.respond(envelope, out);
                Poll::Ready((self.kind, self.status))
            }
            None => {
                let response = Response::new(out, Status::ServiceUnavailable, envelope).lines(RETRY_AFTER);
                response::text(response, "Not available at the moment");
                Poll::Ready((Kind::Refusal, Status::ServiceUnavailable))
            }
        }
    }
}

/// When a client may ask again: a guess, by which a store that was started anew is back.
const RETRY_AFTER: &str = "Retry-After: 60\r\n";

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn poll(pending: &mut Pending) -> Poll<(Kind, Status, String)> {
        let mut out = Vec::new();
        let date = b"Sun, 22 Nov 2026 12:00:00 GMT";
        let polled = pending.poll(&mut Context::from_waker(Waker::noop()), date, &mut out);
        polled.map(|(kind, status)| (kind, status, String::from_utf8(out).unwrap()))
    }

    fn pending(answer: Option<oneshot::Receiver<Content>>, head_only: bool) -> Pending {
        let (kind, status) = (Kind::MirrorList, Status::Ok);
        Pending { answer, kind, status, persistence: Persistence::Implied, head_only }
    }

    #[test]
    fn an_answer_is_waited_for() {
        for head_only in [false, true] {
            let (sender, receiver) = oneshot::channel();
            let mut pending = pending(Some(receiver), head_only);
            assert!(poll(&mut pending).is_pending());
            sender.send(Content { lines: "Content-Type: text/html\r\n".to_owned(), body: b"page".to_vec() }).unwrap();
            let Poll::Ready((kind, status, answer)) = poll(&mut pending) else { panic!("it is there") };
            assert_eq!((kind, status), (Kind::MirrorList, Status::Ok));
            assert!(
                answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\r\nContent-Length: 4\r\n"),
                "{answer}"
            );
            assert_eq!(answer.ends_with("\r\n\r\npage"), !head_only, "{answer}");
        }
    }

    #[test]
    fn a_question_that_is_refused_or_dropped_is_answered_too() {
        let (_, dropped) = oneshot::channel();
        for answer in [None, Some(dropped)] {
            let Poll::Ready((kind, status, answer)) = poll(&mut pending(answer, false)) else {
                panic!("nothing is to come")
            };
            assert_eq!((kind, status), (Kind::Refusal, Status::ServiceUnavailable));
            assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: 60\r\n"), "{answer}");
        }
    }
}
