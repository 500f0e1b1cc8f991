//! Pod

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::apply::Reset;
use crate::kind::{Kind, Strategy, Verb, Write};
use crate::kinds::core::PROXY_VERBS;
use crate::kinds::gates::{Field, drop_unused};
use crate::kinds::mutate::{Object, Rules, child, make, prepare, set, set_str};
use crate::kinds::pod_spec::defaults;
use crate::kinds::pod_spec::validate::{Context, pod_spec};
use crate::kinds::qos::qos_class;
use crate::status::FieldError;
use crate::validation::{View, names};

mod affinity;
mod binding;
pub use binding::bind;
mod columns;
mod update;
mod warnings;
pub(crate) use warnings::{template_warnings, workload_warnings};

#[cfg(test)]
mod tests;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("", "v1", "Pod", "pods", &Pod)
        .returns_deleted()
        .short("po")
        .category_all()
        .sub_of("attach", ("", "v1", "PodAttachOptions"), &[Verb::Create, Verb::Get])
        .sub_of("binding", ("", "v1", "Binding"), &[Verb::Create])
        .sub("ephemeralcontainers", &[Verb::Get, Verb::Patch, Verb::Update])
        .sub_of("eviction", ("policy", "v1", "Eviction"), &[Verb::Create])
        .sub_of("exec", ("", "v1", "PodExecOptions"), &[Verb::Create, Verb::Get])
        .sub("log", &[Verb::Get])
        .sub_of("portforward", ("", "v1", "PodPortForwardOptions"), &[Verb::Create, Verb::Get])
        .sub_of("proxy", ("", "v1", "PodProxyOptions"), &PROXY_VERBS)
        .sub("resize", &[Verb::Get, Verb::Patch, Verb::Update])
        .with_status()
        .columns(columns::all())
        .select("spec.nodeName", |pod| text(&pod["spec"]["nodeName"]))
        .select("spec.host", |pod| text(&pod["spec"]["nodeName"]))
        .select("spec.restartPolicy", |pod| text(&pod["spec"]["restartPolicy"]))
        .select("spec.schedulerName", |pod| text(&pod["spec"]["schedulerName"]))
        .select("spec.serviceAccountName", |pod| text(&pod["spec"]["serviceAccountName"]))
        .select("spec.hostNetwork", |pod| {
            Cow::Borrowed(if pod["spec"]["hostNetwork"] == true { "true" } else { "false" })
        })
        .select("status.phase", |pod| text(&pod["status"]["phase"]))
        .select("status.podIP", pod_ip)
        .select("status.podIPs", pod_ip)
        .select("status.nominatedNodeName", |pod| text(&pod["status"]["nominatedNodeName"]))
}

fn text(value: &Value) -> Cow<'_, str> {
    value.as_str().unwrap_or_default().into()
}

fn pod_ip(pod: &Value) -> Cow<'_, str> {
    let first = &pod["status"]["podIPs"][0]["ip"];
    text(if first.is_string() { first } else { &pod["status"]["podIP"] })
}

/// Marks the API's picture of a static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Sources of projected volumes that are off in v1.35: `ClusterTrustBundleProjection` and `PodCertificateRequest`.
const GATED: [&[Field]; 2] = [
    &[&["spec", "volumes", "projected", "sources", "clusterTrustBundle"]],
    &[&["spec", "volumes", "projected", "sources", "podCertificate"]],
];
/// Pods with less of it are deleted first when their controller scales down.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

#[derive(Debug)]
struct Pod;

impl Strategy for Pod {
    fn default(&self, pod: &mut Value) {
        let Some(pod) = pod.as_object_mut() else { return };
        set(pod, "spec", json!({}));
        if let Some(spec) = pod.get_mut("spec") {
            defaults::pod_spec(spec);
            defaults::pod(spec);
        }
        if let Some(status) = child(pod, "status") {
            first_of_many(status, "podIP", "podIPs");
            first_of_many(status, "hostIP", "hostIPs");
        }
    }

    fn prepare(&self, pod: &mut Value, write: Write<'_>) {
        match write {
            Write::Create => {
                prepare(pod, write, Rules { generation: true, create_with_status: false });
                drop_unused(pod, None, &GATED);
                affinity::merge_label_keys(pod);
                let status = first_status(&pod["spec"]);
                if let Some(pod) = pod.as_object_mut() {
                    pod.insert("status".into(), status);
                }
            }
            Write::Subresource("status", old) => {
                prepare(pod, write, Rules { generation: true, create_with_status: false });
                let references = old["metadata"].get("ownerReferences");
                if let Some(meta) = pod.as_object_mut().and_then(|pod| make(pod, "metadata")) {
                    match references {
                        Some(references) => drop(meta.insert("ownerReferences".into(), references.clone())),
                        None => drop(meta.remove("ownerReferences")),
                    }
                }
                if let Some(status) = pod.as_object_mut().and_then(|pod| make(pod, "status")) {
                    // A kubelet need not send it.
                    set_str(status, "qosClass", old["status"]["qosClass"].as_str().unwrap_or(qos_class(&old["spec"])));
                }
            }
            Write::Subresource("ephemeralcontainers", old) => update::keep_ephemeral_containers(pod, old),
            Write::Subresource("resize", old) => update::keep_resources(pod, old),
            // The scheduler's choice is no new generation: the kubelet sees the pod's first one.
            Write::Subresource("binding", _) => {
                prepare(pod, write, Rules { generation: false, create_with_status: false });
            }
            Write::Update(_) | Write::Subresource(..) => {
                prepare(pod, write, Rules { generation: true, create_with_status: false });
            }
        }
    }

