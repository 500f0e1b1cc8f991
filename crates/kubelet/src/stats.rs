//! What the node, its pods and their containers use, as the kernel counts it. Nothing is read while nobody asks; who asks
//! within [`LEAST_INTERVAL`] of another gets the same pass. Disks, which take walks, are a pass of their own ([`disk`]).
//!
//! - [`group`]: the counters of one control group
//! - [`network`]: the counters of a pod's interfaces
//! - [`disk`]: filesystems, volumes, logs and writable layers
//! - [`summary`][]: `/stats/summary`
//! - [`resource`], [`cadvisor`]: `/metrics/resource` and `/metrics/cadvisor`
//! - [`exposition`]: Prometheus' text format

pub(crate) mod cadvisor;
pub(crate) mod disk;
pub(crate) mod exposition;
pub(crate) mod group;
pub(crate) mod network;
pub(crate) mod resource;
pub(crate) mod summary;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Mutex;

use crate::context::Context;
use crate::pod::observed::{ContainerRecord, State};
use crate::pod::view;
use crate::resources;
use group::Group;
use network::Interface;

/// A pass is at least this old before another is made.
const LEAST_INTERVAL: SignedDuration = SignedDuration::from_secs(1);
/// CPU rates are over at least this long, and from a pass at most [`RATE_MEMORY`] old.
const LEAST_RATE_WINDOW: SignedDuration = SignedDuration::from_millis(500);
const RATE_MEMORY: SignedDuration = SignedDuration::from_secs(120);
/// Disks are walked at most this often.
pub(crate) const LEAST_DISK_INTERVAL: SignedDuration = SignedDuration::from_secs(10);

/// One pass over the control groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub at: Timestamp,
    /// The node as a whole.
    pub node: Option<Group>,
    /// Interfaces of the node's network namespace.
    pub interfaces: Vec<Interface>,
    /// `kubepods` and its QoS groups, by path.
    pub pod_parents: Vec<Group>,
    /// The kubelet's own group, when that is not the node's.
    pub kubelet: Option<Group>,
    pub pods: Vec<PodSample>,
}

/// A pod.
#[derive(Clone, Debug)]
pub(crate) struct PodSample {
    pub pod: Arc<Pod>,
    pub uid: String,
    /// `None` when it has no group (yet, or any more).
    pub group: Option<Group>,
    /// The running sandbox.
    pub sandbox_id: Option<String>,
    /// `None` on the node's network, or when nothing of it runs.
    pub interfaces: Option<Vec<Interface>>,
    pub containers: Vec<ContainerSample>,
}

/// A running container.
#[derive(Clone, Debug)]
pub(crate) struct ContainerSample {
    pub record: ContainerRecord,
    pub group: Group,
}

/// Keeps the last passes.
#[derive(Default)]
pub(crate) struct Stats {
    latest: Mutex<Option<Arc<Snapshot>>>,
    /// Usage of disks as of the last walk.
    disk: Mutex<Option<Arc<disk::Disks>>>,
}

impl Stats {
    /// The node's usage, not older than [`LEAST_INTERVAL`].
    pub(crate) async fn snapshot(&self, ctx: &Arc<Context>) -> Arc<Snapshot> {
        let mut latest = self.latest.lock().await;
        let now = keelson_client::clock::now();
        if let Some(known) = latest.as_ref().filter(|known| now.duration_since(known.at) < LEAST_INTERVAL) {
            return known.clone();
        }
        let own = ctx.clone();
        let read = tokio::task::spawn_blocking(move || read(&own)).await;
        let mut fresh = read.unwrap_or_default();
        if let Some(before) = latest.as_ref() {
            fresh.rates(before);
        }
        let fresh = Arc::new(fresh);
        *latest = Some(fresh.clone());
        fresh
    }

    /// What lies on the disks, not older than `max_age`, which is at least [`LEAST_DISK_INTERVAL`] while nothing is urgent.
    pub(crate) async fn disks(&self, ctx: &Arc<Context>, max_age: Duration) -> Arc<disk::Disks> {
        let mut latest = self.disk.lock().await;
        let now = keelson_client::clock::now();
        let max_age = SignedDuration::try_from(max_age).unwrap_or(LEAST_DISK_INTERVAL);
        if let Some(known) = latest.as_ref().filter(|known| now.duration_since(known.at) < max_age) {
            return known.clone();
        }
        let fresh = Arc::new(disk::Disks::read(ctx).await);
        *latest = Some(fresh.clone());
        fresh
    }
}

