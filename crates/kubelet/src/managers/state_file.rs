//! The managers' files (`cpu_manager_state`, `memory_manager_state`): upstream's JSON with upstream's checksum, so that either
//! kubelet can take up where the other ended. The checksum is taken of how Go prints the structure, which is written here.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Writes a file anew, whole or not at all, for its owner alone.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<(), Error> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("state");
    let new = path.with_file_name(format!(".{name}.new"));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut opened = options.open(&new).map_err(Error::file("create", &new))?;
    opened.write_all(content).and_then(|()| opened.sync_data()).map_err(Error::file("write", &new))?;
    fs::rename(&new, path).map_err(Error::file("rename", path))
}

/// A manager's file.
pub(crate) trait Checkpoint: Serialize + DeserializeOwned {
    /// Upstream's word for the manager in its errors.
    const MANAGER: &'static str;
    fn policy(&self) -> &str;
    fn checksum(&mut self) -> &mut u32;
    /// The structure as Go prints it with types, its checksum zero.
    fn as_go(&self) -> String;

    /// Writes it to `path`.
    fn write(mut self, path: &Path) -> Result<(), Error> {
        *self.checksum() = fnv1a(&self.as_go());
        let text = serde_json::to_vec(&self).map_err(|error| Error::message(error.to_string()))?;
        write_whole(path, &text)
    }

    /// What was written to `path` under `policy`; nothing when there is no file. What cannot be used is an error.
    fn read(path: &Path, policy: &str) -> Result<Option<Self>, Error> {
        let unusable = |why: String| {
            Error::message(format!(
                "could not restore state from checkpoint: {why}, please drain this node and delete the {} checkpoint file \
                 {path:?} before restarting Kubelet",
                Self::MANAGER
            ))
        };
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("read", path)(error)),
        };
        let mut found: Self = serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
        let expected = std::mem::take(found.checksum());
        // Upstream: files of old have none.
        if expected != 0 && expected != fnv1a(&found.as_go()) {
            return Err(unusable("checkpoint is corrupted".into()));
        }
        if found.policy() != policy {
            return Err(unusable(format!(
                "configured policy {policy:?} differs from state checkpoint policy {:?}",
                found.policy()
            )));
        }
        Ok(Some(found))
    }
}

/// FNV-1a, 32 bits.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// A map as Go prints it.
fn go_map<K: Display, V>(map: &BTreeMap<K, V>, value: impl Fn(&V) -> String) -> String {
    let entries: Vec<String> = map.iter().map(|(key, one)| format!("{key}:{}", value(one))).collect();
    format!("map[{}]", entries.join(" "))
}

fn go_list(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    format!("[{}]", items.join(" "))
}

/// By pod uid, then by container.
pub(crate) type PerContainer<T> = BTreeMap<String, BTreeMap<String, T>>;

/// `cpu_manager_state`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct CpuFile {
    pub policy_name: String,
    pub default_cpu_set: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub entries: PerContainer<String>,
    pub checksum: u32,
}

impl Checkpoint for CpuFile {
    const MANAGER: &'static str = "CPU manager";

    fn policy(&self) -> &str {
        &self.policy_name
    }

    fn checksum(&mut self) -> &mut u32 {
        &mut self.checksum
    }

    fn as_go(&self) -> String {
        let entries = go_map(&self.entries, |containers| go_map(containers, String::clone));
        format!(
            "(*state.CPUManagerCheckpoint){{PolicyName:(string){} DefaultCPUSet:(string){} \
             Entries:(map[string]map[string]string){entries} Checksum:(checksum.Checksum)0}}",
            self.policy_name, self.default_cpu_set
        )
    }
}

/// A NUMA node's memory of one kind, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Table {
    pub total: u64,
    pub system_reserved: u64,
    pub allocatable: u64,
    pub reserved: u64,
    pub free: u64,
}

/// A NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NodeState {
    /// How many blocks are here, wholly or in part.
    pub number_of_assignments: u64,
    /// By resource: `memory`, `hugepages-2Mi`.
    pub memory_map: BTreeMap<String, Table>,
    /// The nodes that this one gives memory together with.
    pub cells: Vec<usize>,
}

