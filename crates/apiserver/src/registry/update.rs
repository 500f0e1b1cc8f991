//! Update: read the stored version, let the caller make the new one from it, check, and swap; again when somebody else was
//! faster and the caller did not insist on a version. PUT, PATCH, status, scale and every other subresource write come
//! through here.

use std::sync::Arc;

use keelson_api::kind::{Kind, Write};
use keelson_api::status::{FieldError, Status};
use keelson_api::validation::meta;
use keelson_store::Expect;
use serde_json::Value;

use super::Resource;
use super::create::{self, Written, set, text};
use super::options::WriteOptions;
use super::ownership::{Conversions, Ownership, keep_times};
use super::read::freshen;
use crate::admission::{self, Operation, Request};
use crate::alloc;
use crate::cache::{Entry, ResourceCache};
use crate::core::Core;
use crate::expressions;

/// Upstream's message for a stale resourceVersion.
pub(crate) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";
/// Writes tried against concurrent ones.
const ATTEMPTS: usize = 16;

/// What is updated.
pub(crate) struct Target<'a> {
    pub(crate) resource: &'a Resource,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// Empty for the object itself.
    pub(crate) subresource: &'a str,
}

/// Updates an object. `change` gets the stored object (with its resourceVersion) and returns the wanted one; a
/// resourceVersion in that must be the stored one.
pub(crate) async fn update(
    core: &Core,
    target: Target<'_>,
    options: &WriteOptions,
    mut change: impl FnMut(&Value) -> Result<Value, Status> + Send,
) -> Result<Written, Status> {
    let Target { resource, namespace, name, .. } = target;
    let cache = resource.cache()?;
    let mut current = cache.newest(namespace, name).await?;
    for _ in 0..ATTEMPTS {
        let outcome = match &current {
            Some(entry) => attempt(core, &target, options, entry, &mut change).await,
            None => Err(resource.not_found(name)),
        };
        let outcome = match outcome {
            Ok(Attempt::Raced(newer)) => {
                current = newest(core, cache, newer).await?;
                continue;
            }
            Ok(Attempt::Done(written)) => Ok(written),
            Err(status) => Err(status),
        };
        // What was written was newest, or it would not have been.
        if outcome.as_ref().is_ok_and(|written| written.revision() != current.as_ref().map(|entry| entry.revision)) {
            return outcome.map(|written| *written);
        }
        match changed_elsewhere(core, cache, (namespace, name), current.as_deref()).await? {
            Some(newer) => current = newer,
            None => return outcome.map(|written| *written),
        }
    }
    Err(resource.conflict(name, MODIFIED))
}

/// Whether another server has written an object since this one saw it; if so, what is there now. A refusal, or an update
/// that changes nothing, must not rest on an old version. Without other servers this costs nothing.
pub(crate) async fn changed_elsewhere(
    core: &Core,
    cache: &Arc<ResourceCache>,
    (namespace, name): (&str, &str),
    seen: Option<&Entry>,
) -> Result<Option<Option<Arc<Entry>>>, Status> {
    if !core.store.is_shared() {
        return Ok(None);
    }
    freshen(core, None).await?;
    let now = cache.newest(namespace, name).await?;
    Ok((now.as_ref().map(|entry| entry.revision) != seen.map(|entry| entry.revision)).then_some(now))
}

