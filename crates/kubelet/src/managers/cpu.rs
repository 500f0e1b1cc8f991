//! CPUs of their own for containers (`cpuManagerPolicy: static`): containers of Guaranteed pods that ask for whole CPUs get
//! them exclusively; everything else shares the rest. Which CPUs, is decided here; who writes them into cgroups, is not.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::cpuset::CpuSet;
use super::hints::{self, Hint, Hints, Mask};
use super::state_file::{CpuFile, PerContainer};
use super::take;
use super::topology::Topology;
use crate::pod::status::Ended;
use crate::pod::view;
use crate::quantity;
use crate::resources::{self, QosClass};

/// `cpuManagerPolicyOptions`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub full_cores_only: bool,
    pub distribute_across_nodes: bool,
    pub align_by_socket: bool,
    pub strict_reservation: bool,
    pub by_cache: bool,
}

impl Options {
    /// Reads the options; `enabled` tells which feature gates are on. The error is upstream's.
    pub(crate) fn parse(given: &BTreeMap<String, String>, enabled: impl Fn(&str) -> bool) -> Result<Options, String> {
        let mut options = Options::default();
        for (name, value) in given {
            let (place, gate) = match name.as_str() {
                "full-pcpus-only" => (&mut options.full_cores_only, None),
                "strict-cpu-reservation" => (&mut options.strict_reservation, None),
                "distribute-cpus-across-numa" => (&mut options.distribute_across_nodes, Some("Beta")),
                "align-by-socket" => (&mut options.align_by_socket, Some("Alpha")),
                "prefer-align-cpus-by-uncorecache" => (&mut options.by_cache, None),
                "distribute-cpus-across-cores" => {
                    return Err(format!("this kubelet does not support the CPU Manager Policy option {name:?}"));
                }
                _ => return Err(format!("unknown CPU Manager Policy option: {name:?}")),
            };
            if let Some(level) = gate.filter(|level| !enabled(&format!("CPUManagerPolicy{level}Options"))) {
                return Err(format!(
                    "CPU Manager Policy {level}-level Options not enabled, but option {name:?} provided"
                ));
            }
            *place = super::parse_bool(name, value)?;
        }
        if options.by_cache && options.distribute_across_nodes {
            return Err(
                "static policy options prefer-align-cpus-by-uncorecache and distribute-cpus-across-numa can not be used \
                 at the same time"
                    .into(),
            );
        }
        Ok(options)
    }
}

/// The static policy and what it has given away.
#[derive(Clone, Debug)]
pub(crate) struct Cpus {
    topology: Topology,
    options: Options,
    reserved: CpuSet,
    /// With the other threads of their cores.
    reserved_cores: CpuSet,
    /// What everybody shares.
    pub shared: CpuSet,
    pub given: PerContainer<CpuSet>,
    /// A pod's uid, and what its ended init containers leave to its other containers.
    reusable: (String, CpuSet),
}

impl Cpus {
    /// The policy on a machine of which `reserved` CPUs, or as many as `count`, are never given away. `file`: what was
    /// written down before.
    pub(crate) fn new(
        topology: &Topology,
        options: Options,
        reserved: CpuSet,
        count: usize,
        file: Option<&CpuFile>,
    ) -> Result<Cpus, String> {
        if options.align_by_socket && topology.sockets().len() > topology.cpu_nodes().len() {
            return Err(
                "Align by socket is not compatible with hardware where number of sockets are more than number of NUMA"
                    .into(),
            );
        }
        let mut own = Cpus {
            topology: topology.clone(),
            options,
            reserved,
            reserved_cores: CpuSet::default(),
            shared: CpuSet::default(),
            given: PerContainer::new(),
            reusable: Default::default(),
        };
        if own.reserved.is_empty() {
            own.reserved = own.take(&topology.all_cpus(), count).unwrap_or_default();
        }
        if own.reserved.len() != count {
            return Err(format!(
                "[cpumanager] unable to reserve the required amount of CPUs (size of {} did not equal {count})",
                own.reserved
            ));
        }
        let cores: Vec<usize> =
            own.reserved.iter().filter_map(|cpu| topology.cpus.get(&cpu)).map(|place| place.core).collect();
        own.reserved_cores = topology.cpus_where(|place| cores.contains(&place.core));
        own.restore(file)?;
        Ok(own)
    }

