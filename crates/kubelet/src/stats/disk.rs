//! What lies on the node's disks: its filesystems, and per pod the volumes, logs and writable layers. A pass walks
//! directories, so it is made seldom, and only when somebody asks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};
use keelson_cri::v1 as cri;

use crate::context::Context;
use crate::eviction::limits;
use crate::logs;
use crate::node::machine::{Space, filesystem};
use crate::pod::view;
use crate::runtime::labels;

/// Directory entries one walk looks at; a volume with more is counted up to there.
const MAX_ENTRIES: usize = 5_000_000;

/// What a tree takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub bytes: u64,
    pub inodes: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.inodes = self.inodes.saturating_add(other.inodes);
    }
}

/// One pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disks {
    pub at: Timestamp,
    /// Holds the kubelet's directory: volumes and logs.
    pub node_fs: Space,
    /// Holds images and writable layers; may be the same filesystem.
    pub image_fs: Option<ImageFs>,
    /// By uid.
    pub pods: HashMap<String, PodDisk>,
}

/// The runtime's filesystem.
#[derive(Clone, Debug)]
pub(crate) struct ImageFs {
    pub space: Space,
    /// Taken by images.
    pub images: Usage,
}

/// A pod's part.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodDisk {
    pub volumes: Vec<VolumeUsage>,
    /// By container name.
    pub logs: BTreeMap<String, Usage>,
    /// Writable layers by container name.
    pub layers: BTreeMap<String, Usage>,
    /// What the kubelet itself keeps for the pod: `/etc/hosts`.
    pub other: Usage,
}

/// A volume.
#[derive(Clone, Debug)]
pub(crate) struct VolumeUsage {
    pub name: String,
    /// Namespace and name of its claim.
    pub claim: Option<String>,
    /// Counts as local ephemeral storage.
    pub ephemeral: bool,
    pub usage: Usage,
    pub space: Space,
}

impl PodDisk {
    /// Local ephemeral storage of the whole pod.
    pub(crate) fn ephemeral(&self) -> Usage {
        let mut total = self.other;
        for volume in self.volumes.iter().filter(|volume| volume.ephemeral) {
            total += volume.usage;
        }
        for usage in self.logs.values().chain(self.layers.values()) {
            total += *usage;
        }
        total
    }
}

impl Disks {
    /// Walks.
    pub(super) async fn read(ctx: &Arc<Context>) -> Disks {
        let layers = ctx.runtime.container_stats(None).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the runtime gives no container stats");
            Vec::new()
        });
        let image_fs = ctx.runtime.image_fs().await.ok().flatten();
        let own = ctx.clone();
        let walk = tokio::task::spawn_blocking(move || {
            let root = &own.config.root_dir;
            let image_fs = image_fs.and_then(|usage| {
                let mount = PathBuf::from(usage.fs_id?.mountpoint);
                let (space, known) = filesystem(&mount);
                known.then(|| ImageFs {
                    space,
                    images: Usage {
                        bytes: usage.used_bytes.map_or(0, |value| value.value),
                        inodes: usage.inodes_used.map_or(0, |value| value.value),
                    },
                })
            });
            let pods = own.pods.all().into_iter().map(|(uid, handle)| {
                let pod = handle.pod.borrow().pod.clone();
                let disk = pod_disk(&own, &pod, &uid);
                (uid, disk)
            });
            Disks { at: keelson_client::clock::now(), node_fs: filesystem(root).0, image_fs, pods: pods.collect() }
        });
        let mut disks = walk.await.unwrap_or_default();
        for (uid, name, usage) in layers.into_iter().filter_map(layer) {
            if let Some(disk) = disks.pods.get_mut(&uid) {
                *disk.layers.entry(name).or_default() += usage;
            }
        }
        disks
    }
}

/// One pod's part, looked up now; writable layers only where its containers have limits.
pub(crate) async fn of_pod(ctx: &Arc<Context>, pod: &Arc<Pod>, uid: &str) -> PodDisk {
    let (own, walked, id) = (ctx.clone(), pod.clone(), uid.to_string());
    let mut disk = tokio::task::spawn_blocking(move || pod_disk(&own, &walked, &id)).await.unwrap_or_default();
    if limits::counts_layers(pod) {
        let layers = ctx.runtime.container_stats(Some(uid)).await.unwrap_or_default();
        for (_, name, usage) in layers.into_iter().filter_map(layer).filter(|(of, ..)| of == uid) {
            *disk.layers.entry(name).or_default() += usage;
        }
    }
    disk
}

