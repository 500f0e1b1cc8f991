//! Delete: at once, or by marking the object and waiting (grace period, finalizers). The decision is the pure [`plan`].

use keelson_api::kind::Propagation;
use keelson_api::status::Status;
use keelson_store::Expect;
use serde_json::{Value, json};

use super::Resource;
use super::create::{put_sealed, set, text, timestamp};
use super::options::DeleteOptions;
use super::update::{changed_elsewhere, newest, store_error};
use crate::admission::{self, Asked, Operation, Options, Request};
use crate::alloc;
use crate::cache::Entry;
use crate::core::Core;
use crate::subresource::is_namespace;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const ATTEMPTS: usize = 16;

/// What became of a delete.
pub(crate) enum Deleted {
    /// It is gone.
    Gone(Value),
    /// It is marked and waits for its finalizers or grace period.
    Marked(Value),
}

/// Longest grace period, a hundred years: clients choose it, and time ends some millennia later.
const MAX_GRACE_SECONDS: i64 = 100 * 366 * 24 * 3600;

/// What a delete does to the object's current version.
#[derive(Debug, PartialEq)]
enum Step {
    Remove,
    /// Write this version.
    Mark(Value),
    /// It is on its way already.
    Nothing,
}

/// Deletes one object.
pub(crate) async fn delete(
    core: &Core,
    resource: &Resource,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
    asked: Asked<'_>,
) -> Result<Deleted, Status> {
    let cache = resource.cache()?;
    let mut current = cache.newest(namespace, name).await?;
    for _ in 0..ATTEMPTS {
        let decided = match &current {
            Some(entry) => decide(core, resource, (namespace, name), entry, options, asked).await,
            None => Err(resource.not_found(name)),
        };
        let (mut object, step) = match decided {
            Ok((object, step)) if step != Step::Nothing && !options.is_dry_run() => (object, step),
            settled => match changed_elsewhere(core, cache, (namespace, name), current.as_deref()).await? {
                Some(newer) => {
                    current = newer;
                    continue;
                }
                None => {
                    return settled.map(|(object, step)| match step {
                        Step::Remove => Deleted::Gone(object),
                        Step::Mark(marked) => Deleted::Marked(marked),
                        Step::Nothing => Deleted::Marked(object),
                    });
                }
            },
        };
        let Some(entry) = &current else { return Err(resource.not_found(name)) };
        let expect = Expect::Revision(entry.revision);
        let result = match step {
            Step::Nothing => return Ok(Deleted::Marked(object)),
            Step::Remove => {
                let removed = core.store.delete(&entry.key, expect).await;
                removed.map(|(revision, _)| {
                    set(&mut object, "resourceVersion", revision.to_string().into());
                    (revision, Deleted::Gone(std::mem::take(&mut object)))
                })
            }
            Step::Mark(mut marked) => {
                let stored = resource.to_stored(&marked, None).await?;
                put_sealed(core, cache, &entry.key, stored, expect).await?.map(|revision| {
                    set(&mut marked, "resourceVersion", revision.to_string().into());
                    (revision, Deleted::Marked(marked))
                })
            }
        };
        match result {
            Ok((revision, deleted)) => {
                core.cache.follow_write(revision).await;
                if let Deleted::Gone(object) = &deleted {
                    alloc::release(core, resource, object, None).await;
                }
                return Ok(deleted);
            }
            Err(keelson_store::Error::Conflict { current: newer }) => {
                current = newest(core, cache, newer).await?;
            }
            Err(error) => return Err(store_error(error)),
        }
    }
    Err(resource.conflict(name, super::update::MODIFIED))
}

/// The object, and what is to be done to it, if nothing is against it.
async fn decide(
    core: &Core,
    resource: &Resource,
    (namespace, name): (&str, &str),
    entry: &Entry,
    options: &DeleteOptions,
    asked: Asked<'_>,
) -> Result<(Value, Step), Status> {
    if let Some(why) = resource.kind.strategy.kept(name) {
        return Err(resource.forbidden(name, why));
    }
    let object = resource.decode(entry)?;
    check_preconditions(resource, name, &object, options)?;
    let Asked { user, judges, notes } = asked;
    let request = Request {
        core,
        resource,
        subresource: "",
        operation: Operation::Delete,
        namespace,
        name,
        shown: name,
        user,
        judges,
        notes,
        options: Options::Delete(options),
        old: Some(&object),
    };
    admission::mutate(&request, &mut Value::Null).await?;
    admission::validate(&request, &Value::Null).await?;
    let step = plan(resource, &object, options, keelson_client::clock::now())?;
    Ok((object, step))
}

/// 409 unless the object is the one that is meant.
pub(crate) fn check_preconditions(
    resource: &Resource,
    name: &str,
    object: &Value,
    options: &DeleteOptions,
) -> Result<(), Status> {
    let Some(preconditions) = &options.preconditions else { return Ok(()) };
    let kind = &resource.kind;
    let check = |what: &str, wanted: &Option<String>, have: &str, then: &str| match wanted {
        Some(wanted) if wanted != have => {
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({have}). The object might \
                 have been {then}"
            );
            // Upstream names the kind here, not the resource.
            Err(Status::conflict(&kind.group, &kind.kind, name, &why))
        }
        _ => Ok(()),
    };
    check("UID", &preconditions.uid, text(object, "uid"), "deleted and then recreated")?;
    let revision = text(object, "resourceVersion");
    check("ResourceVersion", &preconditions.resource_version, revision, "modified")
}

