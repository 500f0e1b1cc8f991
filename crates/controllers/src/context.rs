//! What every controller is given.

use std::sync::Arc;

use keelson_client::informer::Object;
use keelson_client::{Change, EventRecorder, InformerFactory, SharedInformer};
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::Config;

/// The client, the shared informers, the settings and the sign to stop.
#[derive(Clone)]
pub struct Context {
    pub client: Client,
    pub informers: InformerFactory,
    pub config: Arc<Config>,
    pub shutdown: CancellationToken,
}

impl Context {
    /// A recorder whose events come from `component`.
    pub fn recorder(&self, component: &str) -> EventRecorder {
        EventRecorder::new(self.client.clone(), component, None)
    }

    /// Hands every change of an informer to `handle` until shutdown.
    pub async fn each<K: Object>(&self, informer: &SharedInformer<K>, mut handle: impl FnMut(Change<K>)) {
        let mut changes = informer.subscribe();
        loop {
            tokio::select! {
                change = changes.next() => handle(change),
                () = self.shutdown.cancelled() => return,
            }
        }
    }

    /// Waits for an informer's first list; `false` when told to stop before it came.
    pub async fn synced<K: Object>(&self, informer: &SharedInformer<K>) -> bool {
        tokio::select! {
            () = informer.synced() => true,
            () = self.shutdown.cancelled() => false,
        }
    }
}

/// Every state of every object that a change tells of: old and new ones.
pub(crate) fn objects<K>(change: &Change<K>) -> impl Iterator<Item = &Arc<K>> {
    let (pair, all): ([Option<&Arc<K>>; 2], &[Arc<K>]) = match change {
        Change::Added(one) | Change::Deleted(one) => ([Some(one), None], &[]),
        Change::Updated(old, new) => ([Some(old), Some(new)], &[]),
        Change::Resync(all) => ([None, None], all),
    };
    pair.into_iter().flatten().chain(all)
}
