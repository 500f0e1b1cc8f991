//! Which secrets a pod refers to, and whether it may.

use serde_json::Value;

use super::Account;

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// Why a mirror pod may not be, if so.
pub(super) fn mirrored(spec: &Value) -> Option<&'static str> {
    if spec["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return Some("a mirror pod may not reference service accounts");
    }
    let secret_volume = |volume: &Value| {
        let projected = items(&volume["projected"]["sources"]).any(|source| source["secret"].is_object());
        volume["secret"].is_object() || projected
    };
    let refers = items(&spec["imagePullSecrets"]).next().is_some()
        || items(&spec["volumes"]).any(secret_volume)
        || containers(spec).any(|(_, container)| references(container).next().is_some());
    if refers {
        return Some("a mirror pod may not reference secrets");
    }
    let sources = items(&spec["volumes"]).flat_map(|volume| items(&volume["projected"]["sources"]));
    let mut sources = sources.filter(|source| source["serviceAccountToken"].is_object());
    sources.next().map(|_| "a mirror pod may not use ServiceAccountToken volume projections")
}

fn containers(spec: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    let kinds = [
        ("initContainers", "init container"),
        ("containers", "container"),
        ("ephemeralContainers", "ephemeral container"),
    ];
    kinds.into_iter().flat_map(|(list, what)| items(&spec[list]).map(move |container| (what, container)))
}

/// The secrets of a container's environment: by which variable (none for a whole secret), and their names.
fn references(container: &Value) -> impl Iterator<Item = (Option<&str>, &str)> {
    let variables = items(&container["env"]).filter_map(|variable| {
        let secret = variable["valueFrom"]["secretKeyRef"]["name"].as_str()?;
        Some((Some(variable["name"].as_str().unwrap_or_default()), secret))
    });
    let whole = items(&container["envFrom"]).filter_map(|source| Some((None, source["secretRef"]["name"].as_str()?)));
    variables.chain(whole)
}

/// What a pod refers to beside the secrets of its account, if anything. `debugged` looks at ephemeral containers only.
pub(super) fn foreign(spec: &Value, name: &str, account: &Account, debugged: bool) -> Option<String> {
    let listed = |list: &[Value], secret: &str| list.iter().any(|one| one["name"] == secret);
    let that = format!("is not allowed because service account {name} does not reference that");
    if !debugged {
        let mut volumes = items(&spec["volumes"]).filter_map(|volume| volume["secret"]["secretName"].as_str());
        if let Some(secret) = volumes.find(|secret| !listed(&account.secrets, secret)) {
            return Some(format!("volume with secret.secretName={secret:?} {that} secret"));
        }
    }
    let containers = containers(spec).filter(|(what, _)| debugged == (*what == "ephemeral container"));
    for (what, container) in containers {
        let container_name = container["name"].as_str().unwrap_or_default();
        if let Some((variable, secret)) = references(container).find(|(_, secret)| !listed(&account.secrets, secret)) {
            let by = variable.map_or_else(|| "envFrom".to_owned(), |variable| format!("envVar {variable}"));
            return Some(format!(
                "{what} {container_name} with {by} referencing secret.secretName={secret:?} {that} secret"
            ));
        }
    }
    if debugged {
        return None;
    }
    for (index, pull) in items(&spec["imagePullSecrets"]).enumerate() {
        let secret = pull["name"].as_str().unwrap_or_default();
        if !listed(&account.image_pull_secrets, secret) {
            return Some(format!("imagePullSecrets[{index}].name={secret:?} {that} imagePullSecret"));
        }
    }
    None
}
