//! APIServices of custom resources: one for each group version that a definition serves, made and taken away with it. They are
//! labelled as this server's; one without the label is somebody's own and stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use keelson_api::kinds::local_priority;
use keelson_api::selector::Labels as _;
use keelson_api::status::Status;
use keelson_client::Backoff;
use serde_json::{Value, json};

use super::{AUTOMANAGED, GROUP, RESOURCE, cache};
use crate::core::Core;
use crate::crd;
use crate::registry::create::{create, text};
use crate::registry::delete::delete;
use crate::registry::options::{DeleteOptions, WriteOptions};
use crate::registry::update::{Target, update};

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Group and version.
type GroupVersion = (String, String);

/// The group versions of a definition, as of a revision.
struct Read {
    revision: u64,
    served: Vec<GroupVersion>,
}

/// Follows the definitions until the server stops.
pub(super) async fn run(core: Arc<Core>) {
    let (Ok(services), Ok(definitions)) =
        (cache(&core), core.registry.known(crd::GROUP, crd::RESOURCE).and_then(|r| r.cache()).cloned())
    else {
        return;
    };
    let (mut services_changed, mut definitions_changed) = (services.follow(), definitions.follow());
    let mut read: BTreeMap<String, Read> = BTreeMap::new();
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
    loop {
        services_changed.borrow_and_update();
        definitions_changed.borrow_and_update();
        let snapshot = definitions.snapshot();
        read.retain(|name, _| snapshot.map.contains_key(definitions.key("", name).as_str()));
        for entry in snapshot.map.values() {
            if read.get(entry.name()).is_none_or(|read| read.revision != entry.revision) {
                let served = entry.decode().map(|object| served(&object)).unwrap_or_default();
                read.insert(entry.name().to_owned(), Read { revision: entry.revision, served });
            }
        }
        let wanted: BTreeSet<&GroupVersion> = read.values().flat_map(|read| &read.served).collect();
        let outcome = reconcile(&core, &wanted).await;
        let pause = match &outcome {
            Ok(()) => {
                backoff.reset();
                LAST_RETRY
            }
            Err(error) => {
                tracing::warn!(%error, "APIServices of custom resources could not be brought up to date");
                backoff.next_delay()
            }
        };
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            more = services_changed.changed() => if more.is_err() { return },
            more = definitions_changed.changed() => if more.is_err() { return },
            () = tokio::time::sleep(pause), if outcome.is_err() => {}
        }
    }
}

fn served(definition: &Value) -> Vec<GroupVersion> {
    let spec = &definition["spec"];
    let group = spec["group"].as_str().unwrap_or_default();
    let versions = spec["versions"].as_array().into_iter().flatten().filter(|version| version["served"] == true);
    versions.filter_map(|version| Some((group.to_owned(), version["name"].as_str()?.to_owned()))).collect()
}

async fn reconcile(core: &Core, wanted: &BTreeSet<&GroupVersion>) -> Result<(), Status> {
    let resource = core.registry.known(GROUP, RESOURCE)?;
    let (there, options) = (resource.cache()?.snapshot(), WriteOptions::internal());
    let mut outcome = Ok(());
    for (group, version) in wanted {
        let object = api_service(group, version);
        let name = text(&object, "name");
        let result = match there.map.get(resource.cache()?.key("", name).as_str()) {
            None => match create(core, resource, "", object, &options).await {
                Err(status) if status.code == 409 => Ok(()),
                result => result.map(|_| ()),
            },
            Some(entry) => {
                let old = entry.decode()?;
                if old["metadata"]["labels"][AUTOMANAGED] != "true" || old["spec"] == object["spec"] {
                    continue;
                }
                let target = Target { resource, namespace: "", name, subresource: "" };
                let change = |old: &Value| {
                    let mut new = old.clone();
                    new["spec"] = object["spec"].clone();
                    Ok(new)
                };
                update(core, target, &options, change).await.map(|_| ())
            }
        };
        outcome = outcome.and(result);
    }
    for entry in there.map.values() {
        if entry.label(AUTOMANAGED) != Some("true") {
            continue;
        }
        let spec = entry.decode()?["spec"].take();
        let of = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
        if !wanted.contains(&(of("group"), of("version"))) {
            let result = delete(core, resource, "", entry.name(), &DeleteOptions::default(), options.asked()).await;
            outcome = outcome.and(match result {
                Err(status) if status.code == 404 => Ok(()),
                result => result.map(|_| ()),
            });
        }
    }
    outcome
}

fn api_service(group: &str, version: &str) -> Value {
    let (group_priority, version_priority) = local_priority(group, version);
    json!({
        "kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1",
        "metadata": {"name": format!("{version}.{group}"), "labels": {AUTOMANAGED: "true"}},
        "spec": {
            "group": group, "version": version,
            "groupPriorityMinimum": group_priority, "versionPriority": version_priority,
        },
    })
}
