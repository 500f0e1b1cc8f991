//! Memory of their own for Guaranteed pods' containers, by NUMA node (`memoryManagerPolicy: Static`): memory and huge pages
//! are counted against the nodes that give them. A node serves either containers that fit into it alone, or one group of
//! nodes together. Pure; results and errors are upstream's.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::cpu::may_have_its_own;
use super::hints::{self, Hint, Hints, Mask};
use super::state_file::{Block, MemoryFile, NodeState, PerContainer, Table};
use super::topology::Topology;
use crate::config::file::MemoryReservation;
use crate::pod::view;
use crate::quantity::{self, ResourceList};

/// Bytes by resource.
type Amounts = BTreeMap<String, u64>;

/// The static policy and what it has given away.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub nodes: BTreeMap<usize, NodeState>,
    pub given: PerContainer<Vec<Block>>,
    /// A pod's uid, and what its ended init containers leave to its other containers, by nodes and resource.
    reusable: (String, BTreeMap<(Mask, String), u64>),
}

/// `reservedMemory` by node, held against what is `reserved` of the machine as a whole.
pub(crate) fn reservations(
    topology: &Topology,
    given: &[MemoryReservation],
    reserved: &ResourceList,
) -> Result<BTreeMap<usize, Amounts>, String> {
    let mut by_node: BTreeMap<usize, Amounts> = BTreeMap::new();
    let mut totals = Amounts::new();
    for reservation in given {
        let node = usize::try_from(reservation.numa_node).ok().filter(|node| topology.nodes.contains_key(node));
        let Some(node) = node else {
            return Err(format!(
                "the reserved memory configuration references a NUMA node {} that does not exist on this machine",
                reservation.numa_node
            ));
        };
        for (name, amount) in &reservation.limits {
            let bytes = u64::try_from(quantity::value(amount)).unwrap_or(0);
            by_node.entry(node).or_default().insert(name.clone(), bytes);
            *totals.entry(name.clone()).or_default() += bytes;
        }
    }
    let known: BTreeSet<&String> = totals.keys().chain(reserved.keys().filter(|name| is_memory(name))).collect();
    for name in known {
        let total = totals.get(name).copied().unwrap_or(0);
        let expected = reserved.get(name).map_or(0, |amount| u64::try_from(quantity::value(amount)).unwrap_or(0));
        if total != expected {
            let shown = |bytes| quantity::from_bytes(i64::try_from(bytes).unwrap_or(i64::MAX)).0;
            return Err(format!(
                "the total amount {:?} of type {name:?} is not equal to the value {:?} determined by Node Allocatable feature",
                shown(total),
                shown(expected)
            ));
        }
    }
    Ok(by_node)
}

pub(crate) fn is_memory(resource: &str) -> bool {
    resource == "memory" || resource.starts_with("hugepages-")
}

/// `hugepages-2Mi` for pages of 2 MiB.
fn huge_page_name(page_bytes: u64) -> String {
    format!("hugepages-{}", quantity::from_bytes(i64::try_from(page_bytes).unwrap_or(i64::MAX)).0)
}

fn empty_nodes(topology: &Topology, reserved: &BTreeMap<usize, Amounts>) -> BTreeMap<usize, NodeState> {
    let node = |number: usize| {
        let Some(memory) = topology.nodes.get(&number) else { return NodeState::default() };
        let held = |name: &str| reserved.get(&number).and_then(|amounts| amounts.get(name)).copied().unwrap_or(0);
        let table = |name: &str, total: u64, elsewhere: u64| {
            let allocatable = total.saturating_sub(held(name)).saturating_sub(elsewhere);
            Table { total, system_reserved: held(name), allocatable, reserved: 0, free: allocatable }
        };
        let mut memory_map = BTreeMap::new();
        let mut in_huge_pages = 0;
        for (page, count) in &memory.huge_pages {
            let (name, total) = (huge_page_name(*page), page.saturating_mul(*count));
            in_huge_pages += total;
            memory_map.insert(name.clone(), table(&name, total, 0));
        }
        memory_map.insert("memory".into(), table("memory", memory.bytes, in_huge_pages));
        NodeState { number_of_assignments: 0, memory_map, cells: vec![number] }
    };
    topology.nodes.keys().map(|number| (*number, node(*number))).collect()
}

