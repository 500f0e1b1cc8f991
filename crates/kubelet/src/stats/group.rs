//! The counters of one control group, on v1 and v2.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::cgroup::Cgroups;

/// A v1 limit from here on is none.
const UNLIMITED: u64 = 1 << 62;

/// A group at one moment. What the kernel does not count is absent or zero.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    /// Relative to the hierarchies' mount points.
    pub path: PathBuf,
    pub at: Timestamp,
    pub cpu: Cpu,
    /// `None` without the memory controller.
    pub memory: Option<Memory>,
    pub swap_bytes: Option<u64>,
    /// Memory and swap together may not exceed it.
    pub swap_limit_bytes: Option<u64>,
    pub processes: Option<u64>,
    pub processes_max: Option<u64>,
    /// Threads are what the pids controller counts; processes are what `cgroup.procs` lists.
    pub pressure: [Option<Pressure>; 3],
    pub devices: Vec<Device>,
    pub oom_kills: Option<u64>,
}

/// CPU time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cpu {
    pub usage_ns: u64,
    pub user_ns: u64,
    pub system_ns: u64,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_ns: u64,
    pub shares: Option<u64>,
    /// Without one there is no limit.
    pub quota_us: Option<u64>,
    pub period_us: Option<u64>,
    /// Thousand-millionths of a core lately, once there was an earlier pass.
    pub nano_cores: Option<u64>,
}

/// Memory, bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub usage: u64,
    /// Usage less file pages not used lately.
    pub working_set: u64,
    pub max_usage: Option<u64>,
    pub rss: u64,
    pub cache: u64,
    pub mapped_file: u64,
    pub active_file: u64,
    pub inactive_file: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub failures: Option<u64>,
    pub limit: Option<u64>,
    pub reservation: Option<u64>,
}

/// Index into [`Group::pressure`].
pub(crate) const CPU: usize = 0;
pub(crate) const MEMORY: usize = 1;
pub(crate) const IO: usize = 2;

/// Pressure stall information of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pressure {
    pub some: Stall,
    pub full: Stall,
}

/// Time lost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Stall {
    /// Percent of the last 10, 60 and 300 seconds.
    pub averages: [f64; 3],
    /// Microseconds.
    pub total_us: u64,
}

/// A block device's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Device {
    /// `major:minor`
    pub number: String,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

fn text(path: PathBuf) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn number(path: PathBuf) -> Option<u64> {
    text(path)?.trim().parse().ok()
}

/// The value beside `key` in a file of `key value` lines.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

impl Group {
    /// Reads a group's counters; `None` when it is not there.
    pub(crate) fn read(cgroups: &Cgroups, path: &Path) -> Option<Group> {
        let mut group = if cgroups.is_v2() { read_v2(cgroups, path)? } else { read_v1(cgroups, path)? };
        group.path = path.to_path_buf();
        group.at = keelson_client::clock::now();
        Some(group)
    }

    /// Reads the node's own group. The machine's root has fewer files than others: what is missing is in `/proc`.
    pub(crate) fn read_root(cgroups: &Cgroups, path: &Path) -> Option<Group> {
        let mut group = Group::read(cgroups, path)?;
        if group.memory.is_none() {
            group.memory = machine_memory(&text("/proc/meminfo".into())?);
        }
        for (known, name) in group.pressure.iter_mut().zip(["cpu", "memory", "io"]) {
            *known = known.or_else(|| pressure(&text(Path::new("/proc/pressure").join(name))?));
        }
        Some(group)
    }

    /// What may still be used before a limit, of the group's own or `capacity`.
    pub(crate) fn available_bytes(&self, capacity: Option<u64>) -> Option<u64> {
        let memory = self.memory.as_ref()?;
        let limit = memory.limit.into_iter().chain(capacity).min()?;
        Some(limit.saturating_sub(memory.working_set))
    }
}

