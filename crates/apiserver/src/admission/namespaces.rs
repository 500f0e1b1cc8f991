//! What namespaces limit: their LimitRanges and ResourceQuotas, read once per version and kept up to date with the watch
//! cache. A namespace that limits nothing costs one look into a map.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use keelson_api::quota::Quota;
use parking_lot::RwLock;

use super::limit_ranger::Limits;
use crate::cache::feed::Listener;
use crate::cache::{Cache, Change, Entry, ResourceCache};

/// The index, by namespace.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    all: RwLock<HashMap<String, Namespace>>,
}

#[derive(Debug, Default)]
struct Namespace {
    limits: BTreeMap<String, Arc<Limits>>,
    quotas: BTreeMap<String, Arc<Quota>>,
}

const RESOURCES: [&str; 2] = ["limitranges", "resourcequotas"];

impl Namespaces {
    /// A namespace's LimitRanges, by name.
    pub(super) fn limits(&self, namespace: &str) -> Vec<Arc<Limits>> {
        self.all.read().get(namespace).map(|found| found.limits.values().cloned().collect()).unwrap_or_default()
    }

    /// A namespace's quotas, by name.
    pub(super) fn quotas(&self, namespace: &str) -> Vec<Arc<Quota>> {
        self.all.read().get(namespace).map(|found| found.quotas.values().cloned().collect()).unwrap_or_default()
    }

    fn set(all: &mut HashMap<String, Namespace>, resource: &str, entry: &Entry, there: bool) {
        let (namespace, name) = (entry.namespace(), entry.name());
        // One that cannot be read limits nothing; the store is damaged then, and the cache has said so.
        let object = if there { entry.decode().ok() } else { None };
        let own = all.entry(namespace.to_owned()).or_default();
        match (resource, object) {
            ("limitranges", Some(object)) => drop(own.limits.insert(name.into(), Arc::new(Limits::of(&object)))),
            ("limitranges", None) => drop(own.limits.remove(name)),
            (_, Some(object)) => drop(own.quotas.insert(name.into(), Arc::new(Quota::of(&object)))),
            (_, None) => drop(own.quotas.remove(name)),
        }
        if own.limits.is_empty() && own.quotas.is_empty() {
            all.remove(namespace);
        }
    }
}

impl Listener for Namespaces {
    fn changed(&self, resource: &ResourceCache, change: &Change) {
        if !resource.group().is_empty() || !RESOURCES.contains(&resource.resource()) {
            return;
        }
        if let Some(entry) = change.new.as_ref().or(change.old.as_ref()) {
            Self::set(&mut self.all.write(), resource.resource(), entry, change.new.is_some());
        }
    }

    fn reloaded(&self, cache: &Cache) {
        let mut fresh = HashMap::new();
        for resource in RESOURCES {
            let Some(cache) = cache.resource("", resource) else { continue };
            for entry in cache.snapshot().map.values() {
                Self::set(&mut fresh, resource, entry, true);
            }
        }
        *self.all.write() = fresh;
    }
}