fn plan(resource: &Resource, object: &Value, options: &DeleteOptions, now: jiff::Timestamp) -> Result<Step, Status> {
    let strategy = &resource.kind.strategy;
    let is_namespace = is_namespace(resource);
    // As upstream, less than nothing is almost nothing: only who says 0 gives up waiting.
    let requested = options.grace_period_seconds.map(|seconds| if seconds < 0 { 1 } else { seconds });
    let mut next = object.clone();
    let deleting = !text(object, "deletionTimestamp").is_empty();
    let finalizers = finalizers_after(object, options, strategy.default_propagation());
    let finalizers_changed = finalizers != finalizers_of(object);
    if finalizers_changed {
        set(&mut next, "finalizers", finalizers.clone().into());
        if finalizers.is_empty() {
            next.get_mut("metadata").and_then(Value::as_object_mut).and_then(|metadata| metadata.remove("finalizers"));
        }
    }
    let holds = !finalizers.is_empty() || strategy.held(object);
    let have = object.get("metadata").and_then(|m| m.get("deletionGracePeriodSeconds")).and_then(Value::as_i64);
    if deleting {
        if is_namespace && holds {
            let why = "The system is ensuring all content is removed from this namespace.  Upon completion, this \
                       namespace will automatically be purged by the system.";
            return Err(resource.conflict(text(object, "name"), why));
        }
        let have = have.unwrap_or(0).min(MAX_GRACE_SECONDS);
        // Only an explicit, shorter grace period changes a deletion that is under way.
        let wanted = match requested.and_then(|s| strategy.grace_period_seconds(object, Some(s)).map(|_| s)) {
            Some(seconds) if seconds < have => Some(seconds),
            _ => None,
        };
        if wanted.unwrap_or(have) == 0 && !holds {
            return Ok(Step::Remove);
        }
        if let Some(seconds) = wanted {
            let at: jiff::Timestamp = text(object, "deletionTimestamp").parse().unwrap_or(now);
            let at = at.saturating_sub(jiff::SignedDuration::from_secs(have - seconds)).unwrap_or(now);
            set(&mut next, "deletionTimestamp", timestamp(at).into());
            set(&mut next, "deletionGracePeriodSeconds", seconds.into());
            return Ok(Step::Mark(next));
        }
        return Ok(if finalizers_changed { Step::Mark(next) } else { Step::Nothing });
    }
    let grace = strategy.grace_period_seconds(object, requested).unwrap_or(0).clamp(0, MAX_GRACE_SECONDS);
    if grace == 0 && !holds {
        return Ok(Step::Remove);
    }
    set(&mut next, "deletionTimestamp", timestamp(now + jiff::SignedDuration::from_secs(grace)).into());
    set(&mut next, "deletionGracePeriodSeconds", grace.into());
    if let Some(generation) = object.get("metadata").and_then(|m| m.get("generation")).and_then(Value::as_i64) {
        set(&mut next, "generation", (generation + 1).into());
    }
    strategy.mark_deleted(&mut next);
    if is_namespace {
        set(&mut next, "deletionGracePeriodSeconds", Value::Null);
    }
    Ok(Step::Mark(next))
}

fn finalizers_of(object: &Value) -> Vec<String> {
    let list = object.get("metadata").and_then(|m| m.get("finalizers")).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The finalizers with which the object waits: the garbage collector's two by policy, the others as they are.
fn finalizers_after(object: &Value, options: &DeleteOptions, default: Propagation) -> Vec<String> {
    let have = finalizers_of(object);
    let had = |name: &str| have.iter().any(|f| f == name);
    let policy = match options.propagation() {
        Some(policy) => policy,
        // Finalizers that are there already say what an earlier request wanted.
        None if had(ORPHAN) => Propagation::Orphan,
        None if had(FOREGROUND) => Propagation::Foreground,
        None => default,
    };
    let mut after: Vec<String> = have.iter().filter(|f| *f != ORPHAN && *f != FOREGROUND).cloned().collect();
    match policy {
        Propagation::Background => {}
        Propagation::Orphan => after.push(ORPHAN.into()),
        Propagation::Foreground => after.push(FOREGROUND.into()),
    }
    if after.len() == have.len() && after.iter().all(|f| have.contains(f)) { have } else { after }
}

/// The `Status` that answers a delete of an object that is gone.
pub(crate) fn success(resource: &Resource, object: &Value) -> Value {
    let mut details =
        json!({"name": text(object, "name"), "kind": *resource.kind.resource, "uid": text(object, "uid")});
    if !resource.kind.group.is_empty() {
        details["group"] = resource.kind.group.as_ref().into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
