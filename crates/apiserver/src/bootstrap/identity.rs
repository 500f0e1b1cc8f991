//! The lease by which a server is known to others (KEP-1965): `kube-system/apiserver-<hash of the machine's name>`. It says
//! nothing about who serves what; it only counts servers. Leases that ran out are collected, whosever they were.

use std::sync::Arc;
use std::time::Duration;

use keelson_api::status::Status;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::core::Core;
use crate::registry::create::{create, micro_time};
use crate::registry::delete::delete;
use crate::registry::options::{DeleteOptions, Preconditions, WriteOptions};
use crate::registry::update::{Target, update};

const GROUP: &str = "coordination.k8s.io";
const NAMESPACE: &str = "kube-system";
/// By this label the leases are known.
const LABEL: &str = "apiserver.kubernetes.io/identity";
const COMPONENT: &str = "kube-apiserver";
const HOSTNAME: &str = "kubernetes.io/hostname";

const DURATION_SECONDS: i64 = 3600;
const RENEW: Duration = Duration::from_secs(10);
/// Leases are looked through at the first renewal and after so many: every hour.
const COLLECT_EVERY: u32 = 360;

/// Keeps the lease until the server stops. Its end is not told: the lease runs out.
pub(crate) async fn run(core: Arc<Core>) {
    let Some(hostname) = &core.config.hostname else { return };
    let name = lease_name(hostname);
    let holder = format!("{name}_{}", uuid::Uuid::new_v4());
    for renewals in 0_u32.. {
        if let Err(status) = renew(&core, &name, hostname, &holder).await {
            tracing::warn!(status.message, "the server's lease was not renewed");
        }
        if renewals % COLLECT_EVERY == 0
            && let Err(status) = collect(&core).await
        {
            tracing::warn!(status.message, "leases of servers that are gone were not collected");
        }
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            () = tokio::time::sleep(RENEW) => {}
        }
    }
}

/// Upstream's: a hash of the machine's and the component's name, each after its length, in base32.
fn lease_name(hostname: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut hash = Sha256::new();
    for part in [hostname, COMPONENT] {
        hash.update(u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
        hash.update(part);
    }
    let mut name = String::from("apiserver-");
    let (mut bits, mut count) = (0_u32, 0);
    let mut push = |bits: u32| name.push(char::from(ALPHABET[(bits & 31) as usize]));
    for byte in &hash.finalize()[..16] {
        (bits, count) = (bits << 8 | u32::from(*byte), count + 8);
        while count >= 5 {
            count -= 5;
            push(bits >> count);
        }
    }
    push(bits << (5 - count));
    name
}

async fn renew(core: &Core, name: &str, hostname: &str, holder: &str) -> Result<(), Status> {
    let resource = core.registry.known(GROUP, "leases")?;
    let options = WriteOptions::internal();
    let spec = json!({
        "holderIdentity": holder, "leaseDurationSeconds": DURATION_SECONDS,
        "renewTime": micro_time(keelson_client::clock::now()),
    });
    if resource.cache()?.get(NAMESPACE, name).is_none() {
        let lease = json!({
            "kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {LABEL: COMPONENT, HOSTNAME: hostname}},
            "spec": spec,
        });
        return create(core, resource, NAMESPACE, lease, &options).await.map(drop);
    }
    let change = |old: &Value| {
        let mut new = old.clone();
        add(&mut new["spec"], spec.as_object());
        add(&mut new["metadata"]["labels"], json!({LABEL: COMPONENT, HOSTNAME: hostname}).as_object());
        Ok(new)
    };
    let target = Target { resource, namespace: NAMESPACE, name, subresource: "" };
    update(core, target, &options, change).await.map(drop)
}

fn add(object: &mut Value, fields: Option<&Map<String, Value>>) {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    if let (Some(map), Some(fields)) = (object.as_object_mut(), fields) {
        map.extend(fields.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
}

#[derive(Deserialize)]
struct View {
    metadata: Meta,
    spec: Option<Spec>,
}

#[derive(Deserialize)]
struct Meta {
    name: String,
    #[serde(default)]
    labels: std::collections::HashMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    lease_duration_seconds: Option<i64>,
    renew_time: Option<jiff::Timestamp>,
}

impl View {
    /// Leases that do not say how long they are good are nobody's.
    fn is_over(&self, now: jiff::Timestamp) -> bool {
        let spec = self.spec.as_ref();
        let end = spec.and_then(|spec| spec.renew_time?.as_second().checked_add(spec.lease_duration_seconds?));
        end.is_none_or(|end| end < now.as_second())
    }
}

/// Deletes what ran out and was not renewed meanwhile.
async fn collect(core: &Core) -> Result<(), Status> {
    let resource = core.registry.known(GROUP, "leases")?;
    let (now, options) = (keelson_client::clock::now(), WriteOptions::internal());
    for entry in resource.cache()?.snapshot().map.values() {
        let Ok(View { metadata, spec }) = entry.typed::<View>() else { continue };
        let is_ours = metadata.labels.get(LABEL).is_some_and(|label| label == COMPONENT);
        let view = View { metadata, spec };
        if !is_ours || !entry.key.contains("/kube-system/") || !view.is_over(now) {
            continue;
        }
        let unchanged = Preconditions { uid: None, resource_version: Some(entry.revision.to_string()) };
        let how = DeleteOptions { preconditions: Some(unchanged), ..DeleteOptions::default() };
        match delete(core, resource, NAMESPACE, &view.metadata.name, &how, options.asked()).await {
            Err(status) if !matches!(status.reason, "NotFound" | "Conflict") => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_upstreams() {
        // Made with Python's hashlib and base64.
        for (host, name) in [
            ("localhost", "apiserver-l2yubf4cvcl5c7a3wrubrwqdve"),
            ("kind-control-plane", "apiserver-c7uylvfxlbqccnk6myfkwetzze"),
        ] {
            assert_eq!(lease_name(host), name);
        }
    }

    #[test]
    fn leases_run_out() {
        let is_over = |spec: Value| {
            let view: View = serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": spec})).unwrap();
            view.is_over("2026-01-01T01:00:00Z".parse().unwrap())
        };
        assert!(!is_over(json!({"leaseDurationSeconds": 3600, "renewTime": "2026-01-01T00:00:00.000000Z"})));
        assert!(is_over(json!({"leaseDurationSeconds": 3599, "renewTime": "2026-01-01T00:00:00.000000Z"})));
        for spec in [json!({"leaseDurationSeconds": 3600}), json!({"renewTime": "2026-01-01T00:59:00Z"}), Value::Null] {
            assert!(is_over(spec));
        }
    }
}
