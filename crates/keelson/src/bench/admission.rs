//! What admission adds to a create: policies, and webhooks that answer at once. In this process, over the local engine,
//! without a socket to the server: what is compared is admission and nothing else.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use k8s_openapi::ByteString;
use keelson_apiserver::{ApiServer, Config, UserInfo};
use keelson_cluster::pki::Pki;
use keelson_store::LocalStore;
use serde_json::{Value, json};

use super::process::Server;
use super::request::{load, send};
use super::scratch::Scratch;
use super::{Figure, NO_BUDGET, Row, Size};
use crate::cli::Failure;
use webhook::Webhook;

mod webhook;

const OBJECTS: usize = 5000;
const IN_FLIGHT: usize = 32;
const POLICIES: usize = 20;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const BASE: &str = "/apis/admissionregistration.k8s.io/v1";

/// Prints the rows.
pub(super) async fn costs(size: Size, print: impl Fn(Row)) -> Result<(), Failure> {
    let objects = size.of(OBJECTS);
    let scratch = Scratch::new()?;
    let open = async |name: &str| {
        let store = LocalStore::open(&scratch.path().join(name), Default::default())?;
        let server = ApiServer::new(Config::default(), Arc::new(store)).await?;
        Ok::<_, Failure>(server.kube_client(UserInfo::new("bench", ["system:masters"])))
    };
    let show = |[cpu, rate]: [&'static str; 2], (micros, per_second): (f64, f64)| {
        print(Row::new(cpu, Figure::Micros(NO_BUDGET), micros));
        print(Row::new(rate, Figure::PerSecond(0.0), per_second));
    };

    let client = open("plain").await?;
    show(
        ["admission: CPU of a create of 1 KiB, in process", "admission: creates of 1 KiB, in process, 32 in flight"],
        creates(&client, objects, None).await?,
    );

    drop(client);
    let client = open("policies").await?;
    for index in 0..POLICIES {
        bind_policy(&client, index).await?;
    }
    let forbidden = json!({"metadata": {"name": "forbidden"}, "data": {"forbidden": ""}});
    if send(&client, "POST", MAPS, Some(forbidden)).await.is_ok() {
        return Err("the policies do not act".into());
    }
    show(
        ["admission: CPU of a create, 20 policies that match", "admission: creates, 20 policies that match"],
        creates(&client, objects, None).await?,
    );

    drop(client);
    let client = open("webhooks").await?;
    let pki = Pki::open(&scratch.path().join("pki"))?;
    let webhook = Webhook::start(pki.serving("webhook", &[], &[IpAddr::V4(Ipv4Addr::LOCALHOST)])?)?;
    for kind in ["mutating", "validating"] {
        let configuration = configuration(kind, &webhook, pki.ca_pem());
        send(&client, "POST", &format!("{BASE}/{kind}webhookconfigurations"), Some(configuration)).await?;
    }
    let figures = creates(&client, objects, Some(&webhook)).await?;
    let asked = webhook.stop()?;
    if asked != 2 * objects {
        return Err(format!("the webhooks were asked {asked} times for {objects} objects").into());
    }
    show(["admission: CPU of a create, 2 webhooks, without theirs", "admission: creates, 2 webhooks"], figures);
    Ok(())
}

/// Microseconds of this process's time for each create, without the webhooks', and creates a second.
async fn creates(client: &kube::Client, objects: usize, webhook: Option<&Webhook>) -> Result<(f64, f64), Failure> {
    let used = || {
        let others = webhook.map_or(Ok(Default::default()), |webhook| webhook.thread.cpu())?;
        Ok::<_, Failure>(Server::here().cpu()?.saturating_sub(others))
    };
    let before = used()?;
    let rate = load(objects, IN_FLIGHT, |index| {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("bench-{index}")},
            "data": {"text": "x".repeat(900)}});
        send(client, "POST", MAPS, Some(map))
    })
    .await?;
    Ok((used()?.saturating_sub(before).as_secs_f64() * 1e6 / objects as f64, rate))
}

/// A policy about ConfigMaps with one variable and three cheap validations.
async fn bind_policy(client: &kube::Client, index: usize) -> Result<(), Failure> {
    let name = format!("bench-{index}");
    let policy = json!({"metadata": {"name": name}, "spec": {
    "matchConstraints": {"resourceRules": [rule()]},
    "variables": [{"name": "size", "expression": "size(object.data)"}],
    "validations": [
        {"expression": "variables.size < 10", "message": "too many"},
        {"expression": "!('forbidden' in object.data)", "message": "forbidden"},
        {"expression": "object.metadata.name.startsWith('bench-')", "message": "not of the bench"},
    ]}});
    send(client, "POST", &format!("{BASE}/validatingadmissionpolicies"), Some(policy)).await?;
    let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}});
    send(client, "POST", &format!("{BASE}/validatingadmissionpolicybindings"), Some(binding)).await?;
    Ok(())
}

fn configuration(kind: &str, webhook: &Webhook, authority: &str) -> Value {
    json!({"metadata": {"name": "bench"}, "webhooks": [{
        "name": "bench.keelson.test", "rules": [rule()], "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {
            "url": format!("https://{}/{kind}", webhook.address), "caBundle": ByteString(authority.as_bytes().into()),
        },
    }]})
}

fn rule() -> Value {
    json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]})
}