impl Memory {
    /// The policy on a machine of which each node keeps `reserved`. `file`: what was written down before.
    pub(crate) fn new(
        topology: &Topology,
        reserved: &BTreeMap<usize, Amounts>,
        file: Option<&MemoryFile>,
    ) -> Result<Memory, String> {
        if reserved.values().filter_map(|amounts| amounts.get("memory")).sum::<u64>() == 0 {
            return Err("[memorymanager] you should specify the system reserved memory".into());
        }
        let mut own = Memory { nodes: empty_nodes(topology, reserved), ..Memory::default() };
        let Some(file) = file else { return Ok(own) };
        if file.machine_state.is_empty() {
            return match file.entries.is_empty() {
                true => Ok(own),
                false => Err("[memorymanager] machine state can not be empty when it has memory assignments".into()),
            };
        }
        for (pod, containers) in &file.entries {
            for (container, block) in containers.iter().flat_map(|(name, blocks)| blocks.iter().map(move |b| (name, b)))
            {
                let about = format!("[memorymanager] (pod: {pod}, container: {container}) the memory assignment uses");
                for node in &block.numa_affinity {
                    let Some(state) = own.nodes.get(node) else {
                        return Err(format!("{about} the NUMA that does not exist"));
                    };
                    if !state.memory_map.contains_key(&block.kind) {
                        return Err(format!("{about} memory resource that does not exist"));
                    }
                }
                own.book(&block.numa_affinity, &block.kind, block.size);
            }
        }
        if !own.agrees_with(&file.machine_state) {
            return Err("[memorymanager] the expected machine state is different from the real one".into());
        }
        // Which of a group's nodes gave how much is as it was written.
        own.nodes = file.machine_state.clone();
        own.given = file.entries.clone();
        Ok(own)
    }

    /// Whether the other state has the same nodes, sizes and groups, and the groups have given the same.
    fn agrees_with(&self, other: &BTreeMap<usize, NodeState>) -> bool {
        let sum = |nodes: &BTreeMap<usize, NodeState>, cells: &[usize], kind: &str| {
            let tables = cells.iter().filter_map(|cell| nodes.get(cell)?.memory_map.get(kind));
            tables.fold((0u64, 0u64), |(free, reserved), table| (free + table.free, reserved + table.reserved))
        };
        let sorted = |cells: &[usize]| cells.iter().copied().collect::<BTreeSet<_>>();
        self.nodes.len() == other.len()
            && self.nodes.iter().all(|(number, own)| {
                other.get(number).is_some_and(|theirs| {
                    own.number_of_assignments == theirs.number_of_assignments
                        && sorted(&own.cells) == sorted(&theirs.cells)
                        && own.memory_map.len() == theirs.memory_map.len()
                        && own.memory_map.iter().all(|(kind, table)| {
                            theirs.memory_map.get(kind).is_some_and(|known| {
                                (table.total, table.system_reserved, table.allocatable)
                                    == (known.total, known.system_reserved, known.allocatable)
                                    && sum(&self.nodes, &own.cells, kind) == sum(other, &own.cells, kind)
                            })
                        })
                })
            })
    }

    /// What is written down.
    pub(crate) fn file(&self) -> MemoryFile {
        MemoryFile {
            policy_name: "Static".into(),
            machine_state: self.nodes.clone(),
            entries: self.given.clone(),
            checksum: 0,
        }
    }

    /// Takes `size` bytes from the nodes, the first as far as they have them.
    fn book(&mut self, nodes: &[usize], kind: &str, mut size: u64) {
        for number in nodes {
            let Some(node) = self.nodes.get_mut(number) else { continue };
            node.number_of_assignments += 1;
            node.cells = nodes.to_vec();
            if let Some(table) = node.memory_map.get_mut(kind) {
                let part = table.free.min(size);
                table.free -= part;
                table.reserved += part;
                size -= part;
            }
        }
    }

    fn reusable_on(&self, pod_uid: &str, mask: Mask, kind: &str) -> u64 {
        match self.reusable.0 == pod_uid {
            true => self.reusable.1.get(&(mask, kind.to_string())).copied().unwrap_or(0),
            false => 0,
        }
    }

    fn note_reusable(&mut self, pod: &Pod, container: &Container, blocks: &[Block]) {
        if self.reusable.0 != view::uid(pod) {
            self.reusable = (view::uid(pod).to_string(), BTreeMap::new());
        }
        let ends = view::init_containers(pod).iter().any(|init| init.name == container.name && !view::is_sidecar(init));
        for block in blocks {
            let key = (block.numa_affinity.iter().copied().collect(), block.kind.clone());
            match ends {
                true => {
                    let left = self.reusable.1.entry(key).or_default();
                    *left = (*left).max(block.size);
                }
                false => {
                    if let Some(left) = self.reusable.1.get_mut(&key) {
                        *left = left.saturating_sub(block.size);
                    }
                }
            }
        }
    }

    /// What the container has, if anything.
    pub(crate) fn blocks(&self, pod_uid: &str, container: &str) -> Option<&Vec<Block>> {
        self.given.get(pod_uid)?.get(container)
    }

