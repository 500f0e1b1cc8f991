//! `/metrics/cadvisor`: the names and labels under which cAdvisor gives the counters of groups, and of the machine.

use std::collections::HashMap;

use super::Snapshot;
use super::exposition::{Exposition, Kind};
use super::group::{CPU, Group, IO, MEMORY, Stall};
use super::network::{Interface, Traffic};
use super::resource::cpu_seconds;
use crate::node::machine::Machine;
use crate::pod::view;

/// Who a series is about, with cAdvisor's labels.
struct Subject<'a> {
    group: &'a Group,
    container: &'a str,
    image: &'a str,
    /// The runtime's id.
    name: &'a str,
    namespace: &'a str,
    pod: &'a str,
    /// Seconds since 1970.
    started: Option<f64>,
    /// Path in the hierarchies.
    id: String,
    /// A pod's own, once for all its containers.
    interfaces: &'a [Interface],
    /// Whose the interfaces are.
    sandbox_id: Option<&'a str>,
    /// What a container of the runtime is; groups above are none.
    is_container: bool,
}

impl Subject<'_> {
    fn labels<'b>(&'b self, extra: &[(&'b str, &'b str)]) -> Vec<(&'b str, &'b str)> {
        let mut labels = vec![
            ("container", self.container),
            ("id", &self.id),
            ("image", self.image),
            ("name", self.name),
            ("namespace", self.namespace),
            ("pod", self.pod),
        ];
        labels.extend(extra);
        labels.sort_unstable();
        labels
    }
}

type Value = fn(&Group) -> Option<f64>;

fn memory(group: &Group, value: fn(&super::group::Memory) -> u64) -> Option<f64> {
    group.memory.as_ref().map(|memory| value(memory) as f64)
}

fn throttled(group: &Group, value: u64) -> Option<f64> {
    // Without a quota there are no periods, and cAdvisor gives none.
    group.cpu.quota_us.map(|_| value as f64)
}

fn limit(bytes: Option<u64>) -> Option<f64> {
    Some(bytes.unwrap_or(0) as f64)
}

fn stalled(group: &Group, resource: usize, which: fn(&super::group::Pressure) -> Stall) -> Option<f64> {
    group.pressure[resource].as_ref().map(|pressure| which(pressure).total_us as f64 / 1e6)
}

