//! Where a cluster keeps its files, and the small records in them. Everything of one cluster is under one directory; what
//! is secret is 0600 in directories that are 0700.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Context as _, Error, Result};

/// Nodes a profile may have; the node network is a /24.
pub const MAX_NODES: usize = 100;
/// The node network. It exists only inside the cluster's own namespaces.
pub const NODE_NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 89, 0, 0), 24);

/// The files of one cluster.
#[derive(Clone, Debug)]
pub struct Layout {
    dir: PathBuf,
}

/// What is remembered of a cluster (`profile.json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    pub name: String,
    /// The API server's port on the host's 127.0.0.1.
    pub port: u16,
    pub nodes: Vec<Node>,
    /// Which container runtime the nodes run.
    pub runtime: Runtime,
    /// The kubeconfig that holds the context.
    pub kubeconfig: PathBuf,
    /// Settings of components beyond what `up` itself gives them.
    #[serde(default)]
    pub extra_config: Vec<Setting>,
    /// Directories of the host that every node sees.
    #[serde(default)]
    pub mounts: Vec<Mount>,
}

/// A component's flag, as minikube writes it: `apiserver.audit-policy-file=/etc/policy.yaml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    pub component: String,
    /// The flag's name, without dashes.
    pub flag: String,
    pub value: String,
}

impl Setting {
    /// The flag as an argument.
    pub fn argument(&self) -> String {
        format!("--{}={}", self.flag, self.value)
    }

    /// The program of a node that the component is a part of.
    pub fn program(&self) -> Option<&'static str> {
        match self.component.as_str() {
            "apiserver" | "controller-manager" | "scheduler" => Some("server"),
            "kubelet" | "proxy" => Some("agent"),
            _ => None,
        }
    }
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || format!("{text:?} is not COMPONENT.FLAG=VALUE");
        let (name, value) = text.split_once('=').ok_or_else(shape)?;
        let (component, flag) = name.split_once('.').filter(|(_, flag)| !flag.is_empty()).ok_or_else(shape)?;
        let setting = Self { component: component.into(), flag: flag.into(), value: value.into() };
        match setting.program() {
            Some(_) => Ok(setting),
            None => Err(format!(
                "{component:?} is no component: use apiserver, controller-manager, scheduler, kubelet or proxy"
            )),
        }
    }
}

/// A directory of the host in every node, read and written by both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub host: PathBuf,
    /// Absolute.
    pub node: PathBuf,
}

impl FromStr for Mount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, node) = text.split_once(':').ok_or_else(|| format!("{text:?} is not HOST:NODE"))?;
        let (host, node) = (PathBuf::from(host), PathBuf::from(node));
        if !host.is_dir() {
            return Err(format!("{} is no directory", host.display()));
        }
        let host = std::path::absolute(&host).map_err(|e| format!("{}: {e}", host.display()))?;
        // The node's root is made of other mounts; these two lie under none of them, or are the node's own.
        if !["/mnt", "/var", "/etc"].iter().any(|dir| node.starts_with(dir) && node != Path::new(dir))
            || node.components().any(|part| part == Component::ParentDir)
        {
            return Err(format!("{}: a node takes mounts below /mnt, /var and /etc", node.display()));
        }
        Ok(Self { host, node })
    }
}

/// A node as it is planned; its process is another record ([`crate::process::Handle`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub ip: Ipv4Addr,
}

/// The container runtimes that a node can run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Our own, inside the node agent.
    #[default]
    Keelson,
    /// Debian's containerd, started by the node's init.
    Containerd,
}

impl Layout {
    /// The files of cluster `profile` under `data_dir`.
    pub fn new(data_dir: &Path, profile: &str) -> Result<Self> {
        validate_profile(profile)?;
        Ok(Self { dir: data_dir.join(profile) })
    }

    /// The cluster's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The record of the cluster.
    pub fn profile(&self) -> PathBuf {
        self.dir.join("profile.json")
    }

    /// Held while `up`, `down` or `delete` runs.
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// What the control plane keeps: `pki/`, `store/`. The first node sees it as `/var/lib/keelson/server`.
    pub fn server(&self) -> PathBuf {
        self.dir.join("server")
    }

