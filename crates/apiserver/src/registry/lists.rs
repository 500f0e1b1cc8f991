//! List: from a snapshot of the cache, or from the store when a revision is asked for that the cache's ring does not reach
//! back to.

mod token;

use std::sync::Arc;

use keelson_api::status::{FieldError, Status};
use serde_json::{Value, json};

use self::token::Token;
use super::read::{freshen, parse_revision};
use super::select::Filter;
use super::{Resource, render};
use crate::cache::resource::Snapshot;
use crate::cache::watcher::SnapshotIter;
use crate::cache::{self, Entry, ResourceCache};
use crate::core::Core;
use crate::http::negotiate::Accepted;
use crate::http::query::Query;
use crate::http::reply::Reply;

/// Stored versions read at a time for a page at an old revision.
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

/// Which version of the collection a list is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    /// What is there now.
    Newest,
    /// What this server has, however old.
    Any,
    NotBefore(u64),
    Exactly(u64),
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
    render::list(resource, listed, accepted, query).await
}

/// The objects that a list's query asks for.
pub(crate) async fn find(core: &Core, resource: &Resource, namespace: &str, query: &Query) -> Result<Listed, Status> {
    let cache = resource.cache()?;
    // As upstream, a limit below 1 is none.
    let limit = query.number("limit")?.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(0);
    check(query)?;
    let filter = Filter::new(&resource.kind, cache, namespace, query)?;
    let asked = parse_revision(query)?;
    let (owed, start, left) = match query.text("continue") {
        Some(token) => {
            let Token { revision, start, left } = Token::decode(token)?;
            if asked.is_some_and(|revision| revision != 0) {
                return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
            }
            (revision.map_or(Owed::Newest, Owed::Exactly), start, left)
        }
        None => (owed(query.text("resourceVersionMatch"), asked, limit), String::new(), None),
    };
    match owed {
        Owed::Newest => freshen(core, None).await?,
        Owed::Any => {}
        Owed::NotBefore(revision) | Owed::Exactly(revision) => core.cache.wait_for(revision).await?,
    }
    cache.caught_up().await?;
    cache.check_readable(&filter.prefix)?;
    let page = Page { cache, filter, start, left, limit };
    match owed {
        Owed::Exactly(revision) => match cache.snapshot_at(revision) {
            Some(snapshot) => Ok(page.of_snapshot(snapshot, revision)),
            // What a webhook would have to convert is not shown at old revisions.
            None if cache.converts_remotely() => Err(cache::too_old(revision, core.cache.revision())),
            None => page.of_store(core, revision).await,
        },
        _ => {
            // Read before the snapshot: what is claimed is in it.
            let revision = cache.reached(core.cache.revision());
            let snapshot = cache.snapshot();
            let revision = revision.max(snapshot.revision);
            Ok(page.of_snapshot(snapshot, revision))
        }
    }
}

fn owed(match_: Option<&str>, asked: Option<u64>, limit: usize) -> Owed {
    match (match_, asked) {
        (_, None) => Owed::Newest,
        (_, Some(0)) => Owed::Any,
        (Some("Exact"), Some(revision)) => Owed::Exactly(revision),
        // Older than the match rules: a paged list names its revision.
        (None, Some(revision)) if limit > 0 => Owed::Exactly(revision),
        (_, Some(revision)) => Owed::NotBefore(revision),
    }
}

/// The part of a collection that one request is about.
struct Page<'a> {
    cache: &'a Arc<ResourceCache>,
    filter: Filter,
    /// First key, without the filter's prefix; empty for the beginning.
    start: String,
    /// Objects from there on, when the token says it.
    left: Option<usize>,
    /// 0: no limit.
    limit: usize,
}