/// What a container has of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Block {
    pub numa_affinity: Vec<usize>,
    #[serde(rename = "type")]
    pub kind: String,
    pub size: u64,
}

/// `memory_manager_state`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct MemoryFile {
    pub policy_name: String,
    pub machine_state: BTreeMap<usize, NodeState>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub entries: PerContainer<Vec<Block>>,
    pub checksum: u32,
}

impl Checkpoint for MemoryFile {
    const MANAGER: &'static str = "memory manager";

    fn policy(&self) -> &str {
        &self.policy_name
    }

    fn checksum(&mut self) -> &mut u32 {
        &mut self.checksum
    }

    fn as_go(&self) -> String {
        let table = |table: &Table| {
            let mut text = "<*>{".to_string();
            for (name, value) in [
                ("TotalMemSize", table.total),
                (" SystemReserved", table.system_reserved),
                (" Allocatable", table.allocatable),
                (" Reserved", table.reserved),
                (" Free", table.free),
            ] {
                let _ = write!(text, "{name}:(uint64){value}");
            }
            text + "}"
        };
        let node = |node: &NodeState| {
            format!(
                "<*>{{NumberOfAssignments:(int){} MemoryMap:(map[v1.ResourceName]*state.MemoryTable){} Cells:([]int){}}}",
                node.number_of_assignments,
                go_map(&node.memory_map, table),
                go_list(&node.cells)
            )
        };
        let block = |block: &Block| {
            let Block { numa_affinity, kind, size } = block;
            format!(
                "{{NUMAAffinity:([]int){} Type:(v1.ResourceName){kind} Size:(uint64){size}}}",
                go_list(numa_affinity)
            )
        };
        let entries =
            go_map(&self.entries, |containers| go_map(containers, |blocks| go_list(blocks.iter().map(block))));
        format!(
            "(*state.MemoryManagerCheckpoint){{PolicyName:(string){} MachineState:(state.NUMANodeMap){} \
             Entries:(state.ContainerMemoryAssignments){entries} Checksum:(checksum.Checksum)0}}",
            self.policy_name,
            go_map(&self.machine_state, node)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Checkpoint>(text: &str, policy: &str) -> Result<Option<T>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::write(&path, text).unwrap();
        T::read(&path, policy).map_err(|error| error.to_string())
    }

    /// Files that upstream's kubelet wrote, checksums included.
    #[test]
    fn upstreams_files() {
        let cpu = r#"{"policyName":"none","defaultCpuSet":"","checksum":1353318690}"#;
        assert!(read::<CpuFile>(cpu, "none").unwrap().is_some());
        let memory = r#"{"policyName":"static","machineState":{"0":{"numberOfAssignments":0,"memoryMap":{"memory":
            {"total":2048,"systemReserved":512,"allocatable":1536,"reserved":512,"free":1024}},"cells":[]}},
            "entries":{"pod":{"container1":[{"numaAffinity":[0],"type":"memory","size":512}]}},"checksum":4215593881}"#;
        let file = read::<MemoryFile>(memory, "static").unwrap().unwrap();
        assert_eq!(file.entries["pod"]["container1"][0].size, 512);
        let damaged = memory.replace("\"size\":512", "\"size\":513");
        let refused = read::<MemoryFile>(&damaged, "static").unwrap_err();
        assert!(
            refused.contains("could not restore state from checkpoint: checkpoint is corrupted, please drain"),
            "{refused}"
        );
        let refused = read::<CpuFile>(cpu, "static").unwrap_err();
        assert!(
            refused.contains("configured policy \"static\" differs from state checkpoint policy \"none\""),
            "{refused}"
        );
        assert!(read::<CpuFile>("{", "none").is_err());
    }

    #[test]
    fn there_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert_eq!(CpuFile::read(&path, "static").unwrap(), None);
        let file = CpuFile {
            policy_name: "static".into(),
            default_cpu_set: "0,2-3".into(),
            entries: [("pod".into(), [("c".into(), "1".into())].into())].into(),
            checksum: 0,
        };
        file.clone().write(&path).unwrap();
        assert_eq!(CpuFile::read(&path, "static").unwrap(), Some(file));
    }
}
