//! CDI (Container Device Interface, v1.1): devices by the names that vendors' files give them, and what those files change in
//! the specification of a container that has them. Files are read anew for each container that asks, so nothing is stale.
//!
//! Own code, as the crate of the name pulls in a JSON schema validator and a command line. Left out, and refused by name:
//! `intelRdt` and `netDevices`.

use std::{
    collections::{BTreeMap, HashSet},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use keelson_cri::v1::ContainerConfig;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Error, image::layer::read_small};

/// Where vendors and administrators put files; a device in a later directory hides its namesake in an earlier one.
pub(crate) const DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// Annotations of a container that name devices, separated by commas, as older kubelets and plugins give them.
const ANNOTATION_PREFIX: &str = "cdi.k8s.io/";
/// Largest file, in bytes; most files of a directory.
const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_FILES: usize = 1024;
/// Released versions of the specification.
const VERSIONS: [&str; 10] = ["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];
const HOOKS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Spec {
    cdi_version: String,
    /// `vendor.example/class`.
    kind: String,
    #[serde(default)]
    #[allow(dead_code, reason = "part of the format, and nothing to act on")]
    annotations: BTreeMap<String, String>,
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default)]
    #[allow(dead_code, reason = "part of the format, and nothing to act on")]
    annotations: BTreeMap<String, String>,
    container_edits: Edits,
}

/// What a device, or any device of a file, changes in a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    pub mounts: Vec<Mount>,
    hooks: Vec<Hook>,
    additional_gids: Vec<u32>,
    intel_rdt: Option<Value>,
    net_devices: Vec<Value>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Node {
    /// In the container, and on the node unless `host_path` says otherwise.
    path: String,
    #[serde(default)]
    host_path: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    major: i64,
    #[serde(default)]
    minor: i64,
    file_mode: Option<u32>,
    #[serde(default)]
    permissions: String,
    uid: Option<u32>,
    gid: Option<u32>,
    /// Its file is mounted, not made.
    #[serde(skip)]
    bound: bool,
}

/// A mount in OCI's terms.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Mount {
    pub host_path: String,
    container_path: String,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default, rename = "type")]
    kind: String,
}

impl Mount {
    /// Whether `host_path` is a path of the node.
    pub(crate) fn is_bind(&self) -> bool {
        matches!(self.kind.as_str(), "" | "bind" | "none")
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Hook {
    hook_name: String,
    path: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    /// Seconds.
    timeout: Option<u32>,
}

/// Names of the devices that a container asks for, each once.
pub(crate) fn names(config: &ContainerConfig) -> Vec<String> {
    let mut annotated: Vec<_> =
        config.annotations.iter().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX)).collect();
    annotated.sort();
    let annotated = annotated.into_iter().flat_map(|(_, value)| value.split(',').map(str::to_owned));
    let mut seen = HashSet::new();
    config
        .cdi_devices
        .iter()
        .map(|device| device.name.clone())
        .chain(annotated)
        .filter(|n| seen.insert(n.clone()))
        .collect()
}

/// What the files below `dirs` change for the devices `names`. Blocks. The error names the devices that no file has.
pub(crate) fn resolve(dirs: &[PathBuf], names: &[String]) -> Result<Edits, Error> {
    let mut edits = Edits::default();
    if names.is_empty() {
        return Ok(edits);
    }
    let found = Found::read(dirs);
    let missing: Vec<&str> =
        names.iter().filter(|name| !found.devices.contains_key(*name)).map(String::as_str).collect();
    if !missing.is_empty() {
        let why = if found.faults.is_empty() { String::new() } else { format!(" ({})", found.faults.join("; ")) };
        let missing = missing.join(", ");
        return Err(Error::Invalid(format!("CDI device injection failed: unresolvable CDI devices {missing}{why}")));
    }
    let mut files = HashSet::new();
    for name in names {
        let Some((file, device)) = found.devices.get(name) else { continue };
        if files.insert(*file)
            && let Some(whole) = found.files.get(*file)
        {
            edits.add(whole);
        }
        edits.add(device);
    }
    if edits.intel_rdt.is_some() || !edits.net_devices.is_empty() {
        let field = if edits.intel_rdt.is_some() { "intelRdt" } else { "netDevices" };
        return Err(Error::Unsupported(format!(
            "containerEdits.{field} of CDI devices is not supported by this runtime"
        )));
    }
    Ok(edits)
}

