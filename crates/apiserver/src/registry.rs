//! The generic registry: every verb for every kind, over kinds as data. Built-in kinds are there for good; custom
//! resources come and go while requests run, so each request works on the [`Served`] of one moment, which takes no lock.
//! There is no code here for one kind; what is special about a kind is its strategy ([`keelson_api::kind::Strategy`]), an admission plugin, or a subresource handler.

pub(crate) mod body;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod lists;
pub(crate) mod options;
pub(crate) mod ownership;
pub(crate) mod patch;
pub(crate) mod read;
pub(crate) mod render;
pub(crate) mod scale;
pub(crate) mod select;
pub(crate) mod subresources;
pub(crate) mod table;
pub(crate) mod update;
pub(crate) mod watch;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use keelson_api::kind::{Kind, Str, Verb};
use keelson_api::status::Status;
use keelson_api::{kinds, openapi};
use serde_json::Value;
use tokio::sync::watch as signal;

use crate::cache::entry::encode;
use crate::cache::{Entry, ResourceCache};
use crate::core::Core;
use crate::crd;

/// How long a request waits for the successor of a custom resource that was replaced.
const REPLACEMENT: Duration = Duration::from_secs(3);

/// One served resource.
#[derive(Clone)]
pub(crate) struct Resource {
    pub(crate) kind: Arc<Kind>,
    /// Where its objects are; `None` for reviews and computed kinds.
    cache: Option<Arc<ResourceCache>>,
    /// Of a custom resource.
    custom: Option<Arc<crd::Shared>>,
}

impl Resource {
    /// A version of a custom resource.
    pub(crate) fn custom(kind: Arc<Kind>, cache: Arc<ResourceCache>, shared: Arc<crd::Shared>) -> Self {
        Self { kind, cache: Some(cache), custom: Some(shared) }
    }

    /// What the versions of a custom resource share.
    pub(crate) fn shared(&self) -> Option<&crd::Shared> {
        self.custom.as_deref()
    }

    /// Whether objects are stored as they are.
    pub(crate) fn stores_own_json(&self) -> bool {
        self.plain() && self.custom.as_ref().is_none_or(|shared| shared.storage.version == self.kind.version)
    }

    /// The bytes to store of an object of this resource. `managed` is the JSON of its managed fields, if they are not in it;
    /// they may only be left apart if [`Resource::stores_own_json`].
    pub(crate) async fn to_stored(&self, object: &Value, managed: Option<&[u8]>) -> Result<bytes::Bytes, Status> {
        match (&self.custom, &self.kind.storage) {
            (Some(shared), _) if shared.storage.version != self.kind.version => {
                encode(&shared.converter.convert(object.clone(), &shared.storage).await?, None)
            }
            (_, Some(storage)) => {
                let mut stored = object.clone();
                (storage.to_stored)(&mut stored);
                encode(&stored, None)
            }
            _ => encode(object, managed),
        }
    }

    /// An object of this resource (or null) as one of another that is equivalent to it.
    pub(crate) async fn convert(&self, object: &Value, to: &Self) -> Result<Value, Status> {
        match &self.custom {
            _ if object.is_null() => Ok(Value::Null),
            Some(shared) => shared.converter.convert(object.clone(), &to.kind).await,
            None => Ok(ownership::convert(object, &self.kind, &to.kind)),
        }
    }

    /// Group and resource that objects are stored under.
    fn stored_as(&self) -> (&str, &str) {
        match &self.kind.storage {
            Some(storage) => (storage.group, storage.resource),
            None => (&self.kind.group, &self.kind.resource),
        }
    }

    /// Whether the store holds an object in another form than it would be written in now.
    pub(crate) fn is_stale(&self, core: &Core, entry: &Entry) -> bool {
        if let Some(shared) = &self.custom {
            return shared.is_stale(core, entry);
        }
        self.cache.as_ref().is_some_and(|cache| core.encryption.is_stale(cache, entry))
    }

    /// The cache of a stored resource; 405 for others.
    pub(crate) fn cache(&self) -> Result<&Arc<ResourceCache>, Status> {
        self.cache.as_ref().ok_or_else(|| Status::method_not_allowed(&self.kind.group, &self.kind.resource, "the verb"))
    }

    pub(crate) fn stored(&self) -> Option<&Arc<ResourceCache>> {
        self.cache.as_ref()
    }

    /// Whether another resource takes this one's place, or none.
    pub(crate) fn is_over(&self) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.is_over())
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

/// What is served, and who may change that.
pub(crate) struct Registry {
    built_in: Vec<Resource>,
    /// Kinds that are only bodies of subresources.
    bodies: Vec<Resource>,
    served: ArcSwap<Served>,
    /// Something else is served.
    changed: signal::Sender<()>,
}

/// All resources of one moment, and the documents made from them.
pub(crate) struct Served {
    /// In discovery order: built-in ones, then custom ones.
    ordered: Vec<Resource>,
    /// Places in `ordered` by resource name; few resources share one.
    by_name: HashMap<Str, Vec<usize>>,
    openapi: OnceLock<openapi::Hashes>,
}