impl Page<'_> {
    fn of_snapshot(self, snapshot: Snapshot, revision: u64) -> Listed {
        let Self { cache, filter, start, left, limit } = self;
        if let Some(key) = filter.single_key(cache) {
            let found = snapshot.map.get(key.as_str()).filter(|entry| filter.matches(entry)).cloned();
            return Listed { entries: Box::new(found.into_iter()), revision, next: None, remaining: None };
        }
        let prefix = filter.prefix.clone();
        let plain = filter.is_prefix_only();
        let all = SnapshotIter::new(snapshot.clone(), prefix.clone(), &format!("{prefix}{start}"));
        let mut entries: Entries = if plain { Box::new(all) } else { Box::new(all.filter(move |e| filter.matches(e))) };
        if limit == 0 || limit >= snapshot.map.len() {
            return Listed { entries, revision, next: None, remaining: None };
        }
        let first: Vec<_> = entries.by_ref().take(limit).collect();
        let more = entries.next();
        let remaining = more.as_ref().filter(|_| plain).map(|more| {
            let before = match left {
                None if start.is_empty() && prefix == cache.prefix() => Some(snapshot.map.len()),
                left => left,
            };
            let counted = before.and_then(|before| before.checked_sub(first.len()));
            counted.unwrap_or_else(|| snapshot.range(&prefix, &more.key).count())
        });
        let next = more.map(|more| token(revision, &prefix, &more.key, remaining));
        Listed { entries: Box::new(first.into_iter()), revision, next, remaining }
    }

    /// For revisions that the ring does not reach back to. Values are the store's own bytes; they are looked into while
    /// they are sent.
    async fn of_store(self, core: &Core, revision: u64) -> Result<Listed, Status> {
        let Self { cache, filter, start, left: _, limit } = self;
        let failed = |error| match error {
            keelson_store::Error::Compacted { .. } if !start.is_empty() => {
                let token = Token { revision: None, start: start.clone(), left: None };
                Status::expired_page(INCONSISTENT, token.encode())
            }
            keelson_store::Error::Compacted { .. } => {
                Status::expired("The resourceVersion for the provided list is too old.")
            }
            keelson_store::Error::Future { requested, newest } => cache::too_large(requested, newest),
            error => super::update::store_error(error),
        };
        let prefix = filter.prefix.clone();
        let mut from = if start.is_empty() { String::new() } else { format!("{prefix}{start}") };
        if limit == 0 {
            let mut range = core.store.range(&prefix, &from, Some(revision), 0).await.map_err(failed)?;
            open(core, cache, &mut range.kvs)?;
            let cache = cache.clone();
            let entries = range.kvs.into_iter().filter_map(move |kv| entry(&cache, kv));
            let entries = Box::new(entries.filter(move |entry| filter.matches(entry)));
            return Ok(Listed { entries, revision, next: None, remaining: None });
        }
        let mut found: Vec<Arc<Entry>> = Vec::new();
        let mut counted = None;
        loop {
            let batch = STORE_BATCH.min(limit.saturating_add(1));
            let mut range = core.store.range(&prefix, &from, Some(revision), batch).await.map_err(failed)?;
            if filter.is_prefix_only() && counted.is_none() {
                counted = Some(range.count);
            }
            open(core, cache, &mut range.kvs)?;
            for kv in range.kvs {
                from = format!("{}\0", kv.key);
                let Some(entry) = entry(cache, kv).filter(|entry| filter.matches(entry)) else { continue };
                if found.len() == limit {
                    let remaining = counted.map(|n| n.saturating_sub(found.len()));
                    let next = Some(token(revision, &prefix, &entry.key, remaining));
                    return Ok(Listed { entries: Box::new(found.into_iter()), revision, next, remaining });
                }
                found.push(entry);
            }
            if !range.more {
                return Ok(Listed { entries: Box::new(found.into_iter()), revision, next: None, remaining: None });
            }
        }
    }
}

const INCONSISTENT: &str = "The provided continue parameter is too old to display a consistent list result. You can \
    start a new list without the continue parameter, or use the continue token in this response to retrieve the \
    remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were \
    created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Decrypts what was read from the store.
fn open(core: &Core, cache: &ResourceCache, kvs: &mut [keelson_store::KeyValue]) -> Result<(), Status> {
    kvs.iter_mut().try_for_each(|kv| core.encryption.open(cache, kv).map(|_| ()).map_err(Status::internal))
}

/// A stored version; one that cannot be read is left out, as the cache leaves it out.
fn entry(cache: &ResourceCache, kv: keelson_store::KeyValue) -> Option<Arc<Entry>> {
    cache.entry(kv, false).inspect_err(|why| tracing::error!(why, "a stored object cannot be read")).ok().map(Arc::new)
}

fn token(revision: u64, prefix: &str, key: &str, left: Option<usize>) -> String {
    let start = key.strip_prefix(prefix).unwrap_or_default().to_owned();
    Token { revision: Some(revision), start, left }.encode()
}

/// The rules of upstream's `ListOptions` for a list.
fn check(query: &Query) -> Result<(), Status> {
    let mut errors = Vec::new();
    if let Some(match_) = query.text("resourceVersionMatch") {
        let mut forbidden = |why: &str| errors.push(FieldError::forbidden("resourceVersionMatch", why));
        let revision = query.text("resourceVersion");
        if revision.is_none() {
            forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if query.text("continue").is_some() {
            forbidden("resourceVersionMatch is forbidden when continue is provided");
        }
        if match_ == "Exact" && revision == Some("0") {
            forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
        if !matches!(match_, "Exact" | "NotOlderThan") {
            errors.push(FieldError::not_supported("resourceVersionMatch", match_, &["Exact", "NotOlderThan", ""]));
        }
    }
    if query.optional_flag("sendInitialEvents").is_some() {
        errors.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", "ListOptions", "", &errors)) }
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
