//! What the machine is and has: identity, capacity, and how much of it is left.

use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::{NodeSwapStatus, NodeSystemInfo};

use crate::cgroup::Cgroups;
use crate::config::Config;
use crate::eviction::signal::Signal;
use crate::quantity::{self, ResourceList};
use crate::resources::page_size_resource;
use crate::stats::group::Group;

/// As Go names it.
pub(crate) const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
/// The Kubernetes version this kubelet speaks.
pub(crate) const KUBELET_VERSION: &str = "v1.35.0";

/// Where the kernel has its huge pages, by size.
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";

/// The machine, read once.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub capacity: ResourceList,
    pub memory_bytes: i64,
    pub cpu_milli: i64,
    pub swap_bytes: i64,
    /// Sizes of its huge pages, bytes, ascending.
    pub huge_page_sizes: Vec<i64>,
    pub info: NodeSystemInfo,
}

impl Machine {
    /// Reads /proc and /sys; what cannot be read is left empty.
    pub(crate) fn read(config: &Config) -> Machine {
        let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_string();
        let cpus = std::thread::available_parallelism().map(|count| count.get() as i64).unwrap_or(1);
        let installed = meminfo("MemTotal:").unwrap_or(0);
        // A node that is a group of a machine (a local cluster's) has no more than that group may use.
        let cgroups = Cgroups::new(&config.cgroup_mount, &config.cgroup_root, config.cgroups_per_qos);
        let limit = Group::read(&cgroups, cgroups.root()).and_then(|root| i64::try_from(root.memory?.limit?).ok());
        let memory = limit.map_or(installed, |limit| limit.min(installed));
        let (storage, _) = filesystem(&config.root_dir);
        let mut capacity = ResourceList::new();
        capacity.insert("cpu".into(), quantity::from_milli(cpus * 1000));
        capacity.insert("memory".into(), quantity::from_bytes(memory));
        capacity.insert("ephemeral-storage".into(), quantity::from_bytes(storage.size_bytes as i64));
        let huge_page_sizes = huge_page_sizes();
        for size in &huge_page_sizes {
            let path = format!("{HUGE_PAGES}/hugepages-{}kB/nr_hugepages", size / 1024);
            if let Ok(count) = line(&path).parse::<i64>() {
                capacity.insert(page_size_resource(*size), quantity::from_bytes(count.saturating_mul(*size)));
            }
        }
        capacity.extend(config.capacity_override.clone());
        let swap_bytes = meminfo("SwapTotal:").unwrap_or(0);
        capacity.insert("pods".into(), quantity::from_count(config.max_pods.into()));
        let os_image = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let os_image = os_image.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
        Machine {
            memory_bytes: capacity.get("memory").map(quantity::value).unwrap_or(memory),
            cpu_milli: capacity.get("cpu").map(quantity::milli).unwrap_or(cpus * 1000),
            swap_bytes,
            huge_page_sizes,
            info: NodeSystemInfo {
                swap: (swap_bytes > 0).then_some(NodeSwapStatus { capacity: Some(swap_bytes) }),
                machine_id: line("/etc/machine-id"),
                system_uuid: line("/sys/class/dmi/id/product_uuid"),
                boot_id: line("/proc/sys/kernel/random/boot_id"),
                kernel_version: line("/proc/sys/kernel/osrelease"),
                os_image: os_image.trim_matches('"').to_string(),
                kubelet_version: KUBELET_VERSION.into(),
                operating_system: "linux".into(),
                architecture: ARCHITECTURE.into(),
                ..Default::default()
            },
            capacity,
        }
    }

    /// What pods may use: capacity less what is reserved and less the hard eviction thresholds.
    pub(crate) fn allocatable(&self, config: &Config) -> ResourceList {
        let reserved = |name: &str| {
            let of = |list: &ResourceList| list.get(name).map(quantity::milli).unwrap_or(0);
            of(&config.kube_reserved).saturating_add(of(&config.system_reserved))
        };
        let evict = |signal, total: i64| {
            let held = config.eviction_hard.get(&signal).map_or(0, |amount| amount.of(total.max(0) as u64));
            i64::try_from(held).unwrap_or(i64::MAX)
        };
        let mut allocatable = self.capacity.clone();
        for (name, amount) in &mut allocatable {
            let total = quantity::value(amount);
            let held = match name.as_str() {
                "cpu" => {
                    *amount = quantity::from_milli((quantity::milli(amount) - reserved("cpu")).max(0));
                    continue;
                }
                "memory" => reserved(name) / 1000 + evict(Signal::MemoryAvailable, total),
                "ephemeral-storage" => {
                    let held = reserved(name) / 1000 + evict(Signal::NodefsAvailable, total);
                    *amount = quantity::from_count((total - held).max(0));
                    continue;
                }
                _ => reserved(name) / 1000,
            };
            if held > 0 {
                *amount = quantity::from_bytes((total - held).max(0));
            }
        }
        // What is in huge pages is not there as memory.
        let huge = |(name, amount): (&String, &_)| name.starts_with("hugepages-").then(|| quantity::value(amount));
        let huge: i64 = allocatable.iter().filter_map(huge).fold(0, i64::saturating_add);
        if let Some(memory) = allocatable.get_mut("memory").filter(|_| huge > 0) {
            *memory = quantity::from_bytes(quantity::value(memory).saturating_sub(huge).max(0));
        }
        allocatable
    }
}