    /// Takes up what the file says, if that can be on this machine.
    fn restore(&mut self, file: Option<&CpuFile>) -> Result<(), String> {
        let all = match self.options.strict_reservation {
            true => self.topology.all_cpus().difference(&self.reserved),
            false => self.topology.all_cpus(),
        };
        let parse = |text: &str| CpuSet::parse(text).map_err(|why| format!("could not parse cpu set {text:?}: {why}"));
        for (pod, containers) in file.into_iter().flat_map(|file| &file.entries) {
            for (container, cpus) in containers {
                self.given.entry(pod.clone()).or_default().insert(container.clone(), parse(cpus)?);
            }
        }
        self.shared = parse(file.map_or("", |file| &file.default_cpu_set))?;
        if self.shared.is_empty() {
            if !self.given.is_empty() {
                return Err("default cpuset cannot be empty".into());
            }
            self.shared = all;
            return Ok(());
        }
        let held = self.reserved.intersection(&self.shared);
        if self.options.strict_reservation && !held.is_empty() {
            return Err(format!(
                "some of strictly reserved cpus: \"{held}\" are present in defaultCpuSet: \"{}\"",
                self.shared
            ));
        }
        if !self.options.strict_reservation && held != self.reserved {
            return Err(format!(
                "not all reserved cpus: \"{}\" are present in defaultCpuSet: \"{}\"",
                self.reserved, self.shared
            ));
        }
        let mut known = self.shared.clone();
        for (pod, containers) in &self.given {
            for (container, cpus) in containers {
                if !self.shared.intersection(cpus).is_empty() {
                    return Err(format!(
                        "pod: {pod}, container: {container} cpuset: \"{cpus}\" overlaps with default cpuset \"{}\"",
                        self.shared
                    ));
                }
                known = known.union(cpus);
            }
        }
        if known != all {
            return Err(format!(
                "current set of available CPUs \"{all}\" doesn't match with CPUs in state \"{known}\""
            ));
        }
        Ok(())
    }

    /// What is written down.
    pub(crate) fn file(&self) -> CpuFile {
        let texts = |containers: &BTreeMap<String, CpuSet>| {
            containers.iter().map(|(name, cpus)| (name.clone(), cpus.to_string())).collect()
        };
        CpuFile {
            policy_name: "static".into(),
            default_cpu_set: self.shared.to_string(),
            entries: self.given.iter().map(|(pod, containers)| (pod.clone(), texts(containers))).collect(),
            checksum: 0,
        }
    }

    fn take(&self, available: &CpuSet, count: usize) -> Result<CpuSet, String> {
        if self.options.distribute_across_nodes {
            let group = if self.options.full_cores_only { self.topology.cpus_per_core() } else { 1 };
            return take::distributed(&self.topology, available, count, group);
        }
        take::packed(&self.topology, available, count, self.options.by_cache)
    }

    /// CPUs that could be given away if nobody had any.
    pub(crate) fn allocatable(&self) -> CpuSet {
        self.topology.all_cpus().difference(&self.reserved)
    }

    fn available(&self) -> CpuSet {
        self.shared.difference(&self.reserved)
    }

    /// How many CPUs could be given away now.
    pub(crate) fn available_count(&self) -> usize {
        self.available().len()
    }

