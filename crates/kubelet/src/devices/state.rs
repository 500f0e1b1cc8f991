//! Which devices there are, which of them work, and who has which. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::managers::hints::{self, Hints, Mask};
use keelson_cri::device_plugin::{ContainerAllocateResponse, Device, HEALTHY, Options, PluginClient};

/// A resource that a plugin offers, or offered.
#[derive(Clone, Debug, Default)]
pub(super) struct Resource {
    /// `None` when its plugin is away.
    pub plugin: Option<Plugin>,
    /// By id.
    pub devices: BTreeMap<String, Offered>,
    /// Distinguishes the plugin's registrations, the last of which counts.
    pub generation: u64,
}

/// A device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offered {
    pub healthy: bool,
    /// NUMA nodes that it is near to, if its plugin tells.
    pub near: Option<Mask>,
}

impl Offered {
    fn is_near(self, nodes: Mask) -> bool {
        self.near.is_some_and(|near| near.and(nodes).count() > 0)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Plugin {
    pub client: PluginClient,
    pub options: Options,
}

/// A container's share of a resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Share {
    pub devices: BTreeSet<String>,
    /// What the plugin said that the container needs; `None` while it is being asked.
    pub response: Option<ContainerAllocateResponse>,
}

/// Pod uid, container, resource.
pub(super) type Key = (String, String, String);

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub resources: BTreeMap<String, Resource>,
    pub shares: BTreeMap<Key, Share>,
}

/// Devices to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// Working devices that nobody else has, and those of `must`.
    pub available: BTreeSet<String>,
    /// Those of the pod's own ended containers, which are taken first.
    pub must: BTreeSet<String>,
    pub size: usize,
    /// Those of the available that are near, others that are somewhere else, and others that are nowhere in particular;
    /// none of `must`.
    pub near: BTreeSet<String>,
    pub far: BTreeSet<String>,
    pub anywhere: BTreeSet<String>,
}

impl Choice {
    /// Whether those that are near are more than enough.
    fn is_near_only(&self) -> bool {
        self.near.len() > self.size.saturating_sub(self.must.len())
    }

    /// What the plugin may choose from.
    pub(super) fn offered(&self) -> BTreeSet<String> {
        if self.is_near_only() { self.near.union(&self.must).cloned().collect() } else { self.available.clone() }
    }

    /// The devices to take: those that must be, those that are near, what the plugin `preferred`, then any.
    pub(super) fn take(&self, preferred: &[String]) -> BTreeSet<String> {
        let mut taken = self.must.clone();
        let offered = self.offered();
        let preferred: Vec<&String> = preferred.iter().filter(|id| offered.contains(*id)).collect();
        let near_first = if self.is_near_only() { None } else { Some(&self.near) };
        let order =
            near_first.into_iter().flatten().chain(preferred).chain(&self.near).chain(&self.far).chain(&self.anywhere);
        for id in order {
            if taken.len() >= self.size {
                break;
            }
            taken.insert(id.clone());
        }
        taken
    }
}

impl State {
    /// Whether a plugin gives this resource, or gave it to somebody.
    pub(super) fn knows(&self, resource: &str) -> bool {
        self.resources.contains_key(resource) || self.shares.keys().any(|(_, _, known)| known == resource)
    }