/// The version that somebody else wrote in between, as the cache shows it.
pub(crate) async fn newest(
    core: &Core,
    cache: &Arc<ResourceCache>,
    newer: Option<keelson_store::KeyValue>,
) -> Result<Option<Arc<Entry>>, Status> {
    let Some(kv) = newer else { return Ok(None) };
    core.cache.wait_for(kv.mod_revision).await?;
    let mut parts = kv.key.rsplit('/');
    let (name, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    cache.newest(namespace, name).await
}

enum Attempt {
    Done(Box<Written>),
    /// Somebody wrote in between; what is there now.
    Raced(Option<keelson_store::KeyValue>),
}

async fn attempt(
    core: &Core,
    target: &Target<'_>,
    options: &WriteOptions,
    entry: &Arc<Entry>,
    change: &mut (impl FnMut(&Value) -> Result<Value, Status> + Send),
) -> Result<Attempt, Status> {
    let Target { resource, namespace, name, subresource } = *target;
    let kind = &resource.kind;
    let old = resource.decode(entry)?;
    let mut object = change(&old)?;
    meta::set_type(kind, &mut object);
    check_identity(resource, &old, &mut object, namespace, name)?;
    // Of a scale, admission sees no more.
    let scale = if subresource == "scale" { kind.scale.as_ref() } else { None };
    let old_scale = scale.map(|map| map.read(&old));
    let at = (namespace, name, subresource);
    let request = Request::write(core, resource, Operation::Update, at, options);
    let request = Request { old: Some(old_scale.as_ref().unwrap_or(&old)), ..request };
    meta::before_update(&mut object, &old);
    kind.strategy.default(&mut object);
    let conversions = Conversions::of(resource);
    let owners = Ownership::new(core, kind, subresource, options).converted(&conversions);
    let mut errors = owners.track(Some(&old), &mut object).await?;
    match scale {
        Some(map) => {
            let mut view = map.read(&object);
            if admission::mutate(&request, &mut view).await? {
                map.write(&mut object, &view);
            }
        }
        None => {
            if admission::mutate(&request, &mut object).await? {
                create::check_namespace(kind, &mut object, namespace)?;
                create::dedup_owners(&mut object, true).into_iter().for_each(|warning| options.notes.warn(warning));
            }
        }
    }
    // A write of a scale is one of the object itself as far as its strategy is concerned: the generation counts it.
    let write = if subresource.is_empty() || scale.is_some() {
        Write::Update(&old)
    } else {
        Write::Subresource(subresource, &old)
    };
    kind.strategy.prepare(&mut object, write);
    create::stamp(kind, &mut object, write, &options.user);
    if old.get("status").is_some() {
        create::start_status(kind, &mut object);
    }
    let mut claim = alloc::claim(core, resource, &mut object, Some(&old)).await?;
    errors.extend(meta::validate_update(kind, &object, &old));
    errors.extend(kind.strategy.validate(&object, write));
    let mut warnings = expressions::validate(kind, &object, Some(&old), &mut errors);
    if !errors.is_empty() {
        return Err(Status::invalid(&kind.group, &kind.kind, name, &errors));
    }
    if !options.dry_run {
        claim.reserve(core, &mut object, Some(&old)).await?;
    }
    let judged = match scale {
        Some(map) => admission::validate(&request, &map.read(&object)).await,
        None => admission::validate(&request, &object).await,
    };
    if let Err(status) = judged {
        claim.give_back(core).await;
        return Err(status);
    }
    warnings.extend(kind.strategy.warnings(&object, write));
    let done = |object: Value, entry: Option<Arc<Entry>>| {
        Ok(Attempt::Done(Box::new(Written { object, warnings, created: false, entry })))
    };
    set(&mut object, "resourceVersion", entry.revision.to_string().into());
    let gone = is_gone(kind, &object);
    keep_times(&mut object, &old);
    let stale = resource.is_stale(core, entry);
    if options.dry_run {
        return done(object, None);
    }
    if object == old && !gone && !stale {
        return done(object, Some(entry.clone()));
    }
    let stored = resource.to_stored(&object, None).await?;
    if stored == entry.value && !gone && !stale {
        return done(object, Some(entry.clone()));
    }
    let expect = Expect::Revision(entry.revision);
    claim.writing();
    let result = if gone {
        core.store.delete(&entry.key, expect).await.map(|(revision, _)| revision)
    } else {
        create::put(core, resource, &entry.key, (&mut object, &mut None, stored), expect, options).await?
    };
    match result {
        Ok(revision) => {
            set(&mut object, "resourceVersion", revision.to_string().into());
            core.cache.follow_write(revision).await;
            alloc::release(core, resource, &old, (!gone).then_some(&object)).await;
            let entry = resource.cache()?.written(namespace, name, revision).await;
            done(object, entry)
        }
        Err(keelson_store::Error::Conflict { current }) => {
            claim.give_back(core).await;
            Ok(Attempt::Raced(current))
        }
        Err(error) => Err(store_error(error)),
    }
}

/// Whether this update took away the last thing that a deleted object waited for.
fn is_gone(kind: &Kind, object: &Value) -> bool {
    let list_is_empty = |list: Option<&Value>| list.and_then(Value::as_array).is_none_or(Vec::is_empty);
    let Some(metadata) = object.get("metadata") else { return false };
    metadata.get("deletionTimestamp").is_some_and(|t| !t.is_null())
        && metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0) == 0
        && list_is_empty(metadata.get("finalizers"))
        && !kind.strategy.held(object)
}

fn check_identity(
    resource: &Resource,
    old: &Value,
    object: &mut Value,
    namespace: &str,
    name: &str,
) -> Result<(), Status> {
    create::check_namespace(&resource.kind, object, namespace)?;
    let own = text(object, "name").to_owned();
    if own.is_empty() {
        return Err(Status::bad_request("name must be provided"));
    }
    if own != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({own}) does not match the name on the URL ({name})"
        )));
    }
    let (uid, old_uid) = (text(object, "uid"), text(old, "uid"));
    if !uid.is_empty() && uid != old_uid {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {old_uid}");
        return Err(resource.conflict(name, &why));
    }
    let version = text(object, "resourceVersion");
    match version {
        "" | "0" if resource.kind.strategy.unconditional_update() => {
            set(object, "resourceVersion", text(old, "resourceVersion").into());
        }
        "" | "0" => {
            let error = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
            return Err(Status::invalid(&resource.kind.group, &resource.kind.kind, name, &[error]));
        }
        version if version == text(old, "resourceVersion") => {}
        version if version.parse::<u64>().is_err() => {
            let error = FieldError::invalid("metadata.resourceVersion", version, "must be an unsigned integer");
            return Err(Status::invalid(&resource.kind.group, &resource.kind.kind, name, &[error]));
        }
        _ => return Err(resource.conflict(name, MODIFIED)),
    }
    Ok(())
}

/// A store's error as a client sees it.
pub(crate) fn store_error(error: keelson_store::Error) -> Status {
    match error {
        keelson_store::Error::TooLarge { what } => {
            Status::too_large(format!("etcdserver: request is too large: {what}"))
        }
        keelson_store::Error::Timeout { what } => Status::timeout(what),
        keelson_store::Error::Closed => Status::unavailable("the store is closed"),
        keelson_store::Error::Compacted { requested, oldest } => crate::cache::too_old(requested, oldest),
        error => {
            tracing::error!(%error, "the store failed");
            Status::internal(error)
        }
    }
}
