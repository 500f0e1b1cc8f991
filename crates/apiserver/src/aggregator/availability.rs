//! Whether the server behind an APIService answers: looked at when its Service or the endpoints change, and every half minute,
//! and kept as the condition `Available`, by which requests are passed on or refused.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::Request;
use keelson_api::status::Status;
use keelson_client::Backoff;
use serde_json::{Value, json};

use super::proxy::{PATIENCE, identify};
use super::remote::{Remote, own_user};
use super::{GROUP, RESOURCE, cache};
use crate::core::Core;
use crate::endpoint::{self, Endpoint};
use crate::registry::create::{now, text};
use crate::registry::options::WriteOptions;
use crate::registry::update::{Target, update};
use crate::relay::empty_body;

/// Between two looks at a server that answers, and at most between two at one that does not.
const INTERVAL: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_millis(5);
/// Requests of which one must succeed: they may go to different endpoints.
const ATTEMPTS: usize = 5;

/// What the condition `Available` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    status: &'static str,
    reason: &'static str,
    message: String,
}

/// What leads to a server; when it changes, the server is looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Way {
    external: Value,
    endpoints: Vec<Endpoint>,
}

/// Whether an APIService's condition says so.
pub(super) fn is_available(object: &Value) -> bool {
    condition(object).is_some_and(|condition| condition["status"] == "True")
}

fn condition(object: &Value) -> Option<&Value> {
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.find(|condition| condition["type"] == "Available")
}

/// Looks after a server; does not end.
pub(super) async fn watch_over(core: &Arc<Core>, remote: &Arc<Remote>) {
    let followed = |group, resource| core.registry.known(group, resource).and_then(|r| r.cache()).map(|c| c.follow());
    let (Ok(mut services), Ok(mut slices)) = (followed("", "services"), followed("discovery.k8s.io", "endpointslices"))
    else {
        return;
    };
    let mut backoff = Backoff::new(FIRST_RETRY, INTERVAL);
    loop {
        services.borrow_and_update();
        slices.borrow_and_update();
        let way = look(core, remote);
        let found = match &way {
            Ok(_) => check(remote).await,
            Err(condition) => condition.clone(),
        };
        let answers = found.status == "True";
        let written = write(core, &remote.name, &remote.uid, found).await;
        if let Err(error) = &written {
            tracing::warn!(%error, name = remote.name, "an APIService's condition could not be written");
        }
        // A server that is not there is waited for; one that does not answer is asked again.
        let pause = if written.is_ok() && (answers || way.is_err()) {
            backoff.reset();
            INTERVAL
        } else {
            backoff.next_delay()
        };
        let pause = tokio::time::sleep(pause);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                more = services.changed() => if more.is_err() { return },
                more = slices.changed() => if more.is_err() { return },
            }
            if look(core, remote) != way {
                backoff.reset();
                break;
            }
        }
    }
}

/// What can be said without asking the server.
fn look(core: &Core, remote: &Remote) -> Result<Way, Condition> {
    let Remote { namespace, service: name, port, .. } = remote;
    let about = format!("service/{name} in {namespace:?}");
    let no = |reason, message| Condition { status: "False", reason, message };
    let unknown = |reason, status: Status| Condition {
        status: "Unknown",
        reason,
        message: format!("{about} cannot be checked due to: {}", status.message),
    };
    let service = match endpoint::service(core, namespace, name) {
        Ok(service) => service,
        Err(status) if status.code == 404 => return Err(no("ServiceNotFound", format!("{about} is not present"))),
        Err(status) => return Err(unknown("ServiceAccessError", status)),
    };
    let spec = &service["spec"];
    if spec["type"] != "ClusterIP" {
        let endpoints = endpoint::all(core, namespace, name, &service, *port).unwrap_or_default();
        return Ok(Way { external: spec["externalName"].clone(), endpoints });
    }
    let mut ports = spec["ports"].as_array().into_iter().flatten();
    let Some(found) = ports.find(|found| found["port"] == *port) else {
        return Err(no("ServicePortError", format!("{about} is not listening on port {port}")));
    };
    let port_name = found["name"].as_str().unwrap_or_default();
    let slices = endpoint::slices(core, namespace, name).map_err(|e| unknown("EndpointsAccessError", e))?;
    if slices.is_empty() {
        return Err(no("EndpointsNotFound", format!("cannot find endpointslices for {about}")));
    }
    let mut endpoints = Vec::new();
    for slice in slices {
        let slice = slice.decode().map_err(|e| unknown("EndpointsAccessError", e))?;
        endpoints.extend(endpoint::ready_in(&slice, port_name));
    }
    if endpoints.is_empty() {
        let message = format!("endpointslices for {about} have no addresses with port name {port_name:?}");
        return Err(no("MissingEndpoints", message));
    }
    endpoints.sort();
    Ok(Way { external: Value::Null, endpoints })
}

