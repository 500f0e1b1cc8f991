//! What a machine must have to run clusters, checked by trying it, and how to get what is missing (`keelson doctor`).

use std::fs;
use std::path::Path;

use nlink::netlink::Nftables;
use nlink::netlink::link::{BridgeLink, VethLink};
use nlink::{Connection, Route};

use crate::cgroup;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// `root`, `cgroups`, …
    pub name: &'static str,
    /// What was found, or what is wrong and how to put it right.
    pub outcome: Result<String, Problem>,
}

/// A thing that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

fn problem(what: impl Into<String>, hint: impl Into<String>) -> Result<String, Problem> {
    Err(Problem { what: what.into(), hint: hint.into() })
}

/// Free space below which a cluster is not started, in bytes.
const MIN_FREE_BYTES: u64 = 1 << 30;

/// Debian's container runtime, for nodes that run it.
pub const CONTAINERD: &str = "/usr/bin/containerd";
/// How to get it.
pub const CONTAINERD_HINT: &str = "apt-get install containerd";

/// Checks everything. `data_dir` need not exist yet.
pub async fn check(data_dir: &Path) -> Vec<Check> {
    let root = root();
    let is_root = root.is_ok();
    let mut checks = vec![Check { name: "root", outcome: root }];
    checks.push(Check { name: "kernel", outcome: filesystems() });
    checks.push(Check { name: "cgroups", outcome: cgroups() });
    checks.push(Check { name: "disk", outcome: disk(data_dir) });
    if is_root {
        checks.push(Check { name: "network", outcome: network().await });
    }
    checks
}

/// What nodes with `--container-runtime containerd` need beside the rest.
pub fn containerd() -> Check {
    let programs = [CONTAINERD, "/usr/bin/containerd-shim-runc-v2", "/usr/sbin/runc", "/usr/bin/ctr"];
    let missing: Vec<_> = programs.into_iter().filter(|program| !Path::new(program).exists()).collect();
    let outcome = if missing.is_empty() {
        Ok(CONTAINERD.into())
    } else {
        problem(format!("{} is missing for --container-runtime containerd", missing.join(", ")), CONTAINERD_HINT)
    };
    Check { name: "containerd", outcome }
}

fn root() -> Result<String, Problem> {
    if rustix::process::geteuid().is_root() {
        return Ok("running as root".into());
    }
    problem("not running as root", "nodes are made of namespaces, mounts and cgroups: run it with sudo")
}

fn filesystems() -> Result<String, Problem> {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has = |name: &str| known.lines().any(|line| line.split_whitespace().next_back() == Some(name));
    let missing: Vec<_> = ["overlay", "tmpfs", "proc", "sysfs"].into_iter().filter(|name| !has(name)).collect();
    if missing.is_empty() {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        return Ok(format!("Linux {release} with overlayfs"));
    }
    problem(
        format!("the kernel has no {}", missing.join(", ")),
        format!("try `modprobe {}`, or a kernel that has it built in", missing.join(" ")),
    )
}

fn cgroups() -> Result<String, Problem> {
    let hierarchies = cgroup::mounted_hierarchies().map_err(|e| Problem {
        what: e.to_string(),
        hint: "mount cgroups at /sys/fs/cgroup (systemd does, and so does the package cgroupfs-mount)".into(),
    })?;
    let names: Vec<String> = hierarchies.iter().map(cgroup::Hierarchy::name).collect();
    let v2 = fs::read_to_string(Path::new(cgroup::MOUNT).join("cgroup.controllers")).unwrap_or_default();
    let has = |c: &str| v2.split_whitespace().chain(names.iter().flat_map(|n| n.split(','))).any(|have| have == c);
    let missing: Vec<_> = ["cpu", "memory", "pids"].into_iter().filter(|c| !has(c)).collect();
    if missing.is_empty() {
        return Ok(if v2.is_empty() { format!("v1: {}", names.join(" ")) } else { format!("v2: {}", v2.trim()) });
    }
    problem(
        format!("no cgroup controller for {}", missing.join(", ")),
        "enable it on the kernel's command line (cgroup_enable=memory), and mount cgroups at /sys/fs/cgroup",
    )
}

fn disk(data_dir: &Path) -> Result<String, Problem> {
    let existing = data_dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(existing).map_err(|e| Problem {
        what: format!("{}: {e}", existing.display()),
        hint: "pick another --data-dir".into(),
    })?;
    let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    let show = format!("{} MiB free in {}", free_bytes >> 20, existing.display());
    if free_bytes >= MIN_FREE_BYTES {
        return Ok(show);
    }
    problem(show, format!("free some space ({} MiB are needed) or pick another --data-dir", MIN_FREE_BYTES >> 20))
}

/// Tries bridge, veth and nftables in a network namespace that is gone right after.
async fn network() -> Result<String, Problem> {
    let hint = "try `modprobe bridge veth nf_tables`, or a kernel that has them built in";
    let fabric = crate::fabric::Fabric::create().await;
    let fabric = fabric.map_err(|e| Problem { what: e.to_string(), hint: hint.into() })?;
    let attempt = async {
        let links: Connection<Route> = Connection::new_in(fabric.path().as_path())?;
        links.add_link(BridgeLink::new("kl-check")).await?;
        links.add_link(VethLink::new("kl-check0", "kl-check1")).await?;
        let rules: Connection<Nftables> = Connection::new_in(fabric.path().as_path())?;
        rules.list_tables().await
    };
    match attempt.await {
        Ok(_) => Ok("network namespaces, bridge, veth, nftables".into()),
        Err(e) => problem(format!("the kernel refuses what nodes need: {e}"), hint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_passes() {
        for check in check(Path::new("/var/lib/keelson-not-there")).await {
            assert!(check.outcome.is_ok(), "{check:?}");
        }
    }
}
