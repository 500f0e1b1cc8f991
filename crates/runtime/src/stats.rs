//! Usage of containers and pods, read from their control groups when asked.

use std::path::Path;

use keelson_cri::v1::{
    ContainerAttributes, ContainerStats, CpuUsage, FilesystemIdentifier, FilesystemUsage, LinuxPodSandboxStats,
    MemoryUsage, NetworkInterfaceUsage, NetworkUsage, PodSandboxAttributes, PodSandboxStats, ProcessUsage, SwapUsage,
    UInt64Value,
};

use crate::{
    cgroup,
    core::{Container, Core, Sandbox, now_ns},
    namespaces,
};

/// Usage of one container. Values that the machine does not count are absent.
pub(crate) async fn container(container: &Container) -> ContainerStats {
    let group = container.cgroup();
    let attributes = container.with(|record| {
        let config = record.config.clone().unwrap_or_default();
        ContainerAttributes {
            id: record.id.clone(),
            metadata: config.metadata,
            labels: config.labels,
            annotations: config.annotations,
        }
    });
    let upper = container.root.join("upper");
    let (bytes, inodes) = container.disk_usage().await;
    ContainerStats {
        attributes: Some(attributes),
        cpu: cpu(&group),
        memory: memory(&group),
        writable_layer: Some(FilesystemUsage {
            timestamp: now_ns(),
            fs_id: Some(FilesystemIdentifier { mountpoint: upper.to_string_lossy().into_owned() }),
            used_bytes: Some(UInt64Value { value: bytes }),
            inodes_used: Some(UInt64Value { value: inodes }),
        }),
        swap: swap(&group),
    }
}

/// Usage of a pod: its parent group, its network, its containers.
pub(crate) async fn sandbox(core: &Core, sandbox: &Sandbox) -> PodSandboxStats {
    let config = sandbox.config();
    let parent = config.linux.as_ref().map(|linux| linux.cgroup_parent.clone()).unwrap_or_default();
    let group = Path::new(&parent);
    let network = match sandbox.netns() {
        Some(netns) => {
            let read = move || namespaces::in_network(&netns, || std::fs::read_to_string("/proc/thread-self/net/dev"));
            tokio::task::spawn_blocking(read).await.ok().and_then(|read| read.ok()?.ok()).map(|table| network(&table))
        }
        None => None,
    };
    let has_group = !parent.is_empty();
    let containers = core.containers_of(&sandbox.id);
    let running = containers.iter().filter(|found| found.is_running());
    PodSandboxStats {
        attributes: Some(PodSandboxAttributes {
            id: sandbox.id.clone(),
            metadata: config.metadata,
            labels: config.labels,
            annotations: config.annotations,
        }),
        linux: Some(LinuxPodSandboxStats {
            cpu: has_group.then(|| cpu(group)).flatten(),
            memory: has_group.then(|| memory(group)).flatten(),
            network,
            process: has_group.then(|| processes(group)).flatten(),
            containers: futures::future::join_all(running.map(|found| self::container(found))).await,
        }),
        windows: None,
    }
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

fn cpu(group: &Path) -> Option<CpuUsage> {
    let nanoseconds = if cgroup::is_unified() {
        let text = std::fs::read_to_string(cgroup::dir("", group).join("cpu.stat")).ok()?;
        cgroup::keyed(&text, "usage_usec")? * 1000
    } else {
        number(&cgroup::dir("cpuacct", group).join("cpuacct.usage"))?
    };
    Some(CpuUsage { timestamp: now_ns(), usage_core_nano_seconds: value(nanoseconds), usage_nano_cores: None })
}

fn memory(group: &Path) -> Option<MemoryUsage> {
    let dir = cgroup::dir("memory", group);
    let (files, keys) = if cgroup::is_unified() {
        (["memory.current", "memory.max"], ["inactive_file", "anon", "pgfault", "pgmajfault"])
    } else {
        let files = ["memory.usage_in_bytes", "memory.limit_in_bytes"];
        (files, ["total_inactive_file", "total_rss", "total_pgfault", "total_pgmajfault"])
    };
    let stat = std::fs::read_to_string(dir.join("memory.stat")).ok()?;
    let [usage, limit] = files.map(|file| number(&dir.join(file)));
    let [inactive, rss, faults, major_faults] = keys.map(|key| cgroup::keyed(&stat, key));
    let usage = usage?;
    let working_set = usage.saturating_sub(inactive.unwrap_or(0));
    // v1 writes no limit as the largest page count.
    let limit = limit.filter(|limit| *limit < 1 << 62);
    Some(MemoryUsage {
        timestamp: now_ns(),
        working_set_bytes: value(working_set),
        available_bytes: limit.and_then(|limit| value(limit.saturating_sub(working_set))),
        usage_bytes: value(usage),
        rss_bytes: rss.and_then(value),
        page_faults: faults.and_then(value),
        major_page_faults: major_faults.and_then(value),
    })
}

fn swap(group: &Path) -> Option<SwapUsage> {
    let dir = cgroup::dir("memory", group);
    let used = if cgroup::is_unified() {
        number(&dir.join("memory.swap.current"))?
    } else {
        number(&dir.join("memory.memsw.usage_in_bytes"))?.saturating_sub(number(&dir.join("memory.usage_in_bytes"))?)
    };
    Some(SwapUsage { timestamp: now_ns(), swap_available_bytes: None, swap_usage_bytes: value(used) })
}

fn processes(group: &Path) -> Option<ProcessUsage> {
    let count = number(&cgroup::dir("pids", group).join("pids.current"))?;
    Some(ProcessUsage { timestamp: now_ns(), process_count: value(count) })
}

/// Interface counters from the kernel's table: name, then eight numbers received, eight sent.
fn network(table: &str) -> NetworkUsage {
    let interface = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
        let at = |index: usize| numbers.get(index).copied().and_then(value);
        Some(NetworkInterfaceUsage {
            name: name.trim().into(),
            rx_bytes: at(0),
            rx_errors: at(2),
            tx_bytes: at(8),
            tx_errors: at(10),
        })
    };
    let all: Vec<_> = table.lines().filter_map(interface).filter(|interface| interface.name != "lo").collect();
    let default_interface = all.iter().find(|interface| interface.name == "eth0").cloned();
    let interfaces = all.into_iter().filter(|interface| interface.name != "eth0").collect();
    NetworkUsage { timestamp: now_ns(), default_interface, interfaces }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_counters() {
        let table = "Inter-|   Receive\n face |bytes\n    lo: 9 9 9 0 0 0 0 0 9 9 0 0 0 0 0 0\n  eth0: 100 1 2 0 0 0 0 0 200 1 3 0 0 0 0 0\n";
        let eth0 = network(table).default_interface.unwrap();
        let numbers = [eth0.rx_bytes, eth0.rx_errors, eth0.tx_bytes, eth0.tx_errors];
        assert_eq!(numbers.map(|number| number.unwrap().value), [100, 2, 200, 3]);
    }
}