    /// What a container may choose from; nothing when it has its share. `reusable`: containers of the pod whose devices it
    /// may take over. `affinity`: where they are best. The error is upstream's.
    pub(super) fn choice(
        &self,
        (pod, container): (&str, &str),
        resource: &str,
        required: usize,
        reusable: &[&str],
        affinity: Option<Mask>,
    ) -> Result<Option<Choice>, String> {
        let key = (pod.to_string(), container.to_string(), resource.to_string());
        if let Some(share) = self.shares.get(&key).filter(|share| share.response.is_some()) {
            let had = share.devices.len();
            return if had == required {
                Ok(None)
            } else {
                Err(format!(
                    "pod {pod:?} container {container:?} changed request for resource {resource:?} from {had} to {required}"
                ))
            };
        }
        if required == 0 {
            return Ok(None);
        }
        let Some(known) = self.resources.get(resource) else {
            return Err(format!("no healthy devices present; cannot allocate unhealthy devices {resource}"));
        };
        let of = |(owner, name, what): &Key| what == resource && owner == pod && reusable.contains(&name.as_str());
        let others: BTreeSet<&String> = self
            .shares
            .iter()
            .filter(|(key, _)| key.2 == resource && !of(key))
            .flat_map(|(_, share)| &share.devices)
            .collect();
        let must: BTreeSet<String> = self
            .shares
            .iter()
            .filter(|(key, _)| of(key))
            .flat_map(|(_, share)| share.devices.iter().filter(|id| !others.contains(id)))
            .take(required)
            .cloned()
            .collect();
        let free = known.devices.iter().filter(|(id, device)| device.healthy && !others.contains(id));
        let free: BTreeSet<String> = free.map(|(id, _)| id.clone()).collect();
        if free.is_empty() && must.is_empty() && known.devices.values().all(|device| !device.healthy) {
            return Err(format!("no healthy devices present; cannot allocate unhealthy devices {resource}"));
        }
        let new = free.difference(&must).count();
        let needed = required - must.len();
        if new < needed {
            return Err(format!(
                "requested number of devices unavailable for {resource}. Requested: {needed}, Available: {new}"
            ));
        }
        let placed = known.devices.values().any(|device| device.near.is_some());
        let affinity = affinity.filter(|_| placed);
        let (mut near, mut far, mut anywhere) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for id in free.difference(&must) {
            let device = known.devices.get(id).copied().unwrap_or_default();
            let place = match affinity {
                Some(nodes) if device.is_near(nodes) => &mut near,
                Some(_) if device.near.is_some() => &mut far,
                _ => &mut anywhere,
            };
            place.insert(id.clone());
        }
        let available = free.union(&must).cloned().collect();
        Ok(Some(Choice { available, must, size: required, near, far, anywhere }))
    }

    /// What NUMA nodes would suit `containers` of a pod that need `required` devices together; nothing when the devices are
    /// nowhere in particular. `reusable`: containers of the pod whose devices they may take over.
    pub(super) fn hints(
        &self,
        pod: &str,
        containers: &[&str],
        resource: &str,
        required: usize,
        reusable: &[&str],
        nodes: &BTreeSet<usize>,
    ) -> Hints {
        let known = self.resources.get(resource)?;
        if required == 0 || known.devices.values().all(|device| device.near.is_none()) {
            return None;
        }
        let of = |names: &[&str]| -> BTreeSet<&String> {
            let own = self
                .shares
                .iter()
                .filter(|((owner, name, what), _)| owner == pod && what == resource && names.contains(&name.as_str()));
            own.flat_map(|(_, share)| &share.devices).collect()
        };
        let own = of(containers);
        let (available, must) = if own.is_empty() {
            let taken: BTreeSet<&String> =
                self.shares.iter().filter(|(key, _)| key.2 == resource).flat_map(|(_, share)| &share.devices).collect();
            let free = known.devices.iter().filter(|(id, device)| device.healthy && !taken.contains(id));
            (free.map(|(id, _)| id).collect(), of(reusable))
        } else if own.len() == required {
            (own, BTreeSet::new())
        } else {
            return Some(Vec::new());
        };
        if available.union(&must).count() < required {
            return Some(Vec::new());
        }
        let device = |id: &String| known.devices.get(id).copied().unwrap_or_default();
        let mut least = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        let mut found = Vec::new();
        for mask in hints::masks(nodes) {
            if known.devices.values().filter(|device| device.is_near(mask)).count() >= required {
                least = least.min(mask.count());
            }
            let placed: Vec<_> = must.iter().map(|id| device(id)).filter(|device| device.near.is_some()).collect();
            let near = available.iter().filter(|id| device(id).is_near(mask)).count();
            if placed.iter().all(|device| device.is_near(mask)) && placed.len() + near >= required {
                found.push(mask);
            }
        }
        Some(hints::with_preference(found, least))
    }