fn read_v1(cgroups: &Cgroups, path: &Path) -> Option<Group> {
    let file = |controller: &str, name: &str| cgroups.file(controller, path, name);
    let read = |controller: &str, name: &str| text(file(controller, name)?);
    let value = |controller: &str, name: &str| number(file(controller, name)?);
    let usage_ns = value("cpuacct", "cpuacct.usage")?;
    let throttling = read("cpu", "cpu.stat").unwrap_or_default();
    let of = |key: &str| keyed(&throttling, key).unwrap_or(0);
    let cpu = Cpu {
        usage_ns,
        user_ns: value("cpuacct", "cpuacct.usage_user").unwrap_or(0),
        system_ns: value("cpuacct", "cpuacct.usage_sys").unwrap_or(0),
        periods: of("nr_periods"),
        throttled_periods: of("nr_throttled"),
        throttled_ns: of("throttled_time"),
        shares: value("cpu", "cpu.shares"),
        // -1 is no number of ours.
        quota_us: value("cpu", "cpu.cfs_quota_us"),
        period_us: value("cpu", "cpu.cfs_period_us"),
        nano_cores: None,
    };
    let bytes = |name: &str| value("memory", name);
    let limit = |name: &str| bytes(name).filter(|limit| *limit < UNLIMITED);
    let usage = bytes("memory.usage_in_bytes");
    let memory = usage.zip(read("memory", "memory.stat")).map(|(usage, stat)| {
        let of = |key: &str| keyed(&stat, key).unwrap_or(0);
        Memory {
            usage,
            working_set: usage.saturating_sub(of("total_inactive_file")),
            max_usage: bytes("memory.max_usage_in_bytes"),
            rss: of("total_rss"),
            cache: of("total_cache"),
            mapped_file: of("total_mapped_file"),
            active_file: of("total_active_file"),
            inactive_file: of("total_inactive_file"),
            page_faults: of("total_pgfault"),
            major_page_faults: of("total_pgmajfault"),
            failures: bytes("memory.failcnt"),
            limit: limit("memory.limit_in_bytes"),
            reservation: limit("memory.soft_limit_in_bytes"),
        }
    });
    let with_swap = bytes("memory.memsw.usage_in_bytes");
    Some(Group {
        cpu,
        swap_bytes: with_swap.zip(usage).map(|(both, memory)| both.saturating_sub(memory)),
        swap_limit_bytes: limit("memory.memsw.limit_in_bytes"),
        memory,
        processes: value("pids", "pids.current"),
        processes_max: value("pids", "pids.max"),
        pressure: [None; 3],
        devices: devices_v1(
            &read("blkio", "blkio.throttle.io_service_bytes_recursive").unwrap_or_default(),
            &read("blkio", "blkio.throttle.io_serviced_recursive").unwrap_or_default(),
        ),
        oom_kills: read("memory", "memory.oom_control").and_then(|text| keyed(&text, "oom_kill")),
        ..Default::default()
    })
}

