//! Changes the limits of a running container by writing its control group's files: planned as (controller, file, value),
//! then written.

use std::path::Path;

use keelson_cri::v1::LinuxContainerResources;

use crate::{Error, cgroup, core::Container};

/// One file to write.
#[derive(Debug, PartialEq, Eq)]
struct Write {
    controller: &'static str,
    file: &'static str,
    value: String,
}

/// Applies `resources` to the container and notes them in its record. What is zero or empty stays as it is.
pub(crate) fn update(container: &Container, resources: &LinuxContainerResources) -> Result<(), Error> {
    if container.is_running() {
        let group = container.cgroup();
        for write in plan(resources, cgroup::is_unified()) {
            let path = cgroup::dir(write.controller, Path::new(&group)).join(write.file);
            std::fs::write(&path, &write.value).map_err(Error::io("write", path))?;
        }
    }
    container.update(|record| {
        if let Some(linux) = record.config.as_mut().and_then(|config| config.linux.as_mut()) {
            merge(linux.resources.get_or_insert_default(), resources);
        }
        true
    });
    Ok(())
}

fn plan(resources: &LinuxContainerResources, unified: bool) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut write = |controller, file, value: String| writes.push(Write { controller, file, value });
    let (shares, quota, period) = (resources.cpu_shares, resources.cpu_quota, resources.cpu_period);
    if unified {
        if shares != 0 {
            write("cpu", "cpu.weight", weight(shares).to_string());
        }
        if quota != 0 || period != 0 {
            let quota = if quota > 0 { quota.to_string() } else { "max".into() };
            write("cpu", "cpu.max", format!("{quota} {}", if period > 0 { period } else { 100_000 }));
        }
        if resources.memory_limit_in_bytes != 0 {
            let limit = resources.memory_limit_in_bytes;
            write("memory", "memory.max", if limit > 0 { limit.to_string() } else { "max".into() });
        }
    } else {
        if shares != 0 {
            write("cpu", "cpu.shares", shares.to_string());
        }
        if period != 0 {
            write("cpu", "cpu.cfs_period_us", period.to_string());
        }
        if quota != 0 {
            write("cpu", "cpu.cfs_quota_us", quota.to_string());
        }
        if resources.memory_limit_in_bytes != 0 {
            write("memory", "memory.limit_in_bytes", resources.memory_limit_in_bytes.to_string());
        }
    }
    for (file, value) in [("cpuset.cpus", &resources.cpuset_cpus), ("cpuset.mems", &resources.cpuset_mems)] {
        if !value.is_empty() {
            write("cpuset", file, value.clone());
        }
    }
    writes
}

/// v1 shares (2..=262144) on v2's scale (1..=10000), as `runc` maps them since 1.3.2 and `libcgroups` does for a new group:
/// a curve through both ends on which 1024 shares are the default weight of 100.
fn weight(shares: i64) -> i64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            (10f64.powf(exponent).ceil() as i64).clamp(1, 10_000)
        }
    }
}

fn merge(old: &mut LinuxContainerResources, new: &LinuxContainerResources) {
    for (old, new) in [
        (&mut old.cpu_period, new.cpu_period),
        (&mut old.cpu_quota, new.cpu_quota),
        (&mut old.cpu_shares, new.cpu_shares),
        (&mut old.memory_limit_in_bytes, new.memory_limit_in_bytes),
    ] {
        if new != 0 {
            *old = new;
        }
    }
    for (old, new) in [(&mut old.cpuset_cpus, &new.cpuset_cpus), (&mut old.cpuset_mems, &new.cpuset_mems)] {
        if !new.is_empty() {
            old.clone_from(new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(resources: LinuxContainerResources, unified: bool, expected: &[(&str, &str)]) {
        let writes = plan(&resources, unified);
        let writes: Vec<_> = writes.iter().map(|write| (write.file, write.value.as_str())).collect();
        assert_eq!(writes, expected);
    }

    #[test]
    fn weights() {
        for (shares, expected) in [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (1 << 30, 10_000)] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        assert!((2..262_144).step_by(97).is_sorted_by_key(weight));
    }

    #[test]
    fn plans() {
        let resources = LinuxContainerResources {
            cpu_shares: 1024,
            cpu_quota: 50_000,
            cpu_period: 100_000,
            memory_limit_in_bytes: 1 << 20,
            ..Default::default()
        };
        check(
            resources.clone(),
            false,
            &[
                ("cpu.shares", "1024"),
                ("cpu.cfs_period_us", "100000"),
                ("cpu.cfs_quota_us", "50000"),
                ("memory.limit_in_bytes", "1048576"),
            ],
        );
        check(resources, true, &[("cpu.weight", "100"), ("cpu.max", "50000 100000"), ("memory.max", "1048576")]);
        check(LinuxContainerResources::default(), false, &[]);
        check(LinuxContainerResources { cpu_quota: -1, ..Default::default() }, true, &[("cpu.max", "max 100000")]);
    }
}