    /// What NUMA nodes would suit the container, by resource.
    pub(crate) fn hints(&self, pod: &Pod, container: &Container) -> BTreeMap<String, Hints> {
        let wanted = wanted(pod, container);
        match self.blocks(view::uid(pod), &container.name) {
            Some(blocks) => given_already(blocks, &wanted),
            None => self.hints_by_resource(view::uid(pod), &wanted),
        }
    }

    /// What NUMA nodes would suit all containers of the pod, by resource.
    pub(crate) fn pod_hints(&self, pod: &Pod) -> BTreeMap<String, Hints> {
        let names: BTreeSet<String> =
            view::all_containers(pod).flat_map(|container| wanted(pod, container).into_keys()).collect();
        let all: Amounts = names
            .into_iter()
            .map(|name| {
                let one = |container: &Container| wanted(pod, container).get(&name).copied().unwrap_or(0);
                let most = super::most_at_once(pod, one);
                (name, most)
            })
            .collect();
        let given = view::all_containers(pod).find_map(|container| self.blocks(view::uid(pod), &container.name));
        match given {
            Some(blocks) => given_already(blocks, &all),
            None => self.hints_by_resource(view::uid(pod), &all),
        }
    }

    fn hints_by_resource(&self, pod_uid: &str, wanted: &Amounts) -> BTreeMap<String, Hints> {
        if wanted.is_empty() {
            return BTreeMap::new();
        }
        let hints = self.hints_for(pod_uid, wanted);
        wanted.keys().map(|name| (name.clone(), Some(hints.clone()))).collect()
    }

    fn hints_for(&self, pod_uid: &str, wanted: &Amounts) -> Vec<Hint> {
        let numbers: BTreeSet<usize> = self.nodes.keys().copied().collect();
        let mut least = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        let mut found = Vec::new();
        for mask in hints::masks(&numbers) {
            let sum = |kind: &str, of: fn(&Table) -> u64| -> u64 {
                mask.nodes().filter_map(|node| self.nodes.get(&node)?.memory_map.get(kind)).map(of).sum()
            };
            if wanted.iter().any(|(kind, size)| sum(kind, |table| table.allocatable) < *size) {
                continue;
            }
            least = least.min(mask.count());
            let alone = mask.count() == 1;
            let grouped = || mask.nodes().filter_map(|node| self.nodes.get(&node)).any(|node| node.cells.len() > 1);
            if alone && grouped() || self.clashes(mask) {
                continue;
            }
            let free = |kind: &str| sum(kind, |table| table.free) + self.reusable_on(pod_uid, mask, kind);
            if wanted.iter().all(|(kind, size)| free(kind) >= *size) {
                found.push(mask);
            }
        }
        hints::with_preference(found, least)
    }

    /// Whether some of several nodes serve containers alone, or in another group.
    fn clashes(&self, mask: Mask) -> bool {
        let wanted: BTreeSet<usize> = mask.nodes().collect();
        wanted.len() > 1
            && mask.nodes().filter_map(|node| self.nodes.get(&node)).any(|node| {
                node.number_of_assignments > 0 && node.cells.iter().copied().collect::<BTreeSet<_>>() != wanted
            })
    }

    fn satisfies(&self, mask: Mask, wanted: &Amounts) -> bool {
        let free = |kind: &str| -> u64 {
            mask.nodes().filter_map(|node| self.nodes.get(&node)?.memory_map.get(kind)).map(|table| table.free).sum()
        };
        wanted.iter().all(|(kind, size)| free(kind) >= *size)
    }

