//! Resources that containers get for themselves: CPUs ([`cpu`]), memory ([`memory`]) and devices, all from NUMA nodes that
//! suit all of them ([`hints`], the topology manager). A pod is given what it asks for before its volumes are set up, keeps
//! it until it is torn down, and a restarted kubelet takes it up from files.

pub(crate) mod cpu;
pub(crate) mod cpuset;
pub(crate) mod hints;
pub(crate) mod memory;
pub(crate) mod metrics;
mod reconcile;
pub(crate) mod state_file;
mod take;
pub(crate) mod topology;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::Config;
use crate::devices::Devices;
use crate::error::Error;
use crate::eviction::signal::Signal;
use crate::pod::status::Ended;
use crate::pod::view;
use crate::quantity::{self, ResourceList};
use cpu::Cpus;
use cpuset::CpuSet;
use hints::{Hint, Hints, Merger, Policy};
use memory::Memory;
use metrics::ManagerMetrics;
use state_file::{Block, Checkpoint, CpuFile, MemoryFile};
use topology::Topology;

pub(crate) use reconcile::run;

/// NUMA nodes that the topology manager works with unless it is told otherwise.
const MAX_NODES: usize = 8;
/// And at most: sets of nodes are looked at one by one.
const MOST_NODES: usize = 16;

/// All managers of one node.
pub(crate) struct Managers {
    topology: Topology,
    merger: Merger,
    whole_pods: bool,
    dir: PathBuf,
    devices: Arc<Devices>,
    state: Mutex<State>,
    /// One pod after the other chooses.
    turn: tokio::sync::Mutex<()>,
    metrics: ManagerMetrics,
    /// Told when the CPUs that everybody shares are others.
    pub changed: Notify,
}

/// What has been given away.
#[derive(Debug, Default)]
struct State {
    /// With `cpuManagerPolicy: static`.
    cpus: Option<Cpus>,
    /// With `memoryManagerPolicy: Static`.
    memory: Option<Memory>,
    /// Pods that have what they asked for.
    admitted: BTreeSet<String>,
}

/// A refusal without a name of its own.
fn unexpected(why: impl std::fmt::Display) -> Ended {
    Ended::rejection("UnexpectedAdmissionError", format!("Allocate failed due to {why}, which is unexpected"))
}

/// As Go reads it.
fn parse_bool(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("bad value for option {name:?}: parsing {value:?}: invalid syntax")),
    }
}

/// The most that the pod's containers have at one time: init containers run one after the other, beside sidecars.
pub(crate) fn most_at_once(pod: &Pod, of: impl Fn(&Container) -> u64) -> u64 {
    let (mut sidecars, mut peak) = (0u64, 0u64);
    for container in view::init_containers(pod) {
        match view::is_sidecar(container) {
            true => sidecars += of(container),
            false => peak = peak.max(sidecars + of(container)),
        }
    }
    peak.max(sidecars + view::containers(pod).iter().map(of).sum::<u64>())
}

/// `reservedSystemCPUs`, if they are CPUs of the machine.
pub(crate) fn reserved_cpus(text: &str, topology: &Topology) -> Result<CpuSet, Error> {
    let cpus = CpuSet::parse(text)
        .map_err(|why| Error::message(format!("reservedSystemCPUs: unable to parse reserved-cpus list: {why}")))?;
    let all = topology.all_cpus();
    if !cpus.is_subset(&all) {
        return Err(Error::message(format!(
            "reservedSystemCPUs: reserved-cpus: {text} is not a subset of online-cpus: {all}"
        )));
    }
    Ok(cpus)
}

fn merger(config: &Config, topology: &Topology) -> Result<Merger, String> {
    let policy = Policy::named(&config.topology_manager_policy);
    let policy =
        policy.ok_or_else(|| format!("topologyManagerPolicy: unknown policy: {:?}", config.topology_manager_policy))?;
    let (mut closest, mut most) = (false, MAX_NODES);
    for (name, value) in &config.topology_manager_policy_options {
        match name.as_str() {
            "prefer-closest-numa-nodes" => closest = parse_bool(name, value)?,
            "max-allowable-numa-nodes" => {
                most = value
                    .parse()
                    .map_err(|_| format!("unable to convert policy option to integer {name:?}: {value:?}"))?;
                if most < MAX_NODES {
                    return Err(format!("the minimum value of {name:?} should not be less than {MAX_NODES}"));
                }
            }
            _ => return Err(format!("unknown Topology Manager Policy option: {name:?}")),
        }
    }
    let most = most.min(MOST_NODES);
    if policy != Policy::None && topology.nodes.len() > most {
        return Err(format!("unsupported on machines with more than {most} NUMA Nodes"));
    }
    let nodes = topology.nodes.keys().copied().collect();
    Ok(Merger { policy, nodes, distances: closest.then(|| topology.clone()) })
}

