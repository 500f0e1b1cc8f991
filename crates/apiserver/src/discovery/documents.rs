//! Discovery documents, made from the registered kinds: `/api`, `/apis`, one list per group version, and the aggregated
//! form, which clients keep by its ETag.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use keelson_api::crd::compare_versions;
use keelson_api::kind::{Kind, Scope, Str, Subresource, Verb};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::strings;
use crate::aggregator::{Found, Routes};
use crate::core::Core;
use crate::registry::{Resource, Served};

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

/// The documents of the moment.
#[derive(Default)]
pub(crate) struct Documents {
    made: ArcSwapOption<Made>,
}

struct Made {
    of: Arc<Served>,
    revision: u64,
    discovery: Arc<Discovery>,
}

impl Documents {
    /// The documents, made anew when what is served here or elsewhere has changed.
    pub(crate) fn current(&self, core: &Core) -> Arc<Discovery> {
        // Before what it counts is looked at.
        let revision = core.aggregator.revision();
        let served = core.registry.served();
        if let Some(made) = &*self.made.load()
            && made.revision == revision
            && Arc::ptr_eq(&made.of, &served)
        {
            return made.discovery.clone();
        }
        let discovery = Arc::new(Discovery::new(served.all(), &core.aggregator.routes()));
        self.made.store(Some(Arc::new(Made { of: served, revision, discovery: discovery.clone() })));
        discovery
    }
}

/// Documents made once.
#[derive(Default)]
pub(crate) struct Discovery {
    aggregated: [OnceLock<(Bytes, String)>; 4],
    groups: Vec<Group>,
}

/// A group and what its versions have.
struct Group {
    name: String,
    versions: Vec<(String, Content)>,
}

/// The resources of a group version.
enum Content {
    Kinds(Vec<Arc<Kind>>),
    /// Another server's, as that says.
    Remote(Arc<Found>),
}

impl Discovery {
    /// Of what this server serves and what others do. APIServices say in which order.
    pub(crate) fn new(resources: &[Resource], routes: &Routes) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for resource in resources {
            let kind = &resource.kind;
            let group = group_named(&mut groups, &kind.group);
            match group.versions.iter_mut().find(|(version, _)| *version == kind.version) {
                Some((_, Content::Kinds(kinds))) => kinds.push(kind.clone()),
                Some(_) => {}
                None => group.versions.push((kind.version.to_string(), Content::Kinds(vec![kind.clone()]))),
            }
        }
        for remote in routes.remotes() {
            let group = group_named(&mut groups, &remote.group);
            group.versions.retain(|(version, _)| *version != remote.version);
            group.versions.push((remote.version.clone(), Content::Remote(remote.found())));
        }
        for group in &mut groups {
            for (_, content) in &mut group.versions {
                if let Content::Kinds(kinds) = content {
                    kinds.sort_by(|a, b| a.resource.cmp(&b.resource));
                }
            }
            let name = &group.name;
            group.versions.sort_by(|(a, _), (b, _)| {
                let order = routes.version_order(name, a).cmp(&routes.version_order(name, b));
                order.then_with(|| compare_versions(b, a))
            });
        }
        groups.sort_by(|a, b| {
            let order = routes.group_order(&a.name).cmp(&routes.group_order(&b.name));
            order.then_with(|| a.name.cmp(&b.name))
        });
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
        let (_, content) = group.versions.iter().find(|(v, _)| v == version)?;
        // Another server answers for itself.
        let Content::Kinds(kinds) = content else { return None };
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
        let more = [
            "/healthz",
            "/livez",
            "/metrics",
            "/metrics/slis",
            "/openapi/v2",
            "/openapi/v3",
            "/openapi/v3/",
            "/readyz",
            "/version",
        ];
        paths.extend(more.iter().map(|p| (*p).to_owned()));
        paths.sort();
        json!({ "paths": paths })
    }
}

fn group_named<'a>(groups: &'a mut Vec<Group>, name: &str) -> &'a mut Group {
    let at = groups.iter().position(|group| group.name == name).unwrap_or_else(|| {
        groups.push(Group { name: name.to_owned(), versions: Vec::new() });
        groups.len() - 1
    });
    &mut groups[at]
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

/// Says in which group and version objects are stored, as upstream does.
fn storage_hash(kind: &Kind) -> String {
    use base64::Engine as _;
    let (group, version) = match (&kind.storage, &kind.custom) {
        (Some(storage), _) => (storage.group, storage.version),
        (None, Some(custom)) => (&*kind.group, &*custom.storage_version),
        (None, None) => (&*kind.group, &*kind.version),
    };
    let digest = Sha256::digest(format!("{group}/{version}/{}", kind.kind));
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
        .map(|(version, content)| match content {
            Content::Kinds(kinds) => {
                let resources: Vec<_> = kinds.iter().map(|kind| aggregated_resource(kind)).collect();
                json!({"version": version, "resources": resources, "freshness": "Current"})
            }
            Content::Remote(found) => {
                let freshness = if found.fresh { "Current" } else { "Stale" };
                json!({"version": version, "resources": found.resources, "freshness": freshness})
            }
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
