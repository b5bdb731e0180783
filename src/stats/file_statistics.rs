//! The counts of a file, as a client asks for them by `?stats`.
//!
//! They are in the store, which no shard ever waits for: the shard puts a [`Question`] into a bounded queue, the control
//! thread asks the store, and the connection alone waits for the answer. When the queue is full or the store does not
//! answer, the client is told so.

use std::sync::Arc;
use std::time::Duration;

use mb_core::store::{FileDownloads, Period, Store, StoreError};
use time::UtcDateTime;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::http::json::JsonWriter;
use crate::http::response::{self, Envelope, Response, Status};

/// Questions that wait; more are refused.
pub const QUESTIONS_WAITING: usize = 256;
/// Questions that the store is asked at once, so that commands still get their turn.
const ASKED_AT_ONCE: usize = 2;
/// How long a question may take altogether. A connection waits a little longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a client wants to know.
#[derive(Debug)]
pub struct Question {
    /// The file.
    pub path: Vec<u8>,
    /// Over which time.
    pub asked: Asked,
    /// Where the answer goes. One that is dropped means that it cannot be had.
    pub answer: oneshot::Sender<Answer>,
}

/// Over which time a client wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Today, this month, this year, and since ever.
    UntilNow,
    /// In the period of this text, which may be none: nothing was ever counted in it.
    In(String),
}

impl Asked {
    /// The time of a value of `stats`, which is made of digits and dashes.
    pub fn new(period: &[u8]) -> Asked {
        match period {
            [] => Asked::UntilNow,
            period => Asked::In(String::from_utf8_lossy(period).into_owned()),
        }
    }
}

/// What a client gets to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Until now.
    UntilNow(FileDownloads),
    /// In a period.
    In {
        /// The period, as it was asked for.
        period: String,
        /// The downloads.
        downloads: u64,
    },
}

/// Answers questions from `store` for as long as the returned future is polled.
pub async fn answer_questions(mut questions: mpsc::Receiver<Question>, store: Arc<dyn Store>) {
    let turns = Arc::new(Semaphore::new(ASKED_AT_ONCE));
    while let Some(Question { path, asked, answer: mut asker }) = questions.recv().await {
        let (turns, store) = (Arc::clone(&turns), Arc::clone(&store));
        tokio::spawn(async move {
            let reading = async {
                let turn = turns.acquire_owned().await.ok()?;
                let read = tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    read(&*store, &path, asked)
                });
                // A store that is away is reported where it is written to.
                read.await.ok()?.inspect_err(|error| tracing::debug!("?stats: {error}")).ok()
            };
            let answer = tokio::select! {
                answer = tokio::time::timeout(PATIENCE, reading) => answer.ok().flatten(),
                // The client is gone.
                () = asker.closed() => None,
            };
            if let Some(answer) = answer {
                // Nobody may be left to hear it.
                let _ = asker.send(answer);
            }
        });
    }
}

fn read(store: &dyn Store, path: &[u8], asked: Asked) -> Result<Answer, StoreError> {
    match asked {
        Asked::UntilNow => Ok(Answer::UntilNow(store.downloads_of_file(path, UtcDateTime::now().date())?)),
        Asked::In(period) => {
            let downloads = match Period::from_text(&period) {
                Some(known) => store.downloads_in(path, known)?,
                None => 0,
            };
            Ok(Answer::In { period, downloads })
        }
    }
}

/// Appends the response to a question; without an answer, that it cannot be had.
pub fn respond(answer: Option<&Answer>, envelope: Envelope<'_>, out: &mut Vec<u8>) {
    let Some(answer) = answer else {
        let response = Response::new(out, Status::ServiceUnavailable, envelope).lines("Retry-After: 60\r\n");
        return response::text(response, "Statistics are not available");
    };
    let mut body = Vec::new();
    let mut json = JsonWriter::new(&mut body, true);
    json.begin_object();
    match answer {
        Answer::UntilNow(FileDownloads { day, month, year, all_time }) => {
            for (name, downloads) in [("Today", day), ("Month", month), ("Year", year), ("Total", all_time)] {
                json.name(name);
                json.plain(downloads);
            }
        }
        Answer::In { period, downloads } => {
            json.name("Period");
            json.string(period);
            json.name("Downloads");
            json.plain(downloads);
        }
    }
    json.end_object();
    Response::new(out, Status::Ok, envelope).lines("Content-Type: text/plain; charset=utf-8\r\n").body(&body);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::Persistence;

    fn text(answer: Option<&Answer>) -> String {
        let mut out = Vec::new();
        let date = b"Sun, 22 Nov 2026 12:00:00 GMT";
        respond(answer, Envelope { date, persistence: Persistence::Implied, head_only: false }, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn answers_are_indented_json() {
        let counts = FileDownloads { day: 1, month: 2, year: 3, all_time: 4 };
        let until_now = text(Some(&Answer::UntilNow(counts)));
        assert!(until_now.contains("Content-Type: text/plain; charset=utf-8\r\n"), "{until_now}");
        assert!(
            until_now
                .ends_with("\r\n\r\n{\n    \"Today\": 1,\n    \"Month\": 2,\n    \"Year\": 3,\n    \"Total\": 4\n}")
        );
        let of_month = text(Some(&Answer::In { period: "2026-11".to_owned(), downloads: 7 }));
        assert!(of_month.ends_with("\r\n\r\n{\n    \"Period\": \"2026-11\",\n    \"Downloads\": 7\n}"), "{of_month}");
        assert!(text(None).starts_with("HTTP/1.1 503 "));
    }
}
