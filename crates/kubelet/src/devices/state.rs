//! Which devices there are, which of them work, and who has which. Pure.

use std::collections::{BTreeMap, BTreeSet};

use keelson_cri::device_plugin::{ContainerAllocateResponse, Device, HEALTHY, Options, PluginClient};

/// A resource that a plugin offers, or offered.
#[derive(Clone, Debug, Default)]
pub(super) struct Resource {
    /// `None` when its plugin is away.
    pub plugin: Option<Plugin>,
    /// By id: whether it works.
    pub devices: BTreeMap<String, bool>,
    /// Distinguishes the plugin's registrations, the last of which counts.
    pub generation: u64,
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
}

impl Choice {
    /// The devices to take: what the plugin `preferred` as far as it may be had, then those that must be, then any.
    pub(super) fn take(&self, preferred: &[String]) -> BTreeSet<String> {
        let mut taken = self.must.clone();
        let preferred = preferred.iter().filter(|id| self.available.contains(*id));
        for id in preferred.chain(&self.available) {
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
    /// may take over. The error is upstream's.
    pub(super) fn choice(
        &self,
        pod: &str,
        container: &str,
        resource: &str,
        required: usize,
        reusable: &[&str],
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
        let free = known.devices.iter().filter(|(id, healthy)| **healthy && !others.contains(id));
        let free: BTreeSet<String> = free.map(|(id, _)| id.clone()).collect();
        if free.is_empty() && must.is_empty() && known.devices.values().all(|healthy| !healthy) {
            return Err(format!("no healthy devices present; cannot allocate unhealthy devices {resource}"));
        }
        let new = free.difference(&must).count();
        let needed = required - must.len();
        if new < needed {
            return Err(format!(
                "requested number of devices unavailable for {resource}. Requested: {needed}, Available: {new}"
            ));
        }
        Ok(Some(Choice { available: free.union(&must).cloned().collect(), must, size: required }))
    }

    /// Takes in a plugin's list; gives whether anything changed.
    pub(super) fn update(&mut self, resource: &str, generation: u64, devices: Vec<Device>) -> bool {
        let Some(known) = self.resources.get_mut(resource).filter(|known| known.generation == generation) else {
            return false;
        };
        let devices: BTreeMap<String, bool> =
            devices.into_iter().map(|device| (device.id, device.health == HEALTHY)).collect();
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
        known.devices.values_mut().for_each(|healthy| *healthy = false);
        true
    }

    /// All devices and the working ones, per resource.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        self.resources.iter().map(|(name, known)| {
            (name.as_str(), known.devices.len(), known.devices.values().filter(|healthy| **healthy).count())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(devices: &[(&str, bool)]) -> State {
        let devices = devices.iter().map(|(id, healthy)| (id.to_string(), *healthy)).collect();
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
        let choice = state.choice("p", "x", "r", 2, &[]).unwrap().unwrap();
        assert_eq!(choice.available, set(&["a", "b", "d"]));
        assert_eq!(choice.take(&[]), set(&["a", "b"]));
        assert_eq!(choice.take(&["d".into(), "c".into(), "b".into()]), set(&["b", "d"]), "only what may be had");
        give(&mut state, "q", "x", &["a"]);
        assert_eq!(
            state.choice("p", "x", "r", 3, &[]).unwrap_err(),
            "requested number of devices unavailable for r. Requested: 3, Available: 2"
        );
        give(&mut state, "p", "init", &["b"]);
        assert!(state.choice("p", "x", "r", 2, &[]).is_err(), "an init container that runs on keeps its device");
        let choice = state.choice("p", "x", "r", 2, &["init"]).unwrap().unwrap();
        assert_eq!((choice.must.clone(), choice.take(&["d".into()])), (set(&["b"]), set(&["b", "d"])));
        give(&mut state, "p", "x", &["b", "d"]);
        assert_eq!(state.choice("p", "x", "r", 2, &["init"]), Ok(None), "a restarted container keeps what it has");
        assert!(state.choice("p", "x", "r", 1, &[]).unwrap_err().contains("changed request"));
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
        assert!(state.choice("p", "x", "r", 1, &[]).unwrap_err().starts_with("no healthy devices present"));
    }
}