    /// How many CPUs are given away, by NUMA node.
    pub(crate) fn exclusive_by_node(&self) -> BTreeMap<usize, usize> {
        let mut counts: BTreeMap<usize, usize> = self.topology.cpu_nodes().into_iter().map(|node| (node, 0)).collect();
        let given = self.given.values().flat_map(BTreeMap::values).fold(CpuSet::default(), |all, cpus| all.union(cpus));
        for place in given.iter().filter_map(|cpu| self.topology.cpus.get(&cpu)) {
            *counts.entry(place.node).or_default() += 1;
        }
        counts
    }

    /// What the container has for itself.
    pub(crate) fn exclusive(&self, pod_uid: &str, container: &str) -> Option<&CpuSet> {
        self.given.get(pod_uid)?.get(container)
    }

    fn reusable_by(&self, pod_uid: &str) -> CpuSet {
        if self.reusable.0 == pod_uid { self.reusable.1.clone() } else { CpuSet::default() }
    }

    fn note_reusable(&mut self, pod: &Pod, container: &Container, cpus: &CpuSet) {
        let before = self.reusable_by(view::uid(pod));
        let ends = view::init_containers(pod).iter().any(|init| init.name == container.name && !view::is_sidecar(init));
        let now = if ends { before.union(cpus) } else { before.difference(cpus) };
        self.reusable = (view::uid(pod).to_string(), now);
    }

    /// What NUMA nodes would suit the container.
    pub(crate) fn hints(&self, pod: &Pod, container: &Container) -> Hints {
        let wanted = wanted(pod, container);
        if wanted == 0 {
            return None;
        }
        Some(match self.exclusive(view::uid(pod), &container.name) {
            Some(own) if own.len() != wanted => Vec::new(),
            Some(own) => self.hints_for(own, &CpuSet::default(), wanted),
            None => self.hints_for(&self.available(), &self.reusable_by(view::uid(pod)), wanted),
        })
    }

    /// What NUMA nodes would suit all containers of the pod.
    pub(crate) fn pod_hints(&self, pod: &Pod) -> Hints {
        let all = wanted_by_pod(pod);
        if all == 0 {
            return None;
        }
        let mut own = CpuSet::default();
        for container in view::all_containers(pod) {
            if let Some(cpus) = self.exclusive(view::uid(pod), &container.name) {
                if cpus.len() != wanted(pod, container) {
                    return Some(Vec::new());
                }
                own = own.union(cpus);
            }
        }
        Some(match own.len() == all {
            true => self.hints_for(&own, &CpuSet::default(), all),
            false => self.hints_for(&self.available(), &self.reusable_by(view::uid(pod)).union(&own), all),
        })
    }

    fn hints_for(&self, available: &CpuSet, reusable: &CpuSet, wanted: usize) -> Vec<Hint> {
        let nodes = self.topology.cpu_nodes();
        let node_of = |cpu: usize| self.topology.cpus.get(&cpu).map_or(0, |place| place.node);
        let mut least = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        let mut found = Vec::new();
        for mask in hints::masks(&nodes) {
            if self.topology.cpus_where(|place| mask.has(place.node)).len() >= wanted {
                least = least.min(mask.count());
            }
            let within = |cpus: &CpuSet| cpus.iter().filter(|cpu| mask.has(node_of(*cpu))).count();
            if within(reusable) == reusable.len() && reusable.len() + within(&available.difference(reusable)) >= wanted
            {
                found.push(mask);
            }
        }
        let mut hints = hints::with_preference(found, least);
        if self.options.align_by_socket {
            for hint in &mut hints {
                hint.preferred |= hint.affinity.is_some_and(|mask| self.is_socket_aligned(mask, least));
            }
        }
        hints
    }

    fn sockets_of(&self, mask: Mask) -> std::collections::BTreeSet<usize> {
        self.topology.cpus.values().filter(|place| mask.has(place.node)).map(|place| place.socket).collect()
    }

    /// Whether the nodes span no more sockets than `least` nodes must.
    fn is_socket_aligned(&self, mask: Mask, least: u32) -> bool {
        let per_socket = self.topology.cpu_nodes().len() / self.topology.sockets().len().max(1);
        per_socket > 0 && self.sockets_of(mask).len() == (least as usize).div_ceil(per_socket)
    }

