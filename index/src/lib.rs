//! The index: what the redirector answers from, and the only thing that passes from the indexer to it.
//!
//! An index folder holds two kinds of file, which change at different speeds: *files* (paths, file facts, mirror sets,
//! exceptions, symbolic links; written after a scan) and *mirrors* (the mirror records with their state; written on
//! every change of a mirror). Each is a header and one archive that is copied into memory and read in place.
//! `FORMAT.md` has every byte.
//!
//! - building: [`FilesBuilder`] turns records in path order into a [`FilesModel`]
//! - publishing: [`Publisher`] writes generations so that a crash at any moment leaves a usable index
//! - opening: [`open_newest_files`], [`open_newest_mirrors`] check a generation in full, once, and fall back on the one
//!   before when it is refused
//! - looking: [`identify`] and [`check_current`] tell by headers and lengths alone which generations there are, and whether
//!   what was published was deleted or truncated since
//! - reading: [`FileIndex::lookup`], [`FileIndex::resolve`] on the request path; [`MirrorIndex::mirrors`] once per
//!   generation
//!
//! Paths are bytes, absolute within the repository, without a trailing slash: `/a/b.iso`; the root is `/`.
//!
//! A mirror in a file's *set* has a copy that equals the source: the same size, and a modification time that is unknown
//! or equal after correction of the time zone and truncation to the mirror's precision. A copy that differs is an
//! *exception* with its raw size and time. A mirror that is in neither does not have the file.

mod current;
mod files;
mod folder;
mod header;
mod mapping;
mod mirrors;
mod open;
mod publish;

pub use current::{Current, CurrentError, read_current};
pub use files::builder::{BuildError, Exception, FileRecord, FilesBuilder, FilesModel};
pub use files::prefetch::Announced;
pub use files::reader::{Entry, FileIndex, FileRef};
pub use files::set::{MirrorSet, SetId};
pub use files::verify::FilesViolation;
pub use folder::{CURRENT_NAME, file_name};
pub use header::{FORMAT_VERSION, GenerationId, HeaderError, Kind};
pub use mapping::identify;
pub use mirrors::{MirrorIndex, MirrorsViolation};
pub use open::{
    OpenError, OpenStep, Opened, VerifyReport, check_current, open_newest_files, open_newest_mirrors, verify,
};
pub use publish::{PublishError, PublishLock, PublishStep, Publisher};