    /// Gives the container its memory, from the nodes of `hint` or more of them. `Ok(false)`: it has none of its own.
    pub(crate) fn allocate(&mut self, pod: &Pod, container: &Container, hint: Hint) -> Result<bool, String> {
        if !may_have_its_own(pod) {
            return Ok(false);
        }
        let uid = view::uid(pod).to_string();
        if let Some(blocks) = self.blocks(&uid, &container.name).cloned() {
            self.note_reusable(pod, container, &blocks);
            return Ok(true);
        }
        let wanted = wanted(pod, container);
        let best = |hints: Vec<Hint>| {
            let rank = |hint: &Hint| {
                let mask = hint.affinity.unwrap_or_default();
                (!hint.preferred, mask.count(), mask)
            };
            hints.into_iter().min_by_key(rank)
        };
        let (mut chosen, must_be_preferred) = (hint, hint.preferred);
        if chosen.affinity.is_none() {
            chosen = best(self.hints_for(&uid, &wanted)).ok_or(
                "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available",
            )?;
            if must_be_preferred && !chosen.preferred {
                return Err("[memorymanager] failed to find the default preferred hint".into());
            }
        }
        let mut mask = chosen.affinity.unwrap_or_default();
        if !self.satisfies(mask, &wanted) {
            let wider = |hint: &Hint| hint.affinity.is_some_and(|wider| wider.contains(mask));
            let hints = self.hints_for(&uid, &wanted).into_iter().filter(wider).collect();
            let extended =
                best(hints).ok_or("[memorymanager] failed to find NUMA nodes to extend the current topology hint")?;
            if chosen.preferred && !extended.preferred {
                return Err("[memorymanager] failed to find the extended preferred hint".into());
            }
            mask = extended.affinity.unwrap_or_default();
        }
        if self.clashes(mask) {
            return Err("[memorymanager] preferred hint violates NUMA node allocation".into());
        }
        let nodes: Vec<usize> = mask.nodes().collect();
        let mut blocks = Vec::new();
        for (kind, size) in wanted {
            self.book(&nodes, &kind, size.saturating_sub(self.reusable_on(&uid, mask, &kind)));
            blocks.push(Block { numa_affinity: nodes.clone(), kind, size });
        }
        self.note_reusable(pod, container, &blocks);
        self.given.entry(uid.clone()).or_default().insert(container.name.clone(), blocks.clone());
        self.shrink_init_containers(pod, container, &blocks);
        Ok(true)
    }

    /// Of what a container took over from ended init containers, those have less from now on: so that the sum of all is
    /// what the pod has.
    fn shrink_init_containers(&mut self, pod: &Pod, container: &Container, blocks: &[Block]) {
        let Some(given) = self.given.get_mut(view::uid(pod)) else { return };
        for block in blocks {
            let mut left = block.size;
            let before = view::init_containers(pod).iter().take_while(|init| init.name != container.name);
            for init in before.filter(|init| !view::is_sidecar(init)) {
                for theirs in given.get_mut(&init.name).into_iter().flatten() {
                    if theirs.kind == block.kind && theirs.numa_affinity == block.numa_affinity {
                        let part = theirs.size.min(left);
                        theirs.size -= part;
                        left -= part;
                    }
                }
            }
        }
    }

    /// Takes the pod's memory back. Whether it had any.
    pub(crate) fn release(&mut self, pod_uid: &str) -> bool {
        let Some(own) = self.given.remove(pod_uid) else { return false };
        for block in own.into_values().flatten() {
            let mut size = block.size;
            for number in &block.numa_affinity {
                let Some(node) = self.nodes.get_mut(number) else { continue };
                node.number_of_assignments = node.number_of_assignments.saturating_sub(1);
                if node.number_of_assignments == 0 {
                    node.cells = vec![*number];
                }
                if let Some(table) = node.memory_map.get_mut(&block.kind) {
                    let part = table.reserved.min(size);
                    table.reserved -= part;
                    table.free += part;
                    size -= part;
                }
            }
        }
        true
    }

    /// All that could be given away if nobody had any: one block per node and resource.
    pub(crate) fn allocatable(&self) -> Vec<Block> {
        let of = |(number, node): (&usize, &NodeState)| {
            let block = |kind: &String, table: &Table| Block {
                numa_affinity: vec![*number],
                kind: kind.clone(),
                size: table.allocatable,
            };
            let some = node.memory_map.iter().filter(|(_, table)| table.allocatable > 0);
            some.map(|(kind, table)| block(kind, table)).collect::<Vec<_>>()
        };
        self.nodes.iter().flat_map(of).collect()
    }
}

/// Where what was given is; nothing will do when something else is wanted now.
fn given_already(blocks: &[Block], wanted: &Amounts) -> BTreeMap<String, Hints> {
    let same = blocks.len() == wanted.len() && blocks.iter().all(|block| wanted.get(&block.kind) == Some(&block.size));
    if !same {
        // Upstream says nothing here, and so lets them be.
        return BTreeMap::new();
    }
    let hint = |block: &Block| {
        let affinity = Some(block.numa_affinity.iter().copied().collect());
        (block.kind.clone(), Some(vec![Hint { affinity, preferred: true }]))
    };
    blocks.iter().map(hint).collect()
}

/// Memory and huge pages that the container asks for, if they are to be its own.
fn wanted(pod: &Pod, container: &Container) -> Amounts {
    let Some(resources) = container.resources.as_ref().filter(|_| may_have_its_own(pod)) else { return Amounts::new() };
    let (limits, requests) = (resources.limits.iter().flatten(), resources.requests.iter().flatten());
    let memory = limits.chain(requests).filter(|(name, _)| is_memory(name));
    memory.map(|(name, amount)| (name.clone(), u64::try_from(quantity::value(amount)).unwrap_or(0))).collect()
}

#[cfg(test)]
mod tests;
