//! What a runtime is told when it starts. No flag or environment variable is read anywhere else in this crate.

use std::{collections::BTreeMap, path::PathBuf};

use crate::handlers::Handler;

/// Images under this domain are served by the runtime itself, whatever the pull policy: no packet leaves for them.
pub const LOCAL_IMAGE_DOMAIN: &str = "keelson.local";

/// Where a runtime keeps things and what it may use.
#[derive(Clone, Debug)]
pub struct Config {
    /// Persistent data: images, container file systems, records of sandboxes and containers.
    pub root: PathBuf,
    /// What dies with a reboot: namespaces, sockets, pipes, mounts.
    pub state: PathBuf,
    /// The CRI socket. A stale one is replaced.
    pub socket: PathBuf,
    /// CNI network configurations; the first valid one in name order is used.
    pub cni_conf_dir: PathBuf,
    /// CNI plugin binaries.
    pub cni_bin_dir: PathBuf,
    /// Network namespace in which sockets to registries are opened; `None` is the runtime's own.
    pub pull_netns: Option<PathBuf>,
    /// Binary whose `shim` subcommand calls [`crate::shim_main`]; also the payload of `keelson.local/hello`.
    pub exe: PathBuf,
    /// Further images of [`LOCAL_IMAGE_DOMAIN`]: name without tag (`keelson.local/busybox`) to an OCI layout directory or
    /// an archive, imported when first asked for.
    pub builtin_images: BTreeMap<String, PathBuf>,
    /// Registries (`host` or `host:port`) spoken to over plain HTTP, beside loopback ones.
    pub insecure_registries: Vec<String>,
    /// Registry for names that carry none (`busybox`, which is then `library/busybox` there). With `None`, such names can
    /// be loaded and run, not pulled.
    pub default_registry: Option<String>,
    /// How to reach registries: a directory per registry (`host`, `host_port_`, `_default`) with a `hosts.toml`, as containerd
    /// reads them.
    pub registry_config_dir: PathBuf,
    /// Images that are pinned, as [`crate::Settings::pinned_images`] names them: the kubelet does not collect them.
    pub pinned_images: Vec<String>,
    /// Directories of CDI specifications; a later one goes before an earlier one.
    pub cdi_dirs: Vec<PathBuf>,
    /// OCI runtimes by the name that RuntimeClasses call them; others' containers run on `libcontainer`.
    pub handlers: BTreeMap<String, Handler>,
}

impl Config {
    /// The usual places, with `exe` as the shim's binary.
    pub fn new(exe: impl Into<PathBuf>) -> Self {
        Self {
            root: "/var/lib/keelson/runtime".into(),
            state: "/run/keelson/runtime".into(),
            socket: "/run/keelson/runtime.sock".into(),
            cni_conf_dir: "/etc/cni/net.d".into(),
            cni_bin_dir: "/opt/cni/bin".into(),
            pull_netns: None,
            exe: exe.into(),
            builtin_images: BTreeMap::new(),
            insecure_registries: Vec::new(),
            default_registry: None,
            registry_config_dir: "/etc/keelson/certs.d".into(),
            pinned_images: Vec::new(),
            cdi_dirs: crate::cdi::DIRS.map(PathBuf::from).to_vec(),
            handlers: BTreeMap::new(),
        }
    }
}
