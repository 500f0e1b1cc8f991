//! OpenAPI v3 and v2 documents, made when asked for from `k8s-openapi`'s schemas and the kinds, and not kept: their
//! descriptions are megabytes. The API server holds on to the bytes for a while, by the hashes here.

mod gnostic;
mod merge;
mod names;
mod operation;
mod parameters;
mod paths;
mod roots;
mod schemas;
mod special;
#[cfg(test)]
mod tests;
mod types;
mod upgrade;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value, json};

pub use self::merge::Part;
use crate::kind::{Kind, Scope};

/// Which OpenAPI a document is in; they say the same things in different places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    V2,
    V3,
}

impl Format {
    pub(crate) fn reference(self, name: &str) -> Value {
        match self {
            Self::V2 => format!("#/definitions/{name}").into(),
            Self::V3 => format!("#/components/schemas/{name}").into(),
        }
    }
}

/// The hashes of all documents of some kinds: each changes when its document does.
pub struct Hashes {
    v2: String,
    /// By path of the v3 index.
    v3: BTreeMap<String, String>,
}

impl Hashes {
    pub fn new<K: Borrow<Kind>>(kinds: &[K]) -> Self {
        // What is said of the server itself is the same for as long as this program is.
        let constant = hash(std::iter::empty());
        let mut v3: BTreeMap<_, _> = roots::all(kinds).into_iter().map(|root| (root.path, constant.clone())).collect();
        let mut groups: BTreeMap<String, Vec<&Kind>> = BTreeMap::new();
        for kind in kinds.iter().map(K::borrow) {
            groups.entry(group_version_path(&kind.group, &kind.version)).or_default().push(kind);
        }
        v3.extend(groups.into_iter().map(|(path, kinds)| (path, hash(kinds.into_iter()))));
        Self { v2: hash(kinds.iter().map(K::borrow)), v3 }
    }

    /// Of the v2 document.
    pub fn v2(&self) -> &str {
        &self.v2
    }

    /// Of the v3 document of a path; `None` when there is none.
    pub fn v3(&self, path: &str) -> Option<&str> {
        self.v3.get(path).map(String::as_str)
    }

    /// The document at `/openapi/v3`: where each document is. `others` are paths of other servers, with their URLs.
    pub fn v3_index(&self, others: Vec<(String, String)>) -> Vec<u8> {
        let url = |path: &str, hash: &str| format!("/openapi/v3/{path}?hash={hash}");
        let path = |(path, hash): (&String, &String)| (path.clone(), json!({ "serverRelativeURL": url(path, hash) }));
        let mut paths: Map<_, _> = self.v3.iter().map(path).collect();
        paths.extend(others.into_iter().map(|(path, url)| (path, json!({ "serverRelativeURL": url }))));
        to_bytes(&json!({ "paths": paths }))
    }
}

/// The document of a path of the index (`api/v1`, `apis/apps/v1`, `apis/apps`, `version`); `None` when there is none.
pub fn v3_document<K: Borrow<Kind>>(kinds: &[K], path: &str) -> Option<Vec<u8>> {
    let (paths, schemas) = match of_group_version(kinds, path).as_slice() {
        [] => {
            let root = roots::all(kinds).into_iter().find(|root| root.path == path)?;
            let schemas = root.schemas(Format::V3);
            (root.paths(Format::V3), schemas)
        }
        kinds => (paths::all(kinds, Format::V3), schemas::all(kinds, Format::V3)),
    };
    let document = json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths,
        "components": { "schemas": schemas, "securitySchemes": { "BearerToken": bearer_token() } },
    });
    Some(to_bytes(&document))
}

/// The kinds of the group version that a path names.
fn of_group_version<'a, K: Borrow<Kind>>(kinds: &'a [K], path: &str) -> Vec<&'a Kind> {
    let (group, version) = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return Vec::new(),
    };
    kinds.iter().map(K::borrow).filter(|kind| kind.group == group && kind.version == version).collect()
}

/// The document at `/openapi/v2`, as JSON, with parts of other servers'.
pub fn v2_document<K: Borrow<Kind>>(kinds: &[K], parts: &[impl Borrow<Part>]) -> Vec<u8> {
    to_bytes(&v2(kinds, parts))
}

/// The document at `/openapi/v2` as `application/com.github.proto-openapi.spec.v2.v1.0+protobuf` (client-go writes `v2@v1.0`
/// in its Accept header), the only form in which
/// client-go asks for it (kubectl does when a server has no v3).
pub fn v2_protobuf<K: Borrow<Kind>>(kinds: &[K], parts: &[impl Borrow<Part>]) -> Vec<u8> {
    gnostic::encode(&v2(kinds, parts))
}

fn v2<K: Borrow<Kind>>(kinds: &[K], parts: &[impl Borrow<Part>]) -> Value {
    let kinds: Vec<&Kind> = kinds.iter().map(K::borrow).collect();
    let mut paths = paths::all(&kinds, Format::V2);
    let mut definitions = schemas::all(&kinds, Format::V2);
    for root in roots::all(&kinds) {
        definitions.extend(root.schemas(Format::V2));
        paths.extend(root.paths(Format::V2));
    }
    let mut document = json!({
        "swagger": "2.0",
        "info": info(),
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": { "BearerToken": bearer_token() },
        "security": [{ "BearerToken": [] }],
    });
    parts.iter().for_each(|part| merge::add(&mut document, part.borrow()));
    document
}

/// Built-in documents follow from this program's version and the kinds' shapes.
fn hash<'a>(kinds: impl Iterator<Item = &'a Kind>) -> String {
    let mut hasher = DefaultHasher::new();
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    for kind in kinds {
        (&kind.group, &kind.version, &kind.kind, &kind.resource, &kind.verbs, &kind.schema).hash(&mut hasher);
        (kind.scope == Scope::Namespaced, kind.returns_deleted).hash(&mut hasher);
        kind.custom.as_ref().map(|custom| custom.digest).hash(&mut hasher);
        for subresource in &kind.subresources {
            (&subresource.name, &subresource.body, &subresource.verbs).hash(&mut hasher);
        }
    }
    let first = hasher.finish();
    first.hash(&mut hasher);
    format!("{first:016X}{:016X}", hasher.finish())
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
