//! DefaultStorageClass and DefaultIngressClass: claims and ingresses that name no class get the newest of those that are
//! marked as the default.

use keelson_api::status::Status;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Operation, Request};

const STORAGE_MARKS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const INGRESS_MARKS: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];

pub(super) fn storage(request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
    if request.operation != Operation::Create || !request.is("", "persistentvolumeclaims") {
        return Ok(());
    }
    let old = "volume.beta.kubernetes.io/storage-class";
    fill(request, object, ("storageClassName", old), ("storage.k8s.io", "storageclasses", &STORAGE_MARKS))
}

pub(super) fn ingress(request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
    if request.operation != Operation::Create || !request.is("networking.k8s.io", "ingresses") {
        return Ok(());
    }
    let old = "kubernetes.io/ingress.class";
    let classes = ("networking.k8s.io", "ingressclasses", INGRESS_MARKS.as_slice());
    fill(request, object, ("ingressClassName", old), classes)
}

/// Names the default class in `field`, unless it or the annotation that came before it names one.
fn fill(
    request: &Request<'_>,
    object: &mut Value,
    (field, annotation): (&str, &str),
    (group, resource, marks): (&str, &str, &[&str]),
) -> Result<(), Status> {
    let named = !object["spec"][field].is_null() || object["metadata"]["annotations"].get(annotation).is_some();
    if named {
        return Ok(());
    }
    let Some(class) = default_class(request, group, resource, marks)? else { return Ok(()) };
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert(field.into(), class.into());
    }
    Ok(())
}

#[derive(Deserialize)]
struct Class {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    annotations: Map<String, Value>,
    #[serde(default)]
    creation_timestamp: String,
}

/// The name of the newest class that is marked; of two of the same second, the first by name.
fn default_class(request: &Request<'_>, group: &str, resource: &str, marks: &[&str]) -> Result<Option<String>, Status> {
    let snapshot = request.core.registry.known(group, resource)?.cache()?.snapshot();
    let mut newest: Option<(String, String)> = None;
    for entry in snapshot.map.values() {
        let Metadata { annotations, creation_timestamp } = entry.typed::<Class>()?.metadata;
        let marked = marks.iter().any(|mark| annotations.get(*mark).is_some_and(|value| value == "true"));
        if marked && newest.as_ref().is_none_or(|(newest, _)| creation_timestamp > *newest) {
            newest = Some((creation_timestamp, entry.name().to_owned()));
        }
    }
    Ok(newest.map(|(_, name)| name))
}
