//! ConfigMaps and Secrets that pods refer to (volumes, environment, pull secrets): one watch per referenced object, shared by
//! the pods that use it and gone with the last of them. What is known outlives an API server that
//! is away. A node sees only what its pods name.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::env::words;
use crate::error::Error;

/// How long a pod waits for an object's first answer before it reports a failed mount and tries again.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// All that is watched for pods.
pub(crate) struct Objects {
    pub config_maps: Watched<ConfigMap>,
    pub secrets: Watched<Secret>,
}

impl Objects {
    pub(crate) fn new(client: &kube::Client) -> Self {
        Objects { config_maps: Watched::new(client.clone()), secrets: Watched::new(client.clone()) }
    }

    /// Forgets a pod.
    pub(crate) fn release(&self, pod_uid: &str) {
        self.config_maps.release(pod_uid);
        self.secrets.release(pod_uid);
    }
}

/// What is known of an object.
#[derive(Clone, Debug)]
enum Known<K> {
    Nothing,
    Refused(String),
    Absent,
    Present(Arc<K>),
}

struct Entry<K> {
    known: watch::Receiver<Known<K>>,
    /// By pod uid.
    users: Arc<Mutex<HashMap<String, Arc<Notify>>>>,
    _task: AbortOnDropHandle<()>,
}

/// The watched objects of one kind.
pub(crate) struct Watched<K> {
    client: kube::Client,
    entries: Mutex<HashMap<(String, String), Entry<K>>>,
}

/// A kind that can say it never changes.
pub(crate) trait MaybeImmutable {
    fn immutable(&self) -> bool;
}

impl MaybeImmutable for ConfigMap {
    fn immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

impl MaybeImmutable for Secret {
    fn immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

impl<K> Watched<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + MaybeImmutable
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    pub(crate) fn new(client: kube::Client) -> Self {
        Watched { client, entries: Mutex::default() }
    }

    /// The object, watched from now on for `pod_uid`; `changed`, if any, is notified when it changes.
    pub(crate) async fn get(
        &self,
        namespace: &str,
        name: &str,
        pod_uid: &str,
        changed: Option<&Arc<Notify>>,
    ) -> Result<Option<Arc<K>>, Error> {
        let mut known = {
            let mut entries = self.entries.lock();
            let entry = entries
                .entry((namespace.to_string(), name.to_string()))
                .or_insert_with(|| follow(Api::namespaced(self.client.clone(), namespace), name));
            let mut users = entry.users.lock();
            match changed {
                Some(changed) => drop(users.insert(pod_uid.to_string(), changed.clone())),
                // Whoever of the same pod wants to be told stays.
                None => drop(users.entry(pod_uid.to_string()).or_default()),
            }
            drop(users);
            entry.known.clone()
        };
        let answer = tokio::time::timeout(FIRST_ANSWER, known.wait_for(|known| !matches!(known, Known::Nothing))).await;
        match answer {
            Ok(Ok(known)) => match &*known {
                Known::Present(object) => Ok(Some(object.clone())),
                Known::Refused(message) => Err(Error::Message(message.clone())),
                _ => Ok(None),
            },
            _ => Err(Error::message("failed to sync: timed out waiting for the condition")),
        }
    }

    /// Forgets a pod; objects nobody else uses are no longer watched.
    pub(crate) fn release(&self, pod_uid: &str) {
        self.entries.lock().retain(|_, entry| {
            let mut users = entry.users.lock();
            users.remove(pod_uid);
            !users.is_empty()
        });
    }
}

fn follow<K>(api: Api<K>, name: &str) -> Entry<K>
where
    K: kube::Resource + MaybeImmutable + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let (sender, known) = watch::channel(Known::Nothing);
    let users: Arc<Mutex<HashMap<String, Arc<Notify>>>> = Arc::default();
    let told = users.clone();
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let task = tokio::spawn(async move {
        let mut events = watcher(api, config).default_backoff().boxed();
        let mut listed = None;
        while let Some(event) = events.next().await {
            let news = match event {
                Ok(watcher::Event::Init) => {
                    listed = None;
                    continue;
                }
                Ok(watcher::Event::InitApply(object)) => {
                    listed = Some(object);
                    continue;
                }
                Ok(watcher::Event::InitDone) => listed.take(),
                Ok(watcher::Event::Apply(object)) => Some(object),
                Ok(watcher::Event::Delete(_)) => None,
                Err(error) => {
                    let message = match error {
                        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => {
                            words(error).to_string()
                        }
                        other => other.to_string(),
                    };
                    // Known content outlives a server that is away.
                    sender.send_if_modified(|known| {
                        let first = matches!(known, Known::Nothing | Known::Refused(_));
                        if first {
                            *known = Known::Refused(message);
                        }
                        first
                    });
                    continue;
                }
            };
            let last = news.as_ref().is_some_and(MaybeImmutable::immutable);
            sender.send_replace(news.map_or(Known::Absent, |object| Known::Present(Arc::new(object))));
            for user in told.lock().values() {
                user.notify_one();
            }
            if last {
                break;
            }
        }
        // Nothing more can come but a deletion, which mounted volumes do not follow. The sender stays for those that ask
        // later; the watch does not.
        drop(events);
        std::future::pending::<()>().await;
    });
    Entry { known, users, _task: AbortOnDropHandle::new(task) }
}