/// Series without labels of their own.
const PLAIN: &[(&str, &str, Kind, Value)] = &[
    ("container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.", Kind::Counter, |g| {
        throttled(g, g.cpu.periods)
    }),
    ("container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals.", Kind::Counter, |g| {
        throttled(g, g.cpu.throttled_periods)
    }),
    (
        "container_cpu_cfs_throttled_seconds_total",
        "Total time duration the container has been throttled.",
        Kind::Counter,
        |g| throttled(g, g.cpu.throttled_ns).map(|ns| ns / 1e9),
    ),
    ("container_cpu_system_seconds_total", "Cumulative system cpu time consumed in seconds.", Kind::Counter, |g| {
        Some(g.cpu.system_ns as f64 / 1e9)
    }),
    ("container_cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds.", Kind::Counter, |g| {
        Some(g.cpu.user_ns as f64 / 1e9)
    }),
    ("container_last_seen", "Last time a container was seen by the exporter", Kind::Gauge, |g| {
        Some(g.at.as_second() as f64)
    }),
    ("container_memory_cache", "Number of bytes of page cache memory.", Kind::Gauge, |g| memory(g, |m| m.cache)),
    ("container_memory_failcnt", "Number of memory usage hits limits", Kind::Counter, |g| {
        g.memory.as_ref()?.failures.map(|count| count as f64)
    }),
    ("container_memory_mapped_file", "Size of memory mapped files in bytes.", Kind::Gauge, |g| {
        memory(g, |m| m.mapped_file)
    }),
    ("container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes", Kind::Gauge, |g| {
        g.memory.as_ref()?.max_usage.map(|bytes| bytes as f64)
    }),
    ("container_memory_rss", "Size of RSS in bytes.", Kind::Gauge, |g| memory(g, |m| m.rss)),
    ("container_memory_swap", "Container swap usage in bytes.", Kind::Gauge, |g| {
        g.swap_bytes.map(|bytes| bytes as f64)
    }),
    ("container_memory_total_active_file_bytes", "Current total active file in bytes.", Kind::Gauge, |g| {
        memory(g, |m| m.active_file)
    }),
    ("container_memory_total_inactive_file_bytes", "Current total inactive file in bytes.", Kind::Gauge, |g| {
        memory(g, |m| m.inactive_file)
    }),
    (
        "container_memory_usage_bytes",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        Kind::Gauge,
        |g| memory(g, |m| m.usage),
    ),
    ("container_memory_working_set_bytes", "Current working set in bytes.", Kind::Gauge, |g| {
        memory(g, |m| m.working_set)
    }),
    ("container_oom_events_total", "Count of out of memory events observed for the container", Kind::Counter, |g| {
        Some(g.oom_kills.unwrap_or(0) as f64)
    }),
    (
        "container_pressure_cpu_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to CPU congestion.",
        Kind::Counter,
        |g| stalled(g, CPU, |p| p.full),
    ),
    (
        "container_pressure_cpu_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to CPU congestion.",
        Kind::Counter,
        |g| stalled(g, CPU, |p| p.some),
    ),
    (
        "container_pressure_io_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to IO congestion.",
        Kind::Counter,
        |g| stalled(g, IO, |p| p.full),
    ),
    (
        "container_pressure_io_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to IO congestion.",
        Kind::Counter,
        |g| stalled(g, IO, |p| p.some),
    ),
    (
        "container_pressure_memory_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to memory congestion.",
        Kind::Counter,
        |g| stalled(g, MEMORY, |p| p.full),
    ),
    (
        "container_pressure_memory_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to memory congestion.",
        Kind::Counter,
        |g| stalled(g, MEMORY, |p| p.some),
    ),
    ("container_spec_cpu_period", "CPU period of the container.", Kind::Gauge, |g| g.cpu.period_us.map(|us| us as f64)),
    ("container_spec_cpu_quota", "CPU quota of the container.", Kind::Gauge, |g| g.cpu.quota_us.map(|us| us as f64)),
    ("container_spec_cpu_shares", "CPU share of the container.", Kind::Gauge, |g| {
        g.cpu.shares.map(|shares| shares as f64)
    }),
    ("container_spec_memory_limit_bytes", "Memory limit for the container.", Kind::Gauge, |g| {
        limit(g.memory.as_ref()?.limit)
    }),
    (
        "container_spec_memory_reservation_limit_bytes",
        "Memory reservation limit for the container.",
        Kind::Gauge,
        |g| limit(g.memory.as_ref()?.reservation),
    ),
    ("container_spec_memory_swap_limit_bytes", "Memory swap limit for the container.", Kind::Gauge, |g| {
        g.memory.as_ref()?;
        limit(g.swap_limit_bytes)
    }),
    ("container_threads", "Number of threads running inside the container", Kind::Gauge, |g| {
        g.processes.map(|count| count as f64)
    }),
    (
        "container_threads_max",
        "Maximum number of threads allowed inside the container, infinity if value is zero",
        Kind::Gauge,
        |g| limit(g.processes_max),
    ),
];

/// Name, help, and what it says of something.
type Counter<T> = (&'static str, &'static str, fn(&T) -> u64);

const NETWORK: &[Counter<Interface>] = &[
    ("container_network_receive_bytes_total", "Cumulative count of bytes received", |i| i.received.bytes),
    ("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", |i| {
        i.received.errors
    }),
    ("container_network_receive_packets_dropped_total", "Cumulative count of packets dropped while receiving", |i| {
        let Traffic { dropped, .. } = i.received;
        dropped
    }),
    ("container_network_receive_packets_total", "Cumulative count of packets received", |i| i.received.packets),
    ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |i| i.sent.bytes),
    ("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", |i| {
        i.sent.errors
    }),
    (
        "container_network_transmit_packets_dropped_total",
        "Cumulative count of packets dropped while transmitting",
        |i| i.sent.dropped,
    ),
    ("container_network_transmit_packets_total", "Cumulative count of packets transmitted", |i| i.sent.packets),
];

