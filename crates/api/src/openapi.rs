//! OpenAPI v3 and v2 documents, made when asked for from `k8s-openapi`'s schemas and the kinds, and not kept: their
//! descriptions are megabytes. The API server may hold on to the bytes for a while, by the hashes here.

mod gnostic;
mod paths;
mod schemas;
#[cfg(test)]
mod tests;
mod types;

use std::borrow::Borrow;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value, json};

use crate::kind::Kind;

/// Which OpenAPI a document is in; they say the same things in different places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    V2,
    V3,
}

impl Format {
    fn reference(self, name: &str) -> Value {
        match self {
            Self::V2 => format!("#/definitions/{name}").into(),
            Self::V3 => format!("#/components/schemas/{name}").into(),
        }
    }
}

/// The document at `/openapi/v3`: where each group version's document is.
pub fn v3_index<K: Borrow<Kind>>(kinds: &[K]) -> Vec<u8> {
    let mut paths = Map::new();
    for (group, version) in group_versions(kinds) {
        let path = group_version_path(group, version);
        let hash = v3_hash(kinds, group, version);
        let url = format!("/openapi/v3/{path}?hash={hash}");
        paths.insert(path, json!({ "serverRelativeURL": url }));
    }
    to_bytes(&json!({ "paths": paths }))
}

/// The document of one group version (`/openapi/v3/api/v1`, `/openapi/v3/apis/apps/v1`); `None` when it has no kinds.
pub fn v3_document<K: Borrow<Kind>>(kinds: &[K], group: &str, version: &str) -> Option<Vec<u8>> {
    let kinds: Vec<&Kind> = kinds.iter().map(K::borrow).filter(|k| k.group == group && k.version == version).collect();
    if kinds.is_empty() {
        return None;
    }
    let document = json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths::all(&kinds, Format::V3),
        "components": {
            "schemas": schemas::all(&kinds, Format::V3),
            "securitySchemes": { "BearerToken": bearer_token() },
        },
    });
    Some(to_bytes(&document))
}

/// The document at `/openapi/v2`, as JSON.
pub fn v2_document<K: Borrow<Kind>>(kinds: &[K]) -> Vec<u8> {
    to_bytes(&v2(kinds))
}

/// The document at `/openapi/v2` as `application/com.github.proto-openapi.spec.v2.v1.0+protobuf` (client-go writes `v2@v1.0`
/// in its Accept header), the only form in which
/// client-go asks for it (kubectl does when a server has no v3).
pub fn v2_protobuf<K: Borrow<Kind>>(kinds: &[K]) -> Vec<u8> {
    gnostic::encode(&v2(kinds))
}

fn v2<K: Borrow<Kind>>(kinds: &[K]) -> Value {
    let kinds: Vec<&Kind> = kinds.iter().map(K::borrow).collect();
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": paths::all(&kinds, Format::V2),
        "definitions": schemas::all(&kinds, Format::V2),
        "securityDefinitions": { "BearerToken": bearer_token() },
        "security": [{ "BearerToken": [] }],
    })
}

/// Changes when the group version's document does.
pub fn v3_hash<K: Borrow<Kind>>(kinds: &[K], group: &str, version: &str) -> String {
    hash(kinds.iter().map(K::borrow).filter(|k| k.group == group && k.version == version))
}

/// Changes when the v2 document does.
pub fn v2_hash<K: Borrow<Kind>>(kinds: &[K]) -> String {
    hash(kinds.iter().map(K::borrow))
}

/// Built-in documents follow from this program's version and the kinds' shapes.
fn hash<'a>(kinds: impl Iterator<Item = &'a Kind>) -> String {
    let mut hasher = DefaultHasher::new();
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    for kind in kinds {
        (&kind.group, &kind.version, &kind.kind, &kind.resource, &kind.verbs, &kind.schema).hash(&mut hasher);
        for subresource in &kind.subresources {
            (&subresource.name, &subresource.body, &subresource.verbs).hash(&mut hasher);
        }
    }
    let first = hasher.finish();
    first.hash(&mut hasher);
    format!("{first:016X}{:016X}", hasher.finish())
}

fn group_versions<K: Borrow<Kind>>(kinds: &[K]) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for kind in kinds.iter().map(K::borrow) {
        let group_version = (kind.group.as_ref(), kind.version.as_ref());
        if !found.contains(&group_version) {
            found.push(group_version);
        }
    }
    found
}

/// `api/v1`, `apis/apps/v1`
fn group_version_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn info() -> Value {
    json!({ "title": "Kubernetes", "version": "v1.35.0" })
}

fn bearer_token() -> Value {
    json!({ "description": "Bearer Token authentication", "type": "apiKey", "name": "authorization", "in": "header" })
}

fn to_bytes(document: &Value) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}

/// Every schema of `k8s-openapi` that is of use here, as it comes.
#[cfg(test)]
pub(crate) fn definitions() -> Map<String, Value> {
    types::definitions(|_| true)
}
