//! Changes the limits of a running container by writing its control group's files: planned as (controller, file, value),
//! then written.

use std::{io::Write as _, os::unix::fs::OpenOptionsExt, path::Path};

use keelson_cri::v1::LinuxContainerResources;
use serde_json::Value;

use crate::{
    Error, cgroup,
    core::Container,
    huge_pages,
    oci::{self, Machine},
    records::ContainerPhase,
};

/// One file to write.
#[derive(Debug, PartialEq, Eq)]
struct Write {
    controller: String,
    file: String,
    value: String,
    /// The kernel may refuse it.
    tried: bool,
}

/// Applies `resources` to the container and notes them in its record; to its specification, if it is still to be started. What
/// is zero or empty stays as it is. If the kernel refuses one limit, all stay. Blocks.
pub(crate) fn update(
    container: &Container,
    resources: &LinuxContainerResources,
    machine: &Machine,
) -> Result<(), Error> {
    let old = container.with(|record| record.config.as_ref()?.linux.as_ref()?.resources.clone()).unwrap_or_default();
    let mut merged = old.clone();
    merge(&mut merged, resources);
    let mut wanted = resources.clone();
    if wanted.cpu_period != 0 && wanted.cpu_quota == 0 {
        // The unified hierarchy takes both in one word.
        wanted.cpu_quota = old.cpu_quota;
    }
    match container.phase() {
        ContainerPhase::Running => {
            let group = container.cgroup();
            write_all(&group, &plan(&wanted, cgroup::is_unified()))?;
            huge_pages::update(&group, resources)?;
        }
        ContainerPhase::Created => respecify(&container.bundle.join("config.json"), &merged, machine)?,
        _ => {}
    }
    container.update(|record| {
        if let Some(linux) = record.config.as_mut().and_then(|config| config.linux.as_mut()) {
            linux.resources = Some(merged);
        }
        true
    });
    Ok(())
}

/// Writes the files; what was written before one is refused gets its old value again.
fn write_all(group: &Path, writes: &[Write]) -> Result<(), Error> {
    let mut before = Vec::new();
    for write in writes {
        let path = cgroup::dir(&write.controller, group).join(&write.file);
        let old = std::fs::read_to_string(&path);
        match std::fs::write(&path, &write.value) {
            Ok(()) => before.extend(old.ok().map(|old| (path, old))),
            Err(error) if write.tried => tracing::debug!(%error, path = %path.display(), "not this one"),
            Err(error) => {
                for (path, old) in before.into_iter().rev() {
                    let _ = std::fs::write(path, old.trim());
                }
                return Err(Error::io("write", path)(error));
            }
        }
    }
    Ok(())
}

/// Puts limits into the specification `path` of a container that has not been started.
fn respecify(path: &Path, resources: &LinuxContainerResources, machine: &Machine) -> Result<(), Error> {
    let say = |error: serde_json::Error| Error::Other(format!("{}: {error}", path.display()));
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let mut spec: Value = serde_json::from_slice(&bytes).map_err(say)?;
    if let (Some(Value::Object(limits)), Value::Object(new)) =
        (spec.pointer_mut("/linux/resources"), oci::linux_resources(resources, machine))
    {
        limits.extend(new);
    }
    let temporary = path.with_extension("tmp");
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
    let bytes = serde_json::to_vec(&spec).map_err(say)?;
    file.and_then(|mut file| file.write_all(&bytes)).map_err(Error::io("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(Error::io("write", path))
}

fn plan(resources: &LinuxContainerResources, unified: bool) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut add = |controller: &str, file: &str, value: String, tried: bool| {
        writes.push(Write { controller: controller.into(), file: file.into(), value, tried });
    };
    let (shares, quota, period) = (resources.cpu_shares, resources.cpu_quota, resources.cpu_period);
    let (memory, with_swap) = (resources.memory_limit_in_bytes, resources.memory_swap_limit_in_bytes);
    if unified {
        if shares != 0 {
            add("cpu", "cpu.weight", weight(shares).to_string(), false);
        }
        if quota != 0 || period != 0 {
            let quota = if quota > 0 { quota.to_string() } else { "max".into() };
            add("cpu", "cpu.max", format!("{quota} {}", if period > 0 { period } else { 100_000 }), false);
        }
        if memory != 0 {
            add("memory", "memory.max", if memory > 0 { memory.to_string() } else { "max".into() }, false);
        }
        let mut files: Vec<_> = resources.unified.iter().collect();
        files.sort_unstable();
        for (file, value) in files {
            if let Some((controller, _)) = file.split_once('.').filter(|_| !file.contains('/')) {
                add(controller, file, value.clone(), false);
            }
        }
    } else {
        if shares != 0 {
            add("cpu", "cpu.shares", shares.to_string(), false);
        }
        if period != 0 {
            add("cpu", "cpu.cfs_period_us", period.to_string(), false);
        }
        if quota != 0 {
            add("cpu", "cpu.cfs_quota_us", quota.to_string(), false);
        }
        if memory != 0 {
            // Memory may never be more than memory and swap together: which of them goes first depends on what is there now.
            let both = "memory.memsw.limit_in_bytes";
            if with_swap != 0 {
                add("memory", both, with_swap.to_string(), true);
            }
            add("memory", "memory.limit_in_bytes", memory.to_string(), false);
            if with_swap != 0 {
                // Not there on kernels that do not count swap.
                add("memory", both, with_swap.to_string(), true);
            }
        }
    }
    for (file, value) in [("cpuset.cpus", &resources.cpuset_cpus), ("cpuset.mems", &resources.cpuset_mems)] {
        if !value.is_empty() {
            add("cpuset", file, value.clone(), false);
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
        (&mut old.memory_swap_limit_in_bytes, new.memory_swap_limit_in_bytes),
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
    old.unified.extend(new.unified.clone());
    for page in &new.hugepage_limits {
        old.hugepage_limits.retain(|other| other.page_size != page.page_size);
        old.hugepage_limits.push(page.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(resources: LinuxContainerResources, unified: bool, expected: &[(&str, &str)]) {
        let writes = plan(&resources, unified);
        let writes: Vec<_> = writes.iter().map(|write| (write.file.as_str(), write.value.as_str())).collect();
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
        let with_swap = LinuxContainerResources {
            memory_limit_in_bytes: 2 << 20,
            memory_swap_limit_in_bytes: 2 << 20,
            unified: [("memory.swap.max".to_owned(), "0".to_owned()), ("../x.y".to_owned(), "0".to_owned())].into(),
            ..Default::default()
        };
        let both = ("memory.memsw.limit_in_bytes", "2097152");
        check(with_swap.clone(), false, &[both, ("memory.limit_in_bytes", "2097152"), both]);
        check(with_swap, true, &[("memory.max", "2097152"), ("memory.swap.max", "0")]);
        check(LinuxContainerResources::default(), false, &[]);
        check(LinuxContainerResources { cpu_quota: -1, ..Default::default() }, true, &[("cpu.max", "max 100000")]);
    }
}
