//! Sources of volumes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::checks::{Finding, Pod, finding, named, plural, quoted, uses};
use super::policy::Version;

/// Sources that anybody may use.
const ALLOWED: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn volumes<'a>(pod: Pod<'a>) -> impl Iterator<Item = (&'a str, &'a serde_json::Map<String, Value>)> {
    let volumes = pod.spec["volumes"].as_array().into_iter().flatten().filter_map(Value::as_object);
    volumes.map(|volume| (volume.get("name").and_then(Value::as_str).unwrap_or_default(), volume))
}

fn has(volume: &serde_json::Map<String, Value>, source: &str) -> bool {
    volume.get(source).is_some_and(|source| !source.is_null())
}

pub(super) fn host_paths(pod: Pod<'_>, _: Version) -> Option<Finding> {
    let bad: Vec<_> = volumes(pod).filter(|(_, volume)| has(volume, "hostPath")).map(|(name, _)| name).collect();
    finding("hostPath volumes", named("volume", &bad))
}

pub(super) fn restricted(pod: Pod<'_>, _: Version) -> Option<Finding> {
    let (mut bad, mut types) = (Vec::new(), BTreeSet::new());
    for (name, volume) in volumes(pod) {
        if ALLOWED.iter().any(|source| has(volume, source)) {
            continue;
        }
        bad.push(name);
        let source = volume.iter().find(|(field, source)| *field != "name" && !source.is_null());
        types.insert(source.map_or("unknown", |(field, _)| field.as_str()));
    }
    let detail = named("volume", &bad).map(|who| {
        let (uses, plural) = (uses(bad.len()), plural(types.len()));
        format!("{who} {uses} restricted volume type{plural} {}", quoted(types.into_iter()))
    });
    finding("restricted volume types", detail)
}
