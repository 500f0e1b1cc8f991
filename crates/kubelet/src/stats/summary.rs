//! `/stats/summary`: upstream's `stats.k8s.io/v1alpha1` Summary.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::disk::{Disks, PodDisk, Usage};
use super::group::{CPU, Group, IO, MEMORY, Pressure, Stall};
use super::network::{self, Interface};
use super::{PodSample, Snapshot};
use crate::node::machine::Space;
use crate::pod::view;

/// What a summary says besides usage.
pub(crate) struct Facts<'a> {
    pub node_name: &'a str,
    /// The machine's memory, bytes.
    pub memory_capacity: u64,
    /// When the machine started.
    pub booted: Option<Timestamp>,
    /// When the kubelet started.
    pub started: Timestamp,
    /// Most and present number of processes.
    pub processes: (u64, u64),
}

/// The document; without `disks`, CPU and memory alone (`only_cpu_and_memory=true`).
pub(crate) fn summary(facts: &Facts<'_>, snapshot: &Snapshot, disks: Option<&Disks>) -> Value {
    let mut node = Map::new();
    node.insert("nodeName".into(), facts.node_name.into());
    let system = [("kubelet", snapshot.kubelet.as_ref()), ("pods", snapshot.pod_parents.first())];
    let system = system.into_iter().filter_map(|(name, group)| {
        let group = group?;
        let mut value = usage(group, Some(facts.memory_capacity));
        value.insert("name".into(), name.into());
        value.insert("startTime".into(), time(facts.started));
        Some(Value::Object(value))
    });
    node.insert("systemContainers".into(), system.collect());
    node.insert("startTime".into(), time(facts.booted.unwrap_or(snapshot.at)));
    if let Some(group) = &snapshot.node {
        node.extend(usage(group, Some(facts.memory_capacity)));
        insert_io(&mut node, group);
    }
    if let Some(disks) = disks {
        node.insert("network".into(), interfaces(snapshot.at, &snapshot.interfaces));
        let used = disks.node_fs.size_bytes.saturating_sub(disks.node_fs.free_bytes);
        let inodes = disks.node_fs.inodes.saturating_sub(disks.node_fs.inodes_free);
        node.insert("fs".into(), filesystem(disks.at, &disks.node_fs, Usage { bytes: used, inodes }));
        if let Some(images) = &disks.image_fs {
            let fs = filesystem(disks.at, &images.space, images.images);
            node.insert("runtime".into(), json!({"imageFs": fs, "containerFs": fs}));
        }
        let (most, present) = facts.processes;
        node.insert("rlimit".into(), json!({"time": time(disks.at), "maxpid": most, "curproc": present}));
    }
    let pods: Vec<_> = snapshot.pods.iter().filter_map(|sample| pod(facts, sample, disks)).collect();
    json!({"node": node, "pods": pods})
}

/// Seconds are upstream's resolution for JSON times.
fn time(at: Timestamp) -> Value {
    at.round(jiff::Unit::Second).unwrap_or(at).to_string().into()
}

fn pod(facts: &Facts<'_>, sample: &PodSample, disks: Option<&Disks>) -> Option<Value> {
    if sample.group.is_none() && sample.containers.is_empty() {
        return None;
    }
    let disk = disks.and_then(|disks| Some((disks, disks.pods.get(&sample.uid)?)));
    let containers: Vec<_> = sample
        .containers
        .iter()
        .map(|container| {
            let name = &container.record.name;
            let mut value = usage(&container.group, None);
            value.insert("name".into(), name.clone().into());
            value.insert("startTime".into(), time(container.record.started_at.unwrap_or(container.group.at)));
            insert_io(&mut value, &container.group);
            if let Some((disks, disk)) = disk {
                let of =
                    |usages: &std::collections::BTreeMap<String, Usage>| usages.get(name).copied().unwrap_or_default();
                let images = disks.image_fs.as_ref().map_or(disks.node_fs, |images| images.space);
                value.insert("rootfs".into(), filesystem(disks.at, &images, of(&disk.layers)));
                value.insert("logs".into(), filesystem(disks.at, &disks.node_fs, of(&disk.logs)));
            }
            Value::Object(value)
        })
        .collect();
    let started = sample.pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
    let mut value = Map::new();
    value.insert(
        "podRef".into(),
        json!({"name": view::name(&sample.pod), "namespace": view::namespace(&sample.pod), "uid": sample.uid}),
    );
    value.insert("startTime".into(), time(started.unwrap_or(facts.started)));
    value.insert("containers".into(), containers.into());
    if let Some(group) = &sample.group {
        value.extend(usage(group, None));
        insert_io(&mut value, group);
        if let Some(processes) = group.processes {
            value.insert("process_stats".into(), json!({"process_count": processes}));
        }
    }
    if let Some(found) = sample.interfaces.as_deref().filter(|_| disks.is_some()) {
        let at = sample.group.as_ref().map_or(facts.started, |group| group.at);
        value.insert("network".into(), interfaces(at, found));
    }
    if let Some((disks, disk)) = disk {
        value.insert("volume".into(), volumes(disks.at, sample, disk));
        value.insert("ephemeral-storage".into(), filesystem(disks.at, &disks.node_fs, disk.ephemeral()));
    }
    Some(Value::Object(value))
}

