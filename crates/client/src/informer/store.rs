//! The objects of an informer, by key and by index.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use kube::Resource;

use crate::Key;

pub(super) struct Store<K> {
    objects: BTreeMap<Key, Arc<K>>,
    indexes: Vec<Index<K>>,
    /// Highest `resourceVersion` seen on any object.
    latest: u64,
}

struct Index<K> {
    name: &'static str,
    value: fn(&K) -> Option<String>,
    keys: HashMap<String, BTreeSet<Key>>,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), indexes: Vec::new(), latest: 0 }
    }
}

impl<K: Resource> Store<K> {
    pub(super) fn get(&self, key: &str) -> Option<Arc<K>> {
        self.objects.get(key).cloned()
    }

    pub(super) fn list(&self) -> Vec<Arc<K>> {
        self.objects.values().cloned().collect()
    }

    pub(super) fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        // '0' is the character after '/'.
        let (from, to) = (format!("{namespace}/"), format!("{namespace}0"));
        let range = (Bound::Included(from.as_str()), Bound::Excluded(to.as_str()));
        self.objects.range::<str, _>(range).map(|(_, object)| object.clone()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    /// Notes the version of an object that came by (`object` need not be kept).
    pub(super) fn saw(&mut self, object: &K) {
        let version = object.meta().resource_version.as_deref().and_then(|version| version.parse().ok());
        self.latest = self.latest.max(version.unwrap_or(0));
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.objects.keys()
    }

    /// Returns what was there before.
    pub(super) fn insert(&mut self, key: Key, object: Arc<K>) -> Option<Arc<K>> {
        let (key, old) = match self.objects.entry(key) {
            Entry::Occupied(mut entry) => (entry.key().clone(), Some(entry.insert(object.clone()))),
            Entry::Vacant(entry) => {
                let key = entry.key().clone();
                entry.insert(object.clone());
                (key, None)
            }
        };
        for index in &mut self.indexes {
            index.change(&key, old.as_deref(), Some(&object));
        }
        old
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        for index in &mut self.indexes {
            index.change(key, Some(&old), None);
        }
        Some(old)
    }

    pub(super) fn add_index(&mut self, name: &'static str, value: fn(&K) -> Option<String>) {
        if self.indexes.iter().any(|index| index.name == name) {
            return;
        }
        let mut index = Index { name, value, keys: HashMap::new() };
        for (key, object) in &self.objects {
            index.change(key, None, Some(object));
        }
        self.indexes.push(index);
    }

    pub(super) fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let index = self.indexes.iter().find(|index| index.name == name);
        let keys = index.and_then(|index| index.keys.get(value));
        keys.into_iter().flatten().filter_map(|key| self.objects.get(key).cloned()).collect()
    }
}

impl<K> Index<K> {
    fn change(&mut self, key: &Key, old: Option<&K>, new: Option<&K>) {
        let (old, new) = (old.and_then(self.value), new.and_then(self.value));
        if old == new {
            return;
        }
        if let Some(old) = old
            && let Some(keys) = self.keys.get_mut(&old)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.keys.remove(&old);
            }
        }
        if let Some(new) = new {
            self.keys.entry(new).or_default().insert(key.clone());
        }
    }
}
