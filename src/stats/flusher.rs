//! The flusher: gathers what shards hand over, twice a second, and delivers it to the store.
//!
//! One batch is on its way at a time, sent by a thread of its own (`store_thread`), since a store may take seconds to
//! fail. A batch whose answer was lost is sent again as it was: the store knows it by its name and number. How fast batches
//! follow one another is up to `pace`. Whatever has not reached the store shortly after it was gathered goes into the
//! spool, so that the death of the process loses at most the last second:
//!
//! | after the answer, at most | what |
//! | --- | --- |
//! | 100 ms | the shard hands over |
//! | + 500 ms | the flusher gathers, and sends a batch |
//! | + 300 ms | what the store has not taken goes into the spool |
//!
//! The name is that of this process: two processes of one state directory, as during an upgrade, never mix their numbers.
//! The spool has one owner; until this process is it, counts that cannot be delivered stay in memory.

mod pace;
mod spool_slot;
mod store_thread;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded, never, select};
use mb_core::fault;
use mb_core::mirror::MirrorId;
use mb_core::priority::give_way;
use mb_core::store::{StatsBatch, Store, StoreError};
use mb_core::supervise::{busy, keep_going};
use time::Date;

use self::pace::Pace;
use self::spool_slot::SpoolSlot;
use self::store_thread::{Answer, Job, StoreThread};
use super::delivery::Gathered;
use super::download_dedup::DownloadDedup;
use super::figures::Figures;
use super::spool::BatchId;
use super::tally::{Download, Tally, date_of};

/// Between two collections.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long after a collection the store may take, before the counts go into the spool.
const SPOOL_AFTER: Duration = Duration::from_millis(300);
/// Between two looks for the last tallies, at the end.
const LAST_INTERVAL: Duration = Duration::from_millis(20);
/// Most files of a batch: Redis answers nobody else for about 15 ms then.
const BATCH_FILES: usize = 1_000;

/// The running flusher.
pub struct Flusher {
    stop: Sender<Instant>,
    thread: JoinHandle<()>,
}

impl Flusher {
    /// Starts the flusher. `inbox` is where tallies come from, and `spares` where their memory goes back to.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(
        state_dir: &Path,
        store: Arc<dyn Store>,
        inbox: Receiver<Tally>,
        spares: Sender<Vec<Download>>,
        figures: Arc<Figures>,
    ) -> std::io::Result<Flusher> {
        let (stop, stopped) = bounded(1);
        let mut worker = Worker {
            inbox,
            spares,
            store: StoreThread::start(store)?,
            spool: SpoolSlot::new(state_dir.to_owned()),
            pace: Pace::Due,
            dedup: DownloadDedup::default(),
            gathered: Gathered::default(),
            on_its_way: None,
            name: format!("{:016x}", fastrand::u64(..)),
            number: 0,
            away: false,
            figures,
            ending: None,
        };
        let work = move || {
            give_way();
            keep_going("statistics", || worker.run(&stopped));
            worker.end();
        };
        let thread = std::thread::Builder::new().name("statistics".to_owned()).spawn(work)?;
        Ok(Flusher { stop, thread })
    }

    /// Delivers or spools everything and ends; gives up after `patience` and a little.
    pub fn stop(self, patience: Duration) {
        let deadline = Instant::now() + patience;
        // It ends only when it is told to.
        let _ = self.stop.send(deadline);
        while !self.thread.is_finished() {
            if Instant::now() > deadline + 2 * SPOOL_AFTER {
                tracing::error!("the disk of the spool does not answer: the last downloads may not be counted");
                return;
            }
            std::thread::sleep(LAST_INTERVAL);
        }
        if self.thread.join().is_err() {
            tracing::error!("the statistics ended badly: please report this");
        }
    }
}

/// What a request for a part of a file counts for, unless it belongs to a download that was counted.
struct Candidate {
    day: Date,
    path: Vec<u8>,
    size: u64,
    mirror: MirrorId,
}

/// The batch that was sent.
struct OnItsWay {
    batch: Arc<StatsBatch>,
    /// Where it is in the spool, if it is.
    spooled: Option<BatchId>,
    fate: Fate,
}

/// What is known of a batch that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The store has not answered yet.
    Unanswered,
    /// The store has failed: it may or may not have taken it.
    Unknown,
}

struct Worker {
    inbox: Receiver<Tally>,
    spares: Sender<Vec<Download>>,
    store: StoreThread,
    spool: SpoolSlot,
    pace: Pace,
    dedup: DownloadDedup<Candidate>,
    /// What is in memory alone.
    gathered: Gathered,
    on_its_way: Option<OnItsWay>,
    /// Under which the store knows this process.
    name: String,
    /// Of the latest batch.
    number: u64,
    /// The latest attempt to reach the store failed.
    away: bool,
    figures: Arc<Figures>,
    /// Until when the store has time for the last counts, once the flusher is told to end.
    ending: Option<Instant>,
}