fn read_v2(cgroups: &Cgroups, path: &Path) -> Option<Group> {
    let file = |name: &str| cgroups.file("", path, name);
    let read = |name: &str| text(file(name)?);
    let value = |name: &str| number(file(name)?);
    let stat = read("cpu.stat")?;
    let micros = |key: &str| keyed(&stat, key).unwrap_or(0).saturating_mul(1000);
    let max = read("cpu.max").unwrap_or_default();
    let (quota, period) = max.trim().split_once(' ').unwrap_or_default();
    let cpu = Cpu {
        usage_ns: micros("usage_usec"),
        user_ns: micros("user_usec"),
        system_ns: micros("system_usec"),
        periods: keyed(&stat, "nr_periods").unwrap_or(0),
        throttled_periods: keyed(&stat, "nr_throttled").unwrap_or(0),
        throttled_ns: micros("throttled_usec"),
        shares: value("cpu.weight").map(shares_of_weight),
        quota_us: quota.parse().ok(),
        period_us: period.parse().ok(),
        nano_cores: None,
    };
    let memory = value("memory.current").zip(read("memory.stat")).map(|(usage, stat)| {
        let of = |key: &str| keyed(&stat, key).unwrap_or(0);
        Memory {
            usage,
            working_set: usage.saturating_sub(of("inactive_file")),
            max_usage: value("memory.peak"),
            rss: of("anon"),
            cache: of("file"),
            mapped_file: of("file_mapped"),
            active_file: of("active_file"),
            inactive_file: of("inactive_file"),
            page_faults: of("pgfault"),
            major_page_faults: of("pgmajfault"),
            failures: read("memory.events").and_then(|text| keyed(&text, "max")),
            // `max` is no number.
            limit: value("memory.max"),
            reservation: value("memory.low").filter(|low| *low > 0),
        }
    });
    let pressures = ["cpu.pressure", "memory.pressure", "io.pressure"].map(|name| pressure(&read(name)?));
    Some(Group {
        cpu,
        memory,
        swap_bytes: value("memory.swap.current"),
        swap_limit_bytes: value("memory.swap.max"),
        processes: value("pids.current"),
        processes_max: value("pids.max"),
        pressure: pressures,
        devices: devices_v2(&read("io.stat").unwrap_or_default()),
        oom_kills: read("memory.events").and_then(|text| keyed(&text, "oom_kill")),
        ..Default::default()
    })
}

/// v1's shares for v2's weight, as upstream turns them back.
fn shares_of_weight(weight: u64) -> u64 {
    2 + weight.saturating_sub(1) * 262_142 / 9999
}

/// Memory of the whole machine from `/proc/meminfo`.
fn machine_memory(meminfo: &str) -> Option<Memory> {
    let bytes = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    let usage = bytes("MemTotal")?.saturating_sub(bytes("MemFree")?);
    let inactive_file = bytes("Inactive(file)").unwrap_or(0);
    Some(Memory {
        usage,
        working_set: usage.saturating_sub(inactive_file),
        rss: bytes("AnonPages").unwrap_or(0),
        cache: bytes("Cached").unwrap_or(0),
        mapped_file: bytes("Mapped").unwrap_or(0),
        active_file: bytes("Active(file)").unwrap_or(0),
        inactive_file,
        ..Default::default()
    })
}

/// A `*.pressure` file: `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and `full` likewise.
fn pressure(text: &str) -> Option<Pressure> {
    let stall = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let of = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let average = |key: &str| of(key)?.parse().ok();
        Some(Stall {
            averages: [average("avg10")?, average("avg60")?, average("avg300")?],
            total_us: of("total")?.trim().parse().ok()?,
        })
    };
    // Old kernels have no `full` line for CPU.
    Some(Pressure { some: stall("some")?, full: stall("full").unwrap_or_default() })
}

fn devices_v1(bytes: &str, operations: &str) -> Vec<Device> {
    let mut devices: Vec<Device> = Vec::new();
    let mut add = |text: &str, to: fn(&mut Device, bool, u64)| {
        for line in text.lines() {
            let mut words = line.split(' ');
            let (Some(number), Some(kind), Some(Ok(value))) =
                (words.next(), words.next(), words.next().map(str::parse::<u64>))
            else {
                continue;
            };
            if !matches!(kind, "Read" | "Write") {
                continue;
            }
            let at = devices.iter().position(|device| device.number == number).unwrap_or_else(|| {
                devices.push(Device { number: number.into(), ..Default::default() });
                devices.len() - 1
            });
            to(&mut devices[at], kind == "Read", value);
        }
    };
    add(bytes, |device, read, value| if read { device.read_bytes = value } else { device.written_bytes = value });
    add(operations, |device, read, value| if read { device.reads = value } else { device.writes = value });
    devices
}