    /// Takes in a plugin's list; gives whether anything changed.
    pub(super) fn update(&mut self, resource: &str, generation: u64, devices: Vec<Device>) -> bool {
        let Some(known) = self.resources.get_mut(resource).filter(|known| known.generation == generation) else {
            return false;
        };
        let offered = |device: &Device| {
            let node = |id: i64| usize::try_from(id).ok();
            let nodes =
                device.topology.as_ref().map(|place| place.nodes.iter().filter_map(|one| node(one.id)).collect());
            Offered { healthy: device.health == HEALTHY, near: nodes.filter(|near: &Mask| near.count() > 0) }
        };
        let devices: BTreeMap<String, Offered> =
            devices.into_iter().map(|device| (device.id.clone(), offered(&device))).collect();
        let changed = known.devices != devices;
        known.devices = devices;
        changed
    }

    /// A plugin went away: its devices cannot be had any more.
    pub(super) fn stopped(&mut self, resource: &str, generation: u64) -> bool {
        let Some(known) = self.resources.get_mut(resource).filter(|known| known.generation == generation) else {
            return false;
        };
        known.plugin = None;
        known.devices.values_mut().for_each(|device| device.healthy = false);
        true
    }

    /// All devices and the working ones, per resource.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        self.resources.iter().map(|(name, known)| {
            (name.as_str(), known.devices.len(), known.devices.values().filter(|device| device.healthy).count())
        })
    }
}

#[cfg(test)]
mod tests {
    use keelson_cri::device_plugin::{NumaNode, TopologyInfo};

    use super::*;

    fn state(devices: &[(&str, bool)]) -> State {
        let devices =
            devices.iter().map(|(id, healthy)| (id.to_string(), Offered { healthy: *healthy, near: None })).collect();
        let resource = Resource { devices, ..Resource::default() };
        State { resources: [("r".to_string(), resource)].into(), shares: BTreeMap::new() }
    }

    fn give(state: &mut State, pod: &str, container: &str, ids: &[&str]) {
        let devices = ids.iter().map(|id| id.to_string()).collect();
        let share = Share { devices, response: Some(ContainerAllocateResponse::default()) };
        state.shares.insert((pod.into(), container.into(), "r".into()), share);
    }

    #[test]
    fn choices() {
        let mut state = state(&[("a", true), ("b", true), ("c", false), ("d", true)]);
        let set = |ids: &[&str]| -> BTreeSet<String> { ids.iter().map(|id| id.to_string()).collect() };
        let choice = state.choice(("p", "x"), "r", 2, &[], None).unwrap().unwrap();
        assert_eq!(choice.available, set(&["a", "b", "d"]));
        assert_eq!(choice.take(&[]), set(&["a", "b"]));
        assert_eq!(choice.take(&["d".into(), "c".into(), "b".into()]), set(&["b", "d"]), "only what may be had");
        give(&mut state, "q", "x", &["a"]);
        assert_eq!(
            state.choice(("p", "x"), "r", 3, &[], None).unwrap_err(),
            "requested number of devices unavailable for r. Requested: 3, Available: 2"
        );
        give(&mut state, "p", "init", &["b"]);
        assert!(
            state.choice(("p", "x"), "r", 2, &[], None).is_err(),
            "an init container that runs on keeps its device"
        );
        let choice = state.choice(("p", "x"), "r", 2, &["init"], None).unwrap().unwrap();
        assert_eq!((choice.must.clone(), choice.take(&["d".into()])), (set(&["b"]), set(&["b", "d"])));
        give(&mut state, "p", "x", &["b", "d"]);
        assert_eq!(
            state.choice(("p", "x"), "r", 2, &["init"], None),
            Ok(None),
            "a restarted container keeps what it has"
        );
        assert!(state.choice(("p", "x"), "r", 1, &[], None).unwrap_err().contains("changed request"));
        assert!(state.knows("r") && !state.knows("s"));
    }

