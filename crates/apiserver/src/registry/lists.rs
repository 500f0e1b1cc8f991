//! List: from a snapshot of the cache, or from the store when an older, exact revision is asked for.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use keelson_api::status::{FieldError, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::read::{freshen, parse_revision};
use super::select::Filter;
use super::{Resource, render};
use crate::cache::watcher::SnapshotIter;
use crate::cache::{Entry, ResourceCache};
use crate::core::Core;
use crate::http::negotiate::Accepted;
use crate::http::query::Query;
use crate::http::reply::Reply;

/// Stored versions read at a time for a list at an old revision.
const STORE_BATCH: usize = 500;

/// Entries in key order.
pub(crate) type Entries = Box<dyn Iterator<Item = Arc<Entry>> + Send>;

/// What a list found.
pub(crate) struct Listed {
    pub(crate) entries: Entries,
    pub(crate) revision: u64,
    /// `continue` token, when there is more.
    pub(crate) next: Option<String>,
    /// Objects after this page, when that is known.
    pub(crate) remaining: Option<usize>,
}

#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: u64,
    start: String,
}

/// LIST.
pub(crate) async fn list(
    core: &Core,
    resource: &Resource,
    namespace: &str,
    query: &Query,
    accepted: Accepted,
) -> Reply {
    let listed = find(core, resource, namespace, query).await?;
    render::list(resource, listed, accepted, query)
}

/// The objects that a list's query asks for.
pub(crate) async fn find(core: &Core, resource: &Resource, namespace: &str, query: &Query) -> Result<Listed, Status> {
    let cache = resource.cache()?;
    let filter = Filter::new(&resource.kind, cache, namespace, query)?;
    let limit = query.text("limit").map(|v| v.parse::<u64>().map_err(|_| bad_limit(v))).transpose()?.unwrap_or(0);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let asked = parse_revision(query)?;
    let match_ = query.text("resourceVersionMatch");
    if let Some(token) = query.text("continue") {
        return resume(core, cache, filter, limit, token, asked).await;
    }
    check_match(match_, asked)?;
    if let (Some("Exact"), Some(revision)) = (match_, asked) {
        return at_revision(core, cache, filter, limit, String::new(), revision).await;
    }
    // With a limit and neither 0 nor a match rule, upstream's list is one at exactly that revision.
    freshen(core, asked).await?;
    let revision = core.cache.revision();
    let snapshot = cache.snapshot();
    let revision = revision.max(snapshot.revision);
    if let Some(key) = filter.single_key(cache) {
        let found = snapshot.map.get(key.as_str()).filter(|entry| filter.matches(entry)).cloned();
        return Ok(Listed { entries: Box::new(found.into_iter()), revision, next: None, remaining: None });
    }
    let prefix = filter.prefix.clone();
    let prefix_only = filter.is_prefix_only();
    let all = SnapshotIter::new(snapshot, prefix.clone());
    let matching: Entries = if prefix_only { Box::new(all) } else { Box::new(all.filter(move |e| filter.matches(e))) };
    Ok(if limit == 0 {
        Listed { entries: matching, revision, next: None, remaining: None }
    } else {
        page(matching, limit, &prefix, revision, prefix_only)
    })
}

/// Cuts off a page.
fn page(mut entries: Entries, limit: usize, prefix: &str, revision: u64, countable: bool) -> Listed {
    let first: Vec<_> = entries.by_ref().take(limit).collect();
    let Some(more) = entries.next() else {
        return Listed { entries: Box::new(first.into_iter()), revision, next: None, remaining: None };
    };
    let start = more.key.strip_prefix(prefix).unwrap_or_default().to_owned();
    let remaining = countable.then(|| 1 + entries.count());
    Listed { entries: Box::new(first.into_iter()), revision, next: Some(token(revision, start)), remaining }
}