/// What pods together may really take of the memory: what is kept for eviction is theirs to be evicted from.
pub(crate) fn pods_memory_bytes(machine: &Machine, config: &Config) -> i64 {
    let of = |list: &ResourceList| list.get("memory").map(quantity::value).unwrap_or(0);
    (machine.memory_bytes - of(&config.kube_reserved) - of(&config.system_reserved)).max(0)
}

/// Sizes of the kernel's huge pages, bytes, ascending.
fn huge_page_sizes() -> Vec<i64> {
    let entries = fs::read_dir(HUGE_PAGES).into_iter().flatten().flatten();
    let kib = |name: &str| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<i64>().ok();
    let sizes = entries.filter_map(|entry| kib(entry.file_name().to_str()?)?.checked_mul(1024));
    let mut sizes: Vec<i64> = sizes.filter(|size| *size > 0).collect();
    sizes.sort_unstable();
    sizes
}

/// A value of /proc/meminfo, bytes.
pub(crate) fn meminfo(key: &str) -> Option<i64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: i64 = text.lines().find(|line| line.starts_with(key))?.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// A filesystem's bytes and inodes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Space {
    pub size_bytes: u64,
    pub free_bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

/// The filesystem that holds `path`; `false` when it cannot be asked.
pub(crate) fn filesystem(path: &Path) -> (Space, bool) {
    match rustix::fs::statvfs(path) {
        Ok(stat) => (
            Space {
                size_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
                free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
                inodes: stat.f_files,
                inodes_free: stat.f_favail,
            },
            true,
        ),
        Err(_) => (Space::default(), false),
    }
}

/// What is left at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub memory_available_bytes: Option<u64>,
    pub nodefs: Option<Space>,
    pub pids: u64,
    pub pids_max: u64,
}

impl Usage {
    /// Reads it now.
    pub(crate) fn read(root_dir: &Path) -> Usage {
        // As upstream counts: file pages not used lately can be had at once, the rest of the cache cannot.
        let free =
            meminfo("MemFree:").zip(meminfo("Inactive(file):")).map(|(free, cache)| (free + cache).max(0) as u64);
        let (space, known) = filesystem(root_dir);
        let number = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let loadavg = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let threads = loadavg.split_whitespace().nth(3).and_then(|pair| pair.split_once('/'));
        Usage {
            memory_available_bytes: free,
            nodefs: known.then_some(space),
            pids: threads.and_then(|(_, all)| all.parse().ok()).unwrap_or(0),
            pids_max: ["pid_max", "threads-max"]
                .map(|name| number(&format!("/proc/sys/kernel/{name}")))
                .into_iter()
                .filter(|most| *most > 0)
                .min()
                .unwrap_or(0),
        }
    }
}

/// The least OOM score adjustment this process can set: its own, unless it may lower it.
pub(crate) fn min_oom_score_adj() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    if effective & CAP_SYS_RESOURCE != 0 {
        return -1000;
    }
    tracing::warn!("CAP_SYS_RESOURCE is missing: containers get no OOM score below the kubelet's own");
    fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    #[test]
    fn allocatable_is_less() {
        let mut config = Config::new("n", "127.0.0.1".parse().unwrap());
        config.root_dir = "/".into();
        let huge = ("hugepages-1Gi", "0");
        let pages = ("hugepages-2Mi", "64Mi");
        config.capacity_override = [("cpu", "4"), ("memory", "8Gi"), ("ephemeral-storage", "100Gi"), huge, pages]
            .map(|(k, v)| (k.into(), Quantity(v.into())))
            .into();
        config.kube_reserved = [("cpu", "100m"), ("memory", "1Gi")].map(|(k, v)| (k.into(), Quantity(v.into()))).into();
        let machine = Machine::read(&config);
        let allocatable = machine.allocatable(&config);
        let of = |name: &str| allocatable.get(name).map(|quantity| quantity.0.clone());
        assert_eq!(of("cpu").as_deref(), Some("3900m"));
        assert_eq!(of("memory").as_deref(), Some("7004Mi"), "less what is in huge pages");
        assert_eq!(of("hugepages-2Mi").as_deref(), Some("64Mi"));
        assert_eq!(of("ephemeral-storage").as_deref(), Some("96636764160"));
        assert_eq!(of("pods").as_deref(), Some("110"));
        assert!(!machine.info.kernel_version.is_empty());
    }
}
