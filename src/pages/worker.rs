//! Takes the questions of the shards and answers them, off the shards.

use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use crossbeam::channel::{Sender, bounded};
use mb_core::priority::run_when_idle;
use mb_core::store::Store;
use mb_core::supervise::keep_going;
use mb_core::time::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::traffic::{Counted, RecentTraffic};
use super::{Form, Page, Question, Subject, mirror_list, mirror_statistics};
use crate::handle::{JSON_LINES, Settings};
use crate::http::json::JsonWriter;
use crate::http::response::{Content, gzip};

/// Questions that wait for the worker to take them; more are refused.
pub const QUESTIONS_WAITING: usize = 512;
/// Pages and lists that wait for counts or for their turn.
const PAGES_UNDER_WAY: usize = 64;
/// Answers to downloads that wait for their turn, apart from pages and lists, so that those cannot have
/// them refused. One takes some hundred bytes until its turn comes, and 0.5 ms then.
const DOWNLOADS_UNDER_WAY: usize = 512;
/// How long a page may take altogether. A connection waits a little longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Header fields that every answer has.
const CACHE_CONTROL: &str = "Cache-Control: private, no-cache\r\n";

/// The thread that makes pages and documents. It ends when this is dropped.
pub struct Maker(Sender<Work>);

/// Something to make, and where the result goes.
struct Work {
    make: Box<dyn FnOnce() -> Option<Content> + Send>,
    made: oneshot::Sender<Option<Content>>,
    /// Whose turn it is.
    _turn: OwnedSemaphorePermit,
}

impl Maker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start() -> io::Result<Maker> {
        // One at a time, as turns are taken.
        let (sender, work) = bounded::<Work>(1);
        let run = move || {
            run_when_idle();
            keep_going("pages", || {
                for Work { make, made, _turn } in &work {
                    mb_core::fault::stop("make-page");
                    // The client may be gone.
                    let _ = made.send(make());
                }
            });
        };
        thread::Builder::new().name("pages".to_owned()).spawn(run)?;
        Ok(Maker(sender))
    }

    /// Makes something when its `turn` has come; `None` when that fails.
    async fn make(
        &self,
        turn: OwnedSemaphorePermit,
        make: impl FnOnce() -> Option<Content> + Send + 'static,
    ) -> Option<Content> {
        let (made, result) = oneshot::channel();
        self.0.try_send(Work { make: Box::new(make), made, _turn: turn }).ok()?;
        result.await.ok()?
    }
}

/// Answers questions, with counts from `store`, for as long as the returned future is polled.
pub async fn answer_questions(questions: &mut mpsc::Receiver<Question>, store: Arc<dyn Store>, maker: Arc<Maker>) {
    let traffic = Arc::new(RecentTraffic::new(move || {
        // A store that is away is reported where it is written to.
        Counted::read(&*store).inspect_err(|error| tracing::debug!("?mirrorstats: {error}")).ok()
    }));
    let room_for_pages = Arc::new(Semaphore::new(PAGES_UNDER_WAY));
    let room_for_downloads = Arc::new(Semaphore::new(DOWNLOADS_UNDER_WAY));
    // One at a time, since the cores are for the shards.
    let turns = Arc::new(Semaphore::new(1));
    while let Some(question) = questions.recv().await {
        let Question { subject, form, is_download, accepts_gzip, settings, answer: mut asker } = question;
        mb_core::fault::point("pages");
        let room = if is_download { &room_for_downloads } else { &room_for_pages };
        // A question that is dropped here is refused.
        let Ok(place) = Arc::clone(room).try_acquire_owned() else { continue };
        let (traffic, turns, maker) = (Arc::clone(&traffic), Arc::clone(&turns), Arc::clone(&maker));
        tokio::spawn(async move {
            let _place = place;
            let making = async {
                let counted = match subject {
                    Subject::MirrorStatistics { .. } => traffic.latest().await,
                    Subject::MirrorList { .. } => None,
                };
                let turn = turns.acquire_owned().await.ok()?;
                let zipped = accepts_gzip && settings.gzip;
                let make = move || make(subject, form, counted.as_deref(), &settings, zipped, Timestamp::now());
                maker.make(turn, make).await
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
    subject: Subject,
    form: Form,
    counted: Option<&Counted>,
    settings: &Settings,
    zipped: bool,
    now: Timestamp,
) -> Option<Content> {
    let pretty = form == Form::Json { pretty: true };
    let encoding = if zipped { "Content-Encoding: gzip\r\n" } else { "" };
    let zip = |body: Vec<u8>| if zipped { gzip(&body) } else { body };
    let page = |page, members: serde_json::Result<_>| {
        let members =
            members.inspect_err(|error| tracing::error!("a document is no JSON: {error}: please report this"));
        let body = settings.templates.render(page, members.ok()?)?.into_bytes();
        Some(Content::with_room(lines("text/html", encoding), zip(body)))
    };
    match subject {
        Subject::MirrorList { path, document } => {
            // Nothing of a snapshot is kept while the document is compressed or made into a page.
            let document = document.write(pretty);
            match form {
                // As the shard answers with short ones.
                Form::Json { .. } => Some(Content::with_room(format!("{encoding}{JSON_LINES}"), zip(document))),
                Form::Page => page(Page::MirrorList, mirror_list::context(&document, &path, now)),
            }
        }
        Subject::MirrorStatistics { mirrors } => {
            let mut document = Vec::new();
            let mut json = JsonWriter::new(&mut document, pretty);
            let (expose_private, path) = (settings.expose_private_fields, &settings.local_js_path);
            mirror_statistics::write(&mut json, &mirrors, counted, now, expose_private, path);
            match form {
                Form::Json { .. } => Some(Content::with_room(lines("application/json", encoding), zip(document))),
                Form::Page => page(Page::MirrorStatistics, mirror_statistics::context(&document)),
            }
        }
    }
}

/// Header fields of an answer of type `kind`, with those of its `encoding`.
fn lines(kind: &str, encoding: &str) -> String {
    format!("{CACHE_CONTROL}Content-Type: {kind}; charset=utf-8\r\n{encoding}")
}