/// What the directories hold.
#[derive(Default)]
struct Found {
    /// Edits that any device of a file brings.
    files: Vec<Edits>,
    /// By full name: the file's place in `files`, and the device's own edits.
    devices: BTreeMap<String, (usize, Edits)>,
    /// Why some are missing.
    faults: Vec<String>,
}

impl Found {
    fn read(dirs: &[PathBuf]) -> Found {
        let mut found = Found::default();
        for dir in dirs {
            let Ok(entries) = std::fs::read_dir(dir) else { continue };
            let mut paths: Vec<PathBuf> = entries.take(MAX_FILES).flatten().map(|entry| entry.path()).collect();
            paths.retain(|path| path.extension().is_some_and(|end| end == "json" || end == "yaml"));
            paths.sort();
            let mut here: BTreeMap<String, (usize, Edits)> = BTreeMap::new();
            let mut twice = HashSet::new();
            for path in paths {
                let spec = match parse_file(&path) {
                    Ok(spec) => spec,
                    Err(why) => {
                        found.faults.push(format!("{}: {why}", path.display()));
                        continue;
                    }
                };
                let file = found.files.len();
                found.files.push(spec.container_edits);
                for device in spec.devices {
                    let name = format!("{}={}", spec.kind, device.name);
                    if here.insert(name.clone(), (file, device.container_edits)).is_some() {
                        found.faults.push(format!("{}: another file of the directory has {name}, too", path.display()));
                        twice.insert(name);
                    }
                }
            }
            // Nobody can say which of two is meant; the one of an earlier directory is not, either.
            for name in &twice {
                here.remove(name);
                found.devices.remove(name);
            }
            found.devices.extend(here);
        }
        found
    }
}

fn parse_file(path: &Path) -> Result<Spec, String> {
    let bytes = read_small(path, MAX_FILE_BYTES).map_err(|error| error.to_string())?;
    parse(&String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())?)
}

fn parse(text: &str) -> Result<Spec, String> {
    // JSON is YAML, too.
    let spec: Spec = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    if !VERSIONS.contains(&spec.cdi_version.trim_start_matches('v')) {
        return Err(format!("cdiVersion: unknown version {:?}", spec.cdi_version));
    }
    let word = |text: &str, extra: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || extra.contains(c);
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        text.chars().all(inner) && ends(text.chars().next()) && ends(text.chars().last())
    };
    let kind = spec.kind.split_once('/').filter(|(vendor, class)| word(vendor, "_-.") && word(class, "_-"));
    let starts = |text: &str| text.starts_with(|c: char| c.is_ascii_alphabetic());
    if kind.is_none_or(|(vendor, class)| !starts(vendor) || !starts(class)) {
        return Err(format!("kind: {:?} is not VENDOR/CLASS", spec.kind));
    }
    if spec.devices.is_empty() {
        return Err("devices: no device".into());
    }
    for device in &spec.devices {
        if !word(&device.name, "_-.:") {
            return Err(format!("devices: invalid name {:?}", device.name));
        }
        device.container_edits.validate().map_err(|why| format!("device {:?}: {why}", device.name))?;
    }
    spec.container_edits.validate()?;
    Ok(spec)
}

