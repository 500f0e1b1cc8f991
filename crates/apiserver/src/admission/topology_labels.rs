//! PodTopologyLabels: a pod that is put on a node gets the node's zone and region as labels, for its containers to read.

use keelson_api::selector::Labels;
use keelson_api::status::Status;
use serde_json::{Value, json};

use super::{Operation, Request};

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub(super) fn mutate(request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
    let binds = (request.subresource == "binding" && request.is_any("", "pods")) || request.is("", "bindings");
    if !binds || request.operation != Operation::Create {
        return Ok(());
    }
    if !matches!(object["target"]["kind"].as_str(), None | Some("" | "Node")) {
        return Ok(());
    }
    let nodes = request.core.registry.known("", "nodes")?.cache()?;
    let Some(node) = object["target"]["name"].as_str().and_then(|name| nodes.get("", name)) else { return Ok(()) };
    let labels = LABELS.iter().filter_map(|key| Some((*key, node.label(key)?.to_owned())));
    let labels: Vec<_> = labels.collect();
    let Some(binding) = object.as_object_mut().filter(|_| !labels.is_empty()) else { return Ok(()) };
    let Some(metadata) = binding.entry("metadata").or_insert_with(|| json!({})).as_object_mut() else { return Ok(()) };
    let own = metadata.entry("labels").or_insert_with(|| json!({}));
    if own.is_null() {
        *own = json!({});
    }
    if let Some(own) = own.as_object_mut() {
        labels.into_iter().for_each(|(key, value)| drop(own.insert(key.into(), value.into())));
    }
    Ok(())
}
