//! What stands for a taken address or port in the store: an IPAddress object, as upstream's, or a key of the port. Whoever
//! makes it first has it; it names the Service, and goes after the Service has gone.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use keelson_api::status::Status;
use keelson_store::{Expect, Store};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Item, Owner, assign, is_service, owner_of};
use crate::core::Core;
use crate::registry::Resource;
use crate::registry::create::{now, put_sealed};
use crate::registry::update::store_error;

pub(super) const GROUP: &str = "networking.k8s.io";
pub(super) const ADDRESSES: &str = "ipaddresses";
/// Upstream keeps a bitmap of all ports under this name.
pub(super) const PORTS: &str = "/registry/ranges/servicenodeports/";

const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGER: &str = "ipallocator.k8s.io";

/// Writes under way at once.
const CONCURRENCY: usize = 64;

/// A reservation as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reserved {
    /// Empty when it belongs to something else than a Service.
    pub(super) owner: Owner,
    pub(super) revision: u64,
    /// An allocator made it.
    pub(super) managed: bool,
}

/// The value of a port's key.
#[derive(Deserialize, Serialize)]
struct Port<'a> {
    /// `namespace/name`
    service: &'a str,
}

/// What an IPAddress says.
pub(super) fn read_address(object: &Value, revision: u64) -> Reserved {
    let parent = object.pointer("/spec/parentRef");
    let text = |field| parent.and_then(|parent| parent.get(field)).and_then(Value::as_str).unwrap_or_default();
    let of_service = text("group").is_empty() && text("resource") == "services";
    let owner = if of_service { format!("{}/{}", text("namespace"), text("name")) } else { String::new() };
    let labels = object.pointer("/metadata/labels");
    let managed = labels.and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|manager| manager == MANAGER);
    Reserved { owner: owner.into(), revision, managed }
}

fn address(address: IpAddr, owner: &str) -> Value {
    let (namespace, name) = owner.split_once('/').unwrap_or_default();
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({
        "kind": "IPAddress", "apiVersion": "networking.k8s.io/v1",
        "metadata": {
            "name": address.to_string(), "uid": uuid::Uuid::new_v4().to_string(), "creationTimestamp": now(),
            "labels": {FAMILY: family, MANAGED_BY: MANAGER},
        },
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": name}},
    })
}

/// Where the reservation of an item is.
pub(super) fn key(core: &Core, item: Item) -> Result<String, Status> {
    match item {
        Item::Address(address) => Ok(core.registry.known(GROUP, ADDRESSES)?.cache()?.key("", &address.to_string())),
        Item::Port(port) => Ok(format!("{PORTS}{port}")),
    }
}

/// Reserves an item. Returns its key and revision; `None` when it is reserved already.
async fn make(core: &Core, item: Item, owner: &str) -> Result<Option<(String, u64)>, Status> {
    let key = key(core, item)?;
    let result = match item {
        Item::Address(ip) => {
            let resource = core.registry.known(GROUP, ADDRESSES)?;
            let stored = resource.to_stored(&address(ip, owner), None).await?;
            put_sealed(core, resource.cache()?, &key, stored, Expect::Absent).await?
        }
        Item::Port(_) => {
            let value = serde_json::to_vec(&Port { service: owner }).map_err(Status::internal)?;
            core.store.put(&key, value.into(), Expect::Absent).await
        }
    };
    match result {
        Ok(revision) => Ok(Some((key, revision))),
        Err(keelson_store::Error::Conflict { .. }) => Ok(None),
        Err(error) => Err(store_error(error)),
    }
}

/// As [`make`] for several.
pub(super) async fn make_all(
    core: &Core,
    items: &[(Item, Owner)],
) -> Vec<(Item, Result<Option<(String, u64)>, Status>)> {
    let mut outcomes = Vec::with_capacity(items.len());
    for batch in items.chunks(CONCURRENCY) {
        let mut work = FuturesUnordered::new();
        for (item, owner) in batch {
            work.push(async move { (*item, make(core, *item, owner).await) });
        }
        while let Some(outcome) = work.next().await {
            outcomes.push(outcome);
        }
    }
    outcomes
}

/// Takes reservations back, each if it is still the one meant. The revision of the last deletion.
pub(super) async fn unmake(store: &Arc<dyn Store>, reserved: Vec<(String, u64)>) -> Option<u64> {
    let mut last = None;
    for batch in reserved.chunks(CONCURRENCY) {
        let mut work = FuturesUnordered::new();
        for (key, revision) in batch {
            work.push(async move { (key, store.delete(key, Expect::Revision(*revision)).await) });
        }
        while let Some((key, outcome)) = work.next().await {
            match outcome {
                Ok((revision, _)) => last = last.max(Some(revision)),
                Err(keelson_store::Error::Conflict { .. }) => {}
                Err(error) => tracing::warn!(%error, key, "a reservation could not be taken back; it will be repaired"),
            }
        }
    }
    last
}

/// What a stored port's key says.
pub(super) fn read_port(value: &Bytes, revision: u64) -> Reserved {
    let owner = serde_json::from_slice(value).map_or("", |Port { service }| service);
    Reserved { owner: owner.into(), revision, managed: true }
}

/// Frees what a Service's version `old`, which `new` has replaced in the store, had and `new` has not. The cache must show
/// that write. What can't be freed now is found by the repair loop.
pub(crate) async fn release(core: &Core, resource: &Resource, old: &Value, new: Option<&Value>) {
    if !is_service(resource) {
        return;
    }
    let kept = new.map(assign::uses).unwrap_or_default();
    let mut gone = assign::uses(old);
    gone.retain(|item| !kept.contains(item));
    gone.dedup();
    if !gone.is_empty() {
        Box::pin(free(core, gone, owner_of(old))).await;
    }
}

async fn free(core: &Core, items: Vec<Item>, owner: Owner) {
    let mut reserved = Vec::new();
    for item in items {
        let Ok(key) = key(core, item) else { continue };
        let there = match item {
            Item::Address(address) => core.allocator.taken.lock().addresses.get(&address).cloned(),
            Item::Port(_) => match core.store.get(&key).await {
                Ok(kv) => kv.map(|kv| read_port(&kv.value, kv.mod_revision)),
                Err(error) => {
                    tracing::warn!(%error, key, "a NodePort could not be freed; it will be repaired");
                    None
                }
            },
        };
        if let Some(there) = there.filter(|there| there.owner == owner) {
            reserved.push((key, there.revision));
        }
    }
    if let Some(revision) = unmake(&core.store, reserved).await {
        // Who is told that the Service is gone may ask for its address at once.
        let _ = core.cache.wait_for(revision).await;
    }
}
