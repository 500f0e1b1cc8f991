//! PodSecurity: pods meet the standard that their namespace's labels name, by the checks of the Pod Security Standards.
//! Workloads that make pods are only warned of and audited; a namespace whose labels change is told which pods would not do.
//! A namespace without such labels costs one look at its labels.
//!
//! - [`policy`]: levels, versions, labels
//! - [`checks`]: what a standard asks for, from the files beside
//! - [`config`]: defaults and exemptions

mod capabilities;
mod checks;
pub(super) mod config;
mod host;
mod identity;
mod policy;
mod privilege;
mod profiles;
#[cfg(test)]
mod tests;
mod volumes;

use std::collections::BTreeMap;
use std::time::Duration;

use keelson_api::status::Status;
use serde_json::Value;
use tokio::time::Instant;

use super::{Operation, Request};
use checks::{Finding, Pod, details, evaluate, reasons};
use config::Config;
use policy::{Level, PREFIX, Policy, Standard};

/// Pods that a namespace's new standard is tried on at most, and for how long.
const MAX_PODS: usize = 3000;
const MAX_TRIAL: Duration = Duration::from_secs(1);

/// Subresources of pods that cannot change what containers may do.
const HARMLESS: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

pub(super) fn validate(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    if !matches!(request.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    let kind = &request.resource.kind;
    match (&*kind.group, &*kind.resource) {
        ("", "namespaces") if request.subresource.is_empty() => judge_namespace(request, object),
        ("", "pods") if !HARMLESS.contains(&request.subresource) => judge_pod(request, object),
        _ if !request.subresource.is_empty() => Ok(()),
        (group, resource) => match template(group, resource, object) {
            Some(template) => judge_template(request, template),
            None => Ok(()),
        },
    }
}

/// The template of a workload's pods.
fn template<'a>(group: &str, resource: &str, object: &'a Value) -> Option<&'a Value> {
    let path = match (group, resource) {
        ("", "replicationcontrollers")
        | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => "/spec/template",
        ("", "podtemplates") => "/template",
        ("batch", "cronjobs") => "/spec/jobTemplate/spec/template",
        _ => return None,
    };
    object.pointer(path).filter(|template| template.is_object())
}

/// What holds in the request's namespace; `None` if nothing does, or the request is exempt.
fn policy_for(request: &Request<'_>, config: &Config) -> Result<Option<Policy>, Status> {
    let namespaces = request.core.registry.known("", "namespaces")?.cache()?;
    let Some(namespace) = namespaces.get("", request.namespace) else {
        let why = format!("failed to lookup namespace {}", request.namespace);
        return Err(Status::new(500, "InternalError", why));
    };
    let (policy, errors) = Policy::of(&*namespace, &config.defaults);
    if errors.is_empty() && policy.is_privileged() {
        return Ok(None);
    }
    let exempt = if config.exempts_namespace(request.namespace) {
        Some("namespace")
    } else if config.exempts_user(&request.user.name) {
        Some("user")
    } else {
        None
    };
    if let Some(why) = exempt {
        request.notes.annotate(format!("{PREFIX}exempt"), why);
        return Ok(None);
    }
    if !errors.is_empty() {
        let errors: Vec<_> = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
        let text = if errors.len() == 1 { errors.concat() } else { format!("[{}]", errors.join(", ")) };
        request.notes.annotate(format!("{PREFIX}error"), format!("Failed to parse policy: {text}"));
    }
    Ok(Some(policy))
}

fn judge_pod(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let config = &request.core.admission.pod_security;
    let Some(policy) = policy_for(request, config)? else { return Ok(()) };
    let unimportant =
        request.operation == Operation::Update && request.old.is_some_and(|old| !is_significant(object, old));
    let pod = Pod { metadata: &object["metadata"], spec: &object["spec"] };
    if unimportant || is_exempt(request, config, pod) {
        return Ok(());
    }
    let standard = policy.enforce;
    request.notes.annotate(format!("{PREFIX}enforce-policy"), standard.to_string());
    let findings = evaluate(standard, pod);
    let refused = !findings.is_empty();
    tell(request, &policy, pod, (standard, &findings), refused);
    if refused {
        return Err(request.forbidden(&format!("violates PodSecurity \"{standard}\": {}", details(&findings))));
    }
    Ok(())
}

fn judge_template(request: &Request<'_>, template: &Value) -> Result<(), Status> {
    let config = &request.core.admission.pod_security;
    let Some(policy) = policy_for(request, config)? else { return Ok(()) };
    let pod = Pod { metadata: &template["metadata"], spec: &template["spec"] };
    let asked = [policy.audit, policy.warn].iter().any(|standard| standard.level != Level::Privileged);
    if asked && !is_exempt(request, config, pod) {
        tell(request, &policy, pod, (Standard::default(), &[]), false);
    }
    Ok(())
}

fn is_exempt(request: &Request<'_>, config: &Config, pod: Pod<'_>) -> bool {
    let exempt = pod.spec["runtimeClassName"].as_str().is_some_and(|class| config.exempts_runtime_class(class));
    if exempt {
        request.notes.annotate(format!("{PREFIX}exempt"), "runtimeClass");
    }
    exempt
}

