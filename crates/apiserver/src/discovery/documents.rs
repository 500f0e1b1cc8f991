//! Discovery documents, made from the registered kinds: `/api`, `/apis`, one list per group version, and the aggregated
//! form, which clients keep by its ETag.

use std::sync::OnceLock;

use bytes::Bytes;
use keelson_api::kind::{Kind, Scope, Str, Subresource, Verb};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::strings;
use crate::core::Core;
use crate::registry::Resource;

/// All verbs, as discovery sorts them.
const VERBS: [(Verb, &str); 8] = [
    (Verb::Create, "create"),
    (Verb::Delete, "delete"),
    (Verb::DeleteCollection, "deletecollection"),
    (Verb::Get, "get"),
    (Verb::List, "list"),
    (Verb::Patch, "patch"),
    (Verb::Update, "update"),
    (Verb::Watch, "watch"),
];

/// Documents made once.
#[derive(Default)]
pub(crate) struct Discovery {
    aggregated: [OnceLock<(Bytes, String)>; 4],
    groups: Vec<Group>,
}

/// A group and its versions' resources.
struct Group {
    name: String,
    versions: Vec<(String, Vec<std::sync::Arc<Kind>>)>,
}

impl Discovery {
    pub(crate) fn new(resources: &[Resource]) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for resource in resources {
            let kind = &resource.kind;
            let at = groups.iter().position(|g| g.name == kind.group).unwrap_or_else(|| {
                groups.push(Group { name: kind.group.to_string(), versions: Vec::new() });
                groups.len() - 1
            });
            let Some(group) = groups.get_mut(at) else { continue };
            match group.versions.iter_mut().find(|(version, _)| *version == kind.version) {
                Some((_, kinds)) => kinds.push(kind.clone()),
                None => group.versions.push((kind.version.to_string(), vec![kind.clone()])),
            }
        }
        for group in &mut groups {
            for (_, kinds) in &mut group.versions {
                kinds.sort_by(|a, b| a.resource.cmp(&b.resource));
            }
        }
        Self { aggregated: Default::default(), groups }
    }

    /// The document at a path; `None` when there is none.
    pub(crate) fn document(&self, path: &str, core: &Core) -> Option<Value> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            [""] => Some(self.paths()),
            ["version"] => Some(version()),
            ["api"] => Some(json!({
                "kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{
                    "clientCIDR": "0.0.0.0/0",
                    "serverAddress": format!("{}:{}", core.config.advertise_address, core.config.advertise_port),
                }],
            })),
            ["apis"] => {
                let groups: Vec<_> = self.named_groups().map(|group| group_value(group, false)).collect();
                Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
            }
            ["apis", group] => self.named_groups().find(|g| g.name == *group).map(|group| group_value(group, true)),
            ["api", version] => self.resources("", version),
            ["apis", group, version] if !group.is_empty() => self.resources(group, version),
            _ => None,
        }
    }

    fn named_groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| !group.name.is_empty())
    }

    fn resources(&self, group: &str, version: &str) -> Option<Value> {
        let group = self.groups.iter().find(|g| g.name == group)?;
        let (_, kinds) = group.versions.iter().find(|(v, _)| v == version)?;
        let mut resources = Vec::new();
        for kind in kinds {
            resources.push(resource_value(kind));
            resources.extend(kind.subresources.iter().map(|sub| subresource_value(kind, sub)));
        }
        resources.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
        let group_version =
            if group.name.is_empty() { version.to_owned() } else { format!("{}/{version}", group.name) };
        let mut list = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources});
        if !group.name.is_empty() {
            list["apiVersion"] = "v1".into();
        }
        Some(list)
    }

    /// The aggregated document of the core group (`/api`) or the others, and its ETag.
    pub(crate) fn aggregated(&self, core_group: bool, beta: bool) -> (Bytes, &str) {
        let [a, b, c, d] = &self.aggregated;
        let cell = match (core_group, beta) {
            (true, false) => a,
            (true, true) => b,
            (false, false) => c,
            (false, true) => d,
        };
        let (bytes, etag) = cell.get_or_init(|| {
            let items: Vec<_> =
                self.groups.iter().filter(|g| g.name.is_empty() == core_group).map(aggregated_group).collect();
            let version = if beta { "v2beta1" } else { "v2" };
            let document = json!({
                "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
                "metadata": {}, "items": items,
            });
            let bytes = Bytes::from(document.to_string());
            let hash = Sha256::digest(&bytes);
            let etag = hash.iter().map(|byte| format!("{byte:02X}")).collect();
            (bytes, etag)
        });
        (bytes.clone(), etag)
    }

    fn paths(&self) -> Value {
        let mut paths = vec!["/api".to_owned(), "/api/v1".into(), "/apis".into(), "/apis/".into()];
        for group in self.named_groups() {
            paths.push(format!("/apis/{}", group.name));
            paths.extend(group.versions.iter().map(|(version, _)| format!("/apis/{}/{version}", group.name)));
        }
        let more = ["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/openapi/v3/", "/readyz", "/version"];
        paths.extend(more.iter().map(|p| (*p).to_owned()));
        paths.sort();
        json!({ "paths": paths })
    }
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "35", "emulationMajor": "1", "emulationMinor": "35",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "34",
        "gitVersion": "v1.35.0+keelson", "gitCommit": "", "gitTreeState": "clean", "buildDate": "2026-11-21T00:00:00Z",
        "goVersion": "rust", "compiler": "rustc", "platform": "linux/amd64",
    })
}

