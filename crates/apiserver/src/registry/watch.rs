//! Watch: parameters of the request, and the stream.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use keelson_api::status::{FieldError, Status};
use tokio::sync::oneshot;

use super::Resource;
use super::read::{freshen, parse_revision};
use super::render::Events;
use super::select::Filter;
use crate::cache::watcher::{Options, Start, Watcher};
use crate::core::Core;
use crate::http::body::Body;
use crate::http::negotiate::Accepted;
use crate::http::query::Query;
use crate::http::reply::{self, Reply};

/// Shortest life of a watch that asks for none (`--min-request-timeout`); the longest is twice that.
const MIN_TIMEOUT_SECONDS: u64 = 1800;

/// WATCH.
pub(crate) async fn watch(
    core: &Arc<Core>,
    resource: &Resource,
    namespace: &str,
    query: &Query,
    accepted: Accepted,
    initializing: Option<Arc<oneshot::Sender<()>>>,
) -> Reply {
    let cache = resource.cache()?;
    cache.check_current()?;
    let seconds = query.number("timeoutSeconds")?.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
    let initial_events = query.optional_flag("sendInitialEvents");
    check(query, initial_events)?;
    let filter = Filter::new(&resource.kind, cache, namespace, query)?;
    let asked = parse_revision(query)?;
    let bookmarks = query.flag("allowWatchBookmarks");
    let (start, fresh) = match (initial_events, asked) {
        (Some(true), asked) => (Start::Initial { end_bookmark: bookmarks }, freshen(core, asked).await),
        (Some(false), None | Some(0)) => (Start::Now, freshen(core, asked).await),
        (None, None | Some(0)) => (Start::Initial { end_bookmark: false }, freshen(core, asked).await),
        (_, Some(revision)) => (Start::After(revision), Ok(())),
    };
    let fresh = match fresh {
        Ok(()) => cache.caught_up().await.and_then(|()| cache.check_readable(&filter.prefix)),
        stale => stale,
    };
    let seconds = seconds.unwrap_or_else(|| rand::random_range(MIN_TIMEOUT_SECONDS..2 * MIN_TIMEOUT_SECONDS));
    let timeout = Duration::from_secs(seconds.min(1 << 31));
    let events = Events::new(resource.clone(), accepted, query)?;
    let content_type = events.content_type();
    let options = Options { filter, start, bookmarks, timeout, events, initializing };
    let watcher = match fresh {
        Ok(()) => Watcher::new(core.cache.clone(), cache.clone(), options),
        Err(status) => Watcher::failed(core.cache.clone(), cache.clone(), options, &status),
    };
    let draining = core.draining.clone();
    let stream = futures::stream::unfold(watcher, |mut watcher| async move {
        watcher.next().await.map(|bytes| (Ok(bytes), watcher))
    });
    let stream = stream.take_until(async move { draining.cancelled().await });
    Ok(reply::typed(200, content_type, Body::Stream(stream.boxed())))
}

/// The rules of upstream's `ListOptions` for a watch.
fn check(query: &Query, initial_events: Option<bool>) -> Result<(), Status> {
    let match_ = query.text("resourceVersionMatch");
    let mut errors = Vec::new();
    let mut forbidden = |why: &str| errors.push(FieldError::forbidden("resourceVersionMatch", why));
    if initial_events.is_some() && match_ != Some("NotOlderThan") {
        forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    if match_.is_some() && initial_events.is_none() {
        forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
    }
    if match_.is_some() && query.text("continue").is_some() {
        forbidden("resourceVersionMatch is forbidden when continue is provided");
    }
    if let Some(other) = match_.filter(|match_| *match_ != "NotOlderThan") {
        errors.push(FieldError::not_supported("resourceVersionMatch", other, &["NotOlderThan"]));
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", "ListOptions", "", &errors)) }
}
