//! A request as webhooks and policies see it: described in JSON, its objects in the version that they ask for.

use std::borrow::Cow;

use keelson_api::kind::Kind;
use keelson_api::status::Status;
use keelson_api::validation::meta;
use serde_json::{Value, json};

use super::Request;
use super::matching::namespace_of;
use crate::UserInfo;
use crate::registry::Resource;
use crate::registry::body::{conform, schema_of};

const NOTHING: &Value = &Value::Null;

/// The objects of a request in one version.
pub(super) struct Version<'a> {
    pub(super) object: Cow<'a, Value>,
    pub(super) old: Cow<'a, Value>,
}

/// What somebody sees of a request: the resource as which it matched, and the objects (null for none) in its version.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) resource: &'a Resource,
    pub(super) object: &'a Value,
    pub(super) old: &'a Value,
}

impl Version<'_> {
    pub(super) fn borrow<'a>(&'a self, resource: &'a Resource) -> Seen<'a> {
        Seen { resource, object: &self.object, old: &self.old }
    }
}

/// The objects of a request as `resource`, which is equivalent to the request's, has them.
pub(super) async fn as_version<'a>(
    request: &Request<'a>,
    resource: &Resource,
    object: &'a Value,
) -> Result<Version<'a>, Status> {
    let old = request.old.unwrap_or(NOTHING);
    if is_same(request, resource) {
        return Ok(Version { object: Cow::Borrowed(object), old: Cow::Borrowed(old) });
    }
    let object = request.resource.convert(object, resource).await?;
    Ok(Version { object: Cow::Owned(object), old: Cow::Owned(request.resource.convert(old, resource).await?) })
}

/// A changed object of `resource` as one of the request's own resource.
pub(super) async fn back(request: &Request<'_>, resource: &Resource, object: Value) -> Result<Value, Status> {
    if is_same(request, resource) { Ok(object) } else { resource.convert(&object, request.resource).await }
}

/// Bodies of subresources (scales, evictions) are the same in all versions.
fn is_same(request: &Request<'_>, resource: &Resource) -> bool {
    resource.kind.version == request.resource.kind.version && resource.kind.group == request.resource.kind.group
        || body(request, resource).is_some()
}

/// Group, version and kind of a subresource's own body.
fn body<'r>(request: &Request<'_>, resource: &'r Resource) -> Option<(&'r str, &'r str, &'r str)> {
    let subresource = resource.kind.subresource(request.subresource)?;
    subresource.body.as_ref().map(|(group, version, kind)| (group.as_ref(), version.as_ref(), kind.as_ref()))
}

/// Group, version and kind of what is judged, for who knows the request as one for `resource`.
pub(super) fn kind_of<'r>(request: &Request<'_>, resource: &'r Resource) -> (&'r str, &'r str, &'r str) {
    let Kind { group, version, kind, .. } = &*resource.kind;
    body(request, resource).unwrap_or((group, version, kind))
}

/// Makes what somebody changed an object of its kind again: of the right type, without unknown fields, with defaults. Why
/// not, if it cannot be.
pub(super) fn settle(request: &Request<'_>, resource: &Resource, object: &mut Value) -> Result<(), String> {
    let own = match body(request, resource) {
        // Options of a `CONNECT` are no kind of their own here.
        Some((group, _, kind)) => request.core.registry.body(group, kind).ok(),
        None => Some(&*resource.kind),
    };
    let Some(kind) = own else { return Ok(()) };
    if !object.is_object() {
        return Err(format!("the result is no {}", kind.kind));
    }
    meta::set_type(kind, object);
    conform(schema_of(kind).map_err(|status| status.message)?, object, &mut Vec::new())?;
    kind.strategy.default(object);
    Ok(())
}

/// The `AdmissionRequest` without its uid and objects.
pub(super) fn describe(request: &Request<'_>, resource: &Resource) -> Value {
    let kind = |(group, version, kind): (&str, &str, &str)| json!({"group": group, "version": version, "kind": kind});
    let named = |resource: &Resource| {
        let Kind { group, version, resource, .. } = &*resource.kind;
        json!({"group": group, "version": version, "resource": resource})
    };
    let mut value = json!({
        "kind": kind(kind_of(request, resource)),
        "resource": named(resource),
        "requestKind": kind(kind_of(request, request.resource)),
        "requestResource": named(request.resource),
        "operation": request.operation.as_str(),
        "userInfo": user(request.user),
        "dryRun": request.is_dry_run(),
        "options": request.options(),
    });
    let subresource = request.subresource;
    let texts = [
        ("subResource", subresource),
        ("requestSubResource", subresource),
        ("name", request.name),
        ("namespace", namespace_of(request)),
    ];
    if let Some(map) = value.as_object_mut() {
        let given = texts.into_iter().filter(|(_, text)| !text.is_empty());
        map.extend(given.map(|(key, text)| (key.to_owned(), text.into())));
    }
    value
}

fn user(user: &UserInfo) -> Value {
    let mut value = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        value["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}