const DEVICES: &[Counter<super::group::Device>] = &[
    ("container_fs_reads_bytes_total", "Cumulative count of bytes read", |d| d.read_bytes),
    ("container_fs_reads_total", "Cumulative count of reads completed", |d| d.reads),
    ("container_fs_writes_bytes_total", "Cumulative count of bytes written", |d| d.written_bytes),
    ("container_fs_writes_total", "Cumulative count of writes completed", |d| d.writes),
];

/// The whole text.
pub(crate) fn text(snapshot: &Snapshot, disks: &super::disk::Disks, machine: &Machine) -> String {
    let subjects = subjects(snapshot);
    let mut exposition = Exposition::default();
    let info = &machine.info;
    let help = "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor version & cadvisor revision.";
    let labels = [
        ("cadvisorRevision", ""),
        ("cadvisorVersion", ""),
        ("dockerVersion", ""),
        ("kernelVersion", info.kernel_version.as_str()),
        ("osVersion", info.os_image.as_str()),
    ];
    exposition.family("cadvisor_version_info", help, Kind::Gauge).sample(&labels, 1.0, None);
    for (name, help, kind, value) in PLAIN {
        let mut family = exposition.family(name, help, *kind);
        for subject in &subjects {
            if let Some(value) = value(subject.group) {
                family.sample(&subject.labels(&[]), value, Some(subject.group.at));
            }
        }
    }
    let mut family = exposition.family(
        "container_cpu_usage_seconds_total",
        "Cumulative cpu time consumed in seconds.",
        Kind::Counter,
    );
    for subject in &subjects {
        family.sample(&subject.labels(&[("cpu", "total")]), cpu_seconds(subject.group), Some(subject.group.at));
    }
    let mut family = exposition.family(
        "container_memory_failures_total",
        "Cumulative count of memory allocation failures.",
        Kind::Counter,
    );
    for subject in &subjects {
        let Some(memory) = &subject.group.memory else { continue };
        for (kind, value) in [("pgfault", memory.page_faults), ("pgmajfault", memory.major_page_faults)] {
            // The counters include what is below the group.
            let labels = subject.labels(&[("failure_type", kind), ("scope", "hierarchy")]);
            family.sample(&labels, value as f64, Some(subject.group.at));
        }
    }
    let names: HashMap<&str, String> = subjects
        .iter()
        .flat_map(|subject| &subject.group.devices)
        .map(|device| (device.number.as_str(), device_name(&device.number)))
        .collect();
    for (name, help, value) in DEVICES {
        let mut family = exposition.family(name, help, Kind::Counter);
        for subject in &subjects {
            for device in &subject.group.devices {
                let path = names.get(device.number.as_str()).map_or("", String::as_str);
                family.sample(&subject.labels(&[("device", path)]), value(device) as f64, Some(subject.group.at));
            }
        }
    }
    for (name, help, value) in NETWORK {
        let mut family = exposition.family(name, help, Kind::Counter);
        for subject in &subjects {
            // A pod's network is its sandbox's.
            let id = subject.sandbox_id.map(|sandbox| format!("{}/{sandbox}", subject.id));
            for interface in subject.interfaces {
                let mut labels = subject.labels(&[("interface", &interface.name)]);
                for (name, value) in &mut labels {
                    match (*name, &id, subject.sandbox_id) {
                        ("id", Some(id), _) => *value = id,
                        ("name", _, Some(sandbox)) => *value = sandbox,
                        _ => {}
                    }
                }
                family.sample(&labels, value(interface) as f64, Some(subject.group.at));
            }
        }
    }
    let mut family = exposition.family(
        "container_start_time_seconds",
        "Start time of the container since unix epoch in seconds.",
        Kind::Gauge,
    );
    for subject in &subjects {
        if let Some(started) = subject.started {
            family.sample(&subject.labels(&[]), started, Some(subject.group.at));
        }
    }
    filesystems(&mut exposition, &subjects, snapshot, disks);
    machine_series(&mut exposition, machine);
    exposition
        .family(
            "container_scrape_error",
            "1 if there was an error while getting container metrics, 0 otherwise",
            Kind::Gauge,
        )
        .sample(&[], if snapshot.node.is_some() { 0.0 } else { 1.0 }, None);
    exposition.finish()
}

