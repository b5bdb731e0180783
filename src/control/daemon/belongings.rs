//! What belongs to one process at a time: taken when the process before lets go, and let go of before the next one takes it.
//!
//! ```text
//! Awaited ──released, or the process before is gone──▶ Held ──▶ let go
//! ```

use mb_core::config::Config;

use super::Options;
use crate::control::indexer::{self, IndexerLink, SupervisedIndexer};
use crate::upgrade::inherit::Inheritance;

/// What belongs to one process at a time.
pub(super) struct Belongings {
    /// The process before, as long as it holds them.
    awaited: Option<Inheritance>,
    indexer: Option<SupervisedIndexer>,
    /// For commands; the socket is the same whichever process runs the indexer.
    link: IndexerLink,
}

impl Belongings {
    /// Belongings that `inheritance` still has to give; without it they are taken at once.
    pub(super) fn new(options: &Options, config: &Config, inheritance: Option<Inheritance>) -> Belongings {
        let indexer =
            options.monitor.then(|| SupervisedIndexer::new(indexer::program(), &options.config, &config.state_dir));
        let link = indexer.as_ref().map_or_else(|| IndexerLink::new(&config.state_dir), SupervisedIndexer::link);
        let mut belongings = Belongings { awaited: inheritance, indexer, link };
        if belongings.awaited.is_none() {
            belongings.take();
        }
        belongings
    }

    /// The way to whatever indexer runs.
    pub(super) fn indexer_link(&self) -> IndexerLink {
        self.link.clone()
    }

    /// Whether they are this process's, and not those of the process before any more.
    pub(super) fn are_held(&self) -> bool {
        self.awaited.is_none()
    }

    /// Waits until the process before has let go, then takes everything; never returns when all is held. May be cancelled.
    pub(super) async fn taken(&mut self) {
        match &mut self.awaited {
            Some(inheritance) => inheritance.released().await,
            None => std::future::pending().await,
        }
        self.awaited = None;
        self.take();
        tracing::info!("the process before has ended; everything is this one's");
    }

    /// Tells the process before that this one is about to end.
    pub(super) async fn hurry(&self) {
        if let Some(inheritance) = &self.awaited {
            inheritance.ending().await;
        }
    }

    fn take(&mut self) {
        if let Some(indexer) = &mut self.indexer {
            indexer.start();
        }
    }

    /// Waits until everything is held, lets go of it, and returns when it is free. `drained` ends when no request is under way
    /// any more, after which there is nothing left to count.
    pub(super) async fn let_go(mut self, drained: impl Future<Output = ()>) {
        if let Some(inheritance) = &mut self.awaited {
            inheritance.released().await;
        }
        let indexer = async {
            if let Some(indexer) = self.indexer {
                indexer.stop().await;
            }
        };
        tokio::join!(indexer, drained);
    }
}
