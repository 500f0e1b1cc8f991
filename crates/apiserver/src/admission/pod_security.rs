//! PodSecurity: pods meet the standard that their namespace's labels name, by the checks of the Pod Security Standards.
//! Workloads that make pods are only warned of and audited; a namespace whose labels change is told which pods would not do.
//! A namespace without such labels costs one look at its labels.
//!
//! - [`policy`]: levels, versions, labels
//! - [`checks`]: what a standard asks for, from the files beside
//! - [`trial`]: a new standard against the pods there are
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
mod trial;
mod volumes;

use std::collections::BTreeMap;

use keelson_api::status::Status;
use serde_json::Value;

use super::{Operation, Request};
use checks::{Finding, Pod, details, evaluate};
use config::Config;
use policy::{Level, PREFIX, Policy, Standard};
pub(super) use trial::Places;
use trial::Trial;

/// Subresources of pods that cannot change what containers may do.
const HARMLESS: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

pub(super) async fn validate(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    if !matches!(request.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    let kind = &request.resource.kind;
    match (&*kind.group, &*kind.resource) {
        ("", "namespaces") if request.subresource.is_empty() => judge_namespace(request, object).await,
        ("", "pods") if !HARMLESS.contains(&request.subresource) => judge_pod(request, object),
        _ if !request.subresource.is_empty() => Ok(()),
        (group, resource) => match template(group, resource, object) {
            Some(template) => {
                judge_template(request, template);
                Ok(())
            }
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

/// What holds in the request's namespace, and what is wrong with its labels.
fn policy_for(request: &Request<'_>, config: &Config) -> Result<(Policy, Option<String>), String> {
    let namespaces = request.core.registry.known("", "namespaces").and_then(|namespaces| namespaces.cache());
    let namespace = namespaces.map_err(|status| status.message)?.get("", request.namespace);
    let namespace = namespace.ok_or_else(|| format!("failed to lookup namespace \"{}\"", request.namespace))?;
    let (policy, errors) = Policy::of(&*namespace, &config.defaults);
    if errors.is_empty() {
        return Ok((policy, None));
    }
    let errors: Vec<_> = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
    let text = if errors.len() == 1 { errors.concat() } else { format!("[{}]", errors.join(", ")) };
    Ok((policy, Some(format!("Failed to parse policy: {text}"))))
}

fn judge_pod(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let config = &*request.core.admission.pod_security;
    if is_exempt(request, config) {
        return Ok(());
    }
    let (policy, wrong) = policy_for(request, config).map_err(Status::internal)?;
    if wrong.is_none() && policy.is_privileged() {
        request.notes.annotate(format!("{PREFIX}enforce-policy"), Standard::default().to_string());
        return Ok(());
    }
    let unimportant =
        request.operation == Operation::Update && request.old.is_some_and(|old| !is_significant(object, old));
    let pod = Pod { metadata: &object["metadata"], spec: &object["spec"] };
    if unimportant || has_exempt_class(request, config, pod) {
        return Ok(());
    }
    note_error(request, wrong);
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

/// Workloads are never refused, whatever is wrong.
fn judge_template(request: &Request<'_>, template: &Value) {
    let config = &*request.core.admission.pod_security;
    if is_exempt(request, config) {
        return;
    }
    let (policy, wrong) = match policy_for(request, config) {
        Ok(found) => found,
        Err(why) => return note_error(request, Some(why)),
    };
    let asked = [policy.audit, policy.warn].iter().any(|standard| standard.level != Level::Privileged);
    let pod = Pod { metadata: &template["metadata"], spec: &template["spec"] };
    if (asked || wrong.is_some()) && !has_exempt_class(request, config, pod) {
        note_error(request, wrong);
        tell(request, &policy, pod, (Standard::default(), &[]), false);
    }
}

fn note_error(request: &Request<'_>, error: Option<String>) {
    if let Some(error) = error {
        request.notes.annotate(format!("{PREFIX}error"), error);
    }
}

/// Whether nothing is asked of this user, or in this namespace.
fn is_exempt(request: &Request<'_>, config: &Config) -> bool {
    let exempt = if config.exempts_namespace(request.namespace) {
        "namespace"
    } else if config.exempts_user(&request.user.name) {
        "user"
    } else {
        return false;
    };
    request.notes.annotate(format!("{PREFIX}exempt"), exempt);
    true
}

fn has_exempt_class(request: &Request<'_>, config: &Config, pod: Pod<'_>) -> bool {
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

async fn judge_namespace(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let config = &request.core.admission.pod_security;
    let policy_of = |namespace: &Value| Policy::of(&namespace["metadata"]["labels"], &config.defaults);
    if !is_labelled(object) && !request.old.is_some_and(is_labelled) {
        return Ok(());
    }
    let (policy, errors) = policy_of(object);
    let (old_policy, old_errors) = request.old.map(policy_of).unzip();
    if !errors.is_empty() && old_errors.is_none_or(|old| old != errors) {
        return Err(Status::invalid("", "Namespace", request.name, &errors));
    }
    let (new, old) = (policy.enforce, old_policy.map(|policy| policy.enforce));
    let relaxed = old.is_some_and(|old| new.version == old.version && new.level <= old.level);
    if relaxed || (old.is_some() && new.level == Level::Privileged) {
        return Ok(());
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if config.exempts_namespace(name) {
        if !policy.is_privileged() && policy != config.defaults {
            let labelled = policy.labelled(&object["metadata"]["labels"]);
            request.notes.warn(format!(
                "namespace \"{name}\" is exempt from Pod Security, and the policy ({labelled}) will be ignored"
            ));
        }
        return Ok(());
    }
    if old.is_some() {
        let pods = request.core.registry.known("", "pods")?.cache()?;
        let prefix = pods.namespace_prefix(name);
        let trial = Trial { namespace: name.to_owned(), prefix, standard: new, config: config.clone() };
        let warnings = trial.warnings(&request.core.admission.pod_security_places, pods.snapshot()).await;
        warnings.into_iter().for_each(|warning| request.notes.warn(warning));
    }
    Ok(())
}

fn is_labelled(namespace: &Value) -> bool {
    let labels = namespace["metadata"]["labels"].as_object();
    labels.into_iter().flatten().any(|(key, _)| key.starts_with(PREFIX))
}
