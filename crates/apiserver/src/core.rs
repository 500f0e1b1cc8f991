//! What all handlers share.

use std::sync::{Arc, Weak};

use keelson_store::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Config;
use crate::admission::Extensions;
use crate::admission::settings::Settings;
use crate::aggregator::Aggregator;
use crate::alloc::ServiceAllocator;
use crate::audit::Audit;
use crate::authn::Authenticator;
use crate::authz::Authorizer;
use crate::cache::Cache;
use crate::discovery::{Documents, openapi};
use crate::encryption::Encryption;
use crate::executor::Executor;
use crate::flow::FlowControl;
use crate::kubelet::Kubelets;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::registry::Registry;

/// The server's insides.
pub(crate) struct Core {
    /// This, for tasks that outlive who begins them.
    pub(crate) me: Weak<Core>,
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Registry,
    pub(crate) cache: Arc<Cache>,
    pub(crate) encryption: Arc<Encryption>,
    pub(crate) authenticator: Authenticator,
    pub(crate) authorizer: Authorizer,
    /// Webhooks and policies.
    pub(crate) extensions: Arc<Extensions>,
    pub(crate) admission: Settings,
    pub(crate) allocator: Arc<ServiceAllocator>,
    /// `None` without credentials for kubelets.
    pub(crate) kubelets: Option<Kubelets>,
    pub(crate) aggregator: Aggregator,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) flow: Arc<FlowControl>,
    pub(crate) discovery: Documents,
    pub(crate) openapi: openapi::Kept,
    /// `None` when nothing is written down.
    pub(crate) audit: Option<Arc<Audit>>,
    /// Runs what comes over the network, and requests that change something.
    pub(crate) executor: Arc<Executor>,
    /// Tasks of requests that change something.
    pub(crate) requests: TaskTracker,
    /// The server will stop: it is not ready any more.
    pub(crate) stopping: CancellationToken,
    /// Ends watches and streams, which do not end by themselves. What is under way needs the server's tasks until then.
    pub(crate) draining: CancellationToken,
    /// The `kubernetes` Service does not lead here any more, or never did.
    pub(crate) left: CancellationToken,
    /// Ends the server's own tasks.
    pub(crate) shutdown: CancellationToken,
}