impl Worker {
    /// Works until it is told to end, and delivers what is left. Called again after a panic, it goes on with what it has.
    fn run(&mut self, stopped: &Receiver<Instant>) {
        if let Some(deadline) = self.ending {
            return self.finish(deadline);
        }
        let mut next_collection = Instant::now() + INTERVAL;
        let mut spool_at = None;
        let deadline = loop {
            fault::point("statistics");
            let due = [spool_at, self.pace.wake_up(Instant::now())];
            let wake_up = due.into_iter().flatten().fold(next_collection, Instant::min);
            select! {
                recv(stopped) -> deadline => break deadline.unwrap_or_else(|_| Instant::now()),
                recv(self.store.answers) -> answer => match answer {
                    Ok(answer) => self.take_answer(answer),
                    // The thread ends only when its jobs do.
                    Err(_) => self.store.answers = never(),
                },
                default(wake_up.saturating_duration_since(Instant::now())) => {}
            }
            let now = Instant::now();
            let _busy = busy("statistics");
            if now >= next_collection {
                next_collection = now + INTERVAL;
                self.collect();
                self.pace.collected(self.on_its_way.is_none());
                self.ask();
                self.deliver(Retry::Now);
                spool_at = Some(now + SPOOL_AFTER);
            } else {
                self.deliver(Retry::Later);
            }
            if spool_at.is_some_and(|at| now >= at) {
                spool_at = None;
                self.decide_alone();
                self.deliver(Retry::Later);
                self.keep();
                self.spool.tidy(&self.figures);
            }
            self.report();
        };
        self.ending = Some(deadline);
        self.finish(deadline);
    }

