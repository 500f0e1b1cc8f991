//! Create: names, admission, defaults, validation, and the write.

use std::sync::Arc;

use keelson_api::kind::{Kind, Scope, Stamp, Write};
use keelson_api::status::{FieldError, Status};
use keelson_api::validation::meta;
use keelson_store::Expect;
use serde_json::Value;

use super::options::WriteOptions;
use super::ownership::{Conversions, Ownership};
use super::{Resource, update};
use crate::UserInfo;
use crate::admission::{self, Operation, Request};
use crate::alloc;
use crate::bootstrap::event_ttl::EVENTS;
use crate::cache::{Entry, ResourceCache};
use crate::core::Core;
use crate::expressions;

impl Written {
    /// The object's resourceVersion.
    pub(crate) fn revision(&self) -> Option<u64> {
        text(&self.object, "resourceVersion").parse().ok()
    }
}

/// Characters of generated names: no vowels, nothing that looks like another.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Longest prefix of a generated name.
const GENERATE_NAME_BYTES: usize = 58;
/// Names tried for one `generateName`.
const NAME_ATTEMPTS: usize = 8;

/// A finished write: the object as the client gets it, and what to warn of.
pub(crate) struct Written {
    pub(crate) object: Value,
    pub(crate) warnings: Vec<String>,
    pub(crate) created: bool,
    /// The version that was written, if the cache still shows it. That of a create has managed fields which `object` has not.
    pub(crate) entry: Option<Arc<Entry>>,
}

/// Five random characters, as in the names of a ReplicaSet's pods.
pub(crate) fn random_suffix() -> String {
    (0..5).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])).collect()
}

/// Creates `object` in `namespace` (empty for cluster-scoped kinds).
pub(crate) async fn create(
    core: &Core,
    resource: &Resource,
    namespace: &str,
    mut object: Value,
    options: &WriteOptions,
) -> Result<Written, Status> {
    let kind = &resource.kind;
    if resource.shared().is_some_and(crate::crd::Shared::is_terminating) {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(Status::new(405, "MethodNotAllowed", why));
    }
    meta::set_type(kind, &mut object);
    check_namespace(kind, &mut object, namespace)?;
    check_new(&object)?;
    meta::before_create(&mut object);
    resource.cache()?.check_current()?;
    let given = text(&object, "name").to_owned();
    let shown = if given.is_empty() { text(&object, "generateName").to_owned() } else { given.clone() };
    let request = Request::write(core, resource, Operation::Create, (namespace, &given, ""), options);
    let request = Request { shown: &shown, ..request };
    admission::namespace_exists(&request).await?;
    kind.strategy.default(&mut object);
    // What admission and the server itself fill in afterwards belongs to nobody.
    let conversions = Conversions::of(resource);
    let owners = Ownership::new(core, kind, "", options).converted(&conversions);
    let whole = resource.stores_own_json() && !core.extensions.may_mutate(&request);
    let (managed, errors) = match whole {
        true => owners.track_new(&mut object).await?,
        false => (None, owners.track(None, &mut object).await?),
    };
    if admission::mutate(&request, &mut object).await? {
        check_namespace(kind, &mut object, namespace)?;
        check_new(&object)?;
        meta::before_create(&mut object);
        dedup_owners(&mut object, true).into_iter().for_each(|warning| options.notes.warn(warning));
    }
    let draft = Draft { object, managed, errors };
    if !text(&draft.object, "name").is_empty() || text(&draft.object, "generateName").is_empty() {
        return create_named(&request, draft, options).await;
    }
    let prefix: String = text(&draft.object, "generateName").chars().take(GENERATE_NAME_BYTES).collect();
    let mut last = None;
    for _ in 0..NAME_ATTEMPTS {
        let mut attempt = draft.clone();
        set(&mut attempt.object, "name", format!("{prefix}{}", random_suffix()).into());
        match create_named(&request, attempt, options).await {
            Err(status) if status.reason == "AlreadyExists" => last = Some(status),
            result => return result,
        }
    }
    Err(last.unwrap_or_else(|| Status::internal("no name was tried")))
}

