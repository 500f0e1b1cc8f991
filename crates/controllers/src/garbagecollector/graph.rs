//! Who owns whom, and whom to look at when something changes. Pure: changes in, attempts out.
//!
//! Most objects have neither owners nor dependents; of those only the uid is kept.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// Holds an object until its dependents are gone.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Holds an object until its dependents have let go of it.
pub const ORPHAN: &str = "orphan";

/// A uid in 16 bytes: a UUID's own, or a hash of anything else.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(u128);

impl Uid {
    pub fn new(text: &str) -> Self {
        let parsed = uuid::Uuid::parse_str(text).map(|uuid| uuid.as_u128());
        Self(parsed.unwrap_or_else(|_| {
            let half = |seed: u8| {
                let mut hasher = DefaultHasher::new();
                (seed, text).hash(&mut hasher);
                u128::from(hasher.finish())
            };
            half(0) << 64 | half(1)
        }))
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", uuid::Uuid::from_u128(self.0))
    }
}

/// Where an object is to be found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub api_version: String,
    pub kind: String,
    /// Empty for cluster-scoped objects. For owners: the dependent's.
    pub namespace: String,
    pub name: String,
}

/// What a watch tells of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub uid: Uid,
    pub place: Place,
    pub owners: Vec<OwnerReference>,
    pub deleting: bool,
    /// Has the finalizer [`FOREGROUND`].
    pub foreground: bool,
    /// Has the finalizer [`ORPHAN`].
    pub orphan: bool,
}

impl Object {
    /// From metadata.
    pub fn new(api_version: &str, kind: &str, meta: &ObjectMeta) -> Self {
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|known| known == finalizer);
        Self {
            uid: Uid::new(meta.uid.as_deref().unwrap_or_default()),
            place: Place {
                api_version: api_version.into(),
                kind: kind.into(),
                namespace: meta.namespace.clone().unwrap_or_default(),
                name: meta.name.clone().unwrap_or_default(),
            },
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            foreground: has(FOREGROUND),
            orphan: has(ORPHAN),
        }
    }

    /// Whether it waits for its dependents to be deleted.
    pub fn waits_for_dependents(&self) -> bool {
        self.deleting && self.foreground
    }

    fn waits_for_orphans(&self) -> bool {
        self.deleting && self.orphan
    }
}

/// See [`Graph::ties`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ties {
    pub has_dependents: bool,
    /// A dependent waits for dependents of its own.
    pub dependents_wait: bool,
    /// A dependent blocks the object's deletion.
    pub is_blocked: bool,
    /// Those that block and are not being deleted yet.
    pub undecided: Vec<Uid>,
}

/// Whom to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attempt {
    /// Whether it should be deleted, or if it is absent, its dependents; or whether what it waits for is gone.
    Delete(Uid),
    /// To take its name off its dependents.
    Orphan(Uid),
}

struct Node {
    /// `None` for an owner that was only heard of.
    object: Option<Object>,
    place: Place,
    dependents: BTreeSet<Uid>,
}

/// See the module.
#[derive(Default)]
pub struct Graph {
    nodes: HashMap<Uid, Node>,
    /// All objects that watches have shown, with the watch they came by.
    known: HashMap<Uid, u16>,
}

impl Graph {
    /// An object as it is now, from watch number `watch`.
    pub fn apply(&mut self, watch: u16, object: Object) -> Vec<Attempt> {
        let uid = object.uid;
        self.known.insert(uid, watch);
        let pending = object.waits_for_dependents() || object.waits_for_orphans();
        if object.owners.is_empty() && !pending && !self.nodes.contains_key(&uid) {
            return Vec::new();
        }
        let mut attempts = Vec::new();
        let node = self.nodes.entry(uid).or_insert_with(|| Node {
            object: None,
            place: object.place.clone(),
            dependents: BTreeSet::new(),
        });
        node.place = object.place.clone();
        let before = node.object.replace(object.clone());
        let starts = |state: fn(&Object) -> bool| state(&object) && !before.as_ref().is_some_and(state);
        if starts(Object::waits_for_orphans) {
            attempts.push(Attempt::Orphan(uid));
        }
        if starts(Object::waits_for_dependents) {
            attempts.extend(node.dependents.iter().map(|dependent| Attempt::Delete(*dependent)));
            attempts.push(Attempt::Delete(uid));
        }
        let owners_before = before.map(|before| before.owners).unwrap_or_default();
        for old in &owners_before {
            let new = object.owners.iter().find(|new| new.uid == old.uid);
            let blocks = |owner: &OwnerReference| owner.block_owner_deletion == Some(true);
            match new {
                None => self.detach(uid, Uid::new(&old.uid), &mut attempts),
                Some(new) if blocks(old) && !blocks(new) => self.nudge(Uid::new(&old.uid), &mut attempts),
                Some(_) => {}
            }
        }
        for owner in &object.owners {
            if owners_before.iter().all(|old| old.uid != owner.uid) {
                self.attach(uid, &object.place.namespace, owner, &mut attempts);
            }
        }
        self.prune(uid);
        attempts
    }

