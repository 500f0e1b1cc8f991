//! How services and claims are measured.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Amounts, Scope, one};
use crate::quantity::{Format, Quantity};

pub(super) const SERVICE_NAMES: [&str; 4] =
    ["count/services", "services", "services.nodeports", "services.loadbalancers"];

const CLAIM_NAMES: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];
const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
const CLAIM_COUNT: &str = "count/persistentvolumeclaims";
const DEVICE_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
const RESOURCE_CLAIM_COUNT: &str = "count/resourceclaims.resource.k8s.io";
/// What a request for all devices counts as: the most that can be allocated to a claim.
const ALL_DEVICES: i64 = 32;
/// Where the storage class was named before there was a field for it.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

fn units(count: i64) -> Quantity {
    Quantity::new(count, Format::DecimalSi)
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

pub(super) fn service(service: &Value) -> Amounts {
    let spec = &service["spec"];
    let ports = || items(&spec["ports"]);
    let all = i64::try_from(ports().count()).unwrap_or(i64::MAX);
    let (node_ports, balancers) = match spec["type"].as_str() {
        Some("NodePort") => (all, 0),
        // Only the ports that were asked for, where none are given out.
        Some("LoadBalancer") if spec["allocateLoadBalancerNodePorts"] == false => {
            let asked = ports().filter(|port| port["nodePort"].as_i64().is_some_and(|port| port != 0));
            (i64::try_from(asked.count()).unwrap_or(i64::MAX), 1)
        }
        Some("LoadBalancer") => (all, 1),
        _ => (0, 0),
    };
    [1, 1, node_ports, balancers].into_iter().zip(SERVICE_NAMES).map(|(n, name)| (name.to_owned(), units(n))).collect()
}

pub(super) fn counts_for_volume_claims(name: &str) -> bool {
    let by_class = name.split_once(STORAGE_CLASS).is_some_and(|(_, what)| CLAIM_NAMES.contains(&what));
    name == CLAIM_COUNT || CLAIM_NAMES.contains(&name) || by_class
}

pub(super) fn volume_claim(claim: &Value) -> Amounts {
    let [count, storage] = CLAIM_NAMES;
    let mut usage = Amounts::from([(CLAIM_COUNT.to_owned(), one()), (count.to_owned(), one())]);
    let annotated = claim["metadata"]["annotations"][CLASS_ANNOTATION].as_str();
    let class = annotated.or_else(|| claim["spec"]["storageClassName"].as_str()).filter(|class| !class.is_empty());
    let asked = Quantity::lookup(&claim["spec"]["resources"]["requests"], "storage");
    // What an expansion under way has been promised counts as used.
    let allocated = Quantity::lookup(&claim["status"]["allocatedResources"], "storage");
    let bytes = asked.map(|asked| whole(allocated.map_or(asked, |allocated| asked.max(allocated))));
    if let Some(class) = class {
        usage.insert(format!("{class}{STORAGE_CLASS}{count}"), one());
        if let Some(bytes) = bytes {
            usage.insert(format!("{class}{STORAGE_CLASS}{storage}"), bytes);
        }
    }
    if let Some(bytes) = bytes {
        usage.insert(storage.to_owned(), bytes);
    }
    usage
}

/// Rounded up to whole bytes.
fn whole(amount: Quantity) -> Quantity {
    if amount.is_integer() { amount } else { Quantity::new(amount.value(), amount.format()) }
}

/// Volume claims have one scope: the attributes classes that they have, had or are to have.
pub(super) fn is_in(scope: &Scope, claim: &Value) -> bool {
    if scope.name != "VolumeAttributesClass" {
        return false;
    }
    let status = &claim["status"];
    let names = [
        &claim["spec"]["volumeAttributesClassName"],
        &status["currentVolumeAttributesClassName"],
        &status["modifyVolumeStatus"]["targetVolumeAttributesClassName"],
    ];
    let names: Vec<&str> = names.iter().filter_map(|name| name.as_str()).filter(|name| !name.is_empty()).collect();
    scope.selects(&names)
}

pub(super) fn counts_for_resource_claims(name: &str) -> bool {
    name == RESOURCE_CLAIM_COUNT || name.ends_with(DEVICE_CLASS)
}

pub(super) fn resource_claim(claim: &Value) -> Amounts {
    let mut usage = Amounts::from([(RESOURCE_CLAIM_COUNT.to_owned(), one())]);
    let mut charge = |class: &str, devices: i64| {
        *usage.entry(format!("{class}{DEVICE_CLASS}")).or_default() += units(devices);
    };
    for request in items(&claim["spec"]["devices"]["requests"]) {
        // The worst that may come of alternatives, class by class.
        let mut worst: BTreeMap<&str, i64> = BTreeMap::new();
        for alternative in items(&request["firstAvailable"]).chain(request.get("exactly")) {
            let devices = match alternative["allocationMode"].as_str() {
                Some("ExactCount") => alternative["count"].as_i64().unwrap_or_default(),
                Some("All") => ALL_DEVICES,
                _ => 0,
            };
            let most = worst.entry(alternative["deviceClassName"].as_str().unwrap_or_default()).or_default();
            *most = devices.max(*most);
        }
        worst.into_iter().for_each(|(class, devices)| charge(class, devices));
    }
    usage
}
