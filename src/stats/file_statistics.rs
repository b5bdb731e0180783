//! The counts of a file, as a client asks for them by `?stats`.
//!
//! They are in the store, which no shard ever waits for: the shard puts a [`Question`] into a bounded queue, the control
//! thread asks the store, and the connection alone waits for the answer.

use std::sync::Arc;
use std::time::Duration;

use mb_core::store::{FileDownloads, Period, Store, StoreError};
use time::UtcDateTime;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::http::json::JsonWriter;
use crate::http::response::Content;

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
    pub answer: oneshot::Sender<Content>,
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
pub async fn answer_questions(questions: &mut mpsc::Receiver<Question>, store: Arc<dyn Store>) {
    let turns = Arc::new(Semaphore::new(ASKED_AT_ONCE));
    while let Some(Question { path, asked, answer: mut asker }) = questions.recv().await {
        mb_core::fault::point("file-statistics");
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
                let _ = asker.send(content(&answer));
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

fn content(answer: &Answer) -> Content {
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
    Content { lines: "Content-Type: text/plain; charset=utf-8\r\n".to_owned(), body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_indented_json() {
        let text = |answer| String::from_utf8(content(&answer).body).unwrap();
        let counts = FileDownloads { day: 1, month: 2, year: 3, all_time: 4 };
        assert_eq!(
            text(Answer::UntilNow(counts)),
            "{\n    \"Today\": 1,\n    \"Month\": 2,\n    \"Year\": 3,\n    \"Total\": 4\n}"
        );
        assert_eq!(
            text(Answer::In { period: "2026-11".to_owned(), downloads: 7 }),
            "{\n    \"Period\": \"2026-11\",\n    \"Downloads\": 7\n}"
        );
    }
}