fn check_new(object: &Value) -> Result<(), Status> {
    if text(object, "resourceVersion").is_empty() {
        return Ok(());
    }
    Err(Status::new(500, "", "resourceVersion should not be set on objects to be created"))
}

/// A new object that may still lack a name.
#[derive(Clone)]
struct Draft {
    object: Value,
    /// Its managed fields, where they are left apart.
    managed: Option<Vec<u8>>,
    /// What is wrong with it so far.
    errors: Vec<FieldError>,
}

async fn create_named(request: &Request<'_>, draft: Draft, options: &WriteOptions) -> Result<Written, Status> {
    let Request { core, resource, namespace, .. } = *request;
    let Draft { mut object, mut managed, mut errors } = draft;
    let kind = &resource.kind;
    let cache = resource.cache()?;
    set(&mut object, "uid", uuid::Uuid::new_v4().to_string().into());
    set(&mut object, "creationTimestamp", now().into());
    let name = text(&object, "name").to_owned();
    let request = Request { name: &name, shown: &name, ..*request };
    kind.strategy.prepare(&mut object, Write::Create);
    stamp(kind, &mut object, Write::Create, &options.user);
    let mut claim = alloc::claim(core, resource, &mut object, None).await?;
    errors.extend(meta::validate_create(kind, &object));
    errors.extend(kind.strategy.validate(&object, Write::Create));
    let mut warnings = expressions::validate(kind, &object, None, &mut errors);
    if !errors.is_empty() {
        return Err(Status::invalid(&kind.group, &kind.kind, &name, &errors));
    }
    start_status(kind, &mut object);
    if !options.dry_run {
        claim.reserve(core, &mut object, None).await?;
    }
    if let Err(status) = admission::validate(&request, &object).await {
        claim.give_back(core).await;
        return Err(status);
    }
    warnings.extend(kind.strategy.warnings(&object, Write::Create));
    warnings.dedup();
    let key = cache.key(namespace, &name);
    if options.dry_run {
        if cache.get(namespace, &name).is_some() {
            return Err(Status::already_exists(&kind.group, &kind.resource, &name));
        }
        own(&mut object, managed)?;
        return Ok(Written { object, warnings, created: true, entry: None });
    }
    let stored = resource.to_stored(&object, managed.as_deref()).await?;
    claim.writing();
    match put(core, resource, &key, (&mut object, &mut managed, stored), Expect::Absent, options).await? {
        Ok(revision) => {
            set(&mut object, "resourceVersion", revision.to_string().into());
            core.cache.follow_write(revision).await;
            let entry = cache.written(namespace, &name, revision).await;
            if entry.is_none() {
                own(&mut object, managed)?;
            }
            Ok(Written { object, warnings, created: true, entry })
        }
        Err(keelson_store::Error::Conflict { .. }) => {
            claim.give_back(core).await;
            Err(Status::already_exists(&kind.group, &kind.resource, &name))
        }
        Err(error) => Err(update::store_error(error)),
    }
}

/// Puts managed fields that were left apart into the object.
fn own(object: &mut Value, managed: Option<Vec<u8>>) -> Result<(), Status> {
    if let Some(managed) = managed {
        set(object, "managedFields", serde_json::from_slice(&managed).map_err(Status::internal)?);
    }
    Ok(())
}

/// Writes an object, which is given with managed fields that were left apart and as it is stored. One that is too large only with its managed fields goes without them, unless it was applied.
pub(crate) async fn put(
    core: &Core,
    resource: &Resource,
    key: &str,
    (object, managed, stored): (&mut Value, &mut Option<Vec<u8>>, bytes::Bytes),
    expect: Expect,
    options: &WriteOptions,
) -> Result<Result<u64, keelson_store::Error>, Status> {
    let cache = resource.cache()?;
    let result = put_sealed(core, cache, key, stored, expect).await?;
    if !(matches!(result, Err(keelson_store::Error::TooLarge { .. })) && options.tracked) {
        return Ok(result);
    }
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    let inside = metadata.and_then(|metadata| metadata.remove("managedFields"));
    if managed.take().is_none() && inside.is_none() {
        return Ok(result);
    }
    put_sealed(core, cache, key, resource.to_stored(object, None).await?, expect).await
}

