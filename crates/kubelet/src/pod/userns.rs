//! User namespaces of pods (`hostUsers: false`): which of the node's IDs are whose, and what the runtime is told of it. A
//! pod's range is in a file of its directory, as upstream has it, so that it lasts as long as the pod and no longer.

use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use keelson_cri::v1 as cri;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::view;
use crate::error::Error;

/// IDs of a pod.
const LENGTH: u32 = 1 << 16;
/// Ranges that are given away: not the first, which is the node's own, and none that reaches 2^31.
const RANGES: std::ops::Range<u32> = 1..1 << 15;
const FILE: &str = "userns";
/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Held by whoever looks for a free range.
static CHOOSING: Mutex<()> = Mutex::new(());

/// The file, in upstream's form.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mappings {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

/// Whether the pod wants IDs of its own.
pub(crate) fn wanted(pod: &Pod) -> bool {
    view::spec(pod).and_then(|spec| spec.host_users) == Some(false)
}

/// The user namespace of the pod whose directory is `uid` in `pods`: the one it has, or a new one. Blocks.
pub(crate) fn of(pods: &Path, uid: &str) -> Result<cri::UserNamespace, Error> {
    let _choosing = CHOOSING.lock();
    let dir = pods.join(uid);
    let file = dir.join(FILE);
    let first = match read(&file)? {
        Some(first) => first,
        None => {
            let taken = taken(pods)?;
            let free = RANGES.map(|range| range * LENGTH).find(|first| !taken.contains(first));
            let first = free.ok_or_else(|| Error::message("no range of user IDs is free for the pod".to_owned()))?;
            let mapping = vec![Mapping { host_id: first, container_id: 0, length: LENGTH }];
            let mappings = Mappings { uid_mappings: mapping.clone(), gid_mappings: mapping };
            let bytes = serde_json::to_vec(&mappings).map_err(|error| Error::message(error.to_string()))?;
            fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
            let temporary = dir.join("userns.tmp");
            fs::write(&temporary, bytes).map_err(Error::file("write", &temporary))?;
            fs::rename(&temporary, &file).map_err(Error::file("write", &file))?;
            first
        }
    };
    let ids = vec![cri::IdMapping { host_id: first, container_id: 0, length: LENGTH }];
    Ok(cri::UserNamespace { mode: cri::NamespaceMode::Pod as i32, uids: ids.clone(), gids: ids })
}

/// The first IDs of the ranges that pods have.
fn taken(pods: &Path) -> Result<Vec<u32>, Error> {
    let entries = match fs::read_dir(pods) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("list", pods)(error)),
    };
    let files = entries.flatten().map(|entry| entry.path().join(FILE));
    files.filter_map(|file| read(&file).transpose()).collect()
}

fn read(file: &Path) -> Result<Option<u32>, Error> {
    use std::io::Read;
    let mut bytes = Vec::new();
    match fs::File::open(file) {
        Ok(open) => open.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(Error::file("read", file))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", file)(error)),
    };
    let damaged = || Error::message(format!("{} is damaged", file.display()));
    let mappings: Mappings = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
    mappings.uid_mappings.first().map(|mapping| Some(mapping.host_id)).ok_or_else(damaged)
}

/// Puts the pod's user namespace into a container's configuration: its own context, and the translation of owners on its
/// mounts (upstream: on all of them, also those that the kubelet or a device plugin adds).
pub(crate) fn apply(sandbox: &cri::PodSandboxConfig, config: &mut cri::ContainerConfig) {
    let security = sandbox.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let Some(userns) = security.and_then(|security| security.namespace_options.as_ref()?.userns_options.clone()) else {
        return;
    };
    // The runtime that mounts an image translates its owners itself.
    for mount in config.mounts.iter_mut().filter(|mount| mount.image.is_none()) {
        (mount.uid_mappings, mount.gid_mappings) = (userns.uids.clone(), userns.gids.clone());
    }
    let options = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut()?.namespace_options.as_mut());
    if let Some(options) = options {
        options.userns_options = Some(userns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_kept_and_reused() {
        let dir = tempfile::tempdir().unwrap();
        let first = |uid: &str| of(dir.path(), uid).unwrap().uids[0].host_id;
        assert_eq!((first("a"), first("b"), first("a")), (LENGTH, 2 * LENGTH, LENGTH));
        fs::remove_dir_all(dir.path().join("a")).unwrap();
        assert_eq!((first("c"), first("d")), (LENGTH, 3 * LENGTH));
        fs::write(dir.path().join("b").join(FILE), "rubbish").unwrap();
        assert!(of(dir.path(), "b").is_err() && of(dir.path(), "e").is_err());
    }

    #[test]
    fn mounts_are_translated() {
        let userns = cri::UserNamespace { mode: 0, uids: vec![cri::IdMapping::default()], gids: Vec::new() };
        let options = cri::NamespaceOption { userns_options: Some(userns.clone()), ..Default::default() };
        let security = cri::LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
        let linux = cri::LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() };
        let sandbox = cri::PodSandboxConfig { linux: Some(linux), ..Default::default() };
        let context =
            cri::LinuxContainerSecurityContext { namespace_options: Some(Default::default()), ..Default::default() };
        let linux = cri::LinuxContainerConfig { security_context: Some(context), ..Default::default() };
        let mut config =
            cri::ContainerConfig { mounts: vec![cri::Mount::default(); 2], linux: Some(linux), ..Default::default() };
        apply(&sandbox, &mut config);
        assert_eq!((config.mounts[0].uid_mappings.len(), config.mounts[1].uid_mappings.len()), (1, 1));
        let own = config.linux.unwrap().security_context.unwrap().namespace_options.unwrap();
        assert_eq!(own.userns_options, Some(userns));
    }
}
