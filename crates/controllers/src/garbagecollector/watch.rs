//! One metadata-only watch per resource, into the graph.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::graph::{Attempt, Graph, Object, Uid};
use crate::common::discovery::Found;
use keelson_client::{Backoff, WorkQueue};

/// Follows one resource until shutdown. `synced` counts the watches whose first list is in.
pub(super) async fn follow(
    number: u16,
    found: Found,
    client: kube::Client,
    graph: Arc<Mutex<Graph>>,
    queue: WorkQueue<Attempt>,
    synced: watch::Sender<usize>,
    shutdown: CancellationToken,
) {
    let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(client, &found.resource);
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30)).jitter(0.5);
    let mut listed = HashSet::new();
    let mut first = true;
    let add = |attempts: Vec<Attempt>| attempts.into_iter().for_each(|attempt| queue.add(attempt));
    let (api_version, kind) = (found.resource.api_version.as_str(), found.resource.kind.as_str());
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = shutdown.cancelled() => return,
        };
        match event {
            None => return,
            Some(Err(error)) => {
                tracing::debug!(resource = found.name(), %error, "garbage collector's watch failed");
                tokio::select! {
                    () = backoff.wait() => {}
                    () = shutdown.cancelled() => return,
                }
                continue;
            }
            Some(Ok(Event::Init)) => {
                listed.clear();
                continue;
            }
            Some(Ok(Event::InitApply(object))) => {
                let object = Object::new(api_version, kind, &object.metadata);
                listed.insert(object.uid);
                add(graph.lock().apply(number, object));
            }
            Some(Ok(Event::InitDone)) => {
                let listed = std::mem::take(&mut listed);
                let mut graph = graph.lock();
                for uid in graph.missing(number, &listed) {
                    add(graph.remove(uid));
                }
                if std::mem::take(&mut first) {
                    synced.send_modify(|count| *count += 1);
                }
            }
            Some(Ok(Event::Apply(object))) => {
                add(graph.lock().apply(number, Object::new(api_version, kind, &object.metadata)));
            }
            Some(Ok(Event::Delete(object))) => {
                add(graph.lock().remove(Uid::new(object.metadata.uid.as_deref().unwrap_or_default())));
            }
        }
        backoff.reset();
    }
}
