//! What clients are warned of in pods and pod templates.

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};

use serde_json::Value;

use crate::kind::Write;
use crate::kinds::pod_spec::{renamed_label, selector_label_warnings};
use crate::quantity::Quantity;
use crate::validation::View;

/// Characters of all warnings that an answer carries. Ports can clash in more ways than anybody could read.
const MAX_CHARS: usize = 4096;

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Volume sources that are going or gone: field, as upstream spells it, since when.
const OLD_VOLUMES: [(&str, &str, &str); 9] = [
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Warnings about the template of a controller's pods at `path`. An update that leaves the controller as it was brings
/// none.
pub(crate) fn workload_warnings(object: &Value, write: Write<'_>, path: &str) -> Vec<String> {
    let generation = |object: &Value| object["metadata"]["generation"].as_i64();
    match write {
        Write::Subresource(..) => Vec::new(),
        Write::Update(old) if generation(old) == generation(object) => Vec::new(),
        _ => template_warnings(View::at(path, &object["spec"]["template"])),
    }
}

/// Warnings about the pod (or pod template) at `view`.
pub(crate) fn template_warnings(view: View) -> Vec<String> {
    let mut warnings = Vec::new();
    let (meta, spec) = (view.get("metadata"), view.get("spec"));
    nodes(spec, &mut warnings);
    let annotations = meta.get("annotations");
    if annotations.value.get("scheduler.alpha.kubernetes.io/critical-pod").is_some() {
        warnings.push(format!(
            "{}[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \"priorityClassName\" field instead",
            annotations.path()
        ));
    }
    for volume in spec.get("volumes").items() {
        for (field, shown, since) in OLD_VOLUMES {
            if volume.get(field).is_set() {
                warnings.push(format!("{}: {since}", volume.get(shown).path()));
            }
        }
    }
    repeated(spec, "hostAliases", "ip", &mut warnings);
    repeated(spec, "imagePullSecrets", "name", &mut warnings);
    fractions(spec.get("overhead"), &mut warnings);
    profiles(spec, annotations, &mut warnings);
    for list in LISTS {
        for container in spec.get(list).items() {
            let resources = container.get("resources");
            fractions(resources.get("limits"), &mut warnings);
            fractions(resources.get("requests"), &mut warnings);
            hidden_variables(container.get("env"), &mut warnings);
        }
    }
    ports(spec, &mut warnings);
    let grace = spec.get("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|n| n < 0) {
        warnings.push(format!("{}: must be >= 0; negative values are invalid and will be treated as 1", grace.path()));
    }
    affinity(spec, &mut warnings);
    warnings
}

/// Old names of node labels, wherever a pod chooses its node by them.
fn nodes(spec: View, warnings: &mut Vec<String>) {
    let selector = spec.get("nodeSelector");
    for (label, _) in selector.entries() {
        if let Some(message) = renamed_label(label) {
            warnings.push(format!("{}[{label}]: {message}", selector.path()));
        }
    }
    let affinity = spec.get("affinity");
    let node = affinity.get("nodeAffinity");
    let required = node.get("requiredDuringSchedulingIgnoredDuringExecution");
    for term in required.get("nodeSelectorTerms").items() {
        warnings.extend(selector_label_warnings(term));
    }
    for preferred in node.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        warnings.extend(selector_label_warnings(preferred.get("preference")));
    }
    for constraint in spec.get("topologySpreadConstraints").items() {
        let key = constraint.get("topologyKey");
        if let Some(message) = renamed_label(key.str()) {
            warnings.push(format!("{}: {} is {message}", key.path(), key.str()));
        }
        no_selector(constraint, warnings);
    }
}

fn no_selector(term: View, warnings: &mut Vec<String>) {
    let selector = term.get("labelSelector");
    if !selector.is_set() {
        warnings.push(format!("{}: a null labelSelector results in matching no pod", selector.path()));
    }
}

fn affinity(spec: View, warnings: &mut Vec<String>) {
    let affinity = spec.get("affinity");
    for kind in ["podAffinity", "podAntiAffinity"] {
        let terms = affinity.get(kind);
        for term in terms.get("requiredDuringSchedulingIgnoredDuringExecution").items() {
            no_selector(term, warnings);
        }
        for preferred in terms.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            no_selector(preferred.get("podAffinityTerm"), warnings);
        }
    }
}

fn repeated(spec: View, list: &'static str, field: &'static str, warnings: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for entry in spec.get(list).items() {
        let view = entry.get(field);
        if field == "name" && view.is_empty() {
            warnings.push(format!("{}: invalid empty name \"\"", view.path()));
        } else if !seen.insert(view.str()) {
            warnings.push(format!("{}: duplicate {field} {:?}", view.path(), view.str()));
        }
    }
}

/// Parts of bytes.
fn fractions(amounts: View, warnings: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        if let Some(amount) = Quantity::lookup(amounts.value, name)
            && !amount.is_integer()
        {
            let (path, amount) = (amounts.path(), amount.to_string());
            warnings.push(format!("{path}[{name}]: fractional byte value {amount:?} is invalid, must be an integer"));
        }
    }
}

