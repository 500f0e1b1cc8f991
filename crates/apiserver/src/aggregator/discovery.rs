//! What an aggregated server says that it serves: asked for when it becomes available and every minute, in the aggregated form
//! or, of servers that do not know that, in the old one. Of the answer only the APIService's own group version is taken, and
//! only what discovery documents have. When it cannot be had, what was last said stays, marked as stale.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{ACCEPT, ETAG, IF_NONE_MATCH};
use keelson_client::Backoff;
use serde::{Deserialize, Deserializer, Serialize};

use super::remote::{Answer, Remote};
use crate::core::Core;

const INTERVAL: Duration = Duration::from_secs(60);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const MAX_BYTES: usize = 8 << 20;
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
    application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// What a server is known to serve.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Found {
    pub(crate) resources: Vec<Resource>,
    /// It said so when it was last asked.
    pub(crate) fresh: bool,
    etag: Option<String>,
}

/// `APIResourceDiscovery`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Resource {
    pub(crate) resource: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) response_kind: Option<GroupKind>,
    #[serde(default)]
    pub(crate) scope: String,
    #[serde(default)]
    pub(crate) singular_resource: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) verbs: Vec<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) short_names: Vec<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) categories: Vec<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) subresources: Vec<Subresource>,
}

/// `APISubresourceDiscovery`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Subresource {
    pub(crate) subresource: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub(crate) response_kind: Option<GroupKind>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) accepted_types: Vec<GroupKind>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) verbs: Vec<String>,
}

/// `GroupVersionKind`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct GroupKind {
    #[serde(default)]
    pub(crate) group: String,
    #[serde(default)]
    pub(crate) version: String,
    #[serde(default)]
    pub(crate) kind: String,
}

/// `APIGroupDiscoveryList`
#[derive(Deserialize)]
struct GroupList {
    #[serde(default, deserialize_with = "or_default")]
    items: Vec<Group>,
    kind: String,
}

#[derive(Deserialize)]
struct Group {
    metadata: Named,
    #[serde(default, deserialize_with = "or_default")]
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default, deserialize_with = "or_default")]
    resources: Vec<Resource>,
}

/// `APIResourceList`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceList {
    kind: String,
    #[serde(default, deserialize_with = "or_default")]
    resources: Vec<OldResource>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OldResource {
    name: String,
    #[serde(default)]
    singular_name: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    kind: String,
    #[serde(default, deserialize_with = "or_default")]
    verbs: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    short_names: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    categories: Vec<String>,
}