/// Of containers, their writable layers; of the node, its filesystem.
fn filesystems(exposition: &mut Exposition, subjects: &[Subject<'_>], snapshot: &Snapshot, disks: &super::disk::Disks) {
    let uid_of: HashMap<&str, &str> = snapshot
        .pods
        .iter()
        .flat_map(|pod| pod.containers.iter().map(|container| (container.record.id.as_str(), pod.uid.as_str())))
        .collect();
    let images = disks.image_fs.as_ref().map_or(disks.node_fs, |images| images.space);
    let used = |subject: &Subject<'_>| {
        if subject.is_container {
            let disk = disks.pods.get(*uid_of.get(subject.name)?)?;
            let usage = disk.layers.get(subject.container)?;
            Some((images, usage.bytes, usage.inodes))
        } else if snapshot.node.as_ref().is_some_and(|node| node.path == subject.group.path) {
            let space = disks.node_fs;
            Some((
                space,
                space.size_bytes.saturating_sub(space.free_bytes),
                space.inodes.saturating_sub(space.inodes_free),
            ))
        } else {
            None
        }
    };
    type Read = fn((crate::node::machine::Space, u64, u64)) -> u64;
    let families: [(&'static str, &'static str, Read); 4] = [
        ("container_fs_inodes_free", "Number of available Inodes", |(space, ..)| space.inodes_free),
        ("container_fs_inodes_total", "Number of Inodes", |(space, ..)| space.inodes),
        (
            "container_fs_limit_bytes",
            "Number of bytes that can be consumed by the container on this filesystem.",
            |(space, ..)| space.size_bytes,
        ),
        (
            "container_fs_usage_bytes",
            "Number of bytes that are consumed by the container on this filesystem.",
            |(_, used, _)| used,
        ),
    ];
    for (name, help, read) in families {
        let mut family = exposition.family(name, help, Kind::Gauge);
        for subject in subjects {
            if let Some(found) = used(subject) {
                family.sample(&subject.labels(&[("device", "")]), read(found) as f64, Some(disks.at));
            }
        }
    }
}

fn machine_series(exposition: &mut Exposition, machine: &Machine) {
    let info = &machine.info;
    let labels = [
        ("boot_id", info.boot_id.as_str()),
        ("machine_id", info.machine_id.as_str()),
        ("system_uuid", info.system_uuid.as_str()),
    ];
    for (name, help, value) in [
        ("machine_cpu_cores", "Number of logical CPU cores.", machine.cpu_milli as f64 / 1000.0),
        ("machine_memory_bytes", "Amount of memory installed on the machine.", machine.memory_bytes as f64),
    ] {
        exposition.family(name, help, Kind::Gauge).sample(&labels, value, None);
    }
}

/// `/dev/vda` for `254:0`.
fn device_name(number: &str) -> String {
    let uevent = std::fs::read_to_string(format!("/sys/dev/block/{number}/uevent")).unwrap_or_default();
    let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map(|name| format!("/dev/{name}")).unwrap_or_default()
}

fn subjects(snapshot: &Snapshot) -> Vec<Subject<'_>> {
    let plain = |group| Subject {
        group,
        container: "",
        image: "",
        name: "",
        namespace: "",
        pod: "",
        started: None,
        id: format!("/{}", group.path.display()),
        interfaces: &[],
        sandbox_id: None,
        is_container: false,
    };
    let mut all: Vec<_> = snapshot
        .node
        .iter()
        .map(|node| Subject { interfaces: &snapshot.interfaces, ..plain(node) })
        .chain(snapshot.pod_parents.iter().map(plain))
        .collect();
    for sample in &snapshot.pods {
        let (namespace, pod) = (view::namespace(&sample.pod), view::name(&sample.pod));
        if let Some(group) = &sample.group {
            let started = sample.pod.status.as_ref().and_then(|status| status.start_time.as_ref());
            all.push(Subject {
                namespace,
                pod,
                started: started.map(|at| at.0.as_second() as f64),
                sandbox_id: sample.sandbox_id.as_deref(),
                interfaces: sample.interfaces.as_deref().unwrap_or_default(),
                ..plain(group)
            });
        }
        for container in &sample.containers {
            let record = &container.record;
            all.push(Subject {
                container: &record.name,
                image: &record.image,
                name: &record.id,
                namespace,
                pod,
                started: record.started_at.map(|at| at.as_nanosecond() as f64 / 1e9),
                is_container: true,
                ..plain(&container.group)
            });
        }
    }
    all
}