fn token(rv: u64, start: String) -> String {
    let token = Token { v: "meta.k8s.io/v1".into(), rv, start };
    STANDARD_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

async fn resume(
    core: &Core,
    cache: &Arc<ResourceCache>,
    filter: Filter,
    limit: usize,
    token: &str,
    asked: Option<u64>,
) -> Result<Listed, Status> {
    if asked.is_some_and(|revision| revision != 0) {
        return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
    }
    let bad = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
    let bytes = STANDARD_NO_PAD.decode(token.trim_end_matches('=')).map_err(|e| bad(&e.to_string()))?;
    let Token { v, rv, start } = serde_json::from_slice(&bytes).map_err(|e| bad(&e.to_string()))?;
    if v != "meta.k8s.io/v1" {
        return Err(bad(&format!("server does not recognize this encoded version {v:?}")));
    }
    at_revision(core, cache, filter, limit, start, rv).await
}

/// Reads the store at a revision; `start` is where the last page ended.
async fn at_revision(
    core: &Core,
    cache: &Arc<ResourceCache>,
    filter: Filter,
    limit: usize,
    start: String,
    revision: u64,
) -> Result<Listed, Status> {
    let continuing = !start.is_empty();
    let failed = |error| match error {
        keelson_store::Error::Compacted { .. } if continuing => Status::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter, or use the continue token in this response to retrieve the remainder of \
             the results. Continuing with the provided token results in an inconsistent list - objects that were \
             created, modified, or deleted between the time the first chunk was returned and now may show up in the \
             list.",
        ),
        keelson_store::Error::Compacted { .. } => {
            Status::expired("The resourceVersion for the provided list is too old.")
        }
        keelson_store::Error::Future { requested, newest } => {
            Status::timeout(format!("Too large resource version: {requested}, current: {newest}"))
        }
        error => super::update::store_error(error),
    };
    let prefix = filter.prefix.clone();
    let mut from = if start.is_empty() { String::new() } else { format!("{prefix}{start}") };
    let mut found: Vec<Arc<Entry>> = Vec::new();
    let wanted = if limit == 0 { usize::MAX } else { limit };
    let mut counted = None;
    loop {
        let batch = STORE_BATCH.min(wanted.saturating_add(1)).max(2);
        let range = core.store.range(&prefix, &from, Some(revision), batch).await.map_err(failed)?;
        if filter.is_prefix_only() && counted.is_none() {
            counted = Some(range.count);
        }
        let more = range.more;
        for kv in range.kvs {
            from = kv.key.to_string();
            from.push('\0');
            let entry = Entry::new(cache.kind(), kv).map_err(Status::internal)?;
            if filter.matches(&entry) {
                if found.len() == wanted {
                    let start = entry.key.strip_prefix(prefix.as_str()).unwrap_or_default().to_owned();
                    let remaining = counted.map(|n| n.saturating_sub(found.len()));
                    let next = Some(token(revision, start));
                    return Ok(Listed { entries: Box::new(found.into_iter()), revision, next, remaining });
                }
                found.push(Arc::new(entry));
            }
        }
        if !more {
            return Ok(Listed { entries: Box::new(found.into_iter()), revision, next: None, remaining: None });
        }
    }
}

fn check_match(match_: Option<&str>, asked: Option<u64>) -> Result<(), Status> {
    let forbidden = |why: &str| {
        let error = FieldError::forbidden("resourceVersionMatch", why);
        Err(Status::invalid("meta.k8s.io", "ListOptions", "", &[error]))
    };
    match (match_, asked) {
        (None, _) | (Some("Exact"), Some(1..)) | (Some("NotOlderThan"), Some(_)) => Ok(()),
        (Some("Exact"), Some(0)) => forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""),
        (Some("Exact" | "NotOlderThan"), None) => {
            forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided")
        }
        (Some(other), _) => {
            let error = FieldError::not_supported("resourceVersionMatch", other, &["Exact", "NotOlderThan", ""]);
            Err(Status::invalid("meta.k8s.io", "ListOptions", "", &[error]))
        }
    }
}

fn bad_limit(text: &str) -> Status {
    Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
}

/// `metadata` of a list.
pub(crate) fn list_metadata(revision: u64, next: Option<&str>, remaining: Option<usize>) -> Value {
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if let Some(next) = next {
        metadata["continue"] = next.into();
    }
    if let Some(remaining) = remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}
