//! Containers, init containers and ephemeral containers.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::validate::Context;
use super::{env, probes, resources, security};
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, names, one_of, port, required, required_one_of};

const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
/// Fields that an ephemeral container may not have.
const NOT_EPHEMERAL: [&str; 9] = [
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "resources",
    "lifecycle",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
];

/// Signals that can stop a container, sorted.
const SIGNALS: [&str; 65] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

/// All containers of a pod spec.
pub(super) fn validate(spec: View, context: Context, errors: &mut Errors) {
    let volumes = spec.get("volumes");
    let claims = spec.get("resourceClaims");
    let pod = Pod {
        claims: claims.items().map(|claim| claim.get("name").str()).collect(),
        volumes: volumes.items().map(|v| (v.get("name").str(), is_claim(v.value))).collect(),
        host_users: !matches!(spec.value["hostUsers"].as_bool(), Some(false)),
        os: spec.value["os"]["name"].as_str(),
        grace_seconds: spec.get("terminationGracePeriodSeconds").int().unwrap_or(30),
        restart_policy: spec.get("restartPolicy").str(),
        context,
    };
    let containers = spec.get("containers");
    if containers.is_empty() {
        errors.push(containers.required(""));
    }
    let mut seen = HashSet::new();
    let mut host_ports = HashSet::new();
    for container in containers.items() {
        pod.common(container, errors);
        restarts(container, errors);
        duplicate(container.get("name"), &mut seen, errors);
        pod.hooks(container, errors);
        host_port_conflicts(container, &mut host_ports, errors);
    }
    for container in spec.get("initContainers").items() {
        pod.common(container, errors);
        restarts(container, errors);
        duplicate(container.get("name"), &mut seen, errors);
        // A sidecar has all that a container has.
        if container.get("restartPolicy").str() == "Always" {
            pod.hooks(container, errors);
        } else {
            for field in PROBES.iter().chain(["lifecycle"].iter()) {
                let view = container.get(field);
                if view.is_set() {
                    errors.push(view.forbidden("may not be set for init containers without restartPolicy=Always"));
                }
            }
        }
        host_port_conflicts(container, &mut HashSet::new(), errors);
    }
    for container in spec.get("ephemeralContainers").items() {
        pod.common(container, errors);
        duplicate(container.get("name"), &mut seen, errors);
        for field in NOT_EPHEMERAL {
            let view = container.get(field);
            if !view.is_empty() {
                errors.push(view.forbidden("cannot be set for an Ephemeral Container"));
            }
        }
        for mount in container.get("volumeMounts").items() {
            for field in ["subPath", "subPathExpr"] {
                if !mount.get(field).is_empty() {
                    errors.push(mount.get(field).forbidden("cannot be set for an Ephemeral Container"));
                }
            }
        }
    }
    let (mains, inits) = (spec.get("containers"), spec.get("initContainers"));
    let targets: HashSet<&str> = mains.items().chain(inits.items()).map(|c| c.get("name").str()).collect();
    for container in spec.get("ephemeralContainers").items() {
        let target = container.get("targetContainerName");
        if !target.is_empty() && !targets.contains(target.str()) {
            errors.push(target.not_found());
        }
    }
}

/// How a container restarts by itself, whatever its pod does.
fn restarts(container: View, errors: &mut Errors) {
    let (policy, rules) = (container.get("restartPolicy"), container.get("restartPolicyRules"));
    if policy.is_set() {
        one_of(policy, &["Always", "Never", "OnFailure"], errors);
    } else if !rules.is_empty() {
        errors.push(policy.required("must specify restartPolicy when restart rules are used"));
    }
    if rules.len() > 20 {
        errors.push(rules.too_many(20));
    }
    for rule in rules.items() {
        one_of(rule.get("action"), &["Restart"], errors);
        let codes = rule.get("exitCodes");
        if !codes.is_set() {
            errors.push(codes.required("must be specified"));
            continue;
        }
        one_of(codes.get("operator"), &["In", "NotIn"], errors);
        if codes.get("values").len() > 255 {
            errors.push(codes.get("values").too_many(255));
        }
    }
}

/// Ports of containers on the host's network are the host's ports. Those of templates may leave it to the pod.
pub(super) fn host_network_ports(spec: View, context: Context, errors: &mut Errors) {
    if !spec.get("hostNetwork").bool() {
        return;
    }
    for container in spec.get("containers").items() {
        for port in container.get("ports").items() {
            let (own, host) = (port.get("containerPort").int().unwrap_or(0), port.get("hostPort"));
            let number = host.int().unwrap_or(0);
            if (context.pod || number != 0) && number != own {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(host.path(), number, detail));
            }
        }
    }
}

fn duplicate<'v>(name: View<'_, 'v>, seen: &mut HashSet<&'v str>, errors: &mut Errors) {
    if !name.is_empty() && !seen.insert(name.str()) {
        errors.push(name.duplicate());
    }
}

