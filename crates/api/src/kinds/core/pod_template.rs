//! PodTemplate

use serde_json::Value;

use super::replication_controller::template_columns;
use crate::kind::{Kind, Strategy, Write};
use crate::kinds::core::template_warnings;
use crate::kinds::pod_spec::{defaults, validate};
use crate::status::FieldError;
use crate::validation::View;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("", "v1", "PodTemplate", "podtemplates", &PodTemplate)
        .returns_deleted()
        .columns(template_columns())
}

#[derive(Debug)]
struct PodTemplate;

impl Strategy for PodTemplate {
    fn default(&self, object: &mut Value) {
        if let Some(template) = object.get_mut("template") {
            defaults::template(template);
        }
    }

    fn validate(&self, object: &Value, _write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate::template(View::root(object).get("template"), &mut errors);
        errors
    }

    fn warnings(&self, object: &Value, _write: Write<'_>) -> Vec<String> {
        template_warnings(View::at("template", &object["template"]))
    }
}