/// One pass. What cannot be read is left out: groups come and go while it runs.
fn read(ctx: &Context) -> Snapshot {
    let cgroups = &ctx.cgroups;
    let root = cgroups.root().to_path_buf();
    let parents = cgroups.pod_parents();
    let mut pods: Vec<_> = ctx.pods.all().into_iter().map(|(uid, handle)| sample(ctx, uid, &handle)).collect();
    pods.sort_by(|a, b| a.uid.cmp(&b.uid));
    Snapshot {
        at: keelson_client::clock::now(),
        node: Group::read_root(cgroups, &root),
        interfaces: network::read("/proc/self/net/dev"),
        pod_parents: parents.iter().filter_map(|group| Group::read(cgroups, group)).collect(),
        kubelet: cgroups.own().filter(|own| *own != root).and_then(|own| Group::read(cgroups, &own)),
        pods,
    }
}

fn sample(ctx: &Context, uid: String, handle: &crate::context::PodHandle) -> PodSample {
    let pod = handle.pod.borrow().pod.clone();
    let observed = handle.observed.borrow().clone();
    let path: PathBuf = ctx.cgroups.pod(resources::qos_class(&pod), &uid);
    let group = Group::read(&ctx.cgroups, &path);
    let running = observed.containers.iter().filter(|record| record.state == State::Running);
    let containers: Vec<_> = running
        .filter_map(|record| {
            let group = Group::read(&ctx.cgroups, &path.join(&record.id))?;
            Some(ContainerSample { record: record.clone(), group })
        })
        .collect();
    let pid = containers.iter().find_map(|container| ctx.cgroups.any_process(&container.group.path));
    let interfaces = pid
        .filter(|_| !view::host_network(&pod))
        .map(|pid| network::read(&format!("/proc/{pid}/net/dev")))
        .filter(|interfaces| !interfaces.is_empty());
    let sandbox_id = observed.sandbox().map(|sandbox| sandbox.id.clone());
    PodSample { pod, uid, group, sandbox_id, interfaces, containers }
}

impl Snapshot {
    /// All groups, each once.
    pub(crate) fn groups_mut(&mut self) -> impl Iterator<Item = &mut Group> {
        let pods = self.pods.iter_mut().flat_map(|pod| {
            pod.group.iter_mut().chain(pod.containers.iter_mut().map(|container| &mut container.group))
        });
        self.node.iter_mut().chain(&mut self.pod_parents).chain(&mut self.kubelet).chain(pods)
    }

    fn groups(&self) -> impl Iterator<Item = &Group> {
        let pods = self
            .pods
            .iter()
            .flat_map(|pod| pod.group.iter().chain(pod.containers.iter().map(|container| &container.group)));
        self.node.iter().chain(&self.pod_parents).chain(&self.kubelet).chain(pods)
    }

    /// Works out how fast CPU was used since `before`.
    fn rates(&mut self, before: &Snapshot) {
        let known: HashMap<&PathBuf, &Group> = before.groups().map(|group| (&group.path, group)).collect();
        for group in self.groups_mut() {
            let Some(old) = known.get(&group.path) else { continue };
            let took = group.at.duration_since(old.at);
            if took < LEAST_RATE_WINDOW || took > RATE_MEMORY {
                continue;
            }
            // A restarted container begins anew.
            group.cpu.nano_cores = group.cpu.usage_ns.checked_sub(old.cpu.usage_ns).map(|used| {
                let took_ns = took.as_nanos().max(1) as u128;
                (u128::from(used) * 1_000_000_000 / took_ns) as u64
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_between_two_passes() {
        let group = |at_ms: i64, usage_ns: u64| Group {
            path: "a".into(),
            at: Timestamp::from_millisecond(at_ms).unwrap(),
            cpu: group::Cpu { usage_ns, ..Default::default() },
            ..Default::default()
        };
        let of = |group: Group| Snapshot { node: Some(group), ..Default::default() };
        for (before, now, expected) in [
            (group(0, 1_000), group(2_000, 1_000_001_000), Some(500_000_000)),
            (group(0, 1_000), group(100, 2_000), None),
            (group(0, 1_000), group(500_000, 2_000), None),
            (group(0, 5_000), group(2_000, 1_000), None),
        ] {
            let mut now = of(now);
            now.rates(&of(before));
            assert_eq!(now.node.unwrap().cpu.nano_cores, expected);
        }
    }
}