impl Edits {
    fn validate(&self) -> Result<(), String> {
        for entry in &self.env {
            if entry.split_once('=').is_none_or(|(key, _)| key.is_empty()) {
                return Err(format!("containerEdits.env: {entry:?} is not NAME=VALUE"));
            }
        }
        for node in &self.device_nodes {
            if node.path.is_empty() {
                return Err("containerEdits.deviceNodes: no path".into());
            }
            if !matches!(node.kind.as_str(), "" | "b" | "c" | "u" | "p") {
                return Err(format!("containerEdits.deviceNodes[{}].type: {:?}", node.path, node.kind));
            }
            if !node.permissions.chars().all(|bit| "rwm".contains(bit)) {
                return Err(format!("containerEdits.deviceNodes[{}].permissions: {:?}", node.path, node.permissions));
            }
        }
        if self.mounts.iter().any(|mount| mount.host_path.is_empty() || mount.container_path.is_empty()) {
            return Err("containerEdits.mounts: a mount needs hostPath and containerPath".into());
        }
        for hook in &self.hooks {
            if !HOOKS.contains(&hook.hook_name.as_str()) {
                return Err(format!("containerEdits.hooks: unknown hookName {:?}", hook.hook_name));
            }
            if hook.path.is_empty() || hook.env.iter().any(|entry| !entry.contains('=')) {
                return Err(format!(
                    "containerEdits.hooks[{}]: a hook needs a path, and NAME=VALUE in env",
                    hook.hook_name
                ));
            }
        }
        Ok(())
    }

    fn add(&mut self, more: &Edits) {
        let more = more.clone();
        self.env.extend(more.env);
        self.device_nodes.extend(more.device_nodes);
        self.mounts.extend(more.mounts);
        self.hooks.extend(more.hooks);
        self.additional_gids.extend(more.additional_gids);
        self.intel_rdt = self.intel_rdt.take().or(more.intel_rdt);
        self.net_devices.extend(more.net_devices);
    }

    /// Has devices that are called otherwise on the node mounted, as files of devices cannot be made in a user namespace.
    /// `bring` makes the file at a path of the node reachable, and says where.
    pub(crate) fn bind_devices(&mut self, bring: impl Fn(usize, &Path) -> Result<PathBuf, Error>) -> Result<(), Error> {
        for (index, node) in self.device_nodes.iter_mut().enumerate() {
            if node.host_path.is_empty() || node.host_path == node.path {
                continue;
            }
            let point = bring(index, Path::new(&node.host_path))?;
            node.bound = true;
            self.mounts.push(Mount {
                host_path: point.to_string_lossy().into_owned(),
                container_path: node.path.clone(),
                options: vec!["bind".into()],
                kind: "bind".into(),
            });
        }
        Ok(())
    }

    /// Changes an OCI specification. Blocks: devices are looked up on the node.
    pub(crate) fn apply(&self, spec: &mut Value) -> Result<(), Error> {
        for entry in &self.env {
            let key = format!("{}=", entry.split('=').next().unwrap_or_default());
            replace(list(spec, &["process", "env"]), json!(entry), |old| {
                old.as_str().is_some_and(|old| old.starts_with(&key))
            });
        }
        let owner = |spec: &Value, field: &str| spec["process"]["user"][field].as_u64().filter(|id| *id > 0);
        let (uid, gid) = (owner(spec, "uid"), owner(spec, "gid"));
        for node in &self.device_nodes {
            let (device, rule) = node.resolve(uid, gid)?;
            if !node.bound {
                replace(list(spec, &["linux", "devices"]), device, |old| old["path"] == node.path.as_str());
            }
            if let Some(rule) = rule {
                list(spec, &["linux", "resources", "devices"]).push(rule);
            }
        }
        let mounts = list(spec, &["mounts"]);
        for mount in &self.mounts {
            let mut options = mount.options.clone();
            if mount.is_bind() && !options.iter().any(|option| option == "bind" || option == "rbind") {
                options.push("rbind".into());
            }
            let kind = if mount.is_bind() { "bind" } else { mount.kind.as_str() };
            let made = json!({"destination": mount.container_path, "type": kind, "source": mount.host_path, "options": options});
            replace(mounts, made, |old| old["destination"] == mount.container_path.as_str());
        }
        if !self.mounts.is_empty() {
            // Parents before children; what is as deep stays in its order.
            let depth =
                |mount: &Value| Path::new(mount["destination"].as_str().unwrap_or_default()).components().count();
            mounts.sort_by_key(depth);
        }
        for hook in &self.hooks {
            let mut made = json!({"path": hook.path});
            if let Some(made) = made.as_object_mut() {
                for (key, words) in [("args", &hook.args), ("env", &hook.env)] {
                    if !words.is_empty() {
                        made.insert(key.into(), json!(words));
                    }
                }
                if let Some(seconds) = hook.timeout {
                    made.insert("timeout".into(), json!(seconds));
                }
            }
            list(spec, &["hooks", &hook.hook_name]).push(made);
        }
        for gid in self.additional_gids.iter().filter(|gid| **gid != 0) {
            let groups = list(spec, &["process", "user", "additionalGids"]);
            replace(groups, json!(gid), |old| *old == json!(gid));
        }
        Ok(())
    }
}