    /// Takes the last tallies, and gives the store until `deadline`; what it does not take stays in the spool.
    fn finish(&mut self, deadline: Instant) {
        let mut retry_at = Instant::now();
        let mut keep_at = retry_at + SPOOL_AFTER;
        self.pace = Pace::Hurried;
        loop {
            self.collect();
            let complete = matches!(self.inbox.try_recv(), Err(TryRecvError::Disconnected));
            // The last parts of a download are told as well: another node, or the next process, goes on from them.
            self.ask();
            let retry = if Instant::now() >= retry_at { Retry::Now } else { Retry::Later };
            if retry == Retry::Now {
                retry_at = Instant::now() + INTERVAL;
            }
            self.deliver(retry);
            // Whoever stops this process may lose patience.
            if Instant::now() >= keep_at {
                keep_at = Instant::now() + INTERVAL;
                self.decide_alone();
                self.keep();
            }
            if complete && !self.dedup.is_asking() && self.on_its_way.is_none() && self.gathered.is_empty() {
                break;
            }
            if Instant::now() >= deadline || (complete && self.away && self.keep()) {
                break;
            }
            match self.store.answers.recv_timeout(LAST_INTERVAL) {
                Ok(answer) => self.take_answer(answer),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        self.decide_alone();
        if !self.keep() {
            tracing::error!("{} downloads are not counted: neither store nor spool took them", self.in_memory());
        }
        self.spool.tidy(&self.figures);
        self.report();
    }

    /// Lets the store go.
    fn end(self) {
        if let (false, Some(deadline)) = (self.away, self.ending) {
            self.store.end(deadline);
        }
    }

    /// Takes over what the shards have handed over.
    fn collect(&mut self) {
        let mut tallies: Vec<Tally> = self.inbox.try_iter().collect();
        match tallies.last() {
            Some(latest) => {
                self.gathered.follow(&latest.files);
                self.spool.follow(&latest.files);
            }
            None => {
                self.gathered.let_go();
                self.spool.let_go();
            }
        }
        self.deduplicate(&mut tallies);
        for tally in tallies {
            // No room for it means that there are enough.
            let _ = self.spares.try_send(self.gathered.add_tally(tally));
        }
    }

    /// Hands the requests for parts of files to the range deduplication, in order of time: each shard has its own tally.
    fn deduplicate(&mut self, tallies: &mut [Tally]) {
        let mut requests = Vec::new();
        for (place, tally) in tallies.iter_mut().enumerate() {
            requests.extend(tally.sightings.drain(..).map(|request| (place, request)));
        }
        requests.sort_by_key(|(_, request)| request.at);
        for (place, request) in requests {
            let tally = &tallies[place];
            self.dedup.note(request.hash, request.at, request.interval, || {
                let Download { file, mirror, size } = request.download;
                let (path, mirror) = (tally.files.file(file).path().to_vec(), tally.mirrors[mirror as usize]);
                Candidate { day: date_of(tally.day), path, size, mirror }
            });
        }
    }

    /// Asks the store which candidates continue downloads that other nodes counted. While it is away, they are decided here
    /// alone.
    fn ask(&mut self) {
        if self.away {
            return self.decide_alone();
        }
        let Some(question) = self.dedup.question() else { return };
        if !self.store.send(Job::Ask(question)) {
            self.decide_alone();
        }
    }

    /// Counts all candidates: the store has not told which of them are to be counted.
    fn decide_alone(&mut self) {
        let candidates = self.dedup.decide_alone();
        self.count(candidates);
    }

    fn count(&mut self, candidates: Vec<Candidate>) {
        for Candidate { day, path, size, mirror } in candidates {
            self.gathered.add(day, &path, size, mirror);
        }
    }

    /// Sends the next batch, unless one is on its way or the store is to rest. One of unknown fate comes first, and is sent
    /// again as `retry` says.
    fn deliver(&mut self, retry: Retry) {
        if self.dedup.is_asking() {
            return;
        }
        if retry == Retry::Now {
            self.spool.open(&self.figures);
        }
        match &mut self.on_its_way {
            Some(OnItsWay { fate: Fate::Unanswered, .. }) => return,
            Some(_) if retry == Retry::Later => return,
            Some(on_its_way) => {
                if self.store.send(Job::Add(Arc::clone(&on_its_way.batch))) {
                    on_its_way.fate = Fate::Unanswered;
                }
                return;
            }
            None => {}
        }
        if !self.pace.allows(Instant::now()) {
            return;
        }
        let number = self.number + 1;
        let from_spool = self.spool.with(&self.figures, |spool| spool.next_batch(&self.name, number, BATCH_FILES));
        let (spooled, batch) = match from_spool.flatten() {
            Some((id, batch)) => (Some(id), batch),
            None => match self.gathered.cut(BATCH_FILES) {
                Some(days) => (None, Arc::new(StatsBatch { node: self.name.clone(), sequence: number, days })),
                None => return,
            },
        };
        self.number = number;
        let sent = self.store.send(Job::Add(Arc::clone(&batch)));
        let fate = if sent { Fate::Unanswered } else { Fate::Unknown };
        self.on_its_way = Some(OnItsWay { batch, spooled, fate });
    }

    fn take_answer(&mut self, answer: Answer) {
        match answer {
            Answer::Answered { number, outcome } => {
                self.notice(outcome.as_ref().map(|_| ()));
                let candidates = self.dedup.answered(number, outcome.ok().as_deref());
                self.count(candidates);
                self.deliver(Retry::Later);
            }
            Answer::Added { outcome, took } => {
                // Until the rest of this is done: what panics in between has it sent again, which the store notices.
                if let Some(on_its_way) = &mut self.on_its_way {
                    on_its_way.fate = Fate::Unknown;
                }
                self.notice(outcome.as_ref().map(|_| ()));
                if outcome.is_ok() {
                    let Some(delivered) = self.on_its_way.take() else { return };
                    self.figures.deliveries.fetch_add(1, Relaxed);
                    self.figures.delivered_downloads.fetch_add(delivered.batch.downloads(), Relaxed);
                    let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                    self.figures.delivery_nanoseconds.store(nanoseconds, Relaxed);
                    if let Some(id) = delivered.spooled {
                        self.spool.remove(id);
                    }
                    self.pace.rest(Instant::now(), took);
                    self.deliver(Retry::Later);
                } else {
                    self.figures.failed_deliveries.fetch_add(1, Relaxed);
                    self.keep();
                }
            }
        }
    }

    /// Notices that the store went away or came back.
    fn notice(&mut self, outcome: Result<(), &StoreError>) {
        match outcome {
            Err(error) if !self.away => {
                tracing::error!("{error}; downloads are counted on, and delivered when the store is back");
            }
            Ok(()) if self.away => tracing::info!("statistics reach the store again"),
            _ => {}
        }
        self.away = outcome.is_err();
        self.figures.store_is_away.store(self.away, Relaxed);
    }

    /// Puts what waits for the store into the spool. Returns whether nothing is left in memory alone.
    fn keep(&mut self) -> bool {
        if let Some(OnItsWay { batch, spooled: spooled @ None, .. }) = &mut self.on_its_way {
            *spooled = self.spool.with(&self.figures, |spool| spool.add_batch(batch));
        }
        let gathered = &mut self.gathered;
        if !gathered.is_empty() {
            self.spool.with(&self.figures, |spool| spool.add(gathered));
        }
        gathered.is_empty() && self.on_its_way.as_ref().is_none_or(|on_its_way| on_its_way.spooled.is_some())
    }

    /// Downloads that are in memory alone.
    fn in_memory(&self) -> u64 {
        let on_its_way = self.on_its_way.as_ref().filter(|batch| batch.spooled.is_none());
        on_its_way.map_or(0, |on_its_way| on_its_way.batch.downloads())
            + self.gathered.downloads()
            + self.dedup.undecided() as u64
    }

    fn report(&self) {
        self.figures.waiting_downloads.store(self.in_memory(), Relaxed);
        self.figures.spooled_downloads.store(self.spool.downloads(), Relaxed);
    }
}

/// When a batch of unknown fate is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    /// Now, and the spool is tried again, too.
    Now,
    /// By the next collection.
    Later,
}
