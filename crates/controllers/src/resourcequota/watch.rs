//! Watches of what quotas count: one metadata-only watch per resource that some quota names, for as long as one does.
//! All that they tell is that something went away; pods and services are followed by the shared informers.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures::StreamExt;
use keelson_client::Backoff;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, PartialObjectMeta};
use kube::runtime::watcher::{self, Event, watcher};
use tokio_util::sync::CancellationToken;

use super::plan::Counted;
use crate::common::objects::namespace;

/// The watches under way.
#[derive(Default)]
pub(super) struct Watches {
    by_resource: HashMap<Counted, CancellationToken>,
}

impl Watches {
    /// Ends the watches of what nobody counts any more.
    pub(super) fn keep(&mut self, wanted: &BTreeSet<Counted>) {
        self.by_resource.retain(|counted, stop| {
            let stays = wanted.contains(counted);
            if !stays {
                stop.cancel();
            }
            stays
        });
    }

    /// Starts a watch, unless there is one. `gone` is told the namespaces in which something went away.
    pub(super) fn start(
        &mut self,
        counted: Counted,
        resource: ApiResource,
        client: kube::Client,
        shutdown: &CancellationToken,
        gone: impl Fn(&str) + Send + 'static,
    ) {
        self.by_resource.entry(counted).or_insert_with(|| {
            let stop = shutdown.child_token();
            tokio::spawn(follow(resource, client, stop.clone(), gone));
            stop
        });
    }
}

async fn follow(resource: ApiResource, client: kube::Client, stop: CancellationToken, gone: impl Fn(&str)) {
    let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(client, &resource);
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30)).jitter(0.5);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = stop.cancelled() => return,
        };
        match event {
            None => return,
            Some(Ok(Event::Delete(object))) => gone(namespace(&object.metadata)),
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::debug!(resource = resource.plural, %error, "the quota controller's watch failed");
                tokio::select! {
                    () = backoff.wait() => {}
                    () = stop.cancelled() => return,
                }
                continue;
            }
        }
        backoff.reset();
    }
}