/// What the node keeps for itself of `name`.
fn kept(config: &Config, name: &str) -> i64 {
    let of = |list: &ResourceList| quantity::milli_of(Some(list), name).unwrap_or(0);
    of(&config.kube_reserved).saturating_add(of(&config.system_reserved))
}

fn static_cpus(config: &Config, topology: &Topology, file: Option<&CpuFile>) -> Result<Cpus, String> {
    let options = cpu::Options::parse(&config.cpu_manager_policy_options, |gate| config.enabled(gate))
        .map_err(|why| format!("cpuManagerPolicyOptions: {why}"))?;
    if options.align_by_socket && config.topology_manager_policy == "single-numa-node" {
        return Err(
            "Topolgy manager single-numa-node policy is incompatible with CPUManager align-by-socket policy option"
                .into(),
        );
    }
    let milli = kept(config, "cpu");
    if milli <= 0 {
        return Err(
            "[cpumanager] the static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero"
                .into(),
        );
    }
    let count = usize::try_from(milli).unwrap_or(0).div_ceil(1000);
    let reserved = CpuSet::parse(&config.reserved_system_cpus)?;
    Cpus::new(topology, options, reserved, count, file).map_err(|why| format!("new static policy error: {why}"))
}

/// Memory and huge pages that no pod may have, those kept for eviction among them.
fn kept_memory(config: &Config, memory_bytes: u64) -> ResourceList {
    let lists = [&config.kube_reserved, &config.system_reserved];
    let names: BTreeSet<&String> =
        lists.into_iter().flat_map(BTreeMap::keys).filter(|name| memory::is_memory(name)).collect();
    let mut kept: ResourceList =
        names.into_iter().map(|name| (name.clone(), quantity::from_bytes(self::kept(config, name) / 1000))).collect();
    let hard = config.eviction_hard.get(&Signal::MemoryAvailable).map_or(0, |amount| amount.of(memory_bytes));
    let all =
        quantity::value_of(Some(&kept), "memory").unwrap_or(0).saturating_add(i64::try_from(hard).unwrap_or(i64::MAX));
    kept.insert("memory".into(), quantity::from_bytes(all));
    kept
}

impl Managers {
    /// The managers that `config` asks for on a machine of this topology, and what was given away before. What does not
    /// fit together is an error, which keeps the kubelet from starting.
    pub(crate) fn new(
        config: &Config,
        topology: Topology,
        memory_bytes: u64,
        devices: Arc<Devices>,
        metrics: ManagerMetrics,
    ) -> Result<Managers, Error> {
        let merger = merger(config, &topology).map_err(Error::Message)?;
        let (cpu_path, memory_path) =
            (config.root_dir.join("cpu_manager_state"), config.root_dir.join("memory_manager_state"));
        let failed =
            |manager: &'static str| move |why: String| Error::message(format!("start {manager} manager error: {why}"));
        let words = |error: Error| error.to_string();
        let cpu_file = CpuFile::read(&cpu_path, &config.cpu_manager_policy).map_err(words).map_err(failed("cpu"))?;
        let memory_file =
            MemoryFile::read(&memory_path, &config.memory_manager_policy).map_err(words).map_err(failed("memory"))?;
        let cpus = match config.cpu_manager_policy.as_str() {
            "static" => Some(static_cpus(config, &topology, cpu_file.as_ref()).map_err(failed("cpu"))?),
            _ if !config.cpu_manager_policy_options.is_empty() => {
                let names: Vec<&str> = config.cpu_manager_policy_options.keys().map(String::as_str).collect();
                return Err(Error::message(format!(
                    "cpuManagerPolicyOptions: none policy: received unsupported options {names:?}"
                )));
            }
            _ => None,
        };
        let memory = match config.memory_manager_policy.as_str() {
            "Static" => {
                let reserved =
                    memory::reservations(&topology, &config.reserved_memory, &kept_memory(config, memory_bytes))
                        .map_err(|why| failed("memory")(format!("reservedMemory: {why}")))?;
                Some(Memory::new(&topology, &reserved, memory_file.as_ref()).map_err(failed("memory"))?)
            }
            _ => None,
        };
        let managers = Managers {
            topology,
            merger,
            whole_pods: config.topology_manager_scope == "pod",
            dir: config.root_dir.clone(),
            devices,
            state: Mutex::new(State { cpus, memory, admitted: BTreeSet::new() }),
            turn: tokio::sync::Mutex::default(),
            metrics,
            changed: Notify::new(),
        };
        managers.files().write(&managers.dir)?;
        managers.count();
        Ok(managers)
    }

