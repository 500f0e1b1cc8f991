//! One file of a static pod: read, filled in as upstream does, checked by the API's own rules.

use std::io::Read as _;
use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use keelson_api::codec::Encoding;
use keelson_api::kind::Write;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::pod::view::CONFIG_SOURCE;

/// Longest file, bytes.
const MAX_BYTES: u64 = 10 << 20;
/// What the file says, in short; the mirror has the same.
pub(super) const HASH: &str = "kubernetes.io/config.hash";
const SEEN: &str = "kubernetes.io/config.seen";

/// Fields that lead to other API objects, which static pods do without: the node may have no API server.
const REFERENCES: [&str; 10] = [
    "secretKeyRef",
    "configMapKeyRef",
    "secretRef",
    "configMapRef",
    "persistentVolumeClaim",
    "secret",
    "configMap",
    "serviceAccountName",
    "resourceClaims",
    "clusterTrustBundle",
];

pub(super) fn read(path: &Path, node: &str) -> Result<Pod, Error> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(Error::file("open", path))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(Error::file("read", path))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::message(format!("it has more than {MAX_BYTES} bytes")));
    }
    parse(&bytes, path, node, keelson_client::clock::now())
}

fn parse(bytes: &[u8], path: &Path, node: &str, now: Timestamp) -> Result<Pod, Error> {
    let decoded = Encoding::detect(bytes).decode(bytes).map_err(|error| Error::message(error.to_string()))?;
    let mut pod = decoded.value;
    if (pod["apiVersion"].as_str(), pod["kind"].as_str()) != (Some("v1"), Some("Pod")) {
        return Err(Error::message("it describes no v1 Pod"));
    }
    if let Some(field) = reference(&pod["spec"]) {
        return Err(Error::message(format!("static pods may not refer to API objects, but {field} does")));
    }
    let mut hash = Sha256::new();
    hash.update(pod.to_string());
    hash.update(format!("host:{node}"));
    hash.update(format!("file:{}", path.display()));
    let hash: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let name = match pod["metadata"]["name"].as_str() {
        Some(name) if !name.is_empty() => format!("{name}-{}", node.to_lowercase()),
        _ => return Err(Error::message("metadata.name: Required value")),
    };
    if !pod["spec"].is_object() {
        return Err(Error::message("spec: Required value"));
    }
    pod["status"] = json!({"phase": "Pending"});
    let Some(metadata) = pod["metadata"].as_object_mut() else {
        return Err(Error::message("metadata: Required value"));
    };
    metadata.insert("name".into(), name.into());
    metadata.remove("deletionTimestamp");
    for (field, value) in [("namespace", "default"), ("uid", hash.as_str())] {
        let known = metadata.entry(field).or_insert(Value::Null);
        if known.as_str().is_none_or(str::is_empty) {
            *known = value.into();
        }
    }
    let uid = metadata.get("uid").cloned().unwrap_or_default();
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    for (annotation, value) in [(CONFIG_SOURCE, "file".into()), (HASH, uid), (SEEN, now.to_string().into())] {
        annotations[annotation] = value;
    }
    pod["spec"]["nodeName"] = node.into();
    // Nothing evicts it: what the node's file says, stays.
    let everything = json!({"operator": "Exists", "effect": "NoExecute"});
    match pod["spec"]["tolerations"].as_array_mut() {
        Some(tolerations) if tolerations.contains(&everything) => {}
        Some(tolerations) => tolerations.push(everything),
        None => pod["spec"]["tolerations"] = json!([everything]),
    }
    let kinds = keelson_api::kinds::all();
    let kind = kinds.iter().find(|kind| kind.kind == "Pod" && kind.group.is_empty());
    let kind = kind.ok_or_else(|| Error::message("there is no kind Pod"))?;
    kind.strategy.default(&mut pod);
    let mut errors = keelson_api::validation::meta::validate_create(kind, &pod);
    errors.extend(kind.strategy.validate(&pod, Write::Create));
    if let Some(error) = errors.first() {
        return Err(Error::message(format!("invalid pod: {}: {}", error.field, error.message)));
    }
    serde_json::from_value(pod).map_err(|error| Error::message(error.to_string()))
}

/// The first field in `value` that refers to an API object.
fn reference(value: &Value) -> Option<&'static str> {
    match value {
        Value::Object(map) => map.iter().find_map(|(key, value)| {
            let known = REFERENCES.iter().find(|field| *field == key && !value.is_null() && value != "");
            known.copied().or_else(|| reference(value))
        }),
        Value::Array(list) => list.iter().find_map(reference),
        _ => None,
    }
}
