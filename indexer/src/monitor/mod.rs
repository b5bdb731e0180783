//! Health checks: does a mirror answer for a file that it should have?
//!
//! Deciding what an answer means ([`verdict`]) is apart from asking, and [`mod@pick`] chooses the file.

use std::sync::Arc;

use mb_core::mirror::{AllowRedirects, DownloadProtocol, Mirror, MirrorId, UrlScheme, absolute_url};
use mb_core::path::percent_encode;
use mb_core::secret::WithoutPassword;
use mb_core::store::{LogEvent, StoreError};
use mb_core::time::Timestamp;

use self::pick::pick;
pub(crate) use self::places::{CheckPlaces, Pace};
use self::verdict::{Verdict, judge};
use crate::indexer::Indexer;

mod pick;
mod places;
mod verdict;

/// Checks a mirror over each protocol that its URL offers, stores what changed and publishes it. Nothing happens to a
/// mirror without URL, or of which no file is known.
///
/// Failures are logged and no more: the next check comes anyway.
pub(crate) async fn check_mirror(indexer: &Arc<Indexer>, id: MirrorId) {
    let mirrors = indexer.blocking(|indexer| indexer.store.mirrors()).await;
    let mirror = match mirrors.map(|mirrors| mirrors.into_iter().find(|mirror| mirror.id == id)) {
        Ok(Some(mirror)) if mirror.invalid().is_none() => mirror,
        Ok(_) => return,
        Err(error) => {
            tracing::warn!(mirror = %id, %error, "health check");
            return;
        }
    };
    let (http, https) = tokio::join!(
        check_protocol(indexer, &mirror, DownloadProtocol::Http),
        check_protocol(indexer, &mirror, DownloadProtocol::Https)
    );
    if (http || https)
        && let Err(error) = indexer.publication.publish_mirrors().await
    {
        tracing::warn!(mirror = mirror.settings.name, %error, "the mirror's new state is not in use yet");
    }
}

/// Returns whether the record changed.
async fn check_protocol(indexer: &Arc<Indexer>, mirror: &Mirror, protocol: DownloadProtocol) -> bool {
    if !UrlScheme::of(&mirror.settings.http_url).offers(protocol) {
        return false;
    }
    let Some(mut verdict) = probe(indexer, mirror, protocol).await else {
        return false;
    };
    if !verdict.is_up() {
        // One file can fail for its own reasons: a second one decides.
        verdict = probe(indexer, mirror, protocol).await.unwrap_or(verdict);
    }
    mb_core::fault::point("health-check");
    let (mirror, name, up) = (mirror.clone(), mirror.settings.name.clone(), verdict.is_up());
    let stored = indexer.blocking(move |indexer| store_verdict(indexer, &mirror, protocol, &verdict)).await;
    indexer.ledger.check(up, stored.is_ok());
    match stored {
        Ok(changed) => changed,
        Err(error) => {
            tracing::warn!(mirror = name, %error, "cannot store the result of a health check");
            false
        }
    }
}

async fn probe(indexer: &Arc<Indexer>, mirror: &Mirror, protocol: DownloadProtocol) -> Option<Verdict> {
    let id = mirror.id;
    let file = indexer.blocking(move |indexer| pick(&*indexer.published.files()?, id)).await?;
    let url = file_url(&mirror.settings.http_url, protocol, &file.path);
    let answer = indexer.http.head(&url).await;
    let url = WithoutPassword(&url);
    if let Err(error) = &answer {
        tracing::debug!(mirror = mirror.settings.name, %url, %error, "health check got no answer");
    }
    let config = indexer.config();
    let redirects_allowed = match mirror.settings.allow_redirects {
        AllowRedirects::Default => !config.disallow_redirects,
        AllowRedirects::Allowed => true,
        AllowRedirects::Disallowed => false,
    };
    if let Ok(head) = &answer
        && head.status == 200
        && head.length.is_some_and(|length| length != file.size)
    {
        tracing::warn!(
            mirror = mirror.settings.name,
            %url,
            expected = file.size,
            got = head.length,
            "another size than scanned"
        );
    }
    Some(judge(answer.ok(), redirects_allowed, &file.path))
}

fn file_url(http_url: &str, protocol: DownloadProtocol, path: &[u8]) -> String {
    let mut encoded = Vec::with_capacity(path.len());
    percent_encode(path, &mut encoded);
    let base = absolute_url(http_url, protocol);
    format!("{}{}", base.trim_end_matches('/'), String::from_utf8_lossy(&encoded))
}

fn store_verdict(
    indexer: &Indexer,
    mirror: &Mirror,
    protocol: DownloadProtocol,
    verdict: &Verdict,
) -> Result<bool, StoreError> {
    let reason = verdict.down_reason();
    let now = Timestamp::now();
    let mut changed = indexer.store.set_health(mirror.id, protocol, reason.as_deref(), now)?;
    if changed {
        let (up, reason) = (verdict.is_up(), reason.unwrap_or_default());
        let name = &mirror.settings.name;
        tracing::info!(mirror = name, ?protocol, up, reason, "mirror changed state");
        indexer.log(mirror.id, LogEvent::StateChanged { protocol, up, reason });
    }
    let missing = matches!(verdict, Verdict::MissingFile(_));
    if missing && indexer.config().disable_on_missing_file && indexer.store.set_enabled(mirror.id, false, now)? {
        indexer.log(mirror.id, LogEvent::Disabled);
        changed = true;
    }
    Ok(changed)
}
