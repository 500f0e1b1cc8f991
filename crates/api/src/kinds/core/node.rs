//! Node

use std::collections::{BTreeSet, HashSet};

use serde_json::{Value, json};

use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::core::PROXY_VERBS;
use crate::kinds::mutate::{Rules, child, make, prepare, set};
use crate::kinds::pod_spec::{defaults::resource_list, resources};
use crate::kinds::print::{NONE, UNKNOWN, age, items, join, or};
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, names, one_of, required, same};

pub(crate) fn kind() -> Kind {
    Kind::cluster("", "v1", "Node", "nodes", &Node)
        .short("no")
        .sub_of("proxy", ("", "v1", "NodeProxyOptions"), &PROXY_VERBS)
        .with_status()
        .columns(vec![
            Column::string("Status", "Whether the node is ready and takes pods.", |object, _| state(object).into()),
            Column::string("Roles", "Its roles, from its labels.", |object, _| roles(object).into()),
            age(),
            Column::string("Version", "Version of its kubelet.", |object, _| info(object, "kubeletVersion", "")),
            Column::string("Internal-IP", "Its address inside the cluster.", |object, _| address(object, "InternalIP"))
                .wide(),
            Column::string("External-IP", "Its address outside the cluster.", |object, _| {
                address(object, "ExternalIP")
            })
            .wide(),
            Column::string("OS-Image", "Its operating system.", |object, _| info(object, "osImage", UNKNOWN)).wide(),
            Column::string("Kernel-Version", "Its kernel.", |object, _| info(object, "kernelVersion", UNKNOWN)).wide(),
            Column::string("Container-Runtime", "Its container runtime.", |object, _| {
                info(object, "containerRuntimeVersion", UNKNOWN)
            })
            .wide(),
        ])
        .select("spec.unschedulable", |object| {
            if object["spec"]["unschedulable"] == true { "true" } else { "false" }.into()
        })
}

fn info(object: &Value, field: &str, missing: &str) -> Value {
    or(&object["status"]["nodeInfo"][field], missing)
}

fn address(object: &Value, kind: &str) -> Value {
    let found = items(&object["status"]["addresses"]).find(|a| a["type"] == kind);
    found.map_or_else(|| NONE.into(), |address| or(&address["address"], NONE))
}

fn state(object: &Value) -> String {
    let ready = items(&object["status"]["conditions"]).find(|c| c["type"] == "Ready");
    let state = match ready {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let cordoned = if object["spec"]["unschedulable"] == true { ",SchedulingDisabled" } else { "" };
    format!("{state}{cordoned}")
}

fn roles(object: &Value) -> String {
    let mut roles = BTreeSet::new();
    for (label, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
        match label.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => drop(roles.insert(role)),
            _ if label == "kubernetes.io/role" => drop(roles.insert(value.as_str().unwrap_or_default())),
            _ => {}
        }
    }
    let text = join(roles.into_iter().filter(|role| !role.is_empty()));
    if text.is_empty() { NONE.into() } else { text }
}

#[derive(Debug)]
struct Node;

impl Strategy for Node {
    fn default(&self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else { return };
        // One pod CIDR is the first of many.
        if let Some(spec) = make(object, "spec") {
            match (spec.get("podCIDR").cloned(), spec.get("podCIDRs").map(|many| many[0].clone())) {
                (Some(one), Some(first)) if one != first => drop(spec.insert("podCIDRs".into(), json!([one]))),
                (Some(one), None) if one != "" => drop(spec.insert("podCIDRs".into(), json!([one]))),
                (None, Some(first)) if first.is_string() => drop(spec.insert("podCIDR".into(), first)),
                _ => {}
            }
        }
        if let Some(status) = child(object, "status") {
            for list in ["capacity", "allocatable"] {
                if let Some(list) = child(status, list) {
                    resource_list(list);
                }
            }
            if let Some(capacity) = status.get("capacity").cloned() {
                set(status, "allocatable", capacity);
            }
        }
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare(object, write, Rules { generation: false, create_with_status: true });
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let (spec, status) = (root.get("spec"), root.get("status"));
        if !matches!(write, Write::Subresource("status", _)) {
            // Upstream looks for them in the spec and reports them in the metadata.
            taints(View::at("metadata.taints", spec.get("taints").value), &mut errors);
            let cidrs = spec.get("podCIDRs");
            for cidr in cidrs.items() {
                checked(cidr, names::cidr, &mut errors);
            }
            let of = |v6: bool| cidrs.items().filter(|c| c.str().contains(':') == v6).count();
            if of(true) > 1 || of(false) > 1 {
                errors.push(cidrs.invalid("may specify no more than one CIDR for each IP family"));
            }
        }
        if !matches!(write, Write::Update(_)) {
            for list in ["capacity", "allocatable"] {
                let list = status.get(list);
                for (name, _) in list.entries() {
                    resources::quantity(list.get(name), &mut errors);
                }
            }
            let mut seen = HashSet::new();
            for address in status.get("addresses").items() {
                let (kind, text) = (address.get("type").str(), address.get("address").str());
                if !seen.insert((kind.to_string(), text.to_string())) {
                    let shown = format!(r#"{{"Type":{},"Address":{}}}"#, Value::from(kind), Value::from(text));
                    errors.push(FieldError::of_struct("FieldValueDuplicate", address.path(), &shown, ""));
                }
            }
        }
        if let Write::Update(old) = write {
            validate_update(spec, &old["spec"], &mut errors);
        }
        errors
    }
}

fn taints(taints: View, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for taint in taints.items() {
        let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
        checked(key, names::qualified, errors);
        if !value.is_empty() {
            checked(value, names::label_value, errors);
        }
        if required(effect, errors) {
            one_of(effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"], errors);
        }
        if !seen.insert((key.str().to_string(), effect.str().to_string())) {
            let text = |view: View| Value::from(view.str());
            let added = taint.get("timeAdded").value;
            let shown = format!(
                r#"{{"Key":{},"Value":{},"Effect":{},"TimeAdded":{added}}}"#,
                text(key),
                text(value),
                text(effect)
            );
            let detail = "taints must be unique by key and effect pair";
            errors.push(FieldError::of_struct("FieldValueDuplicate", taint.path(), &shown, detail));
        }
    }
}

fn validate_update(spec: View, old: &Value, errors: &mut Errors) {
    for (field, word) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
        let was_set = items(&old[field]).len() > 0 || old[field].as_str().is_some_and(|id| !id.is_empty());
        if was_set && !same(spec.get(field).value, &old[field]) {
            let detail = format!("node updates may not change {word} except from \"\" to valid");
            errors.push(spec.get(field).forbidden(&detail));
        }
    }
    if spec.get("externalID").str() != old["externalID"].as_str().unwrap_or_default() {
        errors.push(spec.get("externalID").forbidden("may not be updated"));
    }
}