fn host_port_conflicts(container: View, seen: &mut HashSet<String>, errors: &mut Errors) {
    for port in container.get("ports").items() {
        let host_port = port.get("hostPort");
        if let Some(number) = host_port.int().filter(|n| *n != 0) {
            let key = format!("{}/{}/{number}", port.get("protocol").str(), port.get("hostIP").str());
            if seen.contains(&key) {
                errors.push(FieldError::duplicate(host_port.path(), key));
            } else {
                seen.insert(key);
            }
        }
    }
}

/// What a container's rules need to know about its pod.
struct Pod<'v> {
    /// Names of its resource claims.
    claims: HashSet<&'v str>,
    /// By name; whether they are claims, which can be block devices.
    volumes: HashMap<&'v str, bool>,
    host_users: bool,
    os: Option<&'v str>,
    grace_seconds: i64,
    restart_policy: &'v str,
    context: Context,
}

impl Pod<'_> {
    fn common(&self, container: View, errors: &mut Errors) {
        let name = container.get("name");
        if required(name, errors) {
            checked(name, names::label, errors);
        }
        let image = container.get("image");
        if required(image, errors) && self.context.pod && image.str().trim().len() != image.len() {
            errors.push(image.invalid("must not have leading or trailing whitespace"));
        }
        let supported = ["File", "FallbackToLogsOnError"];
        required_one_of(container.get("terminationMessagePolicy"), &supported, errors);
        self.ports(container.get("ports"), errors);
        env::variables(container.get("env"), errors);
        env::sources(container.get("envFrom"), errors);
        self.mounts(container, errors);
        self.devices(container, errors);
        required_one_of(container.get("imagePullPolicy"), &["Always", "IfNotPresent", "Never"], errors);
        resources::requirements(container.get("resources"), &self.claims, errors);
        self.resize_policy(container, errors);
        security::container(container.get("securityContext"), self.host_users, errors);
    }

    fn hooks(&self, container: View, errors: &mut Errors) {
        let lifecycle = container.get("lifecycle");
        for hook in ["postStart", "preStop"] {
            let hook = lifecycle.get(hook);
            if hook.is_set() {
                probes::handler(hook, Some(self.grace_seconds), errors);
            }
        }
        let signal = lifecycle.get("stopSignal");
        match self.os {
            _ if !signal.is_set() => {}
            None => errors.push(signal.forbidden("may not be set for containers with empty `spec.os.name`")),
            Some("windows") => one_of(signal, &["SIGKILL", "SIGTERM"], errors),
            Some(_) => one_of(signal, &SIGNALS, errors),
        }
        for field in PROBES {
            let probe = container.get(field);
            if probe.is_set() {
                probes::validate(probe, field, errors);
            }
        }
    }

    fn ports(&self, ports: View, errors: &mut Errors) {
        let mut seen = HashSet::new();
        for entry in ports.items() {
            let name = entry.get("name");
            if !name.is_empty() {
                let complaints = names::port_name(name.str());
                if complaints.is_empty() {
                    duplicate(name, &mut seen, errors);
                } else {
                    errors.extend(complaints.iter().map(|complaint| name.invalid_str(complaint)));
                }
            }
            let number = entry.get("containerPort");
            if number.int().unwrap_or(0) == 0 {
                errors.push(number.required(""));
            } else {
                port(number, errors);
            }
            let host_port = entry.get("hostPort");
            if host_port.int().unwrap_or(0) != 0 {
                port(host_port, errors);
            }
            required_one_of(entry.get("protocol"), &["SCTP", "TCP", "UDP"], errors);
            let host_ip = entry.get("hostIP");
            if !host_ip.is_empty() {
                checked(host_ip, names::ip, errors);
            }
        }
    }

    fn mounts(&self, container: View, errors: &mut Errors) {
        let (mounts, devices) = (container.get("volumeMounts"), container.get("volumeDevices"));
        let (device_names, device_paths) = (texts(devices, "name"), texts(devices, "devicePath"));
        let mut paths = HashSet::new();
        for mount in mounts.items() {
            let (name, path) = (mount.get("name"), mount.get("mountPath"));
            required(name, errors);
            if !self.volumes.contains_key(name.str()) {
                errors.push(FieldError::not_found(name.path(), name.str()));
            }
            required(path, errors);
            if !paths.insert(path.str()) {
                errors.push(path.invalid_str("must be unique"));
            }
            if device_names.contains(name.str()) {
                errors.push(name.invalid_str("must not already exist in volumeDevices"));
            }
            if device_paths.contains(path.str()) {
                errors.push(path.invalid_str("must not already exist as a path in volumeDevices"));
            }
            let (sub_path, expression) = (mount.get("subPath"), mount.get("subPathExpr"));
            if !sub_path.is_empty() && !expression.is_empty() {
                errors.push(expression.invalid("subPathExpr and subPath are mutually exclusive"));
            }
            // Upstream reports the rest at the list, without an index.
            let at_list = |field: &'static str| mounts.get(field).with(mount.get(field).value).path();
            for field in ["subPath", "subPathExpr"] {
                let view = View::root(mount.get(field).value);
                let path = at_list(field);
                descending(View::at(&path, view.value), errors);
            }
            propagation(container, mount, &at_list("mountPropagation"), errors);
            recursive_read_only(mount, &at_list("recursiveReadOnly"), errors);
        }
    }

    fn devices(&self, container: View, errors: &mut Errors) {
        let mounts = container.get("volumeMounts");
        let (mount_names, mount_paths) = (texts(mounts, "name"), texts(mounts, "mountPath"));
        let (mut names, mut paths) = (HashSet::new(), HashSet::new());
        for device in container.get("volumeDevices").items() {
            let (name, path) = (device.get("name"), device.get("devicePath"));
            required(name, errors);
            if !name.is_empty() && !names.insert(name.str()) {
                errors.push(name.invalid_str("must be unique"));
            }
            match self.volumes.get(name.str()) {
                None => errors.push(FieldError::not_found(name.path(), name.str())),
                Some(false) => errors.push(name.invalid_str(
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                )),
                Some(true) => {}
            }
            required(path, errors);
            if paths.contains(path.str()) {
                errors.push(path.invalid_str("must be unique"));
            }
            if path.str().split('/').any(|part| part == "..") {
                errors.push(path.invalid_str("can not contain backsteps ('..')"));
            } else {
                paths.insert(path.str());
            }
            if mount_names.contains(name.str()) {
                errors.push(name.invalid_str("must not already exist in volumeMounts"));
            }
            if mount_paths.contains(path.str()) {
                errors.push(path.invalid_str("must not already exist as a path in volumeMounts"));
            }
        }
    }

    fn resize_policy(&self, container: View, errors: &mut Errors) {
        let mut seen = HashSet::new();
        let policies = container.get("resizePolicy");
        for policy in policies.items() {
            let name = policy.get("resourceName").str();
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(policy.path(), name));
            }
            // Upstream reports the rest at the list, without an index.
            required_one_of(policies.with(policy.get("resourceName").value), &["cpu", "memory"], errors);
            let restart = policies.with(policy.get("restartPolicy").value);
            required_one_of(restart, &["NotRequired", "RestartContainer"], errors);
            if self.restart_policy == "Never" && restart.str() == "RestartContainer" {
                errors.push(restart.invalid("must be 'NotRequired' when `restartPolicy` is 'Never'"));
            }
        }
    }
}

