//! Opens the reading of rsync listings to the fuzz targets (`fuzz/`).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use super::read_listing;
use crate::progress::Progress;
use crate::scan::limits::ListingBudget;

/// Paths and sizes of the files of a listing, sorted by path, and how many lines were none of a listing; `None` when it was
/// refused. The program's output comes in pieces of at most `piece` bytes.
pub fn listing(output: &[u8], piece: usize) -> Option<(Vec<(Vec<u8>, u64)>, u64)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().ok()?;
    let mut stream = Pieces { rest: output, piece: piece.max(1) };
    let budget = ListingBudget::ample();
    let mut listing = runtime.block_on(read_listing(&mut stream, &budget, &Progress::unwatched())).ok()?;
    listing.sort();
    Some((listing.iter().map(|file| (file.path.to_owned(), file.size)).collect(), budget.rejected()))
}

struct Pieces<'a> {
    rest: &'a [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let length = self.piece.min(self.rest.len()).min(buffer.remaining());
        let (now, later) = self.rest.split_at(length);
        buffer.put_slice(now);
        self.rest = later;
        Poll::Ready(Ok(()))
    }
}
