//! Faults that a test asks a running program for: panics and stopped threads, to see what becomes of
//! the job, the thread or the process, and shorter limits.
//!
//! Only builds with debug assertions obey. The environment variable [`FOLDER_VARIABLE`] names a
//! folder, and the creation of a file there is the request.

#[cfg(debug_assertions)]
use std::path::PathBuf;
use std::time::Duration;

/// Names the folder of the requests.
pub const FOLDER_VARIABLE: &str = "MIRRORBITS_TEST_FAULTS";
/// Ends the name of the file by which a place is stopped at.
pub const STOP_ENDING: &str = ".stop";

/// The file of a request.
#[cfg(debug_assertions)]
fn file(name: &str) -> Option<PathBuf> {
    static FOLDER: std::sync::OnceLock<Option<PathBuf>> = std::sync::OnceLock::new();
    Some(FOLDER.get_or_init(|| std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from)).as_ref()?.join(name))
}

/// Panics if that was asked for at `place`, by a file of that name, and removes the file: it is asked
/// for once.
#[cfg(debug_assertions)]
pub fn point(place: &str) {
    if file(place).is_some_and(|file| std::fs::remove_file(file).is_ok()) {
        panic!("asked for at {place}");
    }
}

/// Does nothing: this build does not panic when asked to.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_: &str) {}

/// Stops the calling thread at `place` for as long as there is a file of that name with
/// [`STOP_ENDING`].
#[cfg(debug_assertions)]
pub fn stop(place: &str) {
    if let Some(file) = file(&format!("{place}{STOP_ENDING}")) {
        while file.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Does nothing: this build does not stop when asked to.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn stop(_: &str) {}

/// `usual`, unless a file `name` holds another limit, in milliseconds.
pub fn limit(name: &str, usual: Duration) -> Duration {
    #[cfg(debug_assertions)]
    if let Some(text) = file(name).and_then(|file| std::fs::read_to_string(file).ok())
        && let Ok(milliseconds) = text.trim().parse()
    {
        return Duration::from_millis(milliseconds);
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
    usual
}
