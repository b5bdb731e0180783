//! Takes the questions of the shards and answers them, off the shards.

use std::sync::Arc;
use std::time::Duration;

use mb_core::store::Store;
use mb_core::time::Timestamp;
use tokio::sync::{Semaphore, mpsc};

use super::traffic::{Counted, RecentTraffic};
use super::{Form, Page, Question, Subject, mirror_list, mirror_statistics};
use crate::handle::Settings;
use crate::http::json::JsonWriter;
use crate::http::response::{Content, gzip};

/// Questions that wait for the worker to take them; more are refused.
pub const QUESTIONS_WAITING: usize = 64;
/// Pages that wait for counts or for their turn. A document of 400 mirrors has half a megabyte, so these are 32 MB at most.
const PAGES_UNDER_WAY: usize = 64;
/// How long a page may take altogether. A connection waits a little longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Header fields that every answer has.
const CACHE_CONTROL: &str = "Cache-Control: private, no-cache\r\n";

/// Answers questions, with counts from `store`, for as long as the returned future is polled.
pub async fn answer_questions(questions: &mut mpsc::Receiver<Question>, store: Arc<dyn Store>) {
    let traffic = Arc::new(RecentTraffic::new(move || {
        // A store that is away is reported where it is written to.
        Counted::read(&*store).inspect_err(|error| tracing::debug!("?mirrorstats: {error}")).ok()
    }));
    let room = Arc::new(Semaphore::new(PAGES_UNDER_WAY));
    // One at a time, since the cores are for the shards.
    let turns = Arc::new(Semaphore::new(1));
    while let Some(Question { subject, form, accepts_gzip, settings, answer: mut asker }) = questions.recv().await {
        mb_core::fault::point("pages");
        // A question that is dropped here is refused.
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (traffic, turns) = (Arc::clone(&traffic), Arc::clone(&turns));
        tokio::spawn(async move {
            let _place = place;
            let making = async {
                let counted = match subject {
                    Subject::MirrorStatistics { .. } => traffic.latest().await,
                    Subject::MirrorList { .. } => None,
                };
                let turn = turns.acquire_owned().await.ok()?;
                let made = tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    let zipped = accepts_gzip && settings.gzip;
                    make(&subject, form, counted.as_deref(), &settings, zipped, Timestamp::now())
                });
                made.await.ok()?
            };
            let made = tokio::select! {
                made = tokio::time::timeout(PATIENCE, making) => made.ok().flatten(),
                // The client is gone.
                () = asker.closed() => None,
            };
            if let Some(content) = made {
                // Nobody may be left to see it.
                let _ = asker.send(content);
            }
        });
    }
}

/// The answer about `subject`; `None` when its template fails, which is reported.
fn make(
    subject: &Subject,
    form: Form,
    counted: Option<&Counted>,
    settings: &Settings,
    zipped: bool,
    now: Timestamp,
) -> Option<Content> {
    let mut statistics = Vec::new();
    let (page, document) = match subject {
        Subject::MirrorList { document, .. } => (Page::MirrorList, document),
        Subject::MirrorStatistics { mirrors } => {
            let mut json = JsonWriter::new(&mut statistics, form == Form::Json { pretty: true });
            let (expose_private, path) = (settings.expose_private_fields, &settings.local_js_path);
            mirror_statistics::write(&mut json, mirrors, counted, now, expose_private, path);
            (Page::MirrorStatistics, &statistics)
        }
    };
    let (kind, mut body) = match form {
        Form::Json { .. } => ("application/json", document.clone()),
        Form::Page => {
            let members = match subject {
                Subject::MirrorList { path, .. } => mirror_list::context(document, path, now),
                Subject::MirrorStatistics { .. } => mirror_statistics::context(document),
            };
            let members =
                members.inspect_err(|error| tracing::error!("a document is no JSON: {error}: please report this"));
            ("text/html", settings.templates.render(page, members.ok()?)?.into_bytes())
        }
    };
    let mut lines = format!("{CACHE_CONTROL}Content-Type: {kind}; charset=utf-8\r\n");
    if zipped {
        body = gzip(&body);
        lines.push_str("Content-Encoding: gzip\r\n");
    }
    Some(Content { lines, body })
}