fn group_value(group: &Group, alone: bool) -> Value {
    let versions: Vec<_> = group
        .versions
        .iter()
        .map(|(version, _)| json!({"groupVersion": format!("{}/{version}", group.name), "version": version}))
        .collect();
    let preferred = versions.first().cloned();
    let mut value = json!({"name": group.name, "versions": versions, "preferredVersion": preferred});
    if alone {
        value["kind"] = "APIGroup".into();
        value["apiVersion"] = "v1".into();
    }
    value
}

fn verbs(has: impl Fn(Verb) -> bool) -> Value {
    strings(VERBS.iter().filter(|(verb, _)| has(*verb)).map(|(_, name)| *name))
}

fn resource_value(kind: &Kind) -> Value {
    let mut value = json!({
        "name": kind.resource, "singularName": kind.singular, "namespaced": kind.scope == Scope::Namespaced,
        "kind": kind.kind, "verbs": verbs(|verb| kind.has_verb(verb)),
    });
    if !kind.short_names.is_empty() {
        value["shortNames"] = strings(kind.short_names.iter().map(AsRef::as_ref));
    }
    if !kind.categories.is_empty() {
        value["categories"] = strings(kind.categories.iter().map(AsRef::as_ref));
    }
    if kind.has_verb(Verb::Watch) {
        value["storageVersionHash"] = storage_hash(kind).into();
    }
    value
}

/// Says which stored form objects have; any string that changes with it will do.
fn storage_hash(kind: &Kind) -> String {
    use base64::Engine as _;
    let digest = Sha256::digest(format!("{}/{}/{}", kind.group, kind.version, kind.kind));
    base64::engine::general_purpose::STANDARD.encode(digest.get(..8).unwrap_or_default())
}

fn subresource_value(kind: &Kind, sub: &Subresource) -> Value {
    let mut value = json!({
        "name": format!("{}/{}", kind.resource, sub.name), "singularName": "",
        "namespaced": kind.scope == Scope::Namespaced,
        "kind": kind.kind, "verbs": verbs(|verb| sub.verbs.contains(&verb)),
    });
    if let Some((group, version, body)) = &sub.body {
        value["kind"] = body.as_ref().into();
        if (group, version) != (&kind.group, &kind.version) {
            value["group"] = group.as_ref().into();
            value["version"] = version.as_ref().into();
        }
    }
    value
}

fn response_kind(group: &Str, version: &Str, kind: &Str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn aggregated_group(group: &Group) -> Value {
    let versions: Vec<_> = group
        .versions
        .iter()
        .map(|(version, kinds)| {
            let resources: Vec<_> = kinds.iter().map(|kind| aggregated_resource(kind)).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = if group.name.is_empty() {
        json!({"creationTimestamp": null})
    } else {
        json!({"name": group.name, "creationTimestamp": null})
    };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(kind: &Kind) -> Value {
    let mut value = json!({
        "resource": kind.resource, "singularResource": kind.singular,
        "responseKind": response_kind(&kind.group, &kind.version, &kind.kind),
        "scope": if kind.scope == Scope::Namespaced { "Namespaced" } else { "Cluster" },
        "verbs": verbs(|verb| kind.has_verb(verb)),
    });
    if !kind.short_names.is_empty() {
        value["shortNames"] = strings(kind.short_names.iter().map(AsRef::as_ref));
    }
    if !kind.categories.is_empty() {
        value["categories"] = strings(kind.categories.iter().map(AsRef::as_ref));
    }
    let mut subresources: Vec<_> = kind.subresources.iter().collect();
    subresources.sort_by(|a, b| a.name.cmp(&b.name));
    let subresources: Vec<_> = subresources
        .into_iter()
        .map(|sub| {
            let (group, version, body) = match &sub.body {
                Some((group, version, body)) => (group, version, body),
                None => (&kind.group, &kind.version, &kind.kind),
            };
            json!({
                "subresource": sub.name, "responseKind": response_kind(group, version, body),
                "verbs": verbs(|verb| sub.verbs.contains(&verb)),
            })
        })
        .collect();
    if !subresources.is_empty() {
        value["subresources"] = subresources.into();
    }
    value
}
