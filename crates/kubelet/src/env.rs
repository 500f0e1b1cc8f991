//! A container's environment: service links, `envFrom`, `env`, in upstream's order and precedence.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Service};

use crate::downward::{self, Addresses};
use crate::error::Error;
use crate::expansion::expand;
use crate::objects::Objects;
use crate::pod::view;
use crate::quantity::ResourceList;

/// ConfigMaps and Secrets of one pod's namespace, as the node's watches know them.
pub(crate) struct Sources<'a> {
    pub objects: &'a Objects,
    pub namespace: &'a str,
    pub pod_uid: &'a str,
}

impl Sources<'_> {
    async fn config_map(&self, name: &str) -> Result<Option<Arc<ConfigMap>>, Error> {
        self.objects.config_maps.get(self.namespace, name, self.pod_uid, None).await
    }

    async fn secret(&self, name: &str) -> Result<Option<Arc<Secret>>, Error> {
        self.objects.secrets.get(self.namespace, name, self.pod_uid, None).await
    }
}

/// The server's own words rather than the client library's.
pub(crate) fn words(error: kube::Error) -> Error {
    match error {
        kube::Error::Api(status) => Error::Message(status.message.clone()),
        other => Error::Api(other),
    }
}

/// What the environment is made from besides the objects.
pub(crate) struct Facts<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub addresses: &'a Addresses,
    pub allocatable: &'a ResourceList,
    /// Variables of [`service_variables`].
    pub services: BTreeMap<String, String>,
}

/// The container's environment, in order. An error is a configuration error (`CreateContainerConfigError`).
pub(crate) async fn environment(facts: &Facts<'_>, sources: &Sources<'_>) -> Result<Vec<(String, String)>, Error> {
    let namespace = view::namespace(facts.pod).to_string();
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for from in facts.container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            match sources.config_map(&reference.name).await? {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        found.insert(format!("{prefix}{key}"), value.clone());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(Error::message(format!("configmap {:?} not found", reference.name))),
            }
        }
        if let Some(reference) = &from.secret_ref {
            match sources.secret(&reference.name).await? {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        found.insert(format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(Error::message(format!("secret {:?} not found", reference.name))),
            }
        }
    }
    let mut result: Vec<(String, String)> = found.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    for var in facts.container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (_, Some(source)) => match from_source(facts, sources, &namespace, source).await? {
                Some(value) => value,
                None => continue,
            },
            (Some(value), None) => {
                let lookup = |name: &str| found.get(name).or(facts.services.get(name)).map(String::as_str);
                expand(value, lookup)
            }
            (None, None) => String::new(),
        };
        found.insert(var.name.clone(), value.clone());
        result.retain(|(name, _)| *name != var.name);
        result.push((var.name.clone(), value));
    }
    for (name, value) in &facts.services {
        if !found.contains_key(name) {
            result.push((name.clone(), value.clone()));
        }
    }
    Ok(result)
}

async fn from_source(
    facts: &Facts<'_>,
    sources: &Sources<'_>,
    namespace: &str,
    source: &k8s_openapi::api::core::v1::EnvVarSource,
) -> Result<Option<String>, Error> {
    if let Some(selector) = &source.field_ref {
        return downward::field(facts.pod, selector, facts.addresses).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        return downward::resource(facts.pod, Some(&facts.container.name), selector, facts.allocatable).map(Some);
    }
    if let Some(selector) = &source.config_map_key_ref {
        let optional = selector.optional == Some(true);
        let Some(map) = sources.config_map(&selector.name).await? else {
            return missing(optional, format!("configmap {:?} not found", selector.name));
        };
        return match map.data.as_ref().and_then(|data| data.get(&selector.key)) {
            Some(value) => Ok(Some(value.clone())),
            None => missing(
                optional,
                format!("couldn't find key {} in ConfigMap {namespace}/{}", selector.key, selector.name),
            ),
        };
    }
    if let Some(selector) = &source.secret_key_ref {
        let optional = selector.optional == Some(true);
        let Some(secret) = sources.secret(&selector.name).await? else {
            return missing(optional, format!("secret {:?} not found", selector.name));
        };
        return match secret.data.as_ref().and_then(|data| data.get(&selector.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None => {
                missing(optional, format!("couldn't find key {} in Secret {namespace}/{}", selector.key, selector.name))
            }
        };
    }
    Err(Error::message("this source of an environment variable is not supported"))
}

fn missing(optional: bool, message: String) -> Result<Option<String>, Error> {
    if optional { Ok(None) } else { Err(Error::Message(message)) }
}

/// Variables by which containers of `namespace` find Services without DNS. With `links` off only the API server's own.
pub(crate) fn service_variables<'a>(
    services: impl Iterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut chosen: BTreeMap<String, &Service> = BTreeMap::new();
    for service in services {
        let (Some(name), Some(own)) = (service.metadata.name.as_deref(), service.metadata.namespace.as_deref()) else {
            continue;
        };
        let api_server = own == "default" && name == "kubernetes";
        if (links && own == namespace) || (api_server && !chosen.contains_key(name)) {
            chosen.insert(name.to_string(), service);
        }
    }
    let mut variables = BTreeMap::new();
    for (name, service) in chosen {
        add_service(&name, service, &mut variables);
    }
    variables
}

