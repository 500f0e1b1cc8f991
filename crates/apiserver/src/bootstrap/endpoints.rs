//! Where the `kubernetes` Service leads: to every server that lives. Servers that share a store each write a key there again
//! and again, which expires when they do not, and each sets the endpoints to the keys that are there. Who stops takes his own
//! away. The keys and their values are upstream's lease reconciler's, so that its servers may stand beside ours.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use futures::TryFutureExt as _;
use keelson_api::validation::same;
use keelson_store::Expect;
use serde_json::{Value, json};

use super::{Reconcile, Wanted, ensure};
use crate::Error;
use crate::core::Core;

/// One for each server, named by its address.
const LEASES: &str = "/registry/masterleases/";
const SLICES: &str = "discovery.k8s.io";

/// Makes the Service lead here, and keeps it so until the server stops. Upstream refuses loopback addresses in endpoints; a
/// server that is advertised on one has no Service to offer.
pub(crate) async fn start(core: &Arc<Core>) -> Result<(), Error> {
    if core.config.advertise_address.is_loopback() {
        core.left.cancel();
        return Ok(());
    }
    renew(core).await?;
    reconcile(core, true).await?;
    tokio::spawn(run(core.clone()));
    Ok(())
}

async fn run(core: Arc<Core>) {
    loop {
        tokio::select! {
            biased;
            () = core.stopping.cancelled() => {
                if let Err(error) = leave(&core).await {
                    tracing::warn!(%error, "the kubernetes Service goes on leading here for a while");
                }
                break;
            }
            () = core.shutdown.cancelled() => break,
            () = tokio::time::sleep(core.config.endpoint_interval) => {}
        }
        // Others must see that this one lives, whether or not it can write the endpoints.
        if let Err(error) = renew(&core).and_then(|()| reconcile(&core, false)).await {
            tracing::warn!(%error, "the kubernetes Service's endpoints were not looked after");
        }
    }
    core.left.cancel();
}

fn key(core: &Core) -> String {
    format!("{LEASES}{}", core.config.advertise_address)
}

fn failed(error: keelson_store::Error) -> Error {
    Error::Bootstrap { object: LEASES.into(), why: error.to_string() }
}

/// Says that this server lives.
async fn renew(core: &Core) -> Result<(), Error> {
    if !core.store.is_shared() {
        return Ok(());
    }
    let ttl = core.config.endpoint_interval * 3 / 2;
    let address = core.config.advertise_address.to_string();
    let value = json!({
        "kind": "Endpoints", "apiVersion": "v1", "metadata": {}, "subsets": [{"addresses": [{"ip": address}]}],
    });
    core.store.put_expiring(&key(core), value.to_string().into(), Expect::Any, ttl).await.map(drop).map_err(failed)
}

/// Says that it does not, and takes its address away.
async fn leave(core: &Core) -> Result<(), Error> {
    if !core.store.is_shared() {
        // Nobody else could put the address back.
        return Ok(());
    }
    match core.store.delete(&key(core), Expect::Any).await {
        Ok(_) | Err(keelson_store::Error::Conflict { current: None }) => reconcile(core, false).await,
        Err(error) => Err(failed(error)),
    }
}

/// The addresses of all servers that live, of this one's family; in the order of their text, as upstream's.
async fn addresses(core: &Core) -> Result<BTreeSet<String>, Error> {
    let own = core.config.advertise_address;
    if !core.store.is_shared() {
        return Ok(BTreeSet::from([own.to_string()]));
    }
    let leases = core.store.range(LEASES, "", None, 0).await.map_err(failed)?;
    let address = |key: &str| key.strip_prefix(LEASES)?.parse::<IpAddr>().ok();
    let all = leases.kvs.iter().filter_map(|kv| address(&kv.key)).filter(|ip| ip.is_ipv4() == own.is_ipv4());
    Ok(all.map(|ip| ip.to_string()).collect())
}

/// Sets the endpoints, if they are others. The port is this server's at its start; afterwards servers with different ones would
/// only take them from each other.
async fn reconcile(core: &Core, set_port: bool) -> Result<(), Error> {
    let addresses = addresses(core).await?;
    if addresses.is_empty() {
        // The last one leaves, or the keys were lost. Old addresses are better than none.
        return Ok(());
    }
    let there = |group: &str, resource: &str| -> Option<Value> {
        core.cache.resource(group, resource)?.get("default", "kubernetes")?.decode().ok()
    };
    let old = there("", "endpoints");
    let ports = old.as_ref().filter(|_| !set_port).and_then(|old| match old.get("subsets")?.as_array()?.as_slice() {
        [subset] => subset.get("ports").cloned(),
        _ => None,
    });
    let own = || json!([{"name": "https", "port": core.config.advertise_port, "protocol": "TCP"}]);
    let ports = ports.unwrap_or_else(own);
    let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let endpoints = json!({
        "kind": "Endpoints", "apiVersion": "v1",
        "metadata": metadata("endpointslice.kubernetes.io/skip-mirror", "true"),
        "subsets": [{"addresses": ips, "ports": ports}],
    });
    let ready = |ip: &String| json!({"addresses": [ip], "conditions": {"ready": true}});
    let slice = json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": metadata("kubernetes.io/service-name", "kubernetes"),
        "addressType": if core.config.advertise_address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": addresses.iter().map(ready).collect::<Vec<_>>(),
        "ports": ports,
    });
    let is = |old: &Option<Value>, new: &Value| {
        let field = |name: &str| same(new.get(name).unwrap_or(&Value::Null), old.as_ref()?.get(name)?).then_some(());
        new.as_object()?.keys().filter(|name| *name != "metadata").try_for_each(|name| field(name))
    };
    let wanted =
        [("", "endpoints", old, endpoints), (SLICES, "endpointslices", there(SLICES, "endpointslices"), slice)];
    for (group, resource, old, object) in wanted {
        if is(&old, &object).is_none() {
            tracing::info!(resource, ?addresses, "the kubernetes Service leads elsewhere now");
            ensure(core, Wanted { group, resource, object, reconcile: Reconcile::Replace }).await?;
        }
    }
    Ok(())
}

fn metadata(label: &str, value: &str) -> Value {
    json!({"name": "kubernetes", "namespace": "default", "labels": {label: value}})
}