/// The list at `path` of a specification, made if there is none.
pub(crate) fn list<'a>(spec: &'a mut Value, path: &[&str]) -> &'a mut Vec<Value> {
    let mut place = spec;
    for part in path {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[*part];
    }
    if !place.is_array() {
        *place = json!([]);
    }
    match place {
        Value::Array(list) => list,
        _ => unreachable!("it was just made a list"),
    }
}

/// Puts `new` in the place of the first that is `same`, or at the end.
fn replace(list: &mut Vec<Value>, new: Value, same: impl Fn(&Value) -> bool) {
    match list.iter_mut().find(|old| same(old)) {
        Some(old) => *old = new,
        None => list.push(new),
    }
}

impl Node {
    /// The device in OCI's terms, and the rule that lets the container use it.
    fn resolve(&self, uid: Option<u64>, gid: Option<u64>) -> Result<(Value, Option<Value>), Error> {
        let host = if self.host_path.is_empty() { &self.path } else { &self.host_path };
        let (mut kind, mut major, mut minor, mut mode) = (self.kind.clone(), self.major, self.minor, self.file_mode);
        if kind.is_empty() || (kind != "p" && major == 0 && minor == 0) {
            let found = std::fs::metadata(host).map_err(Error::io("look up the CDI device", host))?;
            let actual = match found.file_type() {
                sort if sort.is_char_device() => "c",
                sort if sort.is_block_device() => "b",
                sort if sort.is_fifo() => "p",
                _ => return Err(Error::Invalid(format!("CDI device injection failed: {host} is not a device node"))),
            };
            if !kind.is_empty() && kind != actual && !(kind == "u" && actual == "c") {
                return Err(Error::Invalid(format!(
                    "CDI device injection failed: {host} is of type {actual:?}, not {kind:?}"
                )));
            }
            kind = if kind.is_empty() { actual.into() } else { kind };
            major = rustix::fs::major(found.rdev()).into();
            minor = rustix::fs::minor(found.rdev()).into();
            mode = mode.or(Some(found.mode() & 0o777));
        }
        let id = |own: Option<u32>, process: Option<u64>| own.map(u64::from).or(process).unwrap_or(0);
        let device = json!({
            "path": self.path, "type": kind, "major": major, "minor": minor, "fileMode": mode.unwrap_or(0o666),
            "uid": id(self.uid, uid), "gid": id(self.gid, gid),
        });
        let access = if self.permissions.is_empty() { "rwm" } else { &self.permissions };
        let rule = matches!(kind.as_str(), "b" | "c")
            .then(|| json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": access}));
        Ok((device, rule))
    }
}

#[cfg(test)]
mod tests;
