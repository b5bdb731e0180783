//! [`explain`](crate::control::explain)'s answers as messages.

use std::net::IpAddr;

use tonic::Status;

use super::proto;
use crate::control::explain::{ExplainError, Explained, Explanation, explain};
use crate::snapshot::Snapshot;

/// Answers `request` from `snapshot`; `caller` is asked for when no address is given.
pub(super) fn answer(
    request: &proto::ExplainRequest,
    caller: Option<IpAddr>,
    snapshot: &Snapshot,
) -> Result<proto::ExplainReply, Status> {
    let from = match (request.from.trim(), caller) {
        ("", Some(caller)) => caller.to_canonical(),
        ("", None) => return Err(Status::invalid_argument("give the address of a client")),
        (text, _) => {
            text.parse().map_err(|_| Status::invalid_argument(format!("{text:?} is no IPv4 or IPv6 address")))?
        }
    };
    let explanation = explain(snapshot, request.path.as_bytes(), from).map_err(status)?;
    Ok(to_wire(explanation, from))
}

fn to_wire(explanation: Explanation, from: IpAddr) -> proto::ExplainReply {
    proto::ExplainReply {
        path: explanation.path,
        from: from.to_string(),
        country_code: explanation.country_code,
        continent_code: explanation.continent_code,
        asnum: explanation.asn,
        accepted: explanation.accepted.into_iter().map(mirror_to_wire).collect(),
        refused: explanation.refused.into_iter().map(mirror_to_wire).collect(),
    }
}

fn mirror_to_wire(mirror: Explained) -> proto::ExplainedMirror {
    proto::ExplainedMirror {
        id: i32::try_from(mirror.id).unwrap_or(i32::MAX),
        name: mirror.name,
        url: mirror.url,
        distance: mirror.distance,
        score: mirror.score,
        weight: mirror.weight,
        reason: mirror.reason,
    }
}

fn status(error: ExplainError) -> Status {
    let message = error.to_string();
    match error {
        ExplainError::NoIndex => Status::failed_precondition(message),
        ExplainError::NoFile => Status::not_found(message),
        ExplainError::Forbidden => Status::permission_denied(message),
        ExplainError::Answer(_) => Status::internal(message),
    }
}