/// Go writes what is empty as `null`.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Keeps what a server is known to serve up to date; does not end.
pub(super) async fn keep(core: &Arc<Core>, remote: &Arc<Remote>) {
    let mut backoff = Backoff::new(FIRST_RETRY, INTERVAL);
    let mut availability = remote.follow();
    loop {
        availability.borrow_and_update();
        let before = remote.found();
        let fetched =
            if remote.is_available() { fetch(remote, &before).await } else { Err("service unavailable".into()) };
        let pause = match fetched {
            Ok(found) => {
                backoff.reset();
                if found != *before {
                    remote.find(found);
                    core.aggregator.changed();
                }
                INTERVAL
            }
            Err(why) => {
                tracing::debug!(name = remote.name, why, "an aggregated server cannot say what it serves");
                if before.fresh {
                    let (resources, etag) = (before.resources.clone(), before.etag.clone());
                    remote.find(Found { resources, etag, fresh: false });
                    core.aggregator.changed();
                }
                if remote.is_available() { backoff.next_delay() } else { INTERVAL }
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = availability.changed() => {}
        }
    }
}

async fn fetch(remote: &Remote, before: &Found) -> Result<Found, String> {
    let mut headers = vec![(ACCEPT, AGGREGATED)];
    if let Some(etag) = before.etag.as_deref().filter(|etag| !etag.is_empty()) {
        headers.push((IF_NONE_MATCH, etag));
    }
    let Answer { status, headers, body } = remote.ask("/apis", &headers, MAX_BYTES).await?;
    match status {
        StatusCode::NOT_MODIFIED => {
            Ok(Found { resources: before.resources.clone(), etag: before.etag.clone(), fresh: true })
        }
        // An old server may answer with a list of groups instead of refusing.
        StatusCode::OK
            if serde_json::from_slice::<GroupList>(&body).is_ok_and(|l| l.kind == "APIGroupDiscoveryList") =>
        {
            let list: GroupList = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
            let groups = list.items.into_iter().filter(|group| group.metadata.name == remote.group);
            let mut versions = groups.flat_map(|group| group.versions).filter(|v| v.version == remote.version);
            let resources = versions.next().map(|version| version.resources).unwrap_or_default();
            let etag = headers.get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
            Ok(Found { resources, etag, fresh: true })
        }
        StatusCode::OK | StatusCode::NOT_FOUND | StatusCode::NOT_ACCEPTABLE => fetch_old(remote).await,
        status => Err(format!("non-success response code: {}", status.as_u16())),
    }
}

async fn fetch_old(remote: &Remote) -> Result<Found, String> {
    let path = remote.path();
    let Answer { status, body, .. } = remote.ask(&path, &[(ACCEPT, "application/json")], MAX_BYTES).await?;
    if status != StatusCode::OK {
        return Err(format!("failed to download discovery for {path}: {}", status.as_u16()));
    }
    let list: ResourceList = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
    if list.kind != "APIResourceList" {
        return Err(format!("{path} is no APIResourceList"));
    }
    let resources = aggregated(&list.resources, &remote.group, &remote.version);
    Ok(Found { resources, etag: None, fresh: true })
}

/// The old form of discovery in the new one.
fn aggregated(old: &[OldResource], group: &str, version: &str) -> Vec<Resource> {
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let kind_of = |old: &OldResource| GroupKind {
        group: or(&old.group, group),
        version: or(&old.version, version),
        kind: old.kind.clone(),
    };
    let mut resources: Vec<Resource> = old
        .iter()
        .filter(|old| !old.name.contains('/'))
        .map(|old| Resource {
            resource: old.name.clone(),
            response_kind: Some(kind_of(old)),
            scope: if old.namespaced { "Namespaced" } else { "Cluster" }.into(),
            singular_resource: old.singular_name.clone(),
            verbs: old.verbs.clone(),
            short_names: old.short_names.clone(),
            categories: old.categories.clone(),
            subresources: Vec::new(),
        })
        .collect();
    for old in old {
        let Some((parent, subresource)) = old.name.split_once('/') else { continue };
        if let Some(parent) = resources.iter_mut().find(|resource| resource.resource == parent) {
            parent.subresources.push(Subresource {
                subresource: subresource.to_owned(),
                response_kind: Some(kind_of(old)),
                accepted_types: Vec::new(),
                verbs: old.verbs.clone(),
            });
        }
    }
    resources
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn old_lists_become_new_ones() {
        let list: ResourceList = serde_json::from_value(json!({
            "kind": "APIResourceList", "resources": [
                {"name": "pods/log", "namespaced": true, "kind": "Pod", "verbs": null},
                {"name": "pods", "namespaced": true, "kind": "Pod", "verbs": ["get"], "group": "other", "version": "v9"},
                {"name": "lost/status", "kind": "Lost"},
            ],
        }))
        .unwrap();
        let new = serde_json::to_value(aggregated(&list.resources, "g", "v1")).unwrap();
        assert_eq!(
            new,
            json!([{
                "resource": "pods", "responseKind": {"group": "other", "version": "v9", "kind": "Pod"},
                "scope": "Namespaced", "singularResource": "", "verbs": ["get"],
                "subresources": [{
                    "subresource": "log", "responseKind": {"group": "g", "version": "v1", "kind": "Pod"}, "verbs": [],
                }],
            }])
        );
    }
}
