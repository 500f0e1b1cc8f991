//! A namespace's new standard, tried on the pods that are there: which would not be let in any more. There may be many, so
//! they are judged on a thread for such work, few namespaces at once, and for so long at most. As upstream, one pod of each
//! controller comes before the others, which are mostly like it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::checks::{Pod, evaluate, reasons};
use super::config::Config;
use super::policy::Standard;
use crate::cache::Entry;
use crate::cache::resource::Snapshot;

/// Pods that a standard is tried on at most, and for how long: half of it may be spent on choosing them.
const MAX_PODS: usize = 3000;
const MAX_TIME: Duration = Duration::from_secs(1);

/// Said, as upstream, when pods cannot be looked at.
const FAILED: &str = "failed to list pods while checking new PodSecurity enforce level";

/// Trials at once.
#[derive(Debug)]
pub(crate) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(cores.div_ceil(2))))
    }
}

/// What is to be tried, in which namespace.
pub(super) struct Trial {
    pub(super) namespace: String,
    /// Of the keys of its pods.
    pub(super) prefix: String,
    pub(super) standard: Standard,
    pub(super) config: Arc<Config>,
}

/// What a choice of pods looks at.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow, default)]
    spec: Spec<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow, default)]
    owner_references: Vec<Owner<'a>>,
}

#[derive(Deserialize)]
struct Owner<'a> {
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(default)]
    controller: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow, default)]
    runtime_class_name: Option<Cow<'a, str>>,
}

impl Trial {
    /// What to warn of, with all namespaces' pods as they are now. A trial that has to wait too long for others
    /// warns that it has not looked.
    pub(super) async fn warnings(self, places: &Places, pods: Snapshot) -> Vec<String> {
        let deadline = Instant::now() + MAX_TIME;
        let Ok(Ok(permit)) = timeout_at(deadline, places.0.clone().acquire_owned()).await else {
            return vec![FAILED.to_owned()];
        };
        let work = move || {
            // Who asked may go away; the trial goes on and keeps its place.
            let _permit = permit;
            let (chosen, total) = self.choose(&pods, deadline - MAX_TIME / 2);
            self.judge(&chosen, total, deadline)
        };
        let outcome = tokio::task::spawn_blocking(work).await;
        outcome.unwrap_or_else(|error| {
            tracing::error!(%error, "pods could not be tried against a new standard");
            vec![FAILED.to_owned()]
        })
    }

    /// The pods to be judged, and how many might be: those of exempt runtime classes are not.
    fn choose(&self, pods: &Snapshot, until: Instant) -> (Vec<Arc<Entry>>, usize) {
        let (mut first, mut replicas) = (Vec::new(), Vec::new());
        let mut total = 0;
        let mut seen = HashSet::new();
        for pod in pods.range(&self.prefix, "").cloned() {
            total += 1;
            if first.len() == MAX_PODS || Instant::now() >= until {
                // They are only counted.
                continue;
            }
            let Ok(head) = pod.typed::<Head<'_>>() else {
                first.push(pod);
                continue;
            };
            if head.spec.runtime_class_name.is_some_and(|class| self.config.exempts_runtime_class(&class)) {
                total -= 1;
                continue;
            }
            let controller = head.metadata.owner_references.into_iter().find(|owner| owner.controller);
            if controller.is_none_or(|controller| seen.insert(controller.uid.into_owned())) {
                first.push(pod);
            } else if replicas.len() < MAX_PODS {
                replicas.push(pod);
            }
        }
        first.extend(replicas);
        first.truncate(MAX_PODS);
        (first, total)
    }

    fn judge(&self, pods: &[Arc<Entry>], total: usize, until: Instant) -> Vec<String> {
        // By what is wrong: the first pod's name, and how many there are.
        let mut wrong: BTreeMap<String, (&str, usize)> = BTreeMap::new();
        let mut judged = 0;
        for entry in pods {
            judged += 1;
            // What cannot be read cannot be judged.
            if let Ok(object) = entry.decode() {
                let findings = evaluate(self.standard, Pod { metadata: &object["metadata"], spec: &object["spec"] });
                if !findings.is_empty() {
                    let (name, count) = wrong.entry(reasons(&findings)).or_insert((entry.name(), 0));
                    *name = entry.name().min(name);
                    *count += 1;
                }
            }
            if Instant::now() >= until {
                break;
            }
        }
        let mut warnings = Vec::new();
        if judged < total {
            warnings.push(format!(
                "new PodSecurity enforce level only checked against the first {judged} of {total} existing pods"
            ));
        }
        if !wrong.is_empty() {
            warnings.push(format!(
                "existing pods in namespace \"{}\" violate the new PodSecurity enforce level \"{}\"",
                self.namespace, self.standard
            ));
        }
        let texts = wrong.into_iter().map(|(why, (name, count))| match count {
            1 => format!("{name}: {why}"),
            2 => format!("{name} (and 1 other pod): {why}"),
            count => format!("{name} (and {} other pods): {why}", count - 1),
        });
        let mut texts: Vec<_> = texts.collect();
        texts.sort_unstable();
        warnings.extend(texts);
        warnings
    }
}