/// Annotations that became fields.
fn profiles(spec: View, annotations: View, warnings: &mut Vec<String>) {
    const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
    const SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io/";
    const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    let path = annotations.path();
    let context = spec.get("securityContext");
    if annotations.value.get(SECCOMP_POD).is_some() && !context.get("seccompProfile").is_set() {
        warnings
            .push(format!("{path}[{SECCOMP_POD}]: non-functional in v1.27+; use the \"seccompProfile\" field instead"));
    }
    for list in LISTS {
        for container in spec.get(list).items() {
            let name = container.get("name").str();
            let context = container.get("securityContext");
            let key = format!("{SECCOMP}{name}");
            if annotations.value.get(&key).is_some() && !context.get("seccompProfile").is_set() {
                warnings
                    .push(format!("{path}[{key}]: non-functional in v1.27+; use the \"seccompProfile\" field instead"));
            }
            let key = format!("{APP_ARMOR}{name}");
            if annotations.value.get(&key).is_some() && !context.get("appArmorProfile").is_set() {
                warnings
                    .push(format!("{path}[{key}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"));
            }
        }
    }
}

/// Variables that stand for an earlier one of their name, unless they are made from it.
fn hidden_variables(env: View, warnings: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for variable in env.items() {
        let (name, value) = (variable.get("name").str(), variable.get("value").str());
        let earlier = format!("$({name})");
        let extends = value != earlier && value.contains(&earlier) && !variable.get("valueFrom").is_set();
        if !seen.insert(name) && !extends {
            let path = variable.path();
            warnings
                .push(format!("{path}: hides previous definition of {name:?}, which may be dropped when using apply"));
        }
    }
}

/// A port where it was declared.
struct Declared<'v> {
    path: String,
    host_ip: &'v str,
    host_port: i64,
}

/// Ports of one number and protocol, the first of each place on the host.
#[derive(Default)]
struct Declarations<'v> {
    all: Vec<Declared<'v>>,
    by_host_port: HashMap<i64, Vec<usize>>,
    by_place: HashMap<(&'v str, i64), usize>,
}

impl<'v> Declarations<'v> {
    fn add(&mut self, port: Declared<'v>) {
        let at = self.all.len();
        if let Entry::Vacant(place) = self.by_place.entry((port.host_ip, port.host_port)) {
            place.insert(at);
            self.by_host_port.entry(port.host_port).or_default().push(at);
            self.all.push(port);
        }
    }

    /// Those that `port` clashes with, in order, and how. Nothing else is looked at.
    fn clashes(&self, port: &Declared<'v>) -> impl Iterator<Item = (&'static str, &Declared<'v>)> {
        let with = |host_port: i64| self.by_host_port.get(&host_port).cloned().unwrap_or_default();
        let mut found = match port.host_port {
            0 => (0..self.all.len()).collect(),
            _ => with(0),
        };
        if port.host_port != 0 && port.host_ip.is_empty() {
            found.extend(with(port.host_port));
        } else if port.host_port != 0 {
            found.extend([port.host_ip, ""].iter().filter_map(|ip| self.by_place.get(&(*ip, port.host_port))));
        }
        found.sort_unstable();
        let (host_ip, host_port) = (port.host_ip, port.host_port);
        found.into_iter().filter_map(|at| self.all.get(at)).map(move |other| {
            let how = if (host_ip, host_port) == (other.host_ip, other.host_port) {
                "duplicate"
            } else if host_port == 0 || other.host_port == 0 {
                "overlapping"
            } else {
                "dangerously ambiguous"
            };
            (how, other)
        })
    }
}

fn ports(spec: View, warnings: &mut Vec<String>) {
    let mut by_number: HashMap<(i64, &str), Declarations<'_>> = HashMap::new();
    let mut by_name: HashMap<&str, String> = HashMap::new();
    let mut names = Vec::new();
    let mut left = MAX_CHARS;
    for list in LISTS {
        let containers = spec.value[list].as_array().map(Vec::as_slice).unwrap_or_default();
        for (index, container) in containers.iter().enumerate() {
            let path = format!("{}[{index}].ports", spec.get(list).path());
            let ports = container["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
            for (index, port) in ports.iter().enumerate() {
                let path = format!("{path}[{index}]");
                let text = |field: &str| port[field].as_str().unwrap_or_default();
                let number = |field: &str| port[field].as_i64().unwrap_or(0);
                let declared = Declared { path, host_ip: text("hostIP"), host_port: number("hostPort") };
                if !declared.host_ip.is_empty() && declared.host_port == 0 {
                    warnings.push(format!(
                        "{}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{}}}",
                        declared.path,
                        text("name"),
                        number("containerPort"),
                        text("protocol"),
                        declared.host_ip
                    ));
                }
                let others = by_number.entry((number("containerPort"), text("protocol"))).or_default();
                if left > 0 {
                    for (how, other) in others.clashes(&declared) {
                        let warning = format!("{}: {how} port definition with {}", declared.path, other.path);
                        left = left.saturating_sub(warning.len());
                        warnings.push(warning);
                        if left == 0 {
                            break;
                        }
                    }
                }
                let runs_on = list == "containers" || container["restartPolicy"] == "Always";
                if !text("name").is_empty() && runs_on {
                    match by_name.get(text("name")) {
                        Some(first) => names.push(format!(
                            "{}: duplicate port name {:?} with {first}, services and probes that select ports by name will use {first}",
                            declared.path,
                            text("name")
                        )),
                        None => drop(by_name.insert(text("name"), declared.path.clone())),
                    }
                }
                others.add(declared);
            }
        }
    }
    warnings.append(&mut names);
}
