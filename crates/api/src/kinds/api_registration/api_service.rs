//! APIService: who serves a group version.

use serde_json::{Value, json};

use crate::kind::{Column, Kind, NameRule, Stamp, Strategy, Write};
use crate::kinds::mutate::{child, set};
use crate::kinds::prepare_plain;
use crate::kinds::print::{age, items};
use crate::schema::format_time;
use crate::status::FieldError;
use crate::validation::{Errors, View, names};

const GROUP: &str = "apiregistration.k8s.io";

/// Group, version, the group's place among groups and the version's in it. Higher comes first.
const PRIORITIES: [(&str, &str, i32, i32); 22] = [
    ("", "v1", 18_000, 1),
    ("apps", "v1", 17_800, 15),
    ("events.k8s.io", "v1", 17_750, 15),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v1", 17_500, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("batch", "v1", 17_400, 15),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("policy", "v1", 17_100, 15),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1beta1", 16_700, 12),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("node.k8s.io", "v1", 16_300, 15),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
    ("resource.k8s.io", "v1", 15_900, 15),
];

/// The place of custom resources.
const CUSTOM: (i32, i32) = (1000, 100);

pub(crate) fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "APIService", "apiservices", &ApiService)
        .schema("io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService")
        .category("api-extensions")
        .with_status()
        .columns(vec![
            Column::string("Service", "The service behind it, or Local.", |object, _| {
                let service = &object["spec"]["service"];
                let text = |field: &str| service[field].as_str().unwrap_or_default();
                if service.is_null() {
                    "Local".into()
                } else {
                    format!("{}/{}", text("namespace"), text("name")).into()
                }
            }),
            Column::string("Available", "Whether it answers.", |object, _| available(object).into()),
            age(),
        ])
}

fn available(object: &Value) -> String {
    let mut conditions = items(&object["status"]["conditions"]);
    let Some(condition) = conditions.find(|condition| condition["type"] == "Available") else {
        return "Unknown".into();
    };
    let text = |field: &str| condition[field].as_str().unwrap_or_default();
    match (text("status"), text("reason")) {
        (status @ "True", _) | (status, "") => status.into(),
        (status, reason) => format!("{status} ({reason})"),
    }
}

/// The APIServices of the group versions that this server has itself: those of `served` (group, version) that have a
/// place among groups.
pub fn local_services<'a>(served: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Value> {
    let place = |(group, version): (&str, &str)| PRIORITIES.iter().find(|p| p.0 == group && p.1 == version);
    let mut all: Vec<Value> = Vec::new();
    for (group, version, group_priority, version_priority) in served.filter_map(place) {
        let object = json!({
            "kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1",
            "metadata": {
                "name": format!("{version}.{group}"),
                "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"},
            },
            "spec": {
                "group": group, "version": version,
                "groupPriorityMinimum": group_priority, "versionPriority": version_priority,
            },
        });
        if !all.contains(&object) {
            all.push(object);
        }
    }
    all
}

/// The place of a group among groups and of a version in its group that they have without an APIService: that of custom
/// resources, unless upstream gives them another.
pub fn local_priority(group: &str, version: &str) -> (i64, i64) {
    if group == GROUP {
        return (20_001, 0);
    }
    let of_group = PRIORITIES.iter().find(|place| place.0 == group).map_or(CUSTOM.0, |place| place.2);
    let of_version = PRIORITIES.iter().find(|place| place.0 == group && place.1 == version);
    (of_group.into(), of_version.map_or(CUSTOM.1, |place| place.3).into())
}

#[derive(Debug)]
struct ApiService;

impl Strategy for ApiService {
    fn default(&self, object: &mut Value) {
        let spec = object.as_object_mut().and_then(|object| child(object, "spec"));
        if let Some(service) = spec.and_then(|spec| child(spec, "service")) {
            set(service, "port", 443);
        }
    }

    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }

    /// What the server itself serves is there at once.
    fn stamp(&self, object: &mut Value, write: Write<'_>, stamp: &Stamp<'_>) {
        let local = object["spec"].get("service").is_none_or(Value::is_null);
        if let (Write::Create, true, Some(map)) = (write, local, object.as_object_mut()) {
            let condition = json!({
                "type": "Available", "status": "True", "lastTransitionTime": format_time(stamp.now, 0),
                "reason": "Local", "message": "Local APIServices are always available",
            });
            map.insert("status".into(), json!({"conditions": [condition]}));
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        if let Write::Subresource("status", _) = write {
            let status = root.get("status");
            for condition in status.get("conditions").items() {
                let status = condition.get("status");
                if !matches!(status.str(), "True" | "False" | "Unknown") {
                    errors.push(status.not_supported(&["True", "False", "Unknown"]));
                }
            }
            return errors;
        }
        let spec = root.get("spec");
        let (group, version) = (spec.get("group"), spec.get("version"));
        let metadata = root.get("metadata");
        let name = metadata.get("name");
        let wanted = format!("{}.{}", version.str(), group.str());
        if names::path_segment(name.str()).is_empty() && name.str() != wanted {
            errors.push(name.invalid_str(&format!("must be `spec.version+\".\"+spec.group`: {wanted:?}")));
        }
        if group.is_empty() {
            if version.str() != "v1" {
                errors.push(group.required("only v1 may have an empty group and it better be legacy kube"));
            }
        } else {
            errors.extend(names::subdomain(group.str()).iter().map(|why| group.invalid_str(why)));
        }
        errors.extend(names::label_1035(version.str()).iter().map(|why| version.invalid_str(why)));
        for (field, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1_000)] {
            let priority = spec.get(field).int().unwrap_or(0);
            if !(1..=max).contains(&priority) {
                let detail = format!("must be positive and less than {max}");
                errors.push(FieldError::invalid(spec.get(field).path(), priority, &detail));
            }
        }
        validate_service(spec, &mut errors);
        errors
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}

fn validate_service(spec: View, errors: &mut Errors) {
    let (service, bundle, insecure) = (spec.get("service"), spec.get("caBundle"), spec.get("insecureSkipTLSVerify"));
    if !service.is_set() {
        if !bundle.is_empty() {
            let bytes = crate::kinds::core::decoded_len(bundle.str());
            let detail = "local APIServices may not have a caBundle";
            errors.push(FieldError::invalid(bundle.path(), format!("{bytes} bytes"), detail));
        }
        if insecure.bool() {
            errors.push(insecure.invalid("local APIServices may not have insecureSkipTLSVerify"));
        }
        return;
    }
    for field in ["namespace", "name"] {
        if service.get(field).is_empty() {
            errors.push(service.get(field).required(""));
        }
    }
    if insecure.bool() && !bundle.is_empty() {
        errors.push(insecure.invalid("may not be true if caBundle is present"));
    }
}
