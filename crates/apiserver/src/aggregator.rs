//! Group versions that other servers serve. An APIService says which Service such a server is behind; requests for its group
//! version are passed on to it, and what it serves is part of discovery and of the OpenAPI documents.
//!
//! - [`routes`]: the APIServices of one moment, which a request looks at without a lock
//! - [`remote`]: a server behind one, and the connections to it
//! - [`proxy`]: requests passed on
//! - [`availability`]: whether it answers
//! - [`discovery`]: what it says that it serves
//! - [`openapi`]: its OpenAPI documents
//! - [`identity`]: what this server shows it
//! - [`register`]: the APIServices of custom resources, which this server itself makes

mod availability;
mod discovery;
mod identity;
mod openapi;
mod proxy;
mod register;
mod remote;
mod routes;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use keelson_api::status::Status;
use serde_json::Value;
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::remote::Clients;
use self::routes::Listed;
use crate::cache::ResourceCache;
use crate::core::Core;
use crate::http::path::RequestInfo;
use crate::registry::create::text;
use crate::{Config, Error};

pub(crate) use self::discovery::Found;
pub(crate) use self::openapi::{Place, Spec};
pub(crate) use self::proxy::serve;
pub(crate) use self::remote::Remote;
pub(crate) use self::routes::Routes;

pub(crate) const GROUP: &str = "apiregistration.k8s.io";
pub(crate) const RESOURCE: &str = "apiservices";
/// The label of APIServices that this server keeps: of custom resources (`true`) always, of its own group versions
/// (`onstart`) once, when it starts.
pub(crate) const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// Pause after a write that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Who serves what this server does not.
pub(crate) struct Aggregator {
    clients: Clients,
    routes: ArcSwap<Routes>,
    /// Counts what changes documents: APIServices, and what their servers say.
    revision: AtomicU64,
}

impl Aggregator {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            clients: Clients::new(config.proxy_client.as_ref())?,
            routes: ArcSwap::default(),
            revision: AtomicU64::new(0),
        })
    }

    /// The APIServices of this moment.
    pub(crate) fn routes(&self) -> Arc<Routes> {
        self.routes.load_full()
    }

    /// TLS that believes any certificate, for servers of which nobody says who signs them.
    pub(crate) fn unverified(&self) -> TlsConnector {
        self.clients.anonymous.clone()
    }

    /// Which APIServices and documents of their servers there are: another number once something changed.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.revision.fetch_add(1, Ordering::AcqRel);
    }

    /// The server that a request is for; `None` when that is this one.
    pub(crate) fn remote_of(&self, info: &RequestInfo) -> Option<Arc<Remote>> {
        let routes = self.routes.load();
        if routes.remotes().is_empty() {
            return None;
        }
        if let Some(path) = info.path.strip_prefix("/openapi/v3") {
            let own =
                |remote: &&Arc<Remote>| remote.path() == path && matches!(remote.spec().v3, Some(Place::There(_)));
            return routes.remotes().iter().find(own).cloned();
        }
        let (group, version) = info.group_version()?;
        routes.remote(&group, &version).cloned()
    }
}

/// An APIService as it was last read.
struct Known {
    revision: u64,
    listed: Listed,
    /// What its server was made from.
    source: Value,
    /// Ends the tasks that look after its server.
    _tasks: Option<DropGuard>,
}

struct Manager {
    core: Arc<Core>,
    known: HashMap<String, Known>,
}

/// Reads the APIServices, then follows them until the server stops.
pub(crate) async fn start(core: &Arc<Core>) -> Result<(), Error> {
    let failed = |status: Status| Error::Bootstrap { object: RESOURCE.into(), why: status.message };
    let cache = cache(core).map_err(failed)?;
    let mut changed = cache.follow();
    let mut manager = Manager { core: core.clone(), known: HashMap::new() };
    changed.borrow_and_update();
    let mut outcome = manager.sync(&cache).await;
    tokio::spawn(async move {
        let shutdown = manager.core.shutdown.clone();
        loop {
            if let Err(error) = &outcome {
                tracing::warn!(%error, "APIServices could not be brought up to date");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                more = changed.changed() => if more.is_err() { return },
                () = tokio::time::sleep(RETRY), if outcome.is_err() => {}
            }
            outcome = manager.sync(&cache).await;
        }
    });
    tokio::spawn(register::run(core.clone()));
    let keeper = core.clone();
    tokio::spawn(async move { keeper.aggregator.clients.keep(keeper.shutdown.clone()).await });
    Ok(())
}

fn cache(core: &Core) -> Result<Arc<ResourceCache>, Status> {
    Ok(core.registry.known(GROUP, RESOURCE)?.cache()?.clone())
}

impl Manager {
    /// Reads the APIServices that changed and lets requests see them.
    async fn sync(&mut self, cache: &Arc<ResourceCache>) -> Result<(), Status> {
        let snapshot = cache.snapshot();
        let before = self.known.len();
        self.known.retain(|name, _| snapshot.map.contains_key(cache.key("", name).as_str()));
        let mut changed = self.known.len() != before;
        let mut outcome = Ok(());
        for entry in snapshot.map.values() {
            if self.known.get(entry.name()).is_some_and(|known| known.revision == entry.revision) {
                continue;
            }
            let object = entry.decode()?;
            changed = true;
            self.read(entry.revision, &object);
            if object["spec"]["service"].is_null() {
                outcome = outcome.and(availability::mark_local(&self.core, &object).await);
            }
        }
        if changed {
            let listed = self.known.values().map(|known| known.listed.clone()).collect();
            self.core.aggregator.routes.store(Arc::new(Routes::new(listed)));
            self.core.aggregator.changed();
        }
        outcome
    }

    fn read(&mut self, revision: u64, object: &Value) {
        let name = text(object, "name").to_owned();
        let source = serde_json::json!([object["spec"], object["metadata"]["uid"]]);
        let before = self.known.remove(&name);
        let known = match before {
            Some(known) if known.source == source => Known { revision, ..known },
            _ if object["spec"]["service"].is_null() => {
                Known { revision, listed: Listed::new(object, None), source, _tasks: None }
            }
            before => {
                let remote = Arc::new(Remote::new(&self.core, object));
                if let Some(before) = before.as_ref().and_then(|known| known.listed.remote.as_ref()) {
                    remote.succeed(before);
                }
                drop(before);
                let closed = self.core.shutdown.child_token();
                self.look_after(&remote, &closed);
                let tasks = Some(closed.drop_guard());
                Known { revision, listed: Listed::new(object, Some(remote)), source, _tasks: tasks }
            }
        };
        if let Some(remote) = &known.listed.remote {
            remote.set_available(availability::is_available(object));
        }
        self.known.insert(name, known);
    }

    fn look_after(&self, remote: &Arc<Remote>, closed: &CancellationToken) {
        let (core, remote, closed) = (self.core.clone(), remote.clone(), closed.clone());
        tokio::spawn(async move {
            let work = Box::pin(async {
                tokio::join!(
                    availability::watch_over(&core, &remote),
                    discovery::keep(&core, &remote),
                    openapi::keep(&core, &remote),
                );
            });
            let _ = closed.run_until_cancelled(work).await;
        });
    }
}