fn devices_v2(text: &str) -> Vec<Device> {
    let device = |line: &str| {
        let (number, rest) = line.split_once(' ')?;
        let of = |key: &str| {
            rest.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok()).unwrap_or(0)
        };
        Some(Device {
            number: number.into(),
            read_bytes: of("rbytes"),
            written_bytes: of("wbytes"),
            reads: of("rios"),
            writes: of("wios"),
        })
    };
    text.lines().filter_map(device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_files() {
        let text = "some avg10=1.50 avg60=0.20 avg300=0.01 total=120\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let some = Stall { averages: [1.5, 0.2, 0.01], total_us: 120 };
        let full = Stall { averages: [0.0; 3], total_us: 7 };
        assert_eq!(pressure(text), Some(Pressure { some, full }));
        assert_eq!(pressure("nonsense"), None);
    }

    #[test]
    fn block_devices() {
        let expected = vec![Device { number: "254:0".into(), read_bytes: 10, written_bytes: 20, reads: 1, writes: 2 }];
        let bytes = "254:0 Read 10\n254:0 Write 20\n254:0 Sync 30\n254:0 Total 30\nTotal 30\n";
        assert_eq!(devices_v1(bytes, "254:0 Read 1\n254:0 Write 2\nTotal 3\n"), expected);
        assert_eq!(devices_v2("254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n"), expected);
    }

    /// A made-up v2 hierarchy in a directory reads as the kernel's would.
    #[test]
    fn the_unified_hierarchy() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("kubepods/podu");
        fs::create_dir_all(&group).unwrap();
        fs::write(dir.path().join("cgroup.controllers"), "cpu memory pids").unwrap();
        for (name, content) in [
            (
                "cpu.stat",
                "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 4\nnr_throttled 1\nthrottled_usec 9\n",
            ),
            ("cpu.max", "50000 100000\n"),
            ("cpu.weight", "39\n"),
            ("memory.current", "1000\n"),
            ("memory.max", "4000\n"),
            ("memory.stat", "anon 600\nfile 400\ninactive_file 300\npgfault 12\npgmajfault 2\n"),
            ("memory.events", "low 0\nmax 3\noom_kill 1\n"),
            ("pids.current", "5\n"),
            ("pids.max", "max\n"),
            ("memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"),
        ] {
            fs::write(group.join(name), content).unwrap();
        }
        let cgroups = Cgroups::new(dir.path(), "/", true);
        let read = Group::read(&cgroups, Path::new("kubepods/podu")).unwrap();
        assert_eq!((read.cpu.usage_ns, read.cpu.throttled_ns), (1_500_000, 9_000));
        assert_eq!((read.cpu.quota_us, read.cpu.period_us), (Some(50_000), Some(100_000)));
        assert_eq!(read.cpu.shares, Some(998), "what upstream makes of weight 39");
        let memory = read.memory.clone().unwrap();
        assert_eq!((memory.usage, memory.working_set, memory.rss, memory.limit), (1000, 700, 600, Some(4000)));
        assert_eq!((memory.page_faults, memory.failures, read.oom_kills), (12, Some(3), Some(1)));
        assert_eq!((read.processes, read.processes_max), (Some(5), None));
        assert_eq!(read.pressure[MEMORY].unwrap().some.total_us, 5);
        assert_eq!(read.available_bytes(Some(2000)), Some(1300));
        assert!(Group::read(&cgroups, Path::new("kubepods/other")).is_none());
    }

    /// On this machine's own hierarchies, whatever they are: a group's CPU and memory are what the kernel says.
    #[test]
    fn the_machines_hierarchies() {
        let cgroups = Cgroups::new(Path::new("/sys/fs/cgroup"), "/", true);
        let root = Group::read_root(&cgroups, Path::new("")).unwrap();
        let memory = root.memory.unwrap();
        assert!(root.cpu.usage_ns > 0 && memory.usage >= memory.working_set && memory.working_set > 0);
    }

    #[test]
    fn the_machine_from_meminfo() {
        let text = "MemTotal: 100 kB\nMemFree: 40 kB\nCached: 20 kB\nInactive(file): 10 kB\n";
        let memory = machine_memory(text).unwrap();
        assert_eq!((memory.usage, memory.working_set), (60 << 10, 50 << 10));
    }
}