/// Audits and warns. What one standard (the one enforced) found is `known`; a request that is refused is not warned of.
fn tell(request: &Request<'_>, policy: &Policy, pod: Pod<'_>, known: (Standard, &[Finding]), refused: bool) {
    let found = |standard: Standard| {
        if standard == known.0 { details(known.1) } else { details(&evaluate(standard, pod)) }
    };
    let said = |standard: Standard| {
        let found = found(standard);
        (!found.is_empty()).then(|| format!("would violate PodSecurity \"{standard}\": {found}"))
    };
    let audited = said(policy.audit);
    if let Some(text) = &audited {
        request.notes.annotate(format!("{PREFIX}audit-violations"), text.clone());
    }
    if refused {
        return;
    }
    let warned = if policy.warn == policy.audit { audited } else { said(policy.warn) };
    if let Some(text) = warned {
        request.notes.warn(text);
    }
}

/// Whether an update changes what the standards look at: images, seccomp annotations, the set of containers.
fn is_significant(pod: &Value, old: &Value) -> bool {
    const SECCOMP: [&str; 2] =
        ["seccomp.security.alpha.kubernetes.io/pod", "container.seccomp.security.alpha.kubernetes.io/"];
    let annotations = |pod: &Value| -> BTreeMap<String, Value> {
        let all = pod["metadata"]["annotations"].as_object().into_iter().flatten();
        let ours = all.filter(|(key, _)| SECCOMP.iter().any(|prefix| key.starts_with(prefix)));
        ours.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    fn images<'a>(pod: &'a Value, list: &str) -> Vec<(&'a Value, &'a Value)> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.map(|container| (&container["name"], &container["image"])).collect()
    }
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    lists.iter().any(|list| images(pod, list) != images(old, list)) || annotations(pod) != annotations(old)
}

fn judge_namespace(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let config = &request.core.admission.pod_security;
    let labels = |namespace: &Value| Policy::of(&namespace["metadata"]["labels"], &config.defaults);
    if !is_labelled(object) && !request.old.is_some_and(is_labelled) {
        return Ok(());
    }
    let (policy, errors) = labels(object);
    let (old_policy, old_errors) = request.old.map(labels).unzip();
    if !errors.is_empty() && old_errors.is_none_or(|old| old != errors) {
        return Err(Status::invalid("", "Namespace", request.name, &errors));
    }
    let Some(old_policy) = old_policy else { return Ok(()) };
    let (new, old) = (policy.enforce, old_policy.enforce);
    let relaxed = new.version == old.version && new.level <= old.level;
    if new == old || new.level == Level::Privileged || relaxed || config.exempts_namespace(request.name) {
        return Ok(());
    }
    try_on_pods(request, config, new)
}

fn is_labelled(namespace: &Value) -> bool {
    let labels = namespace["metadata"]["labels"].as_object();
    labels.into_iter().flatten().any(|(key, _)| key.starts_with(PREFIX))
}

/// Warns of the pods there are that a new standard would not let in.
fn try_on_pods(request: &Request<'_>, config: &Config, standard: Standard) -> Result<(), Status> {
    let pods = request.core.registry.known("", "pods")?.cache()?;
    let (snapshot, prefix) = (pods.snapshot(), format!("{}{}/", pods.prefix(), request.name));
    let total = snapshot.range(&prefix, "").count();
    let deadline = Instant::now() + MAX_TRIAL;
    // By what is wrong: the first pod's name, and how many there are.
    let mut wrong: BTreeMap<String, (String, usize)> = BTreeMap::new();
    let mut tried = 0;
    for entry in snapshot.range(&prefix, "").take(MAX_PODS) {
        tried += 1;
        let object = entry.decode()?;
        let pod = Pod { metadata: &object["metadata"], spec: &object["spec"] };
        if !is_exempt(request, config, pod) {
            let findings = evaluate(standard, pod);
            if !findings.is_empty() {
                wrong.entry(reasons(&findings)).or_insert_with(|| (entry.name().to_owned(), 0)).1 += 1;
            }
        }
        if Instant::now() >= deadline {
            break;
        }
    }
    if tried < total {
        request.notes.warn(format!(
            "new PodSecurity enforce level only checked against the first {tried} of {total} existing pods"
        ));
    }
    if !wrong.is_empty() {
        let name = request.name;
        request.notes.warn(format!(
            "existing pods in namespace \"{name}\" violate the new PodSecurity enforce level \"{standard}\""
        ));
    }
    let texts = wrong.into_iter().map(|(why, (name, count))| match count {
        1 => format!("{name}: {why}"),
        2 => format!("{name} (and 1 other pod): {why}"),
        count => format!("{name} (and {} other pods): {why}", count - 1),
    });
    let mut texts: Vec<_> = texts.collect();
    texts.sort_unstable();
    texts.into_iter().for_each(|text| request.notes.warn(text));
    Ok(())
}
