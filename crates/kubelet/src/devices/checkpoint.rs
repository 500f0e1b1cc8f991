//! What must outlive the kubelet: who has which devices, and what there were. One JSON file in upstream's shape, but for
//! the checksum, which upstream takes from Go's memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keelson_cri::device_plugin::ContainerAllocateResponse;
use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::state::{Key, Share, State};
use crate::error::Error;
use crate::managers::state_file::write_whole;

/// The file's name in the directory of plugins.
pub(super) const NAME: &str = "kubelet_internal_checkpoint";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    data: Data,
    checksum: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    pod_device_entries: Vec<Entry>,
    registered_devices: BTreeMap<String, Vec<String>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "PodUID")]
    pod_uid: String,
    container_name: String,
    resource_name: String,
    /// By NUMA node; -1 for none.
    #[serde(rename = "DeviceIDs")]
    device_ids: BTreeMap<String, Vec<String>>,
    alloc_resp: String,
}

fn checksum(data: &Data) -> u64 {
    let digest = Sha256::digest(serde_json::to_vec(data).unwrap_or_default());
    digest.iter().take(4).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Writes the file of `dir` anew, whole or not at all.
pub(super) fn write(dir: &Path, state: &State) -> Result<(), Error> {
    let entry = |((pod_uid, container_name, resource_name), share): (&Key, &Share)| {
        let response = share.response.as_ref()?;
        Some(Entry {
            pod_uid: pod_uid.clone(),
            container_name: container_name.clone(),
            resource_name: resource_name.clone(),
            device_ids: [("-1".to_string(), share.devices.iter().cloned().collect())].into(),
            alloc_resp: STANDARD.encode(response.encode_to_vec()),
        })
    };
    let data = Data {
        pod_device_entries: state.shares.iter().filter_map(entry).collect(),
        registered_devices: state
            .resources
            .iter()
            .map(|(name, resource)| (name.clone(), resource.devices.keys().cloned().collect()))
            .collect(),
    };
    let file = File { checksum: checksum(&data), data };
    let text = serde_json::to_vec(&file).map_err(|error| Error::message(error.to_string()))?;
    write_whole(&dir.join(NAME), &text)
}

/// What the file of `dir` says; nothing when there is none. A damaged one is an error.
pub(super) fn read(dir: &Path) -> Result<State, Error> {
    let path = dir.join(NAME);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(State::default()),
        Err(error) => return Err(Error::file("read", &path)(error)),
    };
    let damaged = || Error::message(format!("{} is corrupted", path.display()));
    let file: File = serde_json::from_slice(&text).map_err(|_| damaged())?;
    if checksum(&file.data) != file.checksum {
        return Err(damaged());
    }
    let mut state = State::default();
    for name in file.data.registered_devices.into_keys() {
        // Nothing can be had until the plugin is back.
        state.resources.entry(name).or_default();
    }
    for entry in file.data.pod_device_entries {
        let response = STANDARD.decode(&entry.alloc_resp).map_err(|_| damaged())?;
        let response = ContainerAllocateResponse::decode(response.as_slice()).map_err(|_| damaged())?;
        let devices = entry.device_ids.into_values().flatten().collect();
        let key = (entry.pod_uid, entry.container_name, entry.resource_name);
        state.shares.insert(key, Share { devices, response: Some(response) });
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().shares.is_empty());
        let mut state = State::default();
        state.resources.entry("r".into()).or_default().devices.insert("a".into(), Default::default());
        let envs = [("A".to_string(), "b".to_string())].into();
        let response = Some(ContainerAllocateResponse { envs, ..Default::default() });
        let share = Share { devices: ["a".to_string()].into(), response };
        state.shares.insert(("p".into(), "c".into(), "r".into()), share);
        state.shares.insert(("p".into(), "half".into(), "r".into()), Share::default());
        write(dir.path(), &state).unwrap();
        let again = read(dir.path()).unwrap();
        state.shares.remove(&("p".to_string(), "half".to_string(), "r".to_string()));
        assert_eq!(again.shares, state.shares);
        assert_eq!(again.counts().collect::<Vec<_>>(), [("r", 0, 0)]);
        let path = dir.path().join(NAME);
        let text = fs::read_to_string(&path).unwrap().replace("\"PodUID\":\"p\"", "\"PodUID\":\"q\"");
        fs::write(&path, text).unwrap();
        assert!(read(dir.path()).is_err());
    }
}