    /// Keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.server().join("pki")
    }

    /// A node's own files.
    pub fn node(&self, node: &str) -> PathBuf {
        self.dir.join("nodes").join(node)
    }

    /// A node's `/var`.
    pub fn node_var(&self, node: &str) -> PathBuf {
        self.node(node).join("var")
    }

    /// A node's logs: `server.log`, `agent.log`, `init.log`.
    pub fn node_logs(&self, node: &str) -> PathBuf {
        self.node_var(node).join("log/keelson")
    }

    /// The record of a node's init.
    pub fn node_process(&self, node: &str) -> PathBuf {
        self.node(node).join("process.json")
    }

    /// Reads the profile; `None` when the cluster has never been made.
    pub fn read_profile(&self) -> Result<Option<Profile>> {
        read_json(&self.profile())
    }

    /// Takes the cluster's lock, waiting for another command to finish.
    pub fn take_lock(&self) -> Result<fs::File> {
        make_private_dir(&self.dir)?;
        let path = self.lock();
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .context(|| format!("opening {}", path.display()))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
            .context(|| format!("locking {}", path.display()))?;
        Ok(file)
    }
}

impl Profile {
    /// The kubeconfig context, as kind and minikube name theirs after the tool and the profile.
    pub fn context(&self) -> String {
        format!("keelson-{}", self.name)
    }
}

/// Names and addresses for `count` nodes: `demo`, `demo-m02`, `demo-m03`, …
pub fn plan_nodes(profile: &str, count: usize) -> Vec<Node> {
    let [a, b, c, _] = NODE_NETWORK.0.octets();
    (1..=count.min(MAX_NODES))
        .map(|i| Node {
            name: if i == 1 { profile.to_string() } else { format!("{profile}-m{i:02}") },
            ip: Ipv4Addr::new(a, b, c, u8::try_from(i).unwrap_or(u8::MAX)),
        })
        .collect()
}

/// A profile's name becomes node names, cgroup and file names.
fn validate_profile(profile: &str) -> Result<()> {
    let ok = !profile.is_empty()
        && profile.len() <= 40
        && profile.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !profile.starts_with('-')
        && !profile.ends_with('-');
    if ok {
        return Ok(());
    }
    let why = format!("{profile:?} is not a name: use up to 40 lower-case letters, digits and inner dashes");
    Err(Error::Invalid { field: "--profile", why })
}

/// Creates `dir` and its parents, readable by the owner only.
pub fn make_private_dir(dir: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).context(|| format!("creating {}", dir.display()))
}

/// Creates `dir` and its parents, readable by all (container users read logs and volumes below it).
pub(crate) fn make_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).context(|| format!("creating {}", dir.display()))
}

/// Replaces `path` in one step; readers see the old or the new content. Mode 0600.
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary))).context(|| format!("writing {}", path.display()))
}

/// Reads a JSON record; `None` when there is no file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { what: format!("reading {}", path.display()), source }),
    };
    let value = serde_json::from_slice(&bytes)
        .map_err(|e| Error::BadFile { path: path.display().to_string(), why: e.to_string() })?;
    Ok(Some(value))
}

/// Writes a JSON record.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::BadFile { path: path.display().to_string(), why: e.to_string() })?;
    write_private(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_names() {
        for (name, ok) in [
            ("demo", true),
            ("a-1", true),
            ("", false),
            ("-a", false),
            ("a-", false),
            ("A", false),
            ("../x", false),
            ("a/b", false),
            (&"x".repeat(41), false),
        ] {
            assert_eq!(Layout::new(Path::new("/tmp"), name).is_ok(), ok, "{name:?}");
        }
    }

    #[test]
    fn nodes_are_named_and_addressed() {
        let nodes = plan_nodes("demo", 3);
        let show: Vec<_> = nodes.iter().map(|n| format!("{} {}", n.name, n.ip)).collect();
        assert_eq!(show, ["demo 10.89.0.1", "demo-m02 10.89.0.2", "demo-m03 10.89.0.3"]);
    }

    #[test]
    fn private_files_are_private_and_replaced_whole() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_private(&path, b"1").unwrap();
        write_private(&path, b"22").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"22");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