#[cfg(test)]
mod tests {
    use keelson_api::kinds;
    use keelson_store::KeyValue;
    use serde_json::{Value, json};

    use super::*;
    use crate::admission::pod_security::policy::{Level, Version};
    use crate::cache::entry::encode;

    fn trial() -> Trial {
        let configuration = json!({"apiVersion": "pod-security.admission.config.k8s.io/v1",
            "kind": "PodSecurityConfiguration", "exemptions": {"runtimeClasses": ["safe"]}});
        Trial {
            namespace: "team".into(),
            prefix: "/registry/pods/team/".into(),
            standard: Standard { level: Level::Baseline, version: Version::Latest },
            config: Arc::new(Config::parse(&configuration).unwrap()),
        }
    }

    /// Pods, each with a privileged container or not, and more in its metadata and spec.
    fn pods(pods: impl IntoIterator<Item = (String, bool, Value, Value)>) -> Snapshot {
        let kind = kinds::all().into_iter().find(|kind| kind.kind == "Pod").unwrap();
        let entry = |(name, privileged, owner, class): (String, bool, Value, Value)| {
            let container = json!({"name": "c", "securityContext": {"privileged": privileged}});
            let object = json!({"kind": "Pod", "apiVersion": "v1",
                "metadata": {"name": &name, "namespace": "team",
                    "ownerReferences": [{"uid": owner, "controller": true}]},
                "spec": {"runtimeClassName": class, "containers": [container]}});
            let key: Arc<str> = format!("/registry/pods/team/{name}").into();
            let value = encode(&object, None).unwrap();
            let kv = KeyValue { key: key.clone(), value, create_revision: 1, mod_revision: 1 };
            (key, Arc::new(Entry::new(&kind, kv).unwrap()))
        };
        Snapshot { map: pods.into_iter().map(entry).collect(), revision: 1 }
    }

    async fn warnings(pods: Snapshot) -> Vec<String> {
        trial().warnings(&Places::default(), pods).await
    }

    const WRONG: &str =
        "existing pods in namespace \"team\" violate the new PodSecurity enforce level \"baseline:latest\"";

    #[test]
    fn controllers_come_before_their_replicas() {
        // Three thousand replicas of one set, and then a pod of its own.
        let replicas = (0..MAX_PODS).map(|at| (format!("a-{at:04}"), false, json!("set"), Value::Null));
        let own = ("z".to_owned(), true, json!("own"), Value::Null);
        let (trial, later) = (trial(), Instant::now() + Duration::from_secs(3600));
        let (chosen, total) = trial.choose(&pods(replicas.chain([own])), later);
        let found = trial.judge(&chosen, total, later);
        let first =
            format!("new PodSecurity enforce level only checked against the first {MAX_PODS} of 3001 existing pods");
        assert_eq!(found, [first.as_str(), WRONG, "z: privileged"]);
    }

    #[tokio::test]
    async fn exempt_pods_do_not_count() {
        let safe = ("a".to_owned(), true, json!("x"), json!("safe"));
        assert!(warnings(pods([safe.clone()])).await.is_empty());
        let others = ["b", "c"].map(|name| (name.to_owned(), true, json!(name), json!("other")));
        assert_eq!(warnings(pods([safe].into_iter().chain(others))).await, [WRONG, "b (and 1 other pod): privileged"]);
    }

    #[tokio::test]
    async fn time_is_limited() {
        let pods = pods(["a", "b"].map(|name| (name.to_owned(), true, json!(name), Value::Null)));
        let (trial, now) = (trial(), Instant::now());
        let (chosen, total) = trial.choose(&pods, now);
        assert_eq!((chosen.len(), total), (0, 2), "no time to choose");
        let (chosen, total) = trial.choose(&pods, now + MAX_TIME);
        let found = trial.judge(&chosen, total, now);
        assert_eq!(found[0], "new PodSecurity enforce level only checked against the first 1 of 2 existing pods");
        assert_eq!(found[1..], [WRONG, "a: privileged"]);
        // While others have all places, nothing is looked at.
        tokio::time::pause();
        let none = Places(Arc::new(Semaphore::new(0)));
        assert_eq!(trial.warnings(&none, pods).await, [FAILED]);
    }
}
