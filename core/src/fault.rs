//! Panics that a test asks a running program for, to see what becomes of the job, the thread or the process.
//!
//! Only builds with debug assertions have them. The environment variable [`FOLDER_VARIABLE`] names a folder, and the creation of
//! a file there is the request: the next time the program passes the place of that name, it removes the file and panics.

/// Names the folder in which panics are asked for.
pub const FOLDER_VARIABLE: &str = "MIRRORBITS_TEST_FAULTS";

/// Panics if that was asked for at `place`.
#[cfg(debug_assertions)]
pub fn point(place: &str) {
    use std::ffi::OsString;
    use std::path::Path;
    use std::sync::OnceLock;

    static FOLDER: OnceLock<Option<OsString>> = OnceLock::new();
    if let Some(folder) = FOLDER.get_or_init(|| std::env::var_os(FOLDER_VARIABLE))
        && std::fs::remove_file(Path::new(folder).join(place)).is_ok()
    {
        panic!("asked for at {place}");
    }
}

/// Does nothing: this build has no such panics.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_: &str) {}