    /// Gives the container its CPUs, from the nodes of `affinity` as far as they have them. `Ok(false)`: it shares.
    pub(crate) fn allocate(&mut self, pod: &Pod, container: &Container, affinity: Option<Mask>) -> Result<bool, Ended> {
        let wanted = wanted(pod, container);
        if wanted == 0 {
            return Ok(false);
        }
        let uid = view::uid(pod).to_string();
        if let Some(own) = self.exclusive(&uid, &container.name).cloned() {
            self.note_reusable(pod, container, &own);
            return Ok(true);
        }
        let per_core = self.topology.cpus_per_core();
        if self.options.full_cores_only {
            let refuse =
                |why: String| Err(Ended::rejection("SMTAlignmentError", format!("SMT Alignment Error: {why}")));
            if !wanted.is_multiple_of(per_core) {
                return refuse(format!("requested {wanted} cpus not multiple cpus per core = {per_core}"));
            }
            let free = self.shared.difference(&self.reserved_cores).union(&self.reusable_by(&uid)).len();
            if wanted > free {
                return refuse(format!(
                    "not enough free physical CPUs: available physical CPUs = {free}, requested CPUs = {wanted}, CPUs per \
                     core = {per_core}"
                ));
            }
        }
        let available = self.available().union(&self.reusable_by(&uid));
        let mut taken = CpuSet::default();
        let result: Result<CpuSet, String> = (|| {
            if let Some(mask) = affinity {
                let sockets = self.sockets_of(mask);
                let near = self.topology.cpus_where(|place| match self.options.align_by_socket {
                    true => sockets.contains(&place.socket),
                    false => mask.has(place.node),
                });
                let near = near.intersection(&available);
                taken = self.take(&near, wanted.min(near.len()))?;
            }
            Ok(taken.union(&self.take(&available.difference(&taken), wanted - taken.len())?))
        })();
        let cpus = result.map_err(super::unexpected)?;
        self.shared = self.shared.difference(&cpus);
        self.given.entry(uid).or_default().insert(container.name.clone(), cpus.clone());
        self.note_reusable(pod, container, &cpus);
        Ok(true)
    }

    /// Takes the pod's CPUs back. Whether it had any.
    pub(crate) fn release(&mut self, pod_uid: &str) -> bool {
        let Some(own) = self.given.remove(pod_uid) else { return false };
        self.shared = own.values().fold(self.shared.clone(), |shared, cpus| shared.union(cpus));
        true
    }
}

/// How many CPUs of its own the container is to have.
pub(crate) fn wanted(pod: &Pod, container: &Container) -> usize {
    if !may_have_its_own(pod) {
        return 0;
    }
    let resources = container.resources.as_ref();
    let list = |name| {
        resources.and_then(|found| {
            quantity::milli_of(found.requests.as_ref(), name).or(quantity::milli_of(found.limits.as_ref(), name))
        })
    };
    let milli = list("cpu").filter(|milli| milli % 1000 == 0).unwrap_or(0);
    usize::try_from(milli / 1000).unwrap_or(0)
}

/// Whether the managers care for the pod's containers: it is Guaranteed, and not by resources of the pod as a whole.
pub(super) fn may_have_its_own(pod: &Pod) -> bool {
    let whole = view::spec(pod).and_then(|spec| spec.resources.as_ref());
    let whole = whole.is_some_and(|found| {
        let any = |list: &Option<crate::quantity::ResourceList>| list.as_ref().is_some_and(|list| !list.is_empty());
        any(&found.requests) || any(&found.limits)
    });
    !whole && resources::qos_class(pod) == QosClass::Guaranteed
}

fn wanted_by_pod(pod: &Pod) -> usize {
    super::most_at_once(pod, |container| wanted(pod, container) as u64) as usize
}

#[cfg(test)]
mod tests;