    fn attach(&mut self, uid: Uid, namespace: &str, owner: &OwnerReference, attempts: &mut Vec<Attempt>) {
        let owner_uid = Uid::new(&owner.uid);
        let is_known = self.known.contains_key(&owner_uid);
        let node = self.nodes.entry(owner_uid).or_insert_with(|| Node {
            object: None,
            place: Place {
                api_version: owner.api_version.clone(),
                kind: owner.kind.clone(),
                namespace: namespace.into(),
                name: owner.name.clone(),
            },
            dependents: BTreeSet::new(),
        });
        node.dependents.insert(uid);
        if !is_known {
            // Nobody has shown it: it may be gone already.
            attempts.push(Attempt::Delete(owner_uid));
        } else if node.object.as_ref().is_some_and(Object::waits_for_dependents) {
            attempts.push(Attempt::Delete(uid));
        }
    }

    fn detach(&mut self, uid: Uid, owner: Uid, attempts: &mut Vec<Attempt>) {
        if let Some(node) = self.nodes.get_mut(&owner) {
            node.dependents.remove(&uid);
        }
        self.nudge(owner, attempts);
        self.prune(owner);
    }

    /// An owner that waits for its dependents may have one less to wait for.
    fn nudge(&self, owner: Uid, attempts: &mut Vec<Attempt>) {
        let object = self.nodes.get(&owner).and_then(|node| node.object.as_ref());
        if object.is_some_and(Object::waits_for_dependents) {
            attempts.push(Attempt::Delete(owner));
        }
    }

    /// Drops a node that has become an ordinary object.
    fn prune(&mut self, uid: Uid) {
        let Some(node) = self.nodes.get(&uid) else { return };
        let idle = node.object.as_ref().is_none_or(|object| {
            object.owners.is_empty() && !object.waits_for_dependents() && !object.waits_for_orphans()
        });
        if idle && node.dependents.is_empty() {
            self.nodes.remove(&uid);
        }
    }

    /// An object is gone, as a watch or a look at the server says.
    pub fn remove(&mut self, uid: Uid) -> Vec<Attempt> {
        self.known.remove(&uid);
        let Some(node) = self.nodes.remove(&uid) else { return Vec::new() };
        let mut attempts: Vec<_> = node.dependents.iter().map(|dependent| Attempt::Delete(*dependent)).collect();
        for owner in node.object.iter().flat_map(|object| &object.owners) {
            self.detach(uid, Uid::new(&owner.uid), &mut attempts);
        }
        attempts
    }

    /// What a watch has shown before and not in its new list.
    pub fn missing(&self, watch: u16, listed: &std::collections::HashSet<Uid>) -> Vec<Uid> {
        let of_watch = self.known.iter().filter(|(uid, by)| **by == watch && !listed.contains(uid));
        of_watch.map(|(uid, _)| *uid).collect()
    }

    /// Whether a watch shows the object.
    pub fn is_known(&self, uid: Uid) -> bool {
        self.known.contains_key(&uid)
    }

    /// Where to find an object that is in the graph.
    pub fn place(&self, uid: Uid) -> Option<Place> {
        Some(self.nodes.get(&uid)?.place.clone())
    }

    /// The object, when a watch has shown it and it is in the graph.
    pub fn object(&self, uid: Uid) -> Option<Object> {
        self.nodes.get(&uid)?.object.clone()
    }

    /// How an object stands to its dependents; copies none of them.
    pub fn ties(&self, uid: Uid) -> Ties {
        let mut ties = Ties::default();
        let dependents = self.nodes.get(&uid).into_iter().flat_map(|node| &node.dependents);
        for dependent in dependents.filter_map(|dependent| self.nodes.get(dependent)?.object.as_ref()) {
            ties.has_dependents = true;
            ties.dependents_wait |= dependent.waits_for_dependents();
            let mut owners = dependent.owners.iter();
            if owners.any(|owner| owner.block_owner_deletion == Some(true) && Uid::new(&owner.uid) == uid) {
                ties.is_blocked = true;
                if !dependent.deleting {
                    ties.undecided.push(dependent.uid);
                }
            }
        }
        ties
    }

    /// Its dependents that are there.
    pub fn dependents(&self, uid: Uid) -> Vec<Object> {
        let dependents = self.nodes.get(&uid).into_iter().flat_map(|node| &node.dependents);
        dependents.filter_map(|dependent| self.object(*dependent)).collect()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.nodes.len()
    }
}

#[cfg(test)]
mod tests;
