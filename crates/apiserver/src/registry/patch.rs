//! Patch: an update whose new version comes from applying a patch to the stored one; and server-side apply, which creates
//! what is not there.

use bytes::Bytes;
use keelson_api::codec;
use keelson_api::kind::Kind;
use keelson_api::patch::{Patch, PatchType};
use keelson_api::status::Status;
use serde_json::Value;

use super::body::{Strictness, conform, schema_of};
use super::create::{self, Written, text};
use super::options::{APPLY_CBOR, APPLY_YAML, FieldValidation, WriteOptions};
use super::ownership::{Conversions, Ownership};
use super::read::freshen;
use super::update::{MODIFIED, Target, update};
use crate::authz::Attributes;
use crate::core::Core;

/// Applies tried against creates and deletes of the same object.
const ATTEMPTS: usize = 5;

/// Patches an object or a subresource that is seen through the object itself.
pub(crate) async fn patch(
    core: &Core,
    target: Target<'_>,
    options: &WriteOptions,
    media_type: &str,
    body: &Bytes,
) -> Result<Written, Status> {
    let kind = target.resource.kind.clone();
    let (patch, duplicates) = parse(&kind, media_type, body)?;
    let schema = schema_of(&kind)?;
    let mut strictness = Strictness::new(options.field_validation);
    let (name, namespace) = (target.name.to_owned(), target.namespace.to_owned());
    let (mut found, mut twice) = (Vec::new(), None);
    let mut written = update(core, target, options, |old| {
        let mut object = old.clone();
        patch.apply(&mut object, schema)?;
        let mut strict = duplicates.clone();
        conform(schema, &mut object, &mut strict).map_err(|why| patch.undecodable(&object, &why))?;
        if options.field_validation == FieldValidation::Strict && !strict.is_empty() {
            return Err(patch.undecodable(&object, &codec::strict_error(&strict)));
        }
        found = strict;
        twice = create::dedup_owners(&mut object, true);
        keep_identity(&mut object, &name, &namespace);
        Ok(object)
    })
    .await?;
    strictness.found(found)?;
    written.warnings.splice(0..0, strictness.warnings().into_iter().chain(twice));
    Ok(written)
}

/// Reads a patch; 415 for what is none.
pub(crate) fn parse(kind: &Kind, media_type: &str, body: &Bytes) -> Result<(Patch, Vec<String>), Status> {
    // Upstream has no merge keys for custom resources.
    let custom = kind.custom.is_some();
    match PatchType::from_media_type(media_type) {
        Some(patch_type) if !(custom && patch_type == PatchType::Strategic) => Patch::parse(patch_type, body),
        _ => {
            let strategic = if custom { "" } else { "application/strategic-merge-patch+json, " };
            Err(Status::unsupported_media_type(format!(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, {strategic}{APPLY_YAML}, {APPLY_CBOR}"
            )))
        }
    }
}

/// A patch may not take away what the URL says.
fn keep_identity(object: &mut Value, name: &str, namespace: &str) {
    for (field, value) in [("name", name), ("namespace", namespace)] {
        if text(object, field).is_empty() && !value.is_empty() {
            create::set(object, field, value.into());
        }
    }
}

/// Reads an applied configuration; duplicate keys go to `strictness`.
pub(crate) fn parse_config(media_type: &str, body: &Bytes, strictness: &mut Strictness) -> Result<Value, Status> {
    let decoded = match media_type {
        APPLY_CBOR => codec::cbor::decode(body),
        _ => codec::yaml::decode(body),
    };
    let decoded = decoded.map_err(|e| Status::bad_request(format!("error decoding YAML: {e}")))?;
    if !decoded.value.is_object() {
        let found = keelson_api::schema::json_type(&decoded.value);
        return Err(Status::bad_request(format!(
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into Go \
             value of type map[string]interface {{}}"
        )));
    }
    let words =
        |found: &[String]| format!("error strict decoding YAML: error converting YAML to JSON: {}", found.join(", "));
    strictness.found_in(decoded.strict, words)?;
    Ok(decoded.value)
}

/// Server-side apply to an object, which is created if it is not there, or to a subresource.
pub(crate) async fn apply(
    core: &Core,
    target: Target<'_>,
    options: &WriteOptions,
    media_type: &str,
    body: &Bytes,
) -> Result<Written, Status> {
    let Target { resource, namespace, name, subresource } = target;
    let kind = resource.kind.clone();
    let mut strictness = Strictness::new(options.field_validation);
    let config = parse_config(media_type, body, &mut strictness)?;
    let given = WriteOptions { tracked: false, ..options.clone() };
    let conversions = Conversions::of(resource);
    let applied = |live: Option<&Value>| {
        let owners = Ownership::new(core, &kind, subresource, options).converted(&conversions);
        let outcome = owners.apply(live, &config);
        conversions.complete()?;
        let mut object = outcome?;
        conform(schema_of(&kind)?, &mut object, &mut Vec::new())
            .map_err(|why| Status::new(500, "", format!("failed to convert new typed object ({name}): {why}")))?;
        create::ensure_metadata(&mut object);
        keep_identity(&mut object, name, namespace);
        Ok(object)
    };
    let mut attempts = 0;
    while attempts < ATTEMPTS {
        let target = Target { resource, namespace, name, subresource };
        let result = match update(core, target, &given, |old| applied(Some(old))).await {
            Err(status) if status.code == 404 && subresource.is_empty() => {
                let object = applied(None)?;
                create_applied(core, resource, namespace, name, object, &given).await
            }
            result => result,
        };
        if conversions.fetch().await? {
            continue;
        }
        attempts += 1;
        match result {
            // Somebody else was faster; then it is an update, once it can be seen here.
            Err(status) if status.reason == "AlreadyExists" => freshen(core, None).await?,
            result => {
                let mut written = result?;
                written.warnings.splice(0..0, strictness.warnings());
                return Ok(written);
            }
        }
    }
    Err(resource.conflict(name, MODIFIED))
}

async fn create_applied(
    core: &Core,
    resource: &super::Resource,
    namespace: &str,
    name: &str,
    mut object: Value,
    options: &WriteOptions,
) -> Result<Written, Status> {
    let kind = &resource.kind;
    let uid = text(&object, "uid");
    if !uid.is_empty() {
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(resource.conflict(name, &why));
    }
    let own = text(&object, "name");
    if own != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({own}) does not match the name on the URL ({name})"
        )));
    }
    let create = Attributes::on("create", &kind.group, &kind.resource, namespace, name);
    core.authorizer.check(&options.user, &create).await?;
    create::set(&mut object, "resourceVersion", "".into());
    create::create(core, resource, namespace, object, options).await
}
