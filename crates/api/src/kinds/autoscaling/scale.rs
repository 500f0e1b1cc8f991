//! Scale: the body of every `scale` subresource, and how it is read from and written into what it scales.

use serde_json::{Value, json};

use crate::kind::{Column, Kind, ScaleMap, ScaleSelector, Str, Strategy, Verb, Write};
use crate::kinds::mutate::make;
use crate::kinds::print::age;
use crate::status::FieldError;
use crate::validation::{View, non_negative};

pub(crate) fn kind() -> Kind {
    Kind::namespaced("autoscaling", "v1", "Scale", "", &Scale).verbs(&[Verb::Get, Verb::Update, Verb::Patch]).columns(
        vec![
            Column::integer("Desired", "How many instances are wanted.", |scale, _| replicas_of(&scale["spec"])),
            Column::integer("Available", "How many instances there are.", |scale, _| replicas_of(&scale["status"])),
            age(),
        ],
    )
}

/// Zero is left out.
fn replicas_of(part: &Value) -> Value {
    part.get("replicas").cloned().unwrap_or_else(|| 0.into())
}

#[derive(Debug)]
struct Scale;

impl Strategy for Scale {
    fn prepare(&self, _object: &mut Value, _write: Write<'_>) {}

    fn validate(&self, object: &Value, _write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let spec = root.get("spec");
        non_negative(spec.get("replicas"), &mut errors);
        errors
    }
}

impl ScaleMap {
    /// The `Scale` of `object`.
    pub fn read(&self, object: &Value) -> Value {
        let meta = &object["metadata"];
        let mut metadata = json!({});
        if let Some(map) = metadata.as_object_mut() {
            for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
                if let Some(value) = meta.get(field) {
                    map.insert(field.into(), value.clone());
                }
            }
        }
        let replicas = |path: &[Str]| at(object, path).and_then(Value::as_i64).unwrap_or(0);
        let mut spec = json!({});
        // Zero is left out, as upstream's encoding does.
        if let (Some(map), wanted @ 1..) = (spec.as_object_mut(), replicas(&self.spec_replicas)) {
            map.insert("replicas".into(), wanted.into());
        }
        json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec,
            "status": {"replicas": replicas(&self.status_replicas), "selector": self.selector(object)},
        })
    }

    /// The path of the field without which there is no scale, when it is missing.
    pub fn missing(&self, object: &Value) -> Option<String> {
        let there = at(object, &self.spec_replicas).is_some_and(Value::is_i64);
        (self.must_exist && !there).then(|| format!(".{}", self.spec_replicas.join(".")))
    }

    /// `status.selector`; empty when there is none.
    pub fn selector(&self, object: &Value) -> String {
        match &self.selector {
            ScaleSelector::Fn(selector) => selector(object),
            ScaleSelector::Path(path) => at(object, path).and_then(Value::as_str).unwrap_or_default().to_owned(),
            ScaleSelector::None => String::new(),
        }
    }

    /// Puts the wanted replicas of `scale` into `object`, and its resourceVersion, which the update must match.
    pub fn write(&self, object: &mut Value, scale: &Value) {
        let Some(map) = object.as_object_mut() else { return };
        if let Some((last, parents)) = self.spec_replicas.split_last() {
            let mut owner = Some(&mut *map);
            for name in parents {
                owner = owner.and_then(|map| make(map, name));
            }
            if let Some(owner) = owner {
                owner.insert(last.to_string(), scale["spec"]["replicas"].as_i64().unwrap_or(0).into());
            }
        }
        let version = scale["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if let (Some(meta), false) = (make(map, "metadata"), version.is_empty()) {
            meta.insert("resourceVersion".into(), version.into());
        }
    }
}

fn at<'v>(object: &'v Value, path: &[Str]) -> Option<&'v Value> {
    path.iter().try_fold(object, |value, name| value.get(name.as_ref()))
}
