//! What is left of the node's resources. Cheap: two control groups, two filesystems, two files of `/proc`.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::signal::{Observation, Observations, Signal};
use crate::context::Context;
use crate::node::machine::{Space, Usage, filesystem};
use crate::stats::group::Group;

/// Remembers where images are: to be told their size, too, takes the runtime a walk.
#[derive(Default)]
pub(super) struct Observer {
    image_fs: Option<ImageFs>,
}

/// The filesystem of images and writable layers.
pub(super) struct ImageFs {
    mount: PathBuf,
    /// It is another than that of volumes and logs.
    pub(super) dedicated: bool,
}

impl ImageFs {
    /// Asks the runtime; `None` while it does not say.
    pub(super) async fn find(ctx: &Context) -> Option<ImageFs> {
        let mount = PathBuf::from(ctx.runtime.image_fs().await.ok()??.fs_id?.mountpoint);
        let device = |path: &std::path::Path| std::fs::metadata(path).ok().map(|found| found.dev());
        let dedicated = device(&mount) != device(&ctx.config.root_dir);
        Some(ImageFs { mount, dedicated })
    }
}

impl Observer {
    /// Whether images and layers are on another filesystem than volumes and logs.
    pub(super) fn image_fs_is_dedicated(&self) -> bool {
        self.image_fs.as_ref().is_some_and(|found| found.dedicated)
    }

    pub(super) async fn observe(&mut self, ctx: &Arc<Context>) -> Observations {
        if self.image_fs.is_none() {
            self.image_fs = ImageFs::find(ctx).await;
        }
        let image_fs = self.image_fs.as_ref().map(|found| found.mount.clone());
        let own = ctx.clone();
        tokio::task::spawn_blocking(move || read(&own, image_fs)).await.unwrap_or_default()
    }
}

fn read(ctx: &Context, image_fs: Option<PathBuf>) -> Observations {
    let mut seen = Observations::new();
    let usage = Usage::read(&ctx.config.root_dir);
    let capacity = ctx.machine.memory_bytes.max(0) as u64;
    let working_set = |group: Option<Group>| group?.memory.map(|memory| memory.working_set);
    if let Some(machine) = usage.memory_available_bytes {
        // A node that is a part of a machine has no more than its own capacity.
        let own = working_set(Group::read_root(&ctx.cgroups, ctx.cgroups.root()));
        let left = own.map_or(u64::MAX, |used| capacity.saturating_sub(used));
        seen.insert(Signal::MemoryAvailable, Observation { available: machine.min(left), capacity });
    }
    if let Some(pods) = ctx.cgroups.pod_parents().first()
        && let Some(used) = working_set(Group::read(&ctx.cgroups, pods))
    {
        let capacity = ctx.pods_memory_bytes;
        let available = capacity.saturating_sub(used);
        seen.insert(Signal::AllocatableMemoryAvailable, Observation { available, capacity });
    }
    if let Some(space) = usage.nodefs {
        insert(&mut seen, (Signal::NodefsAvailable, Signal::NodefsInodesFree), space);
    }
    if let Some((space, true)) = image_fs.map(|mount| filesystem(&mount)) {
        insert(&mut seen, (Signal::ImagefsAvailable, Signal::ImagefsInodesFree), space);
    }
    if usage.pids_max > 0 {
        let available = usage.pids_max.saturating_sub(usage.pids);
        seen.insert(Signal::PidAvailable, Observation { available, capacity: usage.pids_max });
    }
    seen
}

fn insert(seen: &mut Observations, (bytes, inodes): (Signal, Signal), space: Space) {
    if space.size_bytes > 0 {
        seen.insert(bytes, Observation { available: space.free_bytes, capacity: space.size_bytes });
    }
    // Some filesystems have as many as they have room.
    if space.inodes > 0 {
        seen.insert(inodes, Observation { available: space.inodes_free, capacity: space.inodes });
    }
}