/// Asks the server for what it must be able to answer.
async fn check(remote: &Remote) -> Condition {
    let passed = || Condition { status: "True", reason: "Passed", message: "all checks passed".into() };
    let Err(mut why) = ask(remote).await else { return passed() };
    let mut more: FuturesUnordered<_> = (1..ATTEMPTS).map(|_| ask(remote)).collect();
    while let Some(result) = more.next().await {
        match result {
            Ok(()) => return passed(),
            Err(error) => why = error,
        }
    }
    Condition { status: "False", reason: "FailedDiscoveryCheck", message: why }
}

async fn ask(remote: &Remote) -> Result<(), String> {
    let url = remote.url(&remote.path());
    let failed = |why: String| format!("failing or missing response from {url}: {why}");
    let request = Request::get(&url).header("host", remote.authority()).body(empty_body());
    let mut request = request.map_err(|e| failed(e.to_string()))?;
    identify(request.headers_mut(), &own_user()).map_err(|status| failed(status.message))?;
    match tokio::time::timeout(PATIENCE, remote.probe(request)).await {
        Ok(Ok(response)) if response.status().is_success() => Ok(()),
        Ok(Ok(response)) => Err(failed(format!("bad status from {url}: {}", response.status().as_u16()))),
        Ok(Err(why)) => Err(failed(why)),
        Err(_) => Err(failed(format!("Get {url:?}: context deadline exceeded"))),
    }
}

/// Local APIServices are always available.
pub(super) async fn mark_local(core: &Core, object: &Value) -> Result<(), Status> {
    let message = "Local APIServices are always available".to_owned();
    let local = Condition { status: "True", reason: "Local", message };
    write(core, text(object, "name"), text(object, "uid"), local).await
}

/// Writes the condition of an APIService, unless it says so already.
async fn write(core: &Core, name: &str, uid: &str, wanted: Condition) -> Result<(), Status> {
    let resource = core.registry.known(GROUP, RESOURCE)?;
    let Some(entry) = cache(core)?.get("", name) else { return Ok(()) };
    let object = entry.decode()?;
    if text(&object, "uid") != uid || with(&object, &wanted) == object {
        return Ok(());
    }
    let target = Target { resource, namespace: "", name, subresource: "status" };
    let change = |old: &Value| Ok(if text(old, "uid") == uid { with(old, &wanted) } else { old.clone() });
    match update(core, target, &WriteOptions::internal(), change).await {
        Ok(_) => Ok(()),
        Err(status) if status.code == 404 => Ok(()),
        Err(status) => Err(status),
    }
}

/// An APIService with this condition, whose time changes only with its status.
fn with(object: &Value, wanted: &Condition) -> Value {
    let Condition { status, reason, message } = wanted;
    let since = condition(object).filter(|condition| condition["status"] == *status);
    let since = since.map_or_else(|| now().into(), |condition| condition["lastTransitionTime"].clone());
    let new = json!({
        "type": "Available", "status": status, "reason": reason, "message": message, "lastTransitionTime": since,
    });
    let mut object = object.clone();
    let conditions = &mut object["status"]["conditions"];
    match conditions.as_array_mut() {
        None => *conditions = json!([new]),
        Some(all) => match all.iter_mut().find(|condition| condition["type"] == "Available") {
            Some(condition) => *condition = new,
            None => all.push(new),
        },
    }
    object
}