    fn validate(&self, pod: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(pod);
        let spec = root.get("spec");
        match write {
            Write::Create => {
                pod_spec(spec, Context { pod: true }, &mut errors);
                annotations(&root, &mut errors);
                if !spec.get("ephemeralContainers").is_empty() {
                    let detail = "cannot be set on create";
                    errors.push(spec.get("ephemeralContainers").forbidden(detail));
                }
                if !spec.get("nodeName").is_empty() && !spec.get("schedulingGates").is_empty() {
                    let detail = "cannot be set until all schedulingGates have been cleared";
                    errors.push(spec.get("nodeName").forbidden(detail));
                }
            }
            Write::Update(old) => {
                pod_spec(spec, Context { pod: true }, &mut errors);
                annotations(&root, &mut errors);
                update::annotations(pod, old, &mut errors);
                update::validate(spec, old, &mut errors);
            }
            Write::Subresource("status", old) => update::validate_status(root, old, &mut errors),
            Write::Subresource("ephemeralcontainers", old) => {
                if old["metadata"]["annotations"][MIRROR].is_string() {
                    return vec![FieldError::forbidden("[]", "static pods do not support ephemeral containers")];
                }
                pod_spec(spec, Context { pod: true }, &mut errors);
                update::validate_ephemeral_containers(spec, &old["spec"], &mut errors);
            }
            Write::Subresource("resize", old) => {
                pod_spec(spec, Context { pod: true }, &mut errors);
                update::validate_resize(spec, old, &mut errors);
            }
            Write::Subresource(..) => {}
        }
        errors
    }

    fn warnings(&self, pod: &Value, write: Write<'_>) -> Vec<String> {
        // Few people write to pods that are there, and many programs do.
        if write != Write::Create {
            return Vec::new();
        }
        let mut warnings = template_warnings(View::root(pod));
        let complaints = names::label(pod["metadata"]["name"].as_str().unwrap_or_default());
        if !complaints.is_empty() {
            warnings.push(format!(
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
                complaints.join(" ")
            ));
        }
        warnings
    }

    fn reset_fields(&self, subresource: &str) -> Option<Reset> {
        match subresource {
            "status" => Some(Reset::Fields(&[
                &["f:spec"],
                &["f:metadata", "f:deletionTimestamp"],
                &["f:metadata", "f:ownerReferences"],
            ])),
            "resize" => Some(Reset::AllBut(&[
                &["f:spec", "f:containers", "*", "f:resources"],
                &["f:spec", "f:containers", "*", "f:resizePolicy"],
                &["f:spec", "f:initContainers", "*", "f:resources"],
                &["f:spec", "f:initContainers", "*", "f:resizePolicy"],
            ])),
            _ => None,
        }
    }

    fn grace_period_seconds(&self, pod: &Value, requested: Option<i64>) -> Option<i64> {
        let spec = &pod["spec"];
        let asked = requested.or_else(|| spec["terminationGracePeriodSeconds"].as_i64()).unwrap_or(0);
        let unscheduled = spec["nodeName"].as_str().unwrap_or_default().is_empty();
        let finished = matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
        Some(match asked {
            _ if unscheduled || finished => 0,
            ..0 => 1,
            _ => asked,
        })
    }
}

/// Annotations that mean something for pods.
fn annotations(root: &View, errors: &mut Vec<FieldError>) {
    let meta = root.get("metadata");
    let annotations = meta.get("annotations");
    let (mirror, cost) = (annotations.get(MIRROR), annotations.get(DELETION_COST));
    if mirror.is_set() && root.value["spec"]["nodeName"].as_str().unwrap_or_default().is_empty() {
        let path = format!("{}[{MIRROR}]", annotations.path());
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(FieldError::invalid(path, mirror.str(), detail));
    }
    let whole = |text: &str| {
        let digits = text.strip_prefix('-').unwrap_or(text);
        text.parse::<i32>().is_ok() && !text.starts_with('+') && (digits == "0" || !digits.starts_with('0'))
    };
    if cost.is_set() && !whole(cost.str()) {
        let path = format!("{}[{DELETION_COST}]", annotations.path());
        errors.push(FieldError::invalid(path, cost.str(), "must be a 32bit integer"));
    }
    // Only a service account has tokens to project.
    let spec = root.get("spec");
    if spec.get("serviceAccountName").is_empty() {
        for volume in spec.get("volumes").items() {
            let projected = volume.get("projected");
            for source in projected.get("sources").items() {
                let token = source.get("serviceAccountToken");
                if token.is_set() {
                    errors.push(token.forbidden("must not be specified when serviceAccountName is not set"));
                }
            }
        }
    }
}

/// One address is the first of many; where they disagree, the one counts.
fn first_of_many(status: &mut Object, one: &str, many: &str) {
    let first = status.get(many).map(|many| many[0]["ip"].clone()).unwrap_or_default();
    match status.get(one).filter(|ip| ip.as_str().is_some_and(|ip| !ip.is_empty())).cloned() {
        Some(ip) if ip != first => drop(status.insert(many.into(), json!([{"ip": ip}]))),
        None if first.is_string() => drop(status.insert(one.into(), first)),
        _ => {}
    }
}

fn first_status(spec: &Value) -> Value {
    let mut status = json!({"phase": "Pending", "qosClass": qos_class(spec)});
    if !View::root(spec).get("schedulingGates").is_empty()
        && let Some(status) = status.as_object_mut()
    {
        let condition = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
        status.insert("conditions".into(), condition);
    }
    status
}