/// A field of each item.
fn texts<'v>(list: View<'_, 'v>, field: &'v str) -> HashSet<&'v str> {
    list.items().map(|item| item.get(field).str()).collect()
}

/// Whether a volume can be a block device.
fn is_claim(volume: &Value) -> bool {
    volume["persistentVolumeClaim"].is_object() || volume["ephemeral"].is_object()
}

/// Mounts go back to the host only from privileged containers.
fn propagation(container: View, mount: View, path: &str, errors: &mut Errors) {
    let propagation = mount.get("mountPropagation");
    if !propagation.is_set() {
        return;
    }
    one_of(View::at(path, propagation.value), &["Bidirectional", "HostToContainer", "None"], errors);
    let privileged = container.value["securityContext"]["privileged"] == true;
    if propagation.str() == "Bidirectional" && !privileged {
        errors.push(FieldError::forbidden(
            path,
            "Bidirectional mount propagation is available only to privileged containers",
        ));
    }
}

fn recursive_read_only(mount: View, path: &str, errors: &mut Errors) {
    let recursive = mount.get("recursiveReadOnly");
    match recursive.str() {
        _ if !recursive.is_set() => {}
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.get("readOnly").bool() {
                errors.push(FieldError::forbidden(path, "may only be specified when readOnly is true"));
            }
            if !matches!(mount.get("mountPropagation").str(), "" | "None") {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.push(FieldError::forbidden(path, detail));
            }
        }
        _ => one_of(View::at(path, recursive.value), &["Disabled", "Enabled", "IfPossible"], errors),
    }
}

/// A relative path that stays below where it starts.
pub(super) fn descending(path: View, errors: &mut Errors) {
    if path.str().starts_with('/') {
        errors.push(path.invalid("must be a relative path"));
    }
    no_back_steps(path, errors);
}

/// A path without `..` as one of its parts.
pub(super) fn no_back_steps(path: View, errors: &mut Errors) {
    if path.str().split('/').any(|part| part == "..") {
        errors.push(path.invalid("must not contain '..'"));
    }
}
