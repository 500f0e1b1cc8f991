//! The downward API: what a pod may know about itself, for environment variables and for files.

use std::fmt::Write;

use k8s_openapi::api::core::v1::{ObjectFieldSelector, Pod, ResourceFieldSelector};

use crate::error::Error;
use crate::pod::view;
use crate::quantity::{self, ResourceList};

/// The addresses a pod has by now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    pub pod_ips: Vec<String>,
    pub host_ips: Vec<String>,
}

/// The value of a `fieldRef`.
pub(crate) fn field(pod: &Pod, selector: &ObjectFieldSelector, addresses: &Addresses) -> Result<String, Error> {
    let path = selector.field_path.as_str();
    if let Some((field, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match field {
            "metadata.labels" => &pod.metadata.labels,
            "metadata.annotations" => &pod.metadata.annotations,
            _ => return Err(unsupported(path)),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let spec = view::spec(pod);
    Ok(match path {
        "metadata.name" => view::name(pod).to_string(),
        "metadata.namespace" => view::namespace(pod).to_string(),
        "metadata.uid" => view::uid(pod).to_string(),
        "metadata.labels" => map_text(pod.metadata.labels.iter().flatten()),
        "metadata.annotations" => map_text(pod.metadata.annotations.iter().flatten()),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" => addresses.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => addresses.host_ips.join(","),
        "status.podIP" => addresses.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => addresses.pod_ips.join(","),
        _ => return Err(unsupported(path)),
    })
}

fn unsupported(path: &str) -> Error {
    Error::message(format!("unsupported fieldPath: {path}"))
}

/// `key="value"` lines, values quoted as Go's `%q` does.
fn map_text<'a>(map: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let lines: Vec<String> = map.map(|(key, value)| format!("{key}={}", quote(value))).collect();
    lines.join("\n")
}

fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(quoted, "\\x{:02x}", c as u32);
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The value of a `resourceFieldRef`; what is not limited is as large as `allocatable`.
pub(crate) fn resource(
    pod: &Pod,
    own_name: Option<&str>,
    selector: &ResourceFieldSelector,
    allocatable: &ResourceList,
) -> Result<String, Error> {
    let name = selector.container_name.as_deref().or(own_name).unwrap_or_default();
    let Some(container) = view::find_container(pod, name) else {
        return Err(Error::message(format!("container {name} not found")));
    };
    let resources = container.resources.unwrap_or_default();
    let Some((kind, resource)) = selector.resource.split_once('.') else {
        return Err(Error::message(format!("unsupported container resource : {}", selector.resource)));
    };
    let limits = resources.limits.as_ref();
    let requests = resources.requests.as_ref();
    let read = |list: Option<&ResourceList>| quantity::milli_of(list, resource).filter(|milli| *milli > 0);
    let milli = match kind {
        "limits" => read(limits).or_else(|| read(Some(allocatable))),
        "requests" => read(requests).or_else(|| read(limits)),
        _ => return Err(Error::message(format!("unsupported container resource : {}", selector.resource))),
    }
    .unwrap_or(0);
    let divisor = selector.divisor.as_ref().map(quantity::milli).filter(|divisor| *divisor > 0).unwrap_or(1000);
    Ok((milli / divisor + i64::from(milli % divisor > 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "1", "b": "x\"y\n"},
                "annotations": {"k/x": "v"}},
            "spec": {"nodeName": "node", "serviceAccountName": "sa", "containers": [
                {"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}, {"name": "d"}]}}))
        .unwrap()
    }

    #[test]
    fn fields() {
        let addresses =
            Addresses { pod_ips: vec!["10.1.0.2".into(), "fd00::2".into()], host_ips: vec!["10.0.0.1".into()] };
        for (path, value) in [
            ("metadata.name", Ok("p")),
            ("metadata.labels", Ok("a=\"1\"\nb=\"x\\\"y\\n\"")),
            ("metadata.labels['a']", Ok("1")),
            ("metadata.labels['none']", Ok("")),
            ("metadata.annotations['k/x']", Ok("v")),
            ("spec.nodeName", Ok("node")),
            ("status.podIP", Ok("10.1.0.2")),
            ("status.podIPs", Ok("10.1.0.2,fd00::2")),
            ("status.hostIP", Ok("10.0.0.1")),
            ("spec.containers", Err("unsupported fieldPath: spec.containers")),
        ] {
            let selector = ObjectFieldSelector { field_path: path.into(), ..Default::default() };
            let got = field(&pod(), &selector, &addresses).map_err(|error| error.to_string());
            assert_eq!(got.as_deref().map_err(String::as_str), value, "{path}");
        }
    }

    #[test]
    fn resources() {
        let allocatable = [("cpu", "2"), ("memory", "1Gi")]
            .map(|(name, value)| {
                (name.to_string(), k8s_openapi::apimachinery::pkg::api::resource::Quantity(value.into()))
            })
            .into();
        for (container, name, divisor, value) in [
            ("c", "limits.cpu", None, "2"),
            ("c", "limits.cpu", Some("1m"), "1500"),
            ("c", "limits.memory", Some("1Mi"), "64"),
            ("c", "requests.memory", None, "67108864"),
            ("d", "limits.memory", Some("1Mi"), "1024"),
            ("d", "requests.cpu", None, "0"),
        ] {
            let selector = ResourceFieldSelector {
                resource: name.into(),
                divisor: divisor
                    .map(|divisor| k8s_openapi::apimachinery::pkg::api::resource::Quantity(divisor.to_string())),
                ..Default::default()
            };
            assert_eq!(
                resource(&pod(), Some(container), &selector, &allocatable).unwrap(),
                value,
                "{container} {name}"
            );
        }
    }
}
