//! The generic registry: every verb for every kind, over kinds as data. There is no code here for one kind; what is special
//! about a kind is its strategy ([`keelson_api::kind::Strategy`]), an admission plugin, or a subresource handler.

pub(crate) mod body;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod lists;
pub(crate) mod options;
pub(crate) mod patch;
pub(crate) mod read;
pub(crate) mod render;
pub(crate) mod select;
pub(crate) mod subresources;
pub(crate) mod table;
pub(crate) mod update;
pub(crate) mod watch;

use std::collections::HashMap;
use std::sync::Arc;

use keelson_api::kind::{Kind, Verb};
use keelson_api::kinds;
use keelson_api::status::Status;
use serde_json::Value;

use crate::cache::{Entry, ResourceCache};

/// One served resource.
#[derive(Clone)]
pub(crate) struct Resource {
    pub(crate) kind: Arc<Kind>,
    /// Where its objects are; `None` for reviews and computed kinds.
    cache: Option<Arc<ResourceCache>>,
}

impl Resource {
    /// The cache of a stored resource; 405 for others.
    pub(crate) fn cache(&self) -> Result<&Arc<ResourceCache>, Status> {
        self.cache.as_ref().ok_or_else(|| Status::method_not_allowed(&self.kind.group, &self.kind.resource, "the verb"))
    }

    pub(crate) fn stored(&self) -> Option<&Arc<ResourceCache>> {
        self.cache.as_ref()
    }

    pub(crate) fn not_found(&self, name: &str) -> Status {
        Status::not_found(&self.kind.group, &self.kind.resource, name)
    }

    pub(crate) fn conflict(&self, name: &str, why: &str) -> Status {
        Status::conflict(&self.kind.group, &self.kind.resource, name, why)
    }

    pub(crate) fn forbidden(&self, name: &str, why: &str) -> Status {
        Status::forbidden(&self.kind.group, &self.kind.resource, name, why)
    }

    /// Whether stored bytes are this resource's own, so that they can be sent as they are.
    pub(crate) fn plain(&self) -> bool {
        self.kind.storage.is_none()
    }

    /// A stored version as this resource's object.
    pub(crate) fn decode(&self, entry: &Entry) -> Result<Value, Status> {
        self.decode_at(entry, entry.revision)
    }

    /// As [`Resource::decode`], with another resourceVersion.
    pub(crate) fn decode_at(&self, entry: &Entry, revision: u64) -> Result<Value, Status> {
        let mut object = entry.decode_at(revision)?;
        if let Some(storage) = &self.kind.storage {
            (storage.from_stored)(&mut object);
        }
        Ok(object)
    }
}

/// All served resources.
pub(crate) struct Registry {
    by_gvr: HashMap<(String, String, String), Resource>,
    /// In discovery order.
    ordered: Vec<Resource>,
    /// Kinds that are only bodies of subresources.
    bodies: Vec<Kind>,
}

impl Registry {
    /// Built-in kinds, and the caches of those that are stored.
    pub(crate) fn built_in() -> (Self, Vec<Arc<ResourceCache>>) {
        let kinds: Vec<Arc<Kind>> = kinds::all().into_iter().map(Arc::new).collect();
        let mut caches: HashMap<(String, String), Arc<ResourceCache>> = HashMap::new();
        for kind in kinds.iter().filter(|kind| kind.storage.is_none() && is_stored(kind)) {
            let key = (kind.group.to_string(), kind.resource.to_string());
            caches.entry(key).or_insert_with(|| Arc::new(ResourceCache::new(kind.clone())));
        }
        let mut ordered = Vec::new();
        for kind in kinds {
            let key = match &kind.storage {
                Some(storage) => (storage.group.to_owned(), storage.resource.to_owned()),
                None => (kind.group.to_string(), kind.resource.to_string()),
            };
            let cache = if is_stored(&kind) { caches.get(&key).cloned() } else { None };
            ordered.push(Resource { kind, cache });
        }
        let by_gvr = ordered
            .iter()
            .map(|r| ((r.kind.group.to_string(), r.kind.version.to_string(), r.kind.resource.to_string()), r.clone()))
            .collect();
        (Self { by_gvr, ordered, bodies: kinds::bodies() }, caches.into_values().collect())
    }

    /// A resource by its path's parts.
    pub(crate) fn get(&self, group: &str, version: &str, resource: &str) -> Option<&Resource> {
        self.by_gvr.get(&(group.to_owned(), version.to_owned(), resource.to_owned()))
    }

    /// A resource that this server is built with, by group and name, whatever its version.
    pub(crate) fn known(&self, group: &str, resource: &str) -> Result<&Resource, Status> {
        self.ordered
            .iter()
            .find(|r| r.kind.group == group && r.kind.resource == resource)
            .ok_or_else(|| Status::internal(format!("no resource {resource} in group {group:?}")))
    }

    /// All of them, in discovery order.
    pub(crate) fn all(&self) -> &[Resource] {
        &self.ordered
    }

    /// The body kind of a subresource.
    pub(crate) fn body(&self, group: &str, kind: &str) -> Result<&Kind, Status> {
        let mut served = self.ordered.iter().map(|r| &*r.kind);
        self.bodies
            .iter()
            .find(|b| b.group == group && b.kind == kind)
            .or_else(|| served.find(|k| k.group == group && k.kind == kind))
            .ok_or_else(|| Status::internal(format!("no kind {kind} in group {group:?}")))
    }
}

/// Reviews only have `create`, computed kinds only reads.
fn is_stored(kind: &Kind) -> bool {
    kind.has_verb(Verb::Delete)
}
