//! `kube-system/extension-apiserver-authentication`: by what other servers know this cluster's clients and its front proxy.
//! Several API servers write it, so each adds what it trusts; authorities that have run out are taken away.

use std::sync::Arc;

use keelson_api::status::Status;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Map, Value, json};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::authn::trust::{Authority, Trust};
use crate::config::RequestHeader;
use crate::core::Core;
use crate::registry::create::create;
use crate::registry::options::WriteOptions;
use crate::registry::update::{Target, update};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
/// An authority is shown for this long after its end, because clocks differ.
const SLACK_SECONDS: i64 = 300;

/// Keeps the ConfigMap.
pub(crate) async fn run(core: Arc<Core>) {
    let Some(cache) = core.cache.resource("", "configmaps") else { return };
    let (mut changed, mut trusted) = (cache.follow(), core.authenticator.trusted.follow());
    let mut settled = None;
    loop {
        changed.borrow_and_update();
        let trust = trusted.borrow_and_update().clone();
        let revision = cache.get(NAMESPACE, NAME).map(|entry| entry.revision);
        if settled.is_none() || settled != revision {
            match write(&core, &trust).await {
                Ok(()) => settled = cache.get(NAMESPACE, NAME).map(|entry| entry.revision),
                Err(status) => tracing::warn!(status.message, "{NAME} could not be written"),
            }
        }
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            more = changed.changed() => if more.is_err() { return },
            more = trusted.changed() => match more {
                Ok(()) => settled = None,
                Err(_) => return,
            },
        }
    }
}

/// Writes what is missing.
pub(super) async fn write(core: &Core, trust: &Trust) -> Result<(), Status> {
    let resource = core.registry.known("", "configmaps")?;
    let options = WriteOptions::internal();
    let headers = core.config.authentication.request_header.as_ref();
    let wanted = |data: &Map<String, Value>| combined(data, trust, headers);
    let Some(entry) = resource.cache()?.get(NAMESPACE, NAME) else {
        let data = wanted(&Map::new());
        if data.is_empty() {
            return Ok(());
        }
        let object = json!({
            "kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": NAME, "namespace": NAMESPACE}, "data": data,
        });
        return create(core, resource, NAMESPACE, object, &options).await.map(|_| ());
    };
    let data = |object: &Value| object["data"].as_object().cloned().unwrap_or_default();
    let old = data(&entry.decode()?);
    if wanted(&old) == old {
        return Ok(());
    }
    let target = Target { resource, namespace: NAMESPACE, name: NAME, subresource: "" };
    let change = |old: &Value| {
        let mut new = old.clone();
        if let Some(map) = new.as_object_mut() {
            map.insert("data".into(), wanted(&data(old)).into());
        }
        Ok(new)
    };
    update(core, target, &options, change).await.map(|_| ())
}

/// What was there and what this server trusts. Keys that are nobody's are dropped, as upstream does.
fn combined(old: &Map<String, Value>, trust: &Trust, headers: Option<&RequestHeader>) -> Map<String, Value> {
    let text = |key: &str| old.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut new = Map::new();
    let mut put = |key: &str, value: String| new.insert(key.to_owned(), value.into());
    let client_ca = bundle(text("client-ca-file"), trust.client_ca.as_ref());
    if !client_ca.is_empty() {
        put("client-ca-file", client_ca);
    }
    let proxy_ca = bundle(text("requestheader-client-ca-file"), trust.request_header_ca.as_ref());
    if proxy_ca.is_empty() {
        return new;
    }
    put("requestheader-client-ca-file", proxy_ca);
    let none = Vec::new();
    for (key, own) in [
        ("requestheader-allowed-names", headers.map_or(&none, |h| &h.allowed_names)),
        ("requestheader-extra-headers-prefix", headers.map_or(&none, |h| &h.extra_header_prefixes)),
        ("requestheader-group-headers", headers.map_or(&none, |h| &h.group_headers)),
        ("requestheader-uid-headers", headers.map_or(&none, |h| &h.uid_headers)),
        ("requestheader-username-headers", headers.map_or(&none, |h| &h.username_headers)),
    ] {
        let mut all: Vec<String> = serde_json::from_str(text(key)).unwrap_or_default();
        for name in own {
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
        put(key, Value::from(all).to_string());
    }
    new
}

/// The certificates of both, each once, without those that have run out.
fn bundle(old: &str, own: Option<&Authority>) -> String {
    let mut all: Vec<CertificateDer<'static>> = Vec::new();
    let now = keelson_client::clock::now().as_second();
    let found = CertificateDer::pem_slice_iter(old.as_bytes()).flatten();
    for certificate in found.chain(CertificateDer::pem_slice_iter(own.map_or(&[], |own| &own.pem)).flatten()) {
        let Ok((_, parsed)) = X509Certificate::from_der(&certificate) else { continue };
        if parsed.validity().not_after.timestamp() + SLACK_SECONDS > now && !all.contains(&certificate) {
            all.push(certificate);
        }
    }
    all.iter().map(|certificate| pem(certificate)).collect()
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::prelude::BASE64_STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::config::Pem;

    fn certificate(not_after_year: i32) -> String {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(not_after_year, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem().replace("\r\n", "\n")
    }

    fn authority(pem: &str) -> Authority {
        Authority::new(pem.as_bytes().to_vec(), "test").unwrap()
    }

    #[test]
    fn bundles_are_joined_without_doubles_and_without_the_dead() {
        let (a, b, dead) = (certificate(4000), certificate(4000), certificate(2001));
        assert_eq!(bundle(&format!("{a}{dead}"), Some(&authority(&format!("{b}{a}")))), format!("{a}{b}"));
        assert_eq!(bundle("", None), "");
        assert_eq!(bundle("no certificate", Some(&authority(&a))), a);
    }

    #[test]
    fn another_servers_proxies_are_kept() {
        let (mine, other) = (certificate(4000), certificate(4000));
        let trust = Trust { client_ca: None, request_header_ca: Some(authority(&mine)) };
        let headers = RequestHeader::usual(Pem::Inline(Vec::new()), vec!["mine".into()]);
        let old = json!({
            "requestheader-client-ca-file": other, "requestheader-allowed-names": "[\"other\"]",
            "requestheader-username-headers": "[\"X-Remote-User\"]", "stray": "x",
        });
        let new = combined(old.as_object().unwrap(), &trust, Some(&headers));
        assert_eq!(new["requestheader-client-ca-file"], format!("{other}{mine}"));
        assert_eq!(new["requestheader-allowed-names"], r#"["other","mine"]"#);
        assert_eq!(new["requestheader-username-headers"], r#"["X-Remote-User"]"#);
        assert_eq!(new["requestheader-uid-headers"], r#"["X-Remote-Uid"]"#);
        assert!(!new.contains_key("stray") && !new.contains_key("client-ca-file"));
    }
}