/// Pod uid, container name and what its writable layer takes.
fn layer(stats: cri::ContainerStats) -> Option<(String, String, Usage)> {
    let mut labels = stats.attributes?.labels;
    let layer = stats.writable_layer?;
    let usage = Usage {
        bytes: layer.used_bytes.map_or(0, |value| value.value),
        inodes: layer.inodes_used.map_or(0, |value| value.value),
    };
    Some((labels.remove(labels::POD_UID)?, labels.remove(labels::CONTAINER_NAME)?, usage))
}

fn pod_disk(ctx: &Context, pod: &Pod, uid: &str) -> PodDisk {
    let dir = ctx.volumes.pod_dir(uid);
    let mut disk = PodDisk { other: walk(&dir.join("etc-hosts")), ..Default::default() };
    let specs = view::spec(pod).and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    for (name, path) in directories(&dir.join("volumes")).into_iter().flat_map(|(_, plugin)| directories(&plugin)) {
        let Some(volume) = specs.iter().find(|volume| volume.name == name) else { continue };
        let space = filesystem(&path).0;
        let claim = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
        let claim = claim.or(volume.ephemeral.as_ref().map(|_| format!("{}-{name}", view::name(pod))));
        let usage = if claim.is_some() {
            // A filesystem of its own tells at once what a walk would.
            let bytes = space.size_bytes.saturating_sub(space.free_bytes);
            Usage { bytes, inodes: space.inodes.saturating_sub(space.inodes_free) }
        } else {
            walk(&path)
        };
        disk.volumes.push(VolumeUsage { ephemeral: is_local_ephemeral(volume), name, claim, usage, space });
    }
    disk.volumes.sort_by(|a, b| a.name.cmp(&b.name));
    let logs = logs::pod_directory(&ctx.config.pod_logs_dir, view::namespace(pod), view::name(pod), uid);
    disk.logs = directories(&logs).into_iter().map(|(name, path)| (name, walk(&path))).collect();
    disk
}

/// Volumes that take of the node's own disk, as upstream counts them.
fn is_local_ephemeral(volume: &Volume) -> bool {
    let on_disk = |medium: Option<&str>| medium.is_none_or(str::is_empty);
    volume.git_repo.is_some()
        || volume.config_map.is_some()
        || volume.empty_dir.as_ref().is_some_and(|source| on_disk(source.medium.as_deref()))
}

fn directories(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect()
}

/// What the tree at `root` takes on its filesystem: blocks, not lengths; hard links once; no links followed, no other
/// filesystem entered.
pub(crate) fn walk(root: &Path) -> Usage {
    let Ok(start) = fs::symlink_metadata(root) else { return Usage::default() };
    let mut usage = Usage { bytes: start.blocks().saturating_mul(512), inodes: 1 };
    let mut linked = HashSet::new();
    let mut left = MAX_ENTRIES;
    let mut pending = if start.is_dir() { vec![root.to_path_buf()] } else { Vec::new() };
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            if found.dev() != start.dev() || (found.nlink() > 1 && !found.is_dir() && !linked.insert(found.ino())) {
                continue;
            }
            usage += Usage { bytes: found.blocks().saturating_mul(512), inodes: 1 };
            left = left.saturating_sub(1);
            if left == 0 {
                return usage;
            }
            if found.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_count_blocks_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), vec![1; 100_000]).unwrap();
        let before = walk(dir.path());
        assert!((100_000..150_000).contains(&before.bytes) && before.inodes == 3, "{before:?}");
        fs::hard_link(dir.path().join("sub/file"), dir.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        let after = walk(dir.path());
        assert_eq!(after.inodes, 4, "the hard link is no second file, the symbolic one is not followed");
        assert!(after.bytes - before.bytes < 8192, "{after:?}");
        // A sparse file takes what is written, not its length.
        fs::File::create(dir.path().join("sparse")).unwrap().set_len(1 << 30).unwrap();
        assert!(walk(dir.path()).bytes < 200_000);
        assert_eq!(walk(&dir.path().join("nothing")), Usage::default());
    }

    #[test]
    fn what_is_local_and_ephemeral() {
        for (volume, expected) in [
            (serde_json::json!({"name": "a", "emptyDir": {}}), true),
            (serde_json::json!({"name": "a", "emptyDir": {"medium": "Memory"}}), false),
            (serde_json::json!({"name": "a", "configMap": {"name": "m"}}), true),
            (serde_json::json!({"name": "a", "secret": {"secretName": "s"}}), false),
            (serde_json::json!({"name": "a", "hostPath": {"path": "/"}}), false),
        ] {
            let volume: Volume = serde_json::from_value(volume).unwrap();
            assert_eq!(is_local_ephemeral(&volume), expected);
        }
    }
}
