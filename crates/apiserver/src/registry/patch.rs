//! Patch: an update whose new version comes from applying a patch to the stored one.

use bytes::Bytes;
use keelson_api::patch::{Patch, PatchType};
use keelson_api::status::Status;
use serde_json::Value;

use super::body::{Strictness, conform, schema_of};
use super::create::{Written, text};
use super::options::{FieldValidation, WriteOptions};
use super::update::{Target, update};
use crate::core::Core;

/// Patches an object or a subresource that is seen through the object itself.
pub(crate) async fn patch(
    core: &Core,
    target: Target<'_>,
    options: &WriteOptions,
    media_type: &str,
    body: &Bytes,
) -> Result<Written, Status> {
    let kind = target.resource.kind.clone();
    let (patch, duplicates) = parse(media_type, body)?;
    let schema = schema_of(&kind)?;
    let mut strictness = Strictness::new(options.field_validation);
    let (name, namespace) = (target.name.to_owned(), target.namespace.to_owned());
    let mut found = Vec::new();
    let mut written = update(core, target, options, |old| {
        let mut object = old.clone();
        patch.apply(&mut object, schema)?;
        let mut strict = duplicates.clone();
        conform(schema, &mut object, &mut strict).map_err(|why| patch.undecodable(&object, &why))?;
        if options.field_validation == FieldValidation::Strict && !strict.is_empty() {
            return Err(patch.undecodable(&object, &keelson_api::codec::strict_error(&strict)));
        }
        found = strict;
        keep_identity(&mut object, &name, &namespace);
        Ok(object)
    })
    .await?;
    strictness.found(found)?;
    written.warnings.splice(0..0, strictness.warnings());
    Ok(written)
}

/// Reads a patch; 415 for what is none.
pub(crate) fn parse(media_type: &str, body: &Bytes) -> Result<(Patch, Vec<String>), Status> {
    let Some(patch_type) = PatchType::from_media_type(media_type) else {
        let accepted =
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json";
        return Err(Status::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        )));
    };
    Patch::parse(patch_type, body)
}

/// A patch may not take away what the URL says.
fn keep_identity(object: &mut Value, name: &str, namespace: &str) {
    for (field, value) in [("name", name), ("namespace", namespace)] {
        if text(object, field).is_empty() && !value.is_empty() {
            super::create::set(object, field, value.into());
        }
    }
}
