//! ResourceClaimTemplate

use serde_json::Value;

use super::{GROUP, devices};
use crate::kind::{Kind, Strategy, Write};
use crate::kinds::gates::drop_unused;
use crate::kinds::mutate::child;
use crate::kinds::prepare_plain;
use crate::kinds::print::age;
use crate::status::FieldError;
use crate::validation::{View, immutable_as, labels};

pub(crate) fn kind() -> Kind {
    Kind::namespaced(GROUP, "v1", "ResourceClaimTemplate", "resourceclaimtemplates", &ResourceClaimTemplate)
        .returns_deleted()
        .columns(vec![age()])
}

#[derive(Debug)]
struct ResourceClaimTemplate;

impl Strategy for ResourceClaimTemplate {
    fn default(&self, object: &mut Value) {
        let spec = object.as_object_mut().and_then(|object| child(object, "spec"));
        if let Some(spec) = spec.and_then(|spec| child(spec, "spec")) {
            devices::default(spec);
        }
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        let old = if let Write::Update(old) = write { old.pointer("/spec/spec") } else { None };
        if let Some(spec) = object.pointer_mut("/spec/spec") {
            drop_unused(spec, old, &devices::GATED);
        }
        prepare_plain(object, write);
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let spec = root.get("spec");
        if let Write::Update(old) = write {
            immutable_as("api.resource.v1.ResourceClaimTemplateSpec", spec, &old["spec"], &mut errors);
            return errors;
        }
        let metadata = spec.get("metadata");
        labels::validate_annotations(metadata.get("annotations"), &mut errors);
        labels::validate(metadata.get("labels"), &mut errors);
        devices::validate(spec.get("spec"), &mut errors);
        errors
    }
}
