//! What is wanted and what the kernel has: services with their slices, the entries planned from them, and the difference
//! to what was programmed last. Work is proportional to the services that changed.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddrV4,
    sync::Arc,
};

use k8s_openapi::{
    api::{core::v1::Service, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    model::{Entry, Frontend, Key, LOCAL, Value},
    plan::{NodeView, plan},
};

/// Label that names a slice's service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Namespace and name of a service.
type ServiceName = (String, String);

/// All services this node serves.
#[derive(Debug)]
pub(crate) struct State {
    node: NodeView,
    services: HashMap<ServiceName, Tracked>,
    next_id: u64,
    dirty: HashSet<ServiceName>,
    slots: HashMap<Key, Slot>,
    changed: HashSet<Key>,
}

#[derive(Debug)]
struct Tracked {
    /// Age: of two services that claim one entry (an external IP, say) the older one has it.
    id: u64,
    service: Option<Arc<Service>>,
    slices: BTreeMap<String, Arc<EndpointSlice>>,
    claims: Vec<Key>,
}

/// One entry of the kernel's maps.
#[derive(Debug, Default)]
struct Slot {
    programmed: Option<Value>,
    /// Who wants it, by age.
    claims: Vec<(u64, Value)>,
}

impl Slot {
    fn wanted(&self) -> Option<Value> {
        self.claims.first().map(|(_, value)| *value)
    }
}

/// Changes for the kernel: first all removals, then all additions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Diff {
    /// Entries to remove, with the value they have.
    pub(crate) remove: Vec<Entry>,
    /// Entries to add.
    pub(crate) add: Vec<Entry>,
}

impl Diff {
    pub(crate) fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }
}

impl State {
    pub(crate) fn new(node: NodeView) -> Self {
        Self {
            node,
            services: HashMap::new(),
            next_id: 0,
            dirty: HashSet::new(),
            slots: HashMap::new(),
            changed: HashSet::new(),
        }
    }

    /// Takes note of a service as it is now.
    pub(crate) fn set_service(&mut self, service: Arc<Service>) {
        let name = name_of(&service.metadata);
        self.tracked(&name).service = Some(service);
        self.dirty.insert(name);
    }

    /// Takes note that a service is gone.
    pub(crate) fn remove_service(&mut self, service: &Service) {
        let name = name_of(&service.metadata);
        if let Some(tracked) = self.services.get_mut(&name) {
            tracked.service = None;
            self.dirty.insert(name);
        }
    }

    /// All services there are; others are gone.
    pub(crate) fn resync_services(&mut self, all: Vec<Arc<Service>>) {
        for (name, tracked) in &mut self.services {
            if tracked.service.take().is_some() {
                self.dirty.insert(name.clone());
            }
        }
        all.into_iter().for_each(|service| self.set_service(service));
    }

    /// Takes note of a slice as it is now.
    pub(crate) fn set_slice(&mut self, slice: Arc<EndpointSlice>) {
        let Some(name) = service_of(&slice) else { return };
        let slice_name = slice.metadata.name.clone().unwrap_or_default();
        self.tracked(&name).slices.insert(slice_name, slice);
        self.dirty.insert(name);
    }

    /// Takes note that a slice is gone (or, before a change of its label, was its service's).
    pub(crate) fn remove_slice(&mut self, slice: &EndpointSlice) {
        let Some(name) = service_of(slice) else { return };
        if let Some(tracked) = self.services.get_mut(&name) {
            tracked.slices.remove(slice.metadata.name.as_deref().unwrap_or_default());
            self.dirty.insert(name);
        }
    }

    /// All slices there are; others are gone.
    pub(crate) fn resync_slices(&mut self, all: Vec<Arc<EndpointSlice>>) {
        for (name, tracked) in &mut self.services {
            if !tracked.slices.is_empty() {
                tracked.slices.clear();
                self.dirty.insert(name.clone());
            }
        }
        all.into_iter().for_each(|slice| self.set_slice(slice));
    }

    /// All endpoints a frontend may send to.
    pub(crate) fn endpoints_of(&self, frontend: Frontend) -> HashSet<SocketAddrV4> {
        let at = |index| match self.slots.get(&Key::Endpoint(frontend, index)).and_then(Slot::wanted) {
            Some(Value::To(to)) => Some(to),
            _ => None,
        };
        [0, LOCAL].into_iter().flat_map(|base| (base..).map_while(at)).collect()
    }

    /// Whether the kernel may have to be changed.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.changed.is_empty()
    }

    /// What the kernel must be told; [`programmed`](Self::programmed) says that it was.
    pub(crate) fn diff(&mut self) -> Diff {
        for name in std::mem::take(&mut self.dirty) {
            self.replan(name);
        }
        let mut diff = Diff::default();
        for key in &self.changed {
            let Some(slot) = self.slots.get(key) else { continue };
            let wanted = slot.wanted();
            if wanted == slot.programmed {
                continue;
            }
            diff.remove.extend(slot.programmed.map(|value| (*key, value)));
            diff.add.extend(wanted.map(|value| (*key, value)));
        }
        // The order of a hash table would make failures hard to repeat.
        diff.remove.sort_by_key(|(key, _)| *key);
        diff.add.sort_by_key(|(key, _)| *key);
        diff
    }

    /// The kernel has what the last [`diff`](Self::diff) said.
    pub(crate) fn programmed(&mut self) {
        for key in std::mem::take(&mut self.changed) {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.programmed = slot.wanted();
                if slot.claims.is_empty() {
                    self.slots.remove(&key);
                }
            }
        }
    }

    /// The kernel has nothing: everything is to be programmed anew.
    pub(crate) fn forget_programmed(&mut self) {
        self.slots.retain(|_, slot| {
            slot.programmed = None;
            !slot.claims.is_empty()
        });
        self.changed = self.slots.keys().copied().collect();
    }

    fn tracked(&mut self, name: &ServiceName) -> &mut Tracked {
        self.services.entry(name.clone()).or_insert_with(|| {
            self.next_id += 1;
            Tracked { id: self.next_id, service: None, slices: BTreeMap::new(), claims: Vec::new() }
        })
    }

    /// Replaces a service's claims by what it claims now.
    fn replan(&mut self, name: ServiceName) {
        let Some(tracked) = self.services.get_mut(&name) else { return };
        let entries = match &tracked.service {
            Some(service) => plan(&self.node, service, tracked.slices.values().map(Arc::as_ref)),
            None => Vec::new(),
        };
        for key in tracked.claims.drain(..) {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.claims.retain(|(id, _)| *id != tracked.id);
                self.changed.insert(key);
            }
        }
        for (key, value) in entries {
            let claims = &mut self.slots.entry(key).or_default().claims;
            if let Err(at) = claims.binary_search_by_key(&tracked.id, |(id, _)| *id) {
                claims.insert(at, (tracked.id, value));
                tracked.claims.push(key);
                self.changed.insert(key);
            }
        }
        if tracked.service.is_none() && tracked.slices.is_empty() {
            self.services.remove(&name);
        }
    }
}

fn name_of(meta: &ObjectMeta) -> ServiceName {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn service_of(slice: &EndpointSlice) -> Option<ServiceName> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some((slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}

#[cfg(test)]
mod tests;