/// Writes an object as it is to be in the store: encrypted, and with an end to its life if it is an Event.
pub(crate) async fn put_sealed(
    core: &Core,
    cache: &ResourceCache,
    key: &str,
    stored: bytes::Bytes,
    expect: Expect,
) -> Result<Result<u64, keelson_store::Error>, Status> {
    let sealed = core.encryption.seal(cache, key, stored)?;
    let ttl = core.config.event_ttl;
    Ok(match cache.group().is_empty() && cache.resource() == EVENTS && !ttl.is_zero() {
        true => core.store.put_expiring(key, sealed, expect, ttl).await,
        false => core.store.put(key, sealed, expect).await,
    })
}

/// Lets the kind write down who asks, and when.
pub(crate) fn stamp(kind: &Kind, object: &mut Value, write: Write<'_>, user: &UserInfo) {
    let now = keelson_client::clock::now();
    let UserInfo { name, uid, groups, extra } = user;
    kind.strategy.stamp(object, write, &Stamp { now, user: name, uid, groups, extra });
}

/// Drops owner references that are there twice; the warning for them. `patched` is whether the object is a patch's outcome,
/// which upstream words differently.
pub(crate) fn dedup_owners(object: &mut Value, patched: bool) -> Option<String> {
    let owners = object.get_mut("metadata")?.get_mut("ownerReferences")?.as_array_mut()?;
    let mut seen = std::collections::HashSet::new();
    let mut twice: Vec<String> = Vec::new();
    owners.retain(|owner| {
        let first = seen.insert(owner.clone());
        if !first {
            twice.push(owner.get("uid").and_then(Value::as_str).unwrap_or_default().to_owned());
        }
        first
    });
    let after = if patched { " after mutating admission happens" } else { "" };
    (!twice.is_empty()).then(|| {
        format!(
            ".metadata.ownerReferences contains duplicate entries{after}; API server dedups owner references in 1.20+, and \
             may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            twice.join(", ")
        )
    })
}

/// Upstream's types always have a status where there is one to be had, if an empty one; custom resources have what they are given.
pub(crate) fn start_status(kind: &Kind, object: &mut Value) {
    if kind.custom.is_none()
        && kind.subresource("status").is_some()
        && let Some(map) = object.as_object_mut()
    {
        map.entry("status").or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
}

/// Gives the object a `metadata`, if it has none.
pub(crate) fn ensure_metadata(object: &mut Value) {
    let has_metadata = object.get("metadata").is_some_and(Value::is_object);
    if let (false, Some(map)) = (has_metadata, object.as_object_mut()) {
        map.insert("metadata".into(), Value::Object(serde_json::Map::new()));
    }
}

/// The object's namespace is the path's.
pub(crate) fn check_namespace(kind: &Kind, object: &mut Value, namespace: &str) -> Result<(), Status> {
    ensure_metadata(object);
    let own = text(object, "namespace");
    match kind.scope {
        Scope::Namespaced if own.is_empty() => set(object, "namespace", namespace.into()),
        Scope::Namespaced if own != namespace => {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        Scope::Cluster if !own.is_empty() => {
            return Err(Status::bad_request("namespace may not be set on cluster-scoped objects"));
        }
        _ => {}
    }
    Ok(())
}

/// A text field of `metadata`; empty when it is not there.
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
}

/// Sets a field of `metadata`.
pub(crate) fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert(field.into(), value);
    }
}

/// The time, as in `creationTimestamp`.
pub(crate) fn now() -> String {
    timestamp(keelson_client::clock::now())
}

/// RFC 3339 with microseconds.
pub(crate) fn micro_time(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// RFC 3339 with whole seconds.
pub(crate) fn timestamp(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
