//! StorageClass

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::{Value, json};

use super::{GROUP, marked_name, name_column, parameters, provisioner};
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::mutate::set;
use crate::kinds::prepare_plain;
use crate::kinds::print::{age, or};
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, immutable, names, one_of, required_one_of, same};

const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

pub(crate) fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "StorageClass", "storageclasses", &StorageClass).short("sc").returns_deleted().columns(
        vec![
            name_column(|object, _| marked_name(object, &DEFAULT)),
            Column::string("Provisioner", "Who makes its volumes.", |object, _| or(&object["provisioner"], "")),
            Column::string("ReclaimPolicy", "What becomes of a volume that was given back.", |object, _| {
                or(&object["reclaimPolicy"], "Delete")
            }),
            Column::string("VolumeBindingMode", "When a volume is made.", |object, _| {
                or(&object["volumeBindingMode"], "Immediate")
            }),
            Column::string("AllowVolumeExpansion", "Whether its volumes can grow.", |object, _| {
                json!(object["allowVolumeExpansion"] == true)
            }),
            age(),
        ],
    )
}

#[derive(Debug)]
struct StorageClass;

impl Strategy for StorageClass {
    fn default(&self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else { return };
        set(object, "reclaimPolicy", "Delete");
        set(object, "volumeBindingMode", "Immediate");
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        provisioner(root.get("provisioner"), &mut errors);
        parameters(root.get("parameters"), &mut errors);
        let (reclaim, binding) = (root.get("reclaimPolicy"), root.get("volumeBindingMode"));
        if !reclaim.is_empty() {
            one_of(reclaim, &["Delete", "Retain"], &mut errors);
        }
        required_one_of(binding, &["Immediate", "WaitForFirstConsumer"], &mut errors);
        topologies(root.get("allowedTopologies"), &mut errors);
        if let Write::Update(old) = write {
            for field in ["parameters", "provisioner", "reclaimPolicy"] {
                if !same(root.get(field).value, &old[field]) {
                    errors.push(root.get(field).forbidden(&format!("updates to {field} are forbidden.")));
                }
            }
            immutable(binding, &old["volumeBindingMode"], &mut errors);
        }
        errors
    }
}

fn topologies(terms: View, errors: &mut Errors) {
    let mut seen: Vec<BTreeMap<&str, BTreeSet<&str>>> = Vec::new();
    for term in terms.items() {
        let expressions = term.get("matchLabelExpressions");
        let mut map = BTreeMap::new();
        for expression in expressions.items() {
            let (key, values) = (expression.get("key"), expression.get("values"));
            if values.is_empty() {
                errors.push(values.required(""));
            }
            let mut set = HashSet::new();
            for value in values.items() {
                if !set.insert(value.str()) {
                    errors.push(value.duplicate());
                }
            }
            checked(key, names::qualified, errors);
            if map.insert(key.str(), set.into_iter().collect()).is_some() {
                errors.push(FieldError::duplicate(key.path(), key.str()));
            }
        }
        if seen.contains(&map) {
            errors.push(FieldError::duplicate(expressions.path(), ""));
        }
        seen.push(map);
    }
}
