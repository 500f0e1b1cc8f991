//! Events: what users see at the end of `kubectl describe`. Recording never blocks and never fails; a full queue or a
//! server that stays away drops events, as upstream's recorder does.
//!
//! Core `v1` events with upstream's correlation: the same event again counts up, many similar ones are combined, and an
//! object that is talked about too much is no longer talked about (see [`correlate`]).

mod correlate;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use tokio::sync::mpsc;

use correlate::{Correlator, Outcome};

use crate::{Backoff, clock};

/// Events waiting to be written; more are dropped.
pub const QUEUE_CAPACITY: usize = 1000;
/// Tries to write one event while the server is away.
const MAX_TRIES: u32 = 12;
/// Longest message, in bytes; the server takes no more.
const MAX_MESSAGE: usize = 1024;

/// Whether an event is bad news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// An event before it is written.
#[derive(Clone, Debug)]
struct Record {
    about: ObjectReference,
    type_: EventType,
    reason: String,
    message: String,
    annotations: Option<BTreeMap<String, String>>,
    at: jiff::Timestamp,
}

/// Records events in the name of one component. Clones share the queue; a task writes it out.
#[derive(Clone)]
pub struct EventRecorder {
    sender: mpsc::Sender<Record>,
}

/// What an event is about: a reference to `object`, with everything upstream puts in it.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

impl EventRecorder {
    /// Starts the writing task, which ends with the last clone. `component` is what `From` shows
    /// (`deployment-controller`); `host` is the node's name for components of nodes.
    pub fn new(client: Client, component: &str, host: Option<&str>) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_CAPACITY);
        let source = EventSource {
            component: Some(component.to_owned()),
            host: host.filter(|h| !h.is_empty()).map(str::to_owned),
        };
        tokio::spawn(write(client, source, receiver));
        Self { sender }
    }

    /// Records good news.
    pub fn normal(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.event(about, EventType::Normal, reason, message);
    }

    /// Records bad news.
    pub fn warning(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.event(about, EventType::Warning, reason, message);
    }

    /// Records an event.
    pub fn event(&self, about: &ObjectReference, type_: EventType, reason: &str, message: impl Into<String>) {
        self.annotated(about, type_, reason, message, None);
    }

    /// Records an event with annotations of its own.
    pub fn annotated(
        &self,
        about: &ObjectReference,
        type_: EventType,
        reason: &str,
        message: impl Into<String>,
        annotations: Option<BTreeMap<String, String>>,
    ) {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        }
        let record =
            Record { about: about.clone(), type_, reason: reason.to_owned(), message, annotations, at: clock::now() };
        if self.sender.try_send(record).is_err() {
            tracing::debug!(reason, "event queue is full or closed, dropping an event");
        }
    }
}

async fn write(client: Client, source: EventSource, mut queue: mpsc::Receiver<Record>) {
    let mut correlator = Correlator::default();
    while let Some(record) = queue.recv().await {
        let namespace = record.about.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".into());
        let api = Api::<Event>::namespaced(client.clone(), &namespace);
        match correlator.judge(&record) {
            Outcome::Drop => {}
            Outcome::Create { message, slot } => {
                let event = new_event(&record, &namespace, message, &source);
                if let Some(name) = create(&api, &event).await {
                    correlator.written(slot, name, record.at);
                }
            }
            Outcome::CountUp { name, message, count, first, slot } => {
                let last = Time(record.at);
                let patch = serde_json::json!({ "message": message, "count": count, "lastTimestamp": last });
                if retry(|| async { api.patch(&name, &PatchParams::default(), &Patch::Strategic(&patch)).await }).await
                    == Err(Gone)
                {
                    // Expired in the meantime: as upstream, a new one that goes on counting.
                    let mut event = new_event(&record, &namespace, message, &source);
                    event.count = Some(count);
                    event.first_timestamp = Some(Time(first));
                    if let Some(name) = create(&api, &event).await {
                        correlator.renamed(slot, name);
                    }
                }
            }
        }
    }
}

fn new_event(record: &Record, namespace: &str, message: String, source: &EventSource) -> Event {
    let name = record.about.name.as_deref().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", record.at.as_nanosecond())),
            namespace: Some(namespace.to_owned()),
            annotations: record.annotations.clone(),
            ..ObjectMeta::default()
        },
        involved_object: record.about.clone(),
        reason: Some(record.reason.clone()),
        message: Some(message),
        type_: Some(record.type_.as_str().to_owned()),
        count: Some(1),
        first_timestamp: Some(Time(record.at)),
        last_timestamp: Some(Time(record.at)),
        reporting_component: source.component.clone(),
        reporting_instance: source.host.clone().or(Some(String::new())),
        source: Some(source.clone()),
        ..Event::default()
    }
}

/// The object that was to be patched is not there.
#[derive(Debug, PartialEq, Eq)]
struct Gone;

/// Creates, and returns the name when it worked.
async fn create(api: &Api<Event>, event: &Event) -> Option<String> {
    match retry(|| async { api.create(&PostParams::default(), event).await }).await {
        Ok(written) => written.and_then(|event| event.metadata.name),
        Err(Gone) => None,
    }
}

/// Tries until the server answers. `Ok(None)`: given up, or refused (as in a namespace that is being deleted).
async fn retry<T, F: Future<Output = kube::Result<T>>>(mut call: impl FnMut() -> F) -> Result<Option<T>, Gone> {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
    for _ in 0..MAX_TRIES {
        match call().await {
            Ok(value) => return Ok(Some(value)),
            Err(error) if crate::is_not_found(&error) => return Err(Gone),
            Err(kube::Error::Api(status)) if status.code != 429 && status.code < 500 => {
                tracing::warn!(%status, "event was not accepted");
                return Ok(None);
            }
            Err(error) => {
                tracing::debug!(%error, "cannot write an event, trying again");
                backoff.wait().await;
            }
        }
    }
    Ok(None)
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        (&self.about, self.type_, &self.reason, &self.message)
            == (&other.about, other.type_, &other.reason, &other.message)
    }
}

#[cfg(test)]
mod tests;
