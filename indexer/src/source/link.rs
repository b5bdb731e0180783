//! Where a symbolic link of the repository leads.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use super::walk::repository_path;

/// Where a symbolic link leads after all links on the way are followed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LinkTarget {
    /// To this repository path, which has no links in it.
    Inside(Vec<u8>),
    /// Out of the repository.
    Outside,
}

/// Follows the link at `path`. `root` is the canonical path of the repository.
///
/// # Errors
/// When the link dangles, runs in a circle, or leads to something hidden and thus not indexed.
pub(super) fn resolve(root: &Path, path: &Path) -> io::Result<LinkTarget> {
    let target = path.canonicalize()?;
    let Ok(inside) = target.strip_prefix(root) else {
        return Ok(LinkTarget::Outside);
    };
    let hidden = |component| matches!(component, Component::Normal(name) if name.as_bytes().starts_with(b"."));
    if inside.components().any(hidden) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "leads to a hidden file, which is not indexed"));
    }
    Ok(LinkTarget::Inside(repository_path(root, &target)))
}