fn add_service(name: &str, service: &Service, variables: &mut BTreeMap<String, String>) {
    let Some(spec) = &service.spec else { return };
    let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { return };
    let shown = match ip.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => format!("[{ip}]"),
        _ => ip.to_string(),
    };
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let prefix = upper(name);
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return };
    variables.insert(format!("{prefix}_SERVICE_HOST"), ip.into());
    variables.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for (index, port) in ports.iter().enumerate() {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            variables.insert(format!("{prefix}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string());
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{shown}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            variables.insert(format!("{prefix}_PORT"), url.clone());
        }
        let port_prefix = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        variables.insert(format!("{port_prefix}_PROTO"), protocol.to_lowercase());
        variables.insert(format!("{port_prefix}_PORT"), port.port.to_string());
        variables.insert(format!("{port_prefix}_ADDR"), ip.into());
        variables.insert(port_prefix, url);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(namespace: &str, name: &str, ip: &str) -> Service {
        serde_json::from_value(json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"clusterIP": ip,
            "ports": [{"name": "http-web", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}}))
        .unwrap()
    }

    #[test]
    fn service_links() {
        let services = [
            service("a", "my-db", "10.96.0.7"),
            service("b", "other", "10.96.0.8"),
            service("a", "headless", "None"),
            service("default", "kubernetes", "10.96.0.1"),
        ];
        let variables = service_variables(services.iter(), "a", true);
        for (name, value) in [
            ("MY_DB_SERVICE_HOST", "10.96.0.7"),
            ("MY_DB_SERVICE_PORT", "80"),
            ("MY_DB_SERVICE_PORT_HTTP_WEB", "80"),
            ("MY_DB_PORT", "tcp://10.96.0.7:80"),
            ("MY_DB_PORT_53_UDP", "udp://10.96.0.7:53"),
            ("MY_DB_PORT_53_UDP_PROTO", "udp"),
            ("MY_DB_PORT_80_TCP_ADDR", "10.96.0.7"),
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ] {
            assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!variables.contains_key("OTHER_SERVICE_HOST") && !variables.contains_key("HEADLESS_SERVICE_HOST"));
        let without = service_variables(services.iter(), "a", false);
        assert!(without.keys().all(|name| name.starts_with("KUBERNETES_")), "{without:?}");
    }

    /// A container can start again while the API server is away.
    #[tokio::test(start_paused = true)]
    async fn what_was_read_once_outlives_the_api_server() {
        let away = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let service = {
            let away = away.clone();
            tower::service_fn(move |request: http::Request<kube::client::Body>| {
                let (away, watch) = (away.clone(), request.uri().query().is_some_and(|query| query.contains("watch=")));
                async move {
                    if away.load(std::sync::atomic::Ordering::SeqCst) {
                        return Err(std::io::Error::other("no server here"));
                    }
                    if watch {
                        std::future::pending::<()>().await;
                    }
                    let list = json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"},
                        "items": [{"metadata": {"name": "m", "namespace": "n"}, "data": {"k": "v"}}]});
                    Ok(http::Response::new(kube::client::Body::from(list.to_string().into_bytes())))
                }
            })
        };
        let container: Container =
            serde_json::from_value(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "m"}}],
            "env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}]}))
            .unwrap();
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}})).unwrap();
        let (addresses, allocatable) = (Addresses::default(), ResourceList::new());
        let facts = || Facts {
            pod: &pod,
            container: &container,
            addresses: &addresses,
            allocatable: &allocatable,
            services: BTreeMap::new(),
        };
        let objects = Objects::new(&kube::Client::new(service, "default"));
        let sources = Sources { objects: &objects, namespace: "n", pod_uid: "u" };
        let expected = [("k".to_string(), "v".to_string()), ("E".into(), "v".into())];
        assert_eq!(environment(&facts(), &sources).await.unwrap(), expected);
        away.store(true, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(environment(&facts(), &sources).await.unwrap(), expected);
        objects.release("u");
        let gone = environment(&facts(), &sources).await.unwrap_err();
        assert!(gone.to_string().contains("no server here") || gone.to_string().contains("timed out"), "{gone}");
    }

    #[tokio::test]
    async fn order_and_references() {
        let container: Container = serde_json::from_value(json!({"name": "c", "env": [
            {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(SVC)-$(NONE)"}, {"name": "A", "value": "2"},
            {"name": "E"}, {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "O", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}))
        .unwrap();
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}})).unwrap();
        let facts = Facts {
            pod: &pod,
            container: &container,
            addresses: &Addresses::default(),
            allocatable: &ResourceList::new(),
            services: [("SVC".to_string(), "s".to_string()), ("A".into(), "hidden".into())].into(),
        };
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("no server here"))
        });
        let objects = Objects::new(&kube::Client::new(service, "default"));
        let sources = Sources { objects: &objects, namespace: "n", pod_uid: "u" };
        let got = environment(&facts, &sources).await.unwrap();
        let expected = [("B", "1-s-$(NONE)"), ("A", "2"), ("E", ""), ("NAME", "p"), ("O", ""), ("SVC", "s")];
        assert_eq!(got, expected.map(|(name, value)| (name.to_string(), value.to_string())));
    }
}