    /// Gives the pod's containers all that they ask for of CPUs, memory and devices of their own, unless they have it. The
    /// error is why the pod may not run here; nothing of what it got on the way is taken back yet.
    pub(crate) async fn admit(&self, pod: &Pod) -> Result<(), Ended> {
        if self.state.lock().admitted.contains(view::uid(pod)) {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        let started = tokio::time::Instant::now();
        self.metrics.admission_requests.inc();
        let shared = self.shared();
        let result = self.give(pod).await;
        match &result {
            Ok(()) => drop(self.state.lock().admitted.insert(view::uid(pod).to_string())),
            Err(_) => self.metrics.admission_errors.inc(),
        }
        self.metrics.admission_duration.observe(started.elapsed().as_secs_f64() * 1000.0);
        self.save().await;
        if shared != self.shared() {
            self.changed.notify_one();
        }
        result
    }

    async fn give(&self, pod: &Pod) -> Result<(), Ended> {
        let policy = self.merger.policy;
        let boundary = if policy == Policy::SingleNumaNode { Some("numa_node") } else { None };
        let whole = match policy != Policy::None && self.whole_pods {
            true => Some(self.best(self.pod_hints(pod), "pod", boundary)?),
            false => None,
        };
        let mut over = Vec::new();
        for (index, container) in view::all_containers(pod).enumerate() {
            let hint = match whole {
                Some(hint) => hint,
                None if policy == Policy::None => Hint::default(),
                None => self.best(self.container_hints(pod, container, &over), "container", boundary)?,
            };
            self.allocate(pod, container, hint, &over).await?;
            if index < view::init_containers(pod).len() && !view::is_sidecar(container) {
                over.push(container.name.as_str());
            }
        }
        Ok(())
    }

    /// The hint that is best for all; refused when the policy says so.
    fn best(&self, hints: Vec<Hints>, scope: &str, boundary: Option<&str>) -> Result<Hint, Ended> {
        let (hint, admitted) = self.merger.merge(&hints);
        match (admitted, boundary) {
            (true, Some(boundary)) => self.metrics.aligned(scope, boundary),
            (false, Some(boundary)) => self.metrics.not_aligned(scope, boundary),
            (_, None) => {}
        }
        admitted.then_some(hint).ok_or_else(|| {
            Ended::rejection("TopologyAffinityError", "Resources cannot be allocated with Topology locality")
        })
    }

    fn container_hints(&self, pod: &Pod, container: &Container, over: &[&str]) -> Vec<Hints> {
        let nodes: BTreeSet<usize> = self.topology.nodes.keys().copied().collect();
        let state = self.state.lock();
        let mut hints = self.devices.hints(pod, container, over, &nodes);
        hints.push(state.cpus.as_ref().and_then(|cpus| cpus.hints(pod, container)));
        hints.extend(state.memory.iter().flat_map(|memory| memory.hints(pod, container).into_values()));
        hints
    }

    fn pod_hints(&self, pod: &Pod) -> Vec<Hints> {
        let nodes: BTreeSet<usize> = self.topology.nodes.keys().copied().collect();
        let state = self.state.lock();
        let mut hints = self.devices.pod_hints(pod, &nodes);
        hints.push(state.cpus.as_ref().and_then(|cpus| cpus.pod_hints(pod)));
        hints.extend(state.memory.iter().flat_map(|memory| memory.pod_hints(pod).into_values()));
        hints
    }

    async fn allocate(&self, pod: &Pod, container: &Container, hint: Hint, over: &[&str]) -> Result<(), Ended> {
        self.devices.allocate(pod, container, over, hint.affinity).await.map_err(unexpected)?;
        let mut state = self.state.lock();
        if let Some(cpus) = &mut state.cpus {
            let given = cpus.allocate(pod, container, hint.affinity);
            self.metrics.pinned_cpus(given.as_ref().map_or(true, |given| *given), given.is_err());
            given?;
        }
        if let Some(memory) = &mut state.memory {
            let given = memory.allocate(pod, container, hint);
            self.metrics.pinned_memory(given.as_ref().map_or(true, |given| *given), given.is_err());
            given.map_err(unexpected)?;
        }
        Ok(())
    }

    /// A pod needs nothing any more.
    pub(crate) async fn release(&self, pod_uid: &str) {
        let _turn = self.turn.lock().await;
        let (cpus, memory) = {
            let mut state = self.state.lock();
            state.admitted.remove(pod_uid);
            let cpus = state.cpus.as_mut().is_some_and(|cpus| cpus.release(pod_uid));
            (cpus, state.memory.as_mut().is_some_and(|memory| memory.release(pod_uid)))
        };
        self.devices.release(pod_uid).await;
        if cpus || memory {
            self.save().await;
        }
        if cpus {
            self.changed.notify_one();
        }
    }

    /// Uids of pods that have something.
    pub(crate) fn pods(&self) -> BTreeSet<String> {
        let state = self.state.lock();
        let cpus = state.cpus.iter().flat_map(|cpus| cpus.given.keys());
        let memory = state.memory.iter().flat_map(|memory| memory.given.keys());
        cpus.chain(memory).cloned().chain(self.devices.pods()).collect()
    }

    /// The CPUs that everybody shares; `None` when CPUs are not managed.
    fn shared(&self) -> Option<CpuSet> {
        self.state.lock().cpus.as_ref().map(|cpus| cpus.shared.clone())
    }

    /// Where a container is to run; `None` when CPUs are not managed.
    pub(crate) fn cpus_of(&self, pod_uid: &str, container: &str) -> Option<CpuSet> {
        let state = self.state.lock();
        let cpus = state.cpus.as_ref()?;
        Some(cpus.exclusive(pod_uid, container).unwrap_or(&cpus.shared).clone())
    }

    /// Whether some of the pod's containers, or this one, have CPUs for themselves.
    pub(crate) fn has_exclusive_cpus(&self, pod_uid: &str, container: Option<&str>) -> bool {
        let state = self.state.lock();
        let given = state.cpus.as_ref().and_then(|cpus| cpus.given.get(pod_uid));
        given.is_some_and(|given| container.is_none_or(|name| given.contains_key(name)))
    }

    /// The CPUs that a container has for itself, and its memory.
    pub(crate) fn given_to(&self, pod_uid: &str, container: &str) -> (CpuSet, Vec<Block>) {
        let state = self.state.lock();
        let cpus = state.cpus.as_ref().and_then(|cpus| cpus.exclusive(pod_uid, container)).cloned();
        let memory = state.memory.as_ref().and_then(|memory| memory.blocks(pod_uid, container)).cloned();
        (cpus.unwrap_or_default(), memory.unwrap_or_default())
    }

    /// All CPUs and memory that could be given away if nobody had any.
    pub(crate) fn allocatable(&self) -> (CpuSet, Vec<Block>) {
        let state = self.state.lock();
        let cpus = state.cpus.as_ref().map(Cpus::allocatable).unwrap_or_default();
        (cpus, state.memory.as_ref().map(Memory::allocatable).unwrap_or_default())
    }

    /// NUMA nodes that give a container its memory, as `cpuset.mems` has them; empty for any.
    pub(crate) fn memory_nodes(&self, pod_uid: &str, container: &str) -> String {
        let (_, blocks) = self.given_to(pod_uid, container);
        let nodes: BTreeSet<usize> = blocks.into_iter().flat_map(|block| block.numa_affinity).collect();
        nodes.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
    }

    fn count(&self) {
        if let Some(cpus) = &self.state.lock().cpus {
            self.metrics.set_cpus(cpus.available_count(), &cpus.exclusive_by_node());
        }
    }

    fn files(&self) -> Files {
        let state = self.state.lock();
        let none = || CpuFile { policy_name: "none".into(), ..CpuFile::default() };
        let no_memory = || MemoryFile { policy_name: "None".into(), ..MemoryFile::default() };
        Files {
            cpu: state.cpus.as_ref().map_or_else(none, Cpus::file),
            memory: state.memory.as_ref().map_or_else(no_memory, Memory::file),
        }
    }

    async fn save(&self) {
        self.count();
        let managed = {
            let state = self.state.lock();
            state.cpus.is_some() || state.memory.is_some()
        };
        if !managed {
            return;
        }
        let (files, dir) = (self.files(), self.dir.clone());
        match tokio::task::spawn_blocking(move || files.write(&dir)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "who has which CPUs and memory is not written down"),
            Err(error) => tracing::error!(%error, "who has which CPUs and memory is not written down"),
        }
    }
}

/// What is written down.
struct Files {
    cpu: CpuFile,
    memory: MemoryFile,
}

impl Files {
    fn write(self, dir: &Path) -> Result<(), Error> {
        self.cpu.write(&dir.join("cpu_manager_state"))?;
        self.memory.write(&dir.join("memory_manager_state"))
    }
}

#[cfg(test)]
mod tests;
