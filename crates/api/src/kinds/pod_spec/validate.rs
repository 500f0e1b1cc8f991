//! Rules of a whole pod spec and of a pod template.

use super::{containers, resources, scheduling, security, volumes};
use crate::selector::LabelSelector;
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, labels, names, one_of, required, required_one_of, within};

/// What differs between the places where a pod spec stands.
#[derive(Clone, Copy, Default)]
pub(crate) struct Context {
    /// A pod itself rather than a template.
    pub(crate) pod: bool,
}

/// A `PodTemplateSpec`.
pub(crate) fn template(template: View, errors: &mut Errors) {
    let metadata = template.get("metadata");
    // Upstream reports these beside the spec, without `metadata`.
    labels::validate(template.get("labels").with(metadata.get("labels").value), errors);
    labels::validate_annotations(template.get("annotations").with(metadata.get("annotations").value), errors);
    let spec = template.get("spec");
    pod_spec(spec, Context::default(), errors);
    let ephemeral = spec.get("ephemeralContainers");
    if !ephemeral.is_empty() {
        errors.push(ephemeral.forbidden("ephemeral containers not allowed in pod template"));
    }
}

/// The template of a controller whose `selector` (a `LabelSelector`) must select it and whose pods always restart.
pub(crate) fn controller_template(view: View, selector: View, errors: &mut Errors) {
    match LabelSelector::from_json(Some(selector.value)) {
        Err(_) => {
            errors.push(selector.invalid("invalid label selector"));
            return;
        }
        _ if !view.is_set() => {
            errors.push(view.required(""));
            return;
        }
        Ok(parsed) => {
            let labels = view.get("metadata");
            let labels = labels.get("labels");
            if selector.is_set() && !parsed.matches(labels.value) {
                errors.push(labels.invalid("`selector` does not match template `labels`"));
            }
        }
    }
    template(view, errors);
    always_restarts(view.get("spec"), "ReplicaSet", errors);
}

/// What the pods of a controller (`owner`) that keeps them running may not say.
pub(crate) fn always_restarts(spec: View, owner: &str, errors: &mut Errors) {
    let restart = spec.get("restartPolicy");
    if restart.str() != "Always" && restart.is_set() {
        errors.push(restart.not_supported(&["Always"]));
    }
    let deadline = spec.get("activeDeadlineSeconds");
    if deadline.is_set() {
        errors.push(deadline.forbidden(&format!("activeDeadlineSeconds in {owner} is not Supported")));
    }
}

/// A `PodSpec`.
pub(crate) fn pod_spec(spec: View, context: Context, errors: &mut Errors) {
    if !spec.is_set() {
        // Upstream sees an empty spec, of which containers are the first thing missing.
        errors.push(spec.get("containers").required(""));
        return;
    }
    volumes::validate(spec, context, errors);
    scheduling::resource_claims(spec.get("resourceClaims"), errors);
    containers::validate(spec, context, errors);
    resources::pod_level(spec, errors);
    containers::host_network_ports(spec, context, errors);

    one_of(spec.get("restartPolicy"), &["Always", "OnFailure", "Never"], errors);
    one_of(spec.get("dnsPolicy"), &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], errors);
    labels::validate(spec.get("nodeSelector"), errors);
    security::pod(spec, errors);
    for secret in spec.get("imagePullSecrets").items() {
        required(secret.get("name"), errors);
    }
    scheduling::affinity(spec.get("affinity"), errors);
    dns_config(spec, errors);
    for gate in spec.get("readinessGates").items() {
        checked(gate.get("conditionType"), names::qualified, errors);
    }
    scheduling::spread_constraints(spec.get("topologySpreadConstraints"), errors);
    let users = spec.get("hostUsers");
    if users.is_set() && !users.bool() {
        // Upstream writes two of these paths with a capital.
        for (field, path) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
            if spec.get(field).bool() {
                errors.push(spec.get(path).forbidden("when `pod.Spec.HostUsers` is false"));
            }
        }
    }
    if spec.get("activeDeadlineSeconds").is_set() {
        within(spec.get("activeDeadlineSeconds"), 1, i64::from(i32::MAX), errors);
    }
    let hostname = spec.get("hostnameOverride");
    if hostname.is_set() {
        checked(hostname, names::subdomain, errors);
        if hostname.len() > 64 {
            errors.push(hostname.too_long(64));
        }
        for field in ["hostNetwork", "setHostnameAsFQDN"] {
            if spec.get(field).bool() {
                errors.push(hostname.forbidden(&format!("may not be specified when {field} is true")));
            }
        }
    }
    for (field, check) in [
        ("serviceAccountName", names::subdomain as fn(&str) -> Vec<String>),
        ("nodeName", names::subdomain),
        ("hostname", names::label),
        ("subdomain", names::label),
        ("priorityClassName", names::subdomain),
        ("runtimeClassName", names::subdomain),
    ] {
        let view = spec.get(field);
        if !view.is_empty() {
            checked(view, check, errors);
        }
    }
    scheduling::tolerations(spec.get("tolerations"), errors);
    host_aliases(spec.get("hostAliases"), errors);
    let preemption = spec.get("preemptionPolicy");
    if preemption.is_set() {
        required_one_of(preemption, &["Never", "PreemptLowerPriority"], errors);
    }
    resources::list(spec.get("overhead"), errors);
    let os = spec.get("os");
    if os.is_set() {
        required_one_of(os.get("name"), &["linux", "windows"], errors);
        security::operating_system(spec, errors);
    }
    scheduling::gates(spec.get("schedulingGates"), errors);
}

fn dns_config(spec: View, errors: &mut Errors) {
    let config = spec.get("dnsConfig");
    let servers = config.get("nameservers");
    if spec.get("dnsPolicy").str() == "None" {
        if !config.is_set() {
            errors.push(config.required("must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if servers.is_empty() {
            errors.push(servers.required("must provide at least one DNS nameserver when `dnsPolicy` is None"));
            return;
        }
    }
    if servers.len() > 3 {
        errors.push(servers.invalid("must not have more than 3 nameservers"));
    }
    for server in servers.items() {
        checked(server, names::ip, errors);
    }
    let searches = config.get("searches");
    if searches.len() > 32 {
        errors.push(searches.invalid("must not have more than 32 search paths"));
    }
    if searches.items().map(|s| s.len() + 1).sum::<usize>() > 2049 {
        errors.push(searches.invalid("must not have more than 2048 characters (including spaces) in the search list"));
    }
    for search in searches.items() {
        // A single dot, a trailing dot and underscores are allowed here.
        let text = search.str();
        if text != "." {
            let plain = text.strip_suffix('.').unwrap_or(text).replace('_', "-");
            let shaped = plain.trim_matches('-');
            errors.extend(names::subdomain(shaped).iter().map(|complaint| search.invalid_str(complaint)));
        }
    }
    for option in config.get("options").items() {
        if option.get("name").is_empty() {
            errors.push(option.required("must not be empty"));
        }
    }
}

fn host_aliases(aliases: View, errors: &mut Errors) {
    for alias in aliases.items() {
        checked(alias.get("ip"), names::ip, errors);
        let hostnames = alias.get("hostnames");
        for hostname in hostnames.items() {
            let complaints = names::subdomain(hostname.str());
            // Upstream names the list, not the item.
            errors.extend(complaints.iter().map(|c| FieldError::invalid(hostnames.path(), hostname.str(), c)));
        }
    }
}