fn volumes(at: Timestamp, sample: &PodSample, disk: &PodDisk) -> Value {
    let all = disk.volumes.iter().map(|volume| {
        let mut value = filesystem(at, &volume.space, volume.usage);
        value["name"] = volume.name.clone().into();
        if let Some(claim) = &volume.claim {
            value["pvcRef"] = json!({"name": claim, "namespace": view::namespace(&sample.pod)});
        }
        value
    });
    all.collect()
}

/// `cpu`, `memory` and `swap` of a group.
fn usage(group: &Group, capacity: Option<u64>) -> Map<String, Value> {
    let at = time(group.at);
    let mut cpu = json!({"time": at, "usageCoreNanoSeconds": group.cpu.usage_ns});
    if let Some(rate) = group.cpu.nano_cores {
        cpu["usageNanoCores"] = rate.into();
    }
    insert_pressure(&mut cpu, group.pressure[CPU]);
    let mut all = Map::new();
    all.insert("cpu".into(), cpu);
    if let Some(memory) = &group.memory {
        let mut value = json!({
            "time": at, "usageBytes": memory.usage, "workingSetBytes": memory.working_set, "rssBytes": memory.rss,
            "pageFaults": memory.page_faults, "majorPageFaults": memory.major_page_faults,
        });
        if let Some(available) = group.available_bytes(capacity) {
            value["availableBytes"] = available.into();
        }
        insert_pressure(&mut value, group.pressure[MEMORY]);
        all.insert("memory".into(), value);
    }
    if let Some(used) = group.swap_bytes {
        let mut value = json!({"time": at, "swapUsageBytes": used});
        if let Some(limit) = group.swap_limit_bytes {
            value["swapAvailableBytes"] = limit.saturating_sub(used).into();
        }
        all.insert("swap".into(), value);
    }
    all
}

fn insert_io(value: &mut Map<String, Value>, group: &Group) {
    if group.pressure[IO].is_some() {
        let mut io = json!({"time": time(group.at)});
        insert_pressure(&mut io, group.pressure[IO]);
        value.insert("io".into(), io);
    }
}

fn insert_pressure(value: &mut Value, pressure: Option<Pressure>) {
    let Some(pressure) = pressure else { return };
    let stall = |stall: Stall| {
        let [avg10, avg60, avg300] = stall.averages;
        // Upstream counts in nanoseconds.
        json!({"total": stall.total_us.saturating_mul(1000), "avg10": avg10, "avg60": avg60, "avg300": avg300})
    };
    value["psi"] = json!({"full": stall(pressure.full), "some": stall(pressure.some)});
}

fn filesystem(at: Timestamp, space: &Space, used: Usage) -> Value {
    json!({
        "time": time(at), "availableBytes": space.free_bytes, "capacityBytes": space.size_bytes, "usedBytes": used.bytes,
        "inodesFree": space.inodes_free, "inodes": space.inodes, "inodesUsed": used.inodes,
    })
}

fn interfaces(at: Timestamp, all: &[Interface]) -> Value {
    let one = |interface: &Interface| {
        json!({
            "name": interface.name, "rxBytes": interface.received.bytes, "rxErrors": interface.received.errors,
            "txBytes": interface.sent.bytes, "txErrors": interface.sent.errors,
        })
    };
    let mut value = network::default_interface(all).map(one).unwrap_or_else(|| json!({"name": ""}));
    value["time"] = time(at);
    value["interfaces"] = all.iter().map(one).collect();
    value
}

/// When the machine started, from `/proc/uptime`'s text.
pub(crate) fn boot_time(uptime: &str, now: Timestamp) -> Option<Timestamp> {
    let seconds: f64 = uptime.split(' ').next()?.parse().ok()?;
    now.checked_sub(SignedDuration::try_from_secs_f64(seconds).ok()?).ok()
}
