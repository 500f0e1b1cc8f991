//! Get: which version a read is owed, and one object in the shape the client wants.

use std::sync::Arc;
use std::time::Duration;

use keelson_api::status::Status;

use super::Resource;
use super::render;
use crate::cache::Entry;
use crate::core::Core;
use crate::http::negotiate::Accepted;
use crate::http::query::Query;
use crate::http::reply::Reply;

/// How long the watch gets to come so far by itself, before each time that it is asked to: mostly the change is on its way.
const NUDGES: [Duration; 3] = [Duration::from_millis(5), Duration::from_millis(50), Duration::from_millis(500)];

/// A resourceVersion parameter: `None` when it is absent or empty.
pub(crate) fn parse_revision(query: &Query) -> Result<Option<u64>, Status> {
    query.text("resourceVersion").map(parse_revision_text).transpose()
}

pub(crate) fn parse_revision_text(text: &str) -> Result<u64, Status> {
    text.parse().map_err(|_| {
        let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        Status::bad_request(format!("invalid resource version: resourceVersion: Invalid value: {text:?}: {why}"))
    })
}

/// Waits until the cache is as fresh as the read wants: the newest of all for none, anything for 0, that revision for
/// others.
pub(crate) async fn freshen(core: &Core, revision: Option<u64>) -> Result<(), Status> {
    match revision {
        Some(0) => Ok(()),
        Some(revision) => core.cache.wait_for(revision).await,
        None => {
            let newest = core.store.revision().await.map_err(super::update::store_error)?;
            if core.store.is_shared() {
                nudge(core, newest).await;
            }
            core.cache.wait_for(newest).await
        }
    }
}

/// Makes the store's watch tell of a revision that may not be one of ours.
async fn nudge(core: &Core, revision: u64) {
    for pause in NUDGES {
        if core.cache.reaches(revision, pause).await {
            return;
        }
        if let Err(error) = core.store.request_progress().await {
            tracing::warn!(%error, "the store does not tell how far its watch has come");
        }
    }
}

/// GET of one object.
pub(crate) async fn get(
    core: &Core,
    resource: &Resource,
    namespace: &str,
    name: &str,
    query: &Query,
    accepted: Accepted,
) -> Reply {
    let entry = get_entry(core, resource, namespace, name, query).await?;
    render::entry(resource, 200, &entry, accepted, query)
}

/// The version that a GET is owed.
pub(crate) async fn get_entry(
    core: &Core,
    resource: &Resource,
    namespace: &str,
    name: &str,
    query: &Query,
) -> Result<Arc<Entry>, Status> {
    let cache = resource.cache()?;
    freshen(core, parse_revision(query)?).await?;
    cache.newest(namespace, name).await?.ok_or_else(|| resource.not_found(name))
}
