//! Mirrors as they travel: conversion between the wire message and the record, in both directions.

use mb_core::mirror::{AllowRedirects, Health, InvalidMirror, Mirror, MirrorId, MirrorSettings, MirrorState};
use mb_core::time::Timestamp;

use super::proto;

/// Go's zero time, 0001-01-01T00:00:00Z, which Mirrorbits sends for "never".
const GO_ZERO_SECONDS: i64 = -62_135_596_800;

/// The id on the wire of `id`; ids beyond what the wire can carry are never given out.
pub fn id_to_wire(id: MirrorId) -> i32 {
    i32::try_from(id.0).unwrap_or(i32::MAX)
}

/// The mirror id that `id` stands for; `None` when it cannot be one.
pub fn id_from_wire(id: i32) -> Option<MirrorId> {
    u32::try_from(id).ok().filter(|&id| id > 0).map(MirrorId)
}

/// The message of `mirror`. Times are always set: clients of Mirrorbits take a missing one for an error.
pub fn mirror_to_wire(mirror: &Mirror) -> proto::Mirror {
    let invalid = mirror.invalid().map(|invalid| invalid.to_string()).unwrap_or_default();
    let Mirror { id, settings, state } = mirror.clone();
    proto::Mirror {
        invalid,
        id: id_to_wire(id),
        name: settings.name,
        http_url: settings.http_url,
        rsync_url: settings.rsync_url,
        ftp_url: settings.ftp_url,
        sponsor_name: settings.sponsor_name,
        sponsor_url: settings.sponsor_url,
        sponsor_logo_url: settings.sponsor_logo_url,
        admin_name: settings.admin_name,
        admin_email: settings.admin_email,
        custom_data: settings.custom_data,
        continent_only: settings.continent_only,
        country_only: settings.country_only,
        as_only: settings.as_only,
        score: settings.score,
        latitude: settings.latitude,
        longitude: settings.longitude,
        continent_code: settings.continent_code,
        country_codes: settings.country_codes,
        excluded_country_codes: settings.excluded_country_codes,
        asnum: settings.asn,
        comment: settings.comment,
        enabled: state.enabled,
        http_up: state.http.up,
        http_down_reason: state.http.down_reason,
        state_since: Some(time_to_wire(state.since)),
        allow_redirects: match settings.allow_redirects {
            AllowRedirects::Default => 0,
            AllowRedirects::Allowed => 1,
            AllowRedirects::Disallowed => 2,
        },
        last_sync: Some(time_to_wire(state.last_sync)),
        last_successful_sync: Some(time_to_wire(state.last_successful_sync)),
        last_mod_time: Some(time_to_wire(state.last_mod_time)),
        https_up: state.https.up,
        https_down_reason: state.https.down_reason,
    }
}

/// What the operator entered, as `mirror` says.
pub fn settings_from_wire(mirror: proto::Mirror) -> MirrorSettings {
    MirrorSettings {
        name: mirror.name,
        http_url: mirror.http_url,
        rsync_url: mirror.rsync_url,
        ftp_url: mirror.ftp_url,
        sponsor_name: mirror.sponsor_name,
        sponsor_url: mirror.sponsor_url,
        sponsor_logo_url: mirror.sponsor_logo_url,
        admin_name: mirror.admin_name,
        admin_email: mirror.admin_email,
        custom_data: mirror.custom_data,
        continent_only: mirror.continent_only,
        country_only: mirror.country_only,
        as_only: mirror.as_only,
        score: mirror.score,
        latitude: mirror.latitude,
        longitude: mirror.longitude,
        continent_code: mirror.continent_code,
        country_codes: mirror.country_codes,
        excluded_country_codes: mirror.excluded_country_codes,
        asn: mirror.asnum,
        comment: mirror.comment,
        allow_redirects: match mirror.allow_redirects {
            1 => AllowRedirects::Allowed,
            2 => AllowRedirects::Disallowed,
            _ => AllowRedirects::Default,
        },
    }
}

/// The record of `mirror`, with what the wire tells of its state; `None` when its id cannot be one.
pub fn mirror_from_wire(mut mirror: proto::Mirror) -> Option<Mirror> {
    let id = id_from_wire(mirror.id)?;
    let state = MirrorState {
        enabled: mirror.enabled,
        http: Health { up: mirror.http_up, down_reason: std::mem::take(&mut mirror.http_down_reason) },
        https: Health { up: mirror.https_up, down_reason: std::mem::take(&mut mirror.https_down_reason) },
        since: time_from_wire(mirror.state_since),
        last_sync: time_from_wire(mirror.last_sync),
        last_successful_sync: time_from_wire(mirror.last_successful_sync),
        last_mod_time: time_from_wire(mirror.last_mod_time),
        unreadable: (!mirror.invalid.is_empty())
            .then(|| InvalidMirror::new("Record", std::mem::take(&mut mirror.invalid))),
        ..MirrorState::default()
    };
    Some(Mirror { id, settings: settings_from_wire(mirror), state })
}

fn time_to_wire(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.0, nanos: 0 }
}

fn time_from_wire(time: Option<prost_types::Timestamp>) -> Timestamp {
    match time {
        Some(time) if time.seconds > GO_ZERO_SECONDS => Timestamp(time.seconds),
        _ => Timestamp::NEVER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_survives_the_wire() {
        let mirror = Mirror {
            id: MirrorId(7),
            settings: MirrorSettings {
                name: "a".into(),
                http_url: "http://a/".into(),
                score: -3,
                latitude: 48.5,
                asn: 64496,
                allow_redirects: AllowRedirects::Disallowed,
                ..MirrorSettings::default()
            },
            state: MirrorState {
                enabled: true,
                https: Health { up: false, down_reason: "no".into() },
                since: Timestamp(1_700_000_000),
                ..MirrorState::default()
            },
        };
        assert_eq!(mirror_from_wire(mirror_to_wire(&mirror)), Some(mirror));
    }

    #[test]
    fn ids_that_cannot_be_are_refused() {
        assert_eq!([-1, 0, 1].map(id_from_wire), [None, None, Some(MirrorId(1))]);
    }

    #[test]
    fn never_is_read_in_all_its_forms() {
        let never = [None, Some(GO_ZERO_SECONDS), Some(0)];
        for seconds in never {
            let time = seconds.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 });
            assert!(time_from_wire(time).is_never(), "{seconds:?}");
        }
    }
}
