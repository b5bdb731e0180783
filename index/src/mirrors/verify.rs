//! The rules of a mirror table (`FORMAT.md`, Rules). The publisher checks them too, on what it is about to write.

use super::record::{ArchivedMirrorsArchive, allow_redirects, scan_protocol};

/// A rule that a mirror table breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MirrorsViolation {
    /// Ids not positive and strictly ascending.
    #[error("mirror id {id} is not positive, or not greater than the one before it")]
    Order {
        /// The id.
        id: u32,
    },
    /// A latitude or longitude that is infinite or no number.
    #[error("the coordinates of mirror {id} are not numbers")]
    Coordinates {
        /// The mirror's id.
        id: u32,
    },
    /// A byte that stands for none of the values of its field.
    #[error("a setting of mirror {id} has an unknown value")]
    Choice {
        /// The mirror's id.
        id: u32,
    },
}

/// What the rules say about one mirror.
pub(crate) fn verify_mirror(previous_id: u32, id: u32, latitude: f32, longitude: f32) -> Result<(), MirrorsViolation> {
    if id <= previous_id {
        return Err(MirrorsViolation::Order { id });
    }
    if !latitude.is_finite() || !longitude.is_finite() {
        return Err(MirrorsViolation::Coordinates { id });
    }
    Ok(())
}

/// Checks all rules.
pub(crate) fn verify(archive: &ArchivedMirrorsArchive) -> Result<(), MirrorsViolation> {
    let mut previous_id = 0;
    for record in archive.mirrors.iter() {
        let id = record.id.to_native();
        verify_mirror(previous_id, id, record.latitude.to_native(), record.longitude.to_native())?;
        if allow_redirects(record.allow_redirects).is_none()
            || scan_protocol(record.last_successful_sync_protocol).is_none()
        {
            return Err(MirrorsViolation::Choice { id });
        }
        previous_id = id;
    }
    Ok(())
}
