//! ServiceAccount: every pod runs as an account of its namespace and finds that account's token, the cluster's CA and its
//! namespace in a projected volume.

mod secrets;

use std::sync::Arc;

use keelson_api::status::Status;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Operation, Request};
use crate::cache::Entry;
use crate::registry::create::random_suffix;
use crate::registry::read::freshen;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// On an account: its pods may use no secrets but those that the account lists.
const ENFORCED: &str = "kubernetes.io/enforce-mountable-secrets";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// Life of the projected token: an hour, plus what makes it not a round number that would pass for a request.
const TOKEN_SECONDS: i64 = 3607;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Account {
    automount_service_account_token: Option<bool>,
    image_pull_secrets: Vec<Value>,
    secrets: Vec<Value>,
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    annotations: Map<String, Value>,
}

pub(super) async fn mutate(request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
    if !(request.is("", "pods") && request.operation == Operation::Create) || is_mirror(object) {
        return Ok(());
    }
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    let text = |field: &str| spec.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut name = text("serviceAccountName");
    if name.is_empty() {
        name = text("serviceAccount");
    }
    if name.is_empty() {
        name = "default".into();
    }
    spec.insert("serviceAccountName".into(), name.as_str().into());
    spec.insert("serviceAccount".into(), name.as_str().into());
    let mut account = find(request, &name)?;
    if account.is_none() {
        freshen(request.core, None).await?;
        account = find(request, &name)?;
    }
    let Some(account) = account else { return Err(unknown(request, &name)) };
    apply(spec, &account.typed()?, &random_suffix());
    Ok(())
}

fn find(request: &Request<'_>, name: &str) -> Result<Option<Arc<Entry>>, Status> {
    Ok(request.core.registry.known("", "serviceaccounts")?.cache()?.get(request.namespace, name))
}

fn unknown(request: &Request<'_>, name: &str) -> Status {
    let namespace = request.namespace;
    request
        .forbidden(&format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"))
}

fn is_mirror(pod: &Value) -> bool {
    pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some()
}

/// Mirror pods refer to nothing that an account could be needed for; pods of accounts that say so, only to what their
/// account lists.
pub(super) fn validate(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let created = request.is("", "pods") && request.operation == Operation::Create;
    let debugged = request.operation == Operation::Update
        && request.subresource == "ephemeralcontainers"
        && request.is_any("", "pods");
    if !created && !debugged {
        return Ok(());
    }
    let spec = &object["spec"];
    let name = spec["serviceAccountName"].as_str().unwrap_or_default();
    let refuse = |why: &str| Err(request.forbidden(why));
    if created && is_mirror(object) {
        return match secrets::mirrored(spec) {
            Some(why) => refuse(why),
            None => Ok(()),
        };
    }
    if name.is_empty() {
        let why = format!("no service account specified for pod {}/{}", request.namespace, request.shown);
        return if created { refuse(&why) } else { Ok(()) };
    }
    let Some(account) = find(request, name)? else {
        // It has been looked up to fill in what it says; afterwards it may go.
        return if created { Err(unknown(request, name)) } else { Ok(()) };
    };
    let account: Account = account.typed()?;
    if account.metadata.annotations.get(ENFORCED).is_none_or(|value| value != "true") {
        return Ok(());
    }
    match secrets::foreign(spec, name, &account, debugged) {
        Some(why) => refuse(&why),
        None => Ok(()),
    }
}

/// What the account adds to the pod.
pub(super) fn apply(spec: &mut Map<String, Value>, account: &Account, suffix: &str) {
    let no_secrets = spec.get("imagePullSecrets").and_then(Value::as_array).is_none_or(Vec::is_empty);
    if no_secrets && !account.image_pull_secrets.is_empty() {
        spec.insert("imagePullSecrets".into(), account.image_pull_secrets.clone().into());
    }
    let own = spec.get("automountServiceAccountToken").and_then(Value::as_bool);
    if !own.or(account.automount_service_account_token).unwrap_or(true) {
        return;
    }
    let volumes = spec.get("volumes").and_then(Value::as_array).cloned().unwrap_or_default();
    let existing = volumes.iter().filter_map(|v| v.get("name")?.as_str()).find(|n| n.starts_with(VOLUME_PREFIX));
    let volume = existing.map_or_else(|| format!("{VOLUME_PREFIX}{suffix}"), str::to_owned);
    let mut mounted = false;
    for field in ["initContainers", "containers"] {
        for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            if mounts.is_null() {
                *mounts = json!([]);
            }
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().any(|m| m.get("mountPath").is_some_and(|p| p == MOUNT_PATH)) {
                continue;
            }
            mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
            mounted = true;
        }
    }
    if mounted && existing.is_none() {
        let all = volumes.into_iter().chain([token_volume(&volume)]).collect();
        spec.insert("volumes".into(), all);
    }
}

fn token_volume(name: &str) -> Value {
    let ca = json!({"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]});
    let namespace = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": ca},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}},
    ]}})
}
