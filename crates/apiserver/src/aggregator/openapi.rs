//! The OpenAPI documents of aggregated servers, fetched in the background when a server becomes available and every minute;
//! less and less often when that fails. Of v3 only the place of the group version's document is kept, for requests for it go
//! on to the server; of v2 the part that is below the group version's path, which becomes part of our own document.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{ACCEPT, ETAG, IF_NONE_MATCH};
use keelson_api::openapi::Part;
use keelson_client::Backoff;
use serde::Deserialize;
use serde_json::Value;

use super::remote::{Answer, Remote};
use crate::core::Core;

const INTERVAL: Duration = Duration::from_secs(60);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(3600);
const MAX_BYTES: usize = 16 << 20;

/// Where a document is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// At the server, by path and query as its index has it.
    There(String),
    /// It is made from the server's document of v2, by this server.
    Here,
}

/// What is known of a server's documents.
#[derive(Debug, Default)]
pub(crate) struct Spec {
    /// Where the group version's document of v3 is; `None` when there is none.
    pub(crate) v3: Option<Place>,
    pub(crate) v2: Option<Arc<Part>>,
    /// Another one for other documents, the same in every server of a cluster.
    pub(crate) digest: u64,
    etag: Option<String>,
}

/// The index at `/openapi/v3`.
#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    paths: HashMap<String, Indexed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Indexed {
    #[serde(rename = "serverRelativeURL")]
    url: String,
}

/// Keeps a server's documents up to date; does not end.
pub(super) async fn keep(core: &Arc<Core>, remote: &Arc<Remote>) {
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
    let mut availability = remote.follow();
    loop {
        availability.borrow_and_update();
        let mut pause = INTERVAL;
        if remote.is_available() {
            match refresh(remote).await {
                Ok(changed) => {
                    backoff.reset();
                    if changed {
                        core.aggregator.changed();
                    }
                }
                Err(why) => {
                    tracing::debug!(name = remote.name, why, "an aggregated server's OpenAPI documents cannot be had");
                    pause = backoff.next_delay();
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = availability.changed() => backoff.reset(),
        }
    }
}

/// Whether anything is another than before.
async fn refresh(remote: &Remote) -> Result<bool, String> {
    let before = remote.spec();
    let (has_v3, place) = fetch_v3(remote).await?;
    let (v2, etag) = fetch_v2(remote, &before).await?;
    let v3 = match (has_v3, &v2) {
        (false, Some(_)) => Some(Place::Here),
        _ => place.map(Place::There),
    };
    let same_v2 = match (&v2, &before.v2) {
        (Some(new), Some(old)) => Arc::ptr_eq(new, old) || new == old,
        (new, old) => new.is_none() && old.is_none(),
    };
    let changed = !same_v2 || v3 != before.v3;
    if changed || etag != before.etag {
        let v2 = if same_v2 { before.v2.clone() } else { v2 };
        let mut hasher = DefaultHasher::new();
        (&v3, v2.as_ref().map(|part| part.digest())).hash(&mut hasher);
        remote.describe(Spec { v3, v2, digest: hasher.finish(), etag });
    }
    Ok(changed)
}

/// Whether the server knows v3 at all, and where its document is.
async fn fetch_v3(remote: &Remote) -> Result<(bool, Option<String>), String> {
    let Answer { status, body, .. } = remote.ask("/openapi/v3", &[(ACCEPT, "application/json")], MAX_BYTES).await?;
    match status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Ok((false, None)),
        status => return Err(format!("/openapi/v3: {}", status.as_u16())),
    }
    let mut index: Index = serde_json::from_slice(&body).map_err(|e| format!("/openapi/v3: {e}"))?;
    let path = remote.path();
    // Elsewhere it would be authorized as something else.
    let own = format!("/openapi/v3{path}");
    let place = index.paths.remove(path.trim_start_matches('/')).map(|place| place.url);
    let place = place.filter(|url| url.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('?')));
    Ok((true, place))
}

async fn fetch_v2(remote: &Remote, before: &Spec) -> Result<(Option<Arc<Part>>, Option<String>), String> {
    let mut headers = vec![(ACCEPT, "application/json")];
    if let Some(etag) = &before.etag {
        headers.push((IF_NONE_MATCH, etag.as_str()));
    }
    let Answer { status, headers, body } = remote.ask("/openapi/v2", &headers, MAX_BYTES).await?;
    match status {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED => return Ok((before.v2.clone(), before.etag.clone())),
        StatusCode::NOT_FOUND => return Ok((None, None)),
        status => return Err(format!("/openapi/v2: {}", status.as_u16())),
    }
    let prefix = remote.path();
    // Some megabytes of JSON take their time.
    let part = tokio::task::spawn_blocking(move || {
        let document: Value = serde_json::from_slice(&body).map_err(|e| format!("/openapi/v2: {e}"))?;
        Part::of(document, &prefix).ok_or_else(|| "/openapi/v2 is no document that could be served".to_owned())
    });
    let part = part.await.map_err(|e| e.to_string())??;
    let etag = headers.get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
    Ok(((!part.is_empty()).then(|| Arc::new(part)), etag))
}
