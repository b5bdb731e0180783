//! A mirror in Paris, one in Tokyo, and a client in Paris, whose answers show at once which of them may be used.

use super::eventually;
use super::host::Place;
use super::redirector::Redirector;
use super::servers::MirrorSites;

/// Starts the daemon with the mirrors `near` and `far`, and waits until the client is sent to the near one. Returns where
/// their copies of `/file.iso` are, too.
pub(crate) fn start(redirector: &mut Redirector) -> (MirrorSites, [String; 2]) {
    let mirrors = redirector.start_with_mirrors(&[("near", Place::Paris), ("far", Place::Tokyo)]);
    let copies = ["near", "far"].map(|name| format!("{}file.iso", mirrors.site(name).http_url()));
    eventually("the near mirror is used", || match answer(redirector) {
        Some(copy) if copy == copies[0] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    (mirrors, copies)
}

/// Where the client is sent to for `/file.iso`; `None` when there is no mirror for it.
pub(crate) fn answer(redirector: &Redirector) -> Option<String> {
    let client = format!("X-Forwarded-For: {}", Place::Paris.client());
    let response = redirector.get("/file.iso", &[&client]);
    match response.status {
        302 => Some(response.location().to_owned()),
        503 => None,
        _ => panic!("{response:?}"),
    }
}
