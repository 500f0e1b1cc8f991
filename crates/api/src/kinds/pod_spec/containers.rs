//! Containers, init containers and ephemeral containers.

use std::collections::HashSet;

use super::validate::Context;
use super::{env, probes, resources, security};
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, names, one_of, port, required, required_one_of};

const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
/// Fields that an ephemeral container may not have.
const NOT_EPHEMERAL: [&str; 7] =
    ["ports", "livenessProbe", "readinessProbe", "startupProbe", "resources", "lifecycle", "resizePolicy"];

/// All containers of a pod spec.
pub(super) fn validate(spec: View, context: Context, errors: &mut Errors) {
    let volumes = spec.get("volumes");
    let claims = spec.get("resourceClaims");
    let pod = Pod {
        claims: claims.items().map(|claim| claim.get("name").str()).collect(),
        volumes: volumes.items().map(|v| v.get("name").str()).collect(),
        host_network: spec.get("hostNetwork").bool(),
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
        duplicate(container.get("name"), &mut seen, errors);
        pod.hooks(container, errors);
        host_port_conflicts(container, &mut host_ports, errors);
    }
    for container in spec.get("initContainers").items() {
        pod.common(container, errors);
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
            let resize = container.get("resizePolicy");
            if !resize.is_empty() {
                errors.push(resize.invalid("must not be set for init containers"));
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
        let restart_policy = container.get("restartPolicy");
        if restart_policy.is_set() {
            errors.push(restart_policy.forbidden("cannot be set for an Ephemeral Container"));
        }
        for mount in container.get("volumeMounts").items() {
            for field in ["subPath", "subPathExpr"] {
                if !mount.get(field).is_empty() {
                    errors.push(mount.get(field).forbidden("cannot be set for an Ephemeral Container"));
                }
            }
        }
    }
    let target_known = |name: &str| {
        ["containers", "initContainers"].iter().any(|f| spec.get(f).items().any(|c| c.get("name").str() == name))
    };
    for container in spec.get("ephemeralContainers").items() {
        let target = container.get("targetContainerName");
        if !target.is_empty() && !target_known(target.str()) {
            errors.push(target.not_found());
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
    claims: Vec<&'v str>,
    volumes: HashSet<&'v str>,
    host_network: bool,
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
        self.mounts(container.get("volumeMounts"), errors);
        devices(container, &self.volumes, errors);
        required_one_of(container.get("imagePullPolicy"), &["Always", "IfNotPresent", "Never"], errors);
        resources::requirements(container.get("resources"), &self.claims, errors);
        self.resize_policy(container, errors);
        security::container(container.get("securityContext"), errors);
        let restart_policy = container.get("restartPolicy");
        if restart_policy.is_set() {
            one_of(restart_policy, &["Always", "OnFailure", "Never"], errors);
        }
    }

    fn hooks(&self, container: View, errors: &mut Errors) {
        let lifecycle = container.get("lifecycle");
        for hook in ["postStart", "preStop"] {
            let hook = lifecycle.get(hook);
            if hook.is_set() {
                probes::handler(hook, Some(self.grace_seconds), errors);
            }
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
            if self.host_network && host_port.int() != number.int() {
                errors.push(number.invalid("must match `hostPort` when `hostNetwork` is true"));
            }
            let host_ip = entry.get("hostIP");
            if !host_ip.is_empty() {
                checked(host_ip, names::ip, errors);
            }
        }
    }

    fn mounts(&self, mounts: View, errors: &mut Errors) {
        let mut paths = HashSet::new();
        for mount in mounts.items() {
            let name = mount.get("name");
            if required(name, errors) && !self.volumes.contains(name.str()) {
                errors.push(name.not_found());
            }
            let path = mount.get("mountPath");
            required(path, errors);
            if !paths.insert(path.str()) {
                errors.push(path.invalid_str("must be unique"));
            }
            let (sub_path, expression) = (mount.get("subPath"), mount.get("subPathExpr"));
            // Upstream reports these at the list, without an index.
            for (field, view) in [("subPath", sub_path), ("subPathExpr", expression)] {
                descending(mounts.get(field).with(view.value), errors);
            }
            if !sub_path.is_empty() && !expression.is_empty() {
                errors.push(expression.invalid("subPathExpr and subPath are mutually exclusive"));
            }
            let propagation = mounts.get("mountPropagation").with(mount.get("mountPropagation").value);
            if propagation.is_set() {
                one_of(propagation, &["Bidirectional", "HostToContainer", "None"], errors);
            }
            let recursive = mounts.get("recursiveReadOnly").with(mount.get("recursiveReadOnly").value);
            if recursive.is_set() {
                one_of(recursive, &["Disabled", "Enabled", "IfPossible"], errors);
                if recursive.str() != "Disabled" && !mount.get("readOnly").bool() {
                    errors.push(recursive.forbidden("may only be specified when readOnly is true"));
                }
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

fn devices(container: View, volumes: &HashSet<&str>, errors: &mut Errors) {
    for device in container.get("volumeDevices").items() {
        let name = device.get("name");
        if required(name, errors) && !volumes.contains(name.str()) {
            errors.push(name.not_found());
        }
        required(device.get("devicePath"), errors);
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
