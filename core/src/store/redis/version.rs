//! The format of the database: checked on each new connection, since what is behind an address may change.

use super::connection::Session;
use super::failure::Failure;
use super::keys;

/// The layout that `keys` describes.
const VERSION: u32 = 2;

/// Value of [`keys::MIGRATION`] while `migrate` fills the database.
pub(super) const MIGRATION_RUNNING: &str = "running";
/// Its value from then on until a program uses the database.
pub(super) const MIGRATION_DONE: &str = "done";

/// What the database is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To work with it: what was migrated must be complete, and is this program's from now on.
    Use,
    /// To copy it, or into it.
    Migrate,
}

/// Makes sure that the database is of our version; an empty one becomes so.
pub(super) fn check(session: &mut Session, purpose: Purpose) -> Result<(), Failure> {
    let (version, migration): (Option<String>, Option<String>) =
        session.query(redis::cmd("MGET").arg(keys::VERSION).arg(keys::MIGRATION))?;
    match version.as_deref().map(|version| version.parse::<u32>()) {
        Some(Ok(VERSION)) => {}
        Some(Ok(version)) if version > VERSION => {
            return Err(Failure::Unusable(format!(
                "its format version {version} is newer than this program's {VERSION}: use the newer program that wrote it, or \
             restore a backup from before"
            )));
        }
        Some(Ok(version)) => return Err(older(version)),
        Some(Err(_)) => {
            return Err(Failure::Unusable(format!(
                "{} is no number: it is the database of another program, set another RedisDB",
                keys::VERSION
            )));
        }
        None if session.query(redis::cmd("EXISTS").arg(keys::MIRRORS))? => return Err(older(0)),
        None => session.query(redis::cmd("SETNX").arg(keys::VERSION).arg(VERSION))?,
    }
    if purpose == Purpose::Use {
        match migration.as_deref() {
            None => {}
            Some(MIGRATION_RUNNING) => {
                return Err(Failure::Unusable(
                    "`mirrorbits migrate` was interrupted while it filled this database: run it again".to_owned(),
                ));
            }
            Some(_) => session.query(redis::cmd("DEL").arg(keys::MIGRATION))?,
        }
    }
    Ok(())
}

fn older(version: u32) -> Failure {
    Failure::Unusable(format!(
        "its format version {version} is that of an old Mirrorbits, this program's is {VERSION}: start the last release of \
         Mirrorbits on it once, which upgrades it, stop that, and start this program again"
    ))
}
