//! An answer that comes from outside the shard, and the connection that waits for it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::{mpsc, oneshot};

use crate::http::date::HTTP_DATE_LENGTH;
use crate::http::request::{Method, Persistence, Request};
use crate::http::response::Envelope;
use crate::http::target::{Directive, Parameters, Target};
use crate::stats::file_statistics::{Answer, Asked, Question, respond};

/// A request whose answer is on its way.
pub struct Pending {
    /// `None` when the question was not taken.
    answer: Option<oneshot::Receiver<Answer>>,
    persistence: Persistence,
    head_only: bool,
}

impl Pending {
    /// Asks for the statistics that `request` wants of the file at `path`.
    pub fn ask(questions: &mpsc::Sender<Question>, path: &[u8], request: &Request<'_>) -> Pending {
        let parameters = Target::parse(request.target).map(|target| Parameters::of(&target)).unwrap_or_default();
        let period = match parameters.directive {
            Directive::Stats { period } => period,
            _ => b"",
        };
        let (sender, receiver) = oneshot::channel();
        let question = Question { path: path.to_owned(), asked: Asked::new(period), answer: sender };
        Pending {
            answer: questions.try_send(question).is_ok().then_some(receiver),
            persistence: request.persistence,
            head_only: request.method == Method::Head,
        }
    }

    /// Waits for the answer, which is then appended to `out`.
    pub fn poll(&mut self, context: &mut Context<'_>, date: &[u8; HTTP_DATE_LENGTH], out: &mut Vec<u8>) -> Poll<()> {
        let answer = match &mut self.answer {
            // Nobody answers any more when the sender is gone.
            Some(receiver) => std::task::ready!(Pin::new(receiver).poll(context)).ok(),
            None => None,
        };
        let envelope = Envelope { date, persistence: self.persistence, head_only: self.head_only };
        respond(answer.as_ref(), envelope, out);
        Poll::Ready(())
    }
}