impl Served {
    fn new(ordered: Vec<Resource>) -> Self {
        let mut by_name: HashMap<Str, Vec<usize>> = HashMap::new();
        for (at, resource) in ordered.iter().enumerate() {
            by_name.entry(resource.kind.resource.clone()).or_default().push(at);
        }
        Self { by_name, openapi: OnceLock::new(), ordered }
    }

    /// A resource by its path's parts.
    pub(crate) fn get(&self, group: &str, version: &str, resource: &str) -> Option<&Resource> {
        let places = self.by_name.get(resource)?;
        let mut found = places.iter().filter_map(|at| self.ordered.get(*at));
        found.find(|r| r.kind.group == group && r.kind.version == version)
    }

    /// The hashes of the OpenAPI documents.
    pub(crate) fn openapi(&self) -> &openapi::Hashes {
        self.openapi.get_or_init(|| {
            let kinds: Vec<&Kind> = self.ordered.iter().map(|resource| &*resource.kind).collect();
            openapi::Hashes::new(&kinds)
        })
    }

    /// Other versions of a resource, also in other groups: those that are stored alike.
    pub(crate) fn equivalents<'a>(&'a self, to: &'a Resource) -> impl Iterator<Item = &'a Resource> {
        let places = self.by_name.get(&to.kind.resource).into_iter().flatten();
        let other = |r: &&Resource| r.kind.group != to.kind.group || r.kind.version != to.kind.version;
        let found = places.filter_map(|at| self.ordered.get(*at)).filter(other);
        found.filter(move |r| r.cache.is_some() && r.stored_as() == to.stored_as())
    }

    /// All of them, in discovery order.
    pub(crate) fn all(&self) -> &[Resource] {
        &self.ordered
    }
}

impl Registry {
    /// These built-in kinds, and the caches of those that are stored.
    pub(crate) fn built_in(kinds: Vec<Kind>) -> (Self, Vec<Arc<ResourceCache>>) {
        let kinds: Vec<Arc<Kind>> = kinds.into_iter().map(Arc::new).collect();
        let mut caches: HashMap<(String, String), Arc<ResourceCache>> = HashMap::new();
        for kind in kinds.iter().filter(|kind| kind.storage.is_none() && is_stored(kind)) {
            let key = (kind.group.to_string(), kind.resource.to_string());
            caches.entry(key).or_insert_with(|| Arc::new(ResourceCache::new(kind.clone())));
        }
        let mut built_in = Vec::new();
        for kind in kinds {
            let key = match &kind.storage {
                Some(storage) => (storage.group.to_owned(), storage.resource.to_owned()),
                None => (kind.group.to_string(), kind.resource.to_string()),
            };
            let cache = if is_stored(&kind) { caches.get(&key).cloned() } else { None };
            built_in.push(Resource { kind, cache, custom: None });
        }
        let served = ArcSwap::from_pointee(Served::new(built_in.clone()));
        let bodies =
            kinds::bodies().into_iter().map(|kind| Resource { kind: Arc::new(kind), cache: None, custom: None });
        (
            Self { built_in, bodies: bodies.collect(), served, changed: signal::Sender::new(()) },
            caches.into_values().collect(),
        )
    }

    /// Serves these custom resources, beside what is built in.
    pub(crate) fn set_custom(&self, resources: Vec<Resource>) {
        self.served.store(Arc::new(Served::new(self.built_in.iter().cloned().chain(resources).collect())));
        self.changed.send_replace(());
    }

    /// What is served now.
    pub(crate) fn served(&self) -> Arc<Served> {
        self.served.load_full()
    }

    /// A resource by its path's parts.
    pub(crate) fn get(&self, group: &str, version: &str, resource: &str) -> Option<Resource> {
        self.served.load().get(group, version, resource).cloned()
    }

    /// As [`Registry::get`], once what is served is up to date; after a while as it is.
    pub(crate) async fn current(&self, group: &str, version: &str, resource: &str) -> Option<Resource> {
        let mut changed = self.changed.subscribe();
        let up_to_date = async {
            while self.get(group, version, resource).is_some_and(|found| found.is_over()) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(REPLACEMENT, up_to_date).await;
        self.get(group, version, resource)
    }

    /// A resource that this server is built with, by group and name, whatever its version.
    pub(crate) fn known(&self, group: &str, resource: &str) -> Result<&Resource, Status> {
        self.built_in
            .iter()
            .find(|r| r.kind.group == group && r.kind.resource == resource)
            .ok_or_else(|| Status::internal(format!("no resource {resource} in group {group:?}")))
    }

    /// The body kind of a subresource.
    pub(crate) fn body(&self, group: &str, kind: &str) -> Result<&Kind, Status> {
        self.body_resource(group, kind).map(|resource| &*resource.kind)
    }

    /// The same, to be shown.
    pub(crate) fn body_resource(&self, group: &str, kind: &str) -> Result<&Resource, Status> {
        let mut all = self.bodies.iter().chain(&self.built_in);
        all.find(|resource| resource.kind.group == group && resource.kind.kind == kind)
            .ok_or_else(|| Status::internal(format!("no kind {kind} in group {group:?}")))
    }
}

/// Reviews only have `create`, computed kinds only reads.
fn is_stored(kind: &Kind) -> bool {
    kind.has_verb(Verb::Delete)
}
