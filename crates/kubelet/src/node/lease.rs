//! The heartbeat: Lease `kube-node-lease/<node>`, renewed every quarter of its duration.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};

use crate::context::Context;

/// Where node leases live.
const NAMESPACE: &str = "kube-node-lease";
/// Waits after a failure grow between these.
const RETRY: (std::time::Duration, std::time::Duration) =
    (std::time::Duration::from_millis(200), std::time::Duration::from_secs(7));

/// Renews the lease for ever.
pub(super) async fn keep(ctx: &Context) {
    let duration = ctx.config.node_lease_duration;
    let mut backoff = keelson_client::Backoff::new(RETRY.0, RETRY.1);
    let mut exists = false;
    loop {
        match keelson_client::within(duration / 4, renew(ctx, exists)).await {
            Ok(()) => {
                exists = true;
                backoff.reset();
                tokio::time::sleep(duration / 4).await;
            }
            Err(error) => {
                exists = exists && !keelson_client::is_not_found(&error);
                tracing::debug!(%error, "the node's lease is not renewed");
                backoff.wait().await;
            }
        }
    }
}

async fn renew(ctx: &Context, exists: bool) -> Result<(), kube::Error> {
    let name = &ctx.config.node_name;
    let api = Api::<Lease>::namespaced(ctx.client.clone(), NAMESPACE);
    let spec = LeaseSpec {
        holder_identity: Some(name.clone()),
        lease_duration_seconds: i32::try_from(ctx.config.node_lease_duration.as_secs()).ok(),
        renew_time: Some(MicroTime(keelson_client::clock::now())),
        ..Default::default()
    };
    let patch = serde_json::json!({ "spec": spec });
    if exists {
        return api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop);
    }
    let node = Api::<Node>::all(ctx.client.clone()).get_opt(name).await?;
    let owner = node.and_then(|node| node.metadata.uid).map(|uid| OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.clone(),
        uid,
        ..Default::default()
    });
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(NAMESPACE.into()),
            owner_references: owner.map(|owner| vec![owner]),
            ..Default::default()
        },
        spec: Some(spec),
    };
    match api.create(&PostParams::default(), &lease).await {
        Err(error) if keelson_client::is_already_exists(&error) => {
            api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop)
        }
        other => other.map(drop),
    }
}
