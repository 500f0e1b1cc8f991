//! Watch: parameters of the request, and the stream.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use keelson_api::status::{FieldError, Status};

use super::Resource;
use super::read::{freshen, parse_revision};
use super::render::Events;
use super::select::Filter;
use crate::cache::watcher::{Options, Start, Watcher};
use crate::core::Core;
use crate::http::body::Body;
use crate::http::negotiate::{Accepted, Format};
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
) -> Reply {
    let cache = resource.cache()?;
    if accepted.format != Format::Json {
        return Err(crate::http::negotiate::not_acceptable());
    }
    let filter = Filter::new(&resource.kind, cache, namespace, query)?;
    let asked = parse_revision(query)?;
    let initial_events = query.optional_flag("sendInitialEvents");
    check(query, initial_events)?;
    let bookmarks = query.flag("allowWatchBookmarks");
    let start = match (initial_events, asked) {
        (Some(true), asked) => {
            freshen(core, asked).await?;
            Start::Initial { end_bookmark: bookmarks }
        }
        (Some(false), None | Some(0)) => {
            freshen(core, asked).await?;
            Start::At(cache.snapshot_and_position().1)
        }
        (None, None | Some(0)) => {
            freshen(core, asked).await?;
            Start::Initial { end_bookmark: false }
        }
        (_, Some(revision)) => {
            core.cache.wait_for(revision).await?;
            Start::At(cache.position_after(revision)?)
        }
    };
    let seconds = query.text("timeoutSeconds").and_then(|v| v.parse::<u64>().ok()).filter(|s| *s > 0);
    let seconds = seconds.unwrap_or_else(|| rand::random_range(MIN_TIMEOUT_SECONDS..2 * MIN_TIMEOUT_SECONDS));
    let timeout = Duration::from_secs(seconds.min(1 << 31));
    let events = Events::new(resource.clone(), accepted, query);
    let options = Options { filter, start, bookmarks, timeout, events };
    let watcher = Watcher::new(core.cache.clone(), cache.clone(), options);
    let shutdown = core.shutdown.clone();
    let stream = futures::stream::unfold(watcher, |mut watcher| async move {
        watcher.next().await.map(|bytes| (Ok(bytes), watcher))
    });
    let stream = stream.take_until(async move { shutdown.cancelled().await });
    Ok(reply::json(200, Body::Stream(stream.boxed())))
}

fn check(query: &Query, initial_events: Option<bool>) -> Result<(), Status> {
    let match_ = query.text("resourceVersionMatch");
    let error = match (initial_events, match_) {
        (None, None) | (Some(_), Some("NotOlderThan")) => return Ok(()),
        (Some(_), None) => FieldError::forbidden(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (None, Some(_)) => FieldError::forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        (Some(_), Some(other)) => FieldError::not_supported("resourceVersionMatch", other, &["NotOlderThan"]),
    };
    Err(Status::invalid("meta.k8s.io", "ListOptions", "", &[error]))
}
