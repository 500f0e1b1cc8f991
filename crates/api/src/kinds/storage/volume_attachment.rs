//! VolumeAttachment

use serde_json::{Value, json};

use super::{GROUP, driver_name};
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::core::validate_inline_volume;
use crate::kinds::mutate::{keep_metadata, make, set};
use crate::kinds::prepare_plain;
use crate::kinds::print::{age, or};
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, immutable_as, names};

const MAX_METADATA_BYTES: usize = 256 * 1024;
const MAX_MESSAGE_BYTES: usize = 1024;
const ONE_SOURCE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";

pub(crate) fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "VolumeAttachment", "volumeattachments", &VolumeAttachment)
        .with_status()
        .returns_deleted()
        .columns(vec![
            Column::string("Attacher", "The driver that attaches it.", |object, _| or(&object["spec"]["attacher"], ""))
                .format("name"),
            Column::string("PV", "The volume.", |object, _| or(&object["spec"]["source"]["persistentVolumeName"], "")),
            Column::string("Node", "The node.", |object, _| or(&object["spec"]["nodeName"], "")),
            Column::string("Attached", "Whether it is attached.", |object, _| {
                json!(object["status"]["attached"] == true)
            })
            .typed("boolean"),
            age(),
        ])
}

#[derive(Debug)]
struct VolumeAttachment;

impl Strategy for VolumeAttachment {
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
        if let Write::Subresource("status", old) = write {
            keep_metadata(object, old);
        }
        // Always written.
        if let Some(status) = object.as_object_mut().and_then(|object| make(object, "status")) {
            set(status, "attached", false);
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let spec = root.get("spec");
        let (attacher, node) = (spec.get("attacher"), spec.get("nodeName"));
        if attacher.is_empty() {
            errors.push(attacher.required(""));
        }
        validate_source(spec.get("source"), &mut errors);
        checked(node, names::subdomain, &mut errors);
        let status = root.get("status");
        let metadata = status.get("attachmentMetadata");
        if metadata.entries().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_METADATA_BYTES {
            errors.push(metadata.too_long(MAX_METADATA_BYTES));
        }
        for field in ["attachError", "detachError"] {
            validate_error(status.get(field), &mut errors);
        }
        match write {
            Write::Create => {
                driver_name(attacher, &mut errors);
                let volume =
                    View::at("spec.source.persistentVolumeName", &object["spec"]["source"]["persistentVolumeName"]);
                if volume.is_set() {
                    checked(volume, names::subdomain, &mut errors);
                }
            }
            Write::Update(old) | Write::Subresource(_, old) => {
                immutable_as("api.storage.v1.VolumeAttachmentSpec", spec, &old["spec"], &mut errors);
            }
        }
        errors
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}

fn validate_source(source: View, errors: &mut Errors) {
    let (inline, volume) = (source.get("inlineVolumeSpec"), source.get("persistentVolumeName"));
    match (inline.is_set(), volume.is_set()) {
        (false, false) => errors.push(source.required(ONE_SOURCE)),
        (true, true) => errors.push(source.forbidden(ONE_SOURCE)),
        (true, false) => validate_inline_volume(inline, errors),
        (false, true) if volume.is_empty() => {
            errors.push(volume.required("must specify non empty persistentVolumeName"));
        }
        _ => {}
    }
}

fn validate_error(error: View, errors: &mut Errors) {
    let (message, code) = (error.get("message"), error.get("errorCode"));
    if message.len() > MAX_MESSAGE_BYTES {
        // Upstream names the other limit.
        errors.push(message.too_long(MAX_METADATA_BYTES));
    }
    if code.int().is_some_and(|n| n < 0) {
        errors.push(code.invalid("must be between 0 and 2147483647, inclusive"));
    }
}
