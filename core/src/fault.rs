//! Panics and stops that a test asks a running program for, to see what becomes of the job, the thread or the process.
//!
//! Only builds with debug assertions have them. The environment variable [`FOLDER_VARIABLE`] names a folder, and the creation of
//! a file there is the request: the next time the program passes the place of that name, it removes the file and panics. While
//! there is a file of that name with the ending [`STOP_ENDING`], the thread that passes the place stops there.

/// Names the folder in which panics and stops are asked for.
pub const FOLDER_VARIABLE: &str = "MIRRORBITS_TEST_FAULTS";
/// Ends the name of the file by which a place is stopped at.
pub const STOP_ENDING: &str = ".stop";

/// The folder in which panics and stops are asked for.
#[cfg(debug_assertions)]
fn folder() -> Option<&'static std::path::Path> {
    use std::path::PathBuf;
    use std::sync::OnceLock;

    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER.get_or_init(|| std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from)).as_deref()
}

/// Panics if that was asked for at `place`.
#[cfg(debug_assertions)]
pub fn point(place: &str) {
    if let Some(folder) = folder()
        && std::fs::remove_file(folder.join(place)).is_ok()
    {
        panic!("asked for at {place}");
    }
}

/// Stops at `place` for as long as that is asked for.
#[cfg(debug_assertions)]
pub fn stop(place: &str) {
    if let Some(folder) = folder() {
        let file = folder.join(format!("{place}{STOP_ENDING}"));
        while file.exists() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

/// Does nothing: this build has no such panics.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_: &str) {}

/// Does nothing: this build does not stop.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn stop(_: &str) {}