    #[test]
    fn plugins_come_and_go() {
        let mut state = state(&[("a", true)]);
        let device = |id: &str, health: &str| Device { id: id.into(), health: health.into(), topology: None };
        assert!(state.update("r", 0, vec![device("a", HEALTHY), device("b", "Unhealthy")]));
        assert!(!state.update("r", 0, vec![device("a", HEALTHY), device("b", "Unhealthy")]));
        assert_eq!(state.counts().collect::<Vec<_>>(), [("r", 2, 1)]);
        assert!(!state.stopped("r", 1), "an older registration's end says nothing");
        assert!(state.stopped("r", 0));
        assert_eq!(state.counts().collect::<Vec<_>>(), [("r", 2, 0)]);
        assert!(state.choice(("p", "x"), "r", 1, &[], None).unwrap_err().starts_with("no healthy devices present"));
    }

    #[test]
    fn near_ones_first() {
        let mut state = state(&[]);
        let device = |id: &str, nodes: &[i64]| Device {
            id: id.into(),
            health: HEALTHY.into(),
            topology: (!nodes.is_empty())
                .then(|| TopologyInfo { nodes: nodes.iter().map(|id| NumaNode { id: *id }).collect() }),
        };
        let all = vec![device("a", &[0]), device("b", &[1]), device("c", &[1]), device("d", &[]), device("e", &[0, 1])];
        state.update("r", 0, all);
        let take = |state: &State, count: usize, node: Option<usize>, preferred: &[&str]| {
            let affinity = node.map(|node| [node].into_iter().collect());
            let choice = state.choice(("p", "x"), "r", count, &[], affinity).unwrap().unwrap();
            let preferred: Vec<String> = preferred.iter().map(|id| id.to_string()).collect();
            choice.take(&preferred).into_iter().collect::<Vec<_>>().join("")
        };
        assert_eq!(take(&state, 2, None, &[]), "ab");
        assert_eq!(take(&state, 2, Some(1), &[]), "bc");
        assert_eq!(take(&state, 2, Some(1), &["a", "e", "c"]), "ce", "the plugin chooses among those that are near");
        assert_eq!(take(&state, 4, Some(1), &["d"]), "bcde", "and of the rest");
        assert_eq!(take(&state, 4, Some(1), &[]), "abce");
        let nodes = [0, 1].into();
        let shown = |hints: Hints| {
            let one =
                |hint: hints::Hint| format!("{}{}", hint.affinity.unwrap(), if hint.preferred { "!" } else { "" });
            hints.map(|hints| hints.into_iter().map(one).collect::<Vec<_>>().join(" "))
        };
        let hints = |state: &State, count| shown(state.hints("p", &["x"], "r", count, &[], &nodes));
        assert_eq!(hints(&state, 2).as_deref(), Some("1! 10! 11"));
        assert_eq!(hints(&state, 3).as_deref(), Some("10! 11"));
        assert_eq!(hints(&state, 4).as_deref(), Some("11!"));
        assert_eq!(hints(&state, 6).as_deref(), Some(""), "nothing will do");
        give(&mut state, "q", "x", &["b"]);
        assert_eq!(hints(&state, 3).as_deref(), Some("11"), "three would fit on one node but for who is there");
        give(&mut state, "p", "x", &["a", "e"]);
        assert_eq!(hints(&state, 2).as_deref(), Some("1! 11"), "who has them is told where");
        assert_eq!(hints(&state, 1).as_deref(), Some(""));
        assert_eq!(state.hints("p", &["x"], "s", 1, &[], &nodes), None, "no such resource");
    }
}
