//! What all tasks of one kubelet share.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use keelson_client::{EventRecorder, SharedInformer};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use crate::cgroup::Cgroups;
use crate::config::Config;
use crate::devices::Devices;
use crate::eviction::signal::Pressure;
use crate::image_gc::ImageGc;
use crate::images::Images;
use crate::managers::Managers;
use crate::metrics::Metrics;
use crate::node::machine::Machine;
use crate::objects::Objects;
use crate::pod::observed::Observed;
use crate::pod::resize;
use crate::pod::sandbox::Resolver;
use crate::pod::status::Ended;
use crate::quantity::ResourceList;
use crate::resources::Limits;
use crate::runtime::Runtime;
use crate::security::Abilities;
use crate::stats::Stats;
use crate::volumes::Volumes;

/// Whether the runtime answers and what it says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuntimeHealth {
    /// Why the runtime is not ready.
    pub runtime_error: Option<String>,
    /// Why the pod network is not ready.
    pub network_error: Option<String>,
}

/// Shared things; cheap to clone behind its `Arc`.
pub(crate) struct Context {
    pub config: Config,
    pub client: kube::Client,
    pub runtime: Runtime,
    pub events: EventRecorder,
    pub volumes: Volumes,
    pub images: Images,
    pub devices: Arc<Devices>,
    pub managers: Managers,
    pub cgroups: Cgroups,
    pub services: SharedInformer<Service>,
    pub runtime_classes: SharedInformer<RuntimeClass>,
    pub objects: Arc<Objects>,
    pub health: watch::Sender<RuntimeHealth>,
    /// The Node as the API server has it; `None` before its first answer, `Some(None)` while there is none.
    pub node: watch::Sender<Option<Option<Arc<Node>>>>,
    /// Asks for the runtime's health to be looked at now.
    pub check_health: Notify,
    pub limits: Limits,
    pub allocatable: ResourceList,
    pub host_ips: Vec<String>,
    pub node_dns: Resolver,
    /// Such as `containerd`; empty until the runtime has answered once.
    pub runtime_name: RwLock<String>,
    /// What kernel and runtime can do for a pod's security; of the runtime, since its last answer.
    pub abilities: RwLock<Abilities>,
    pub pods: PodTable,
    pub stats: Stats,
    pub image_gc: ImageGc,
    /// What the eviction manager says of the node.
    pub node_conditions: watch::Sender<BTreeSet<Pressure>>,
    /// Whether the machine goes down.
    pub shutting_down: watch::Sender<bool>,
    /// What all pods together may have, bytes.
    pub pods_memory_bytes: u64,
    pub metrics: Arc<Metrics>,
    /// When this kubelet started.
    pub started: jiff::Timestamp,
    /// The machine, as of the kubelet's start.
    pub machine: Machine,
}

/// A pod's task as others see it.
pub(crate) struct PodHandle {
    pub pod: watch::Sender<Latest>,
    /// The runtime's view, as of the last look.
    pub observed: watch::Sender<Arc<Observed>>,
    /// Look at the runtime again.
    pub look: Notify,
    /// The pod with the resources it was granted, once that is not what the API server says.
    pub allocated: RwLock<Option<Arc<Pod>>>,
    /// It is over, and what it used was taken away.
    pub released: watch::Sender<bool>,
    /// A resize of it is deferred.
    pub waits_for_room: AtomicBool,
}

impl PodHandle {
    pub(crate) fn new(pod: Arc<Pod>, mirror: Option<Arc<Pod>>, allocated: Option<Arc<Pod>>) -> Self {
        PodHandle {
            pod: watch::Sender::new(Latest { pod, removed: false, mirror, evicted: None }),
            observed: watch::Sender::new(Arc::new(Observed::default())),
            look: Notify::new(),
            allocated: RwLock::new(allocated),
            released: watch::Sender::new(false),
            waits_for_room: AtomicBool::new(false),
        }
    }

    /// The pod with the resources it has been granted.
    pub(crate) fn as_allocated(&self) -> Arc<Pod> {
        let latest = self.pod.borrow().pod.clone();
        match self.allocated.read().as_ref() {
            Some(allocated) => resize::with_resources_of(&latest, allocated),
            None => latest,
        }
    }
}

/// The API server's word.
#[derive(Clone, Debug)]
pub(crate) struct Latest {
    pub pod: Arc<Pod>,
    /// The object is gone, or the file of a static pod.
    pub removed: bool,
    /// What the API server has of a static pod.
    pub mirror: Option<Arc<Pod>>,
    /// The node gave the pod up.
    pub evicted: Option<Arc<Evicted>>,
}

/// An order to end.
#[derive(Clone, Debug)]
pub(crate) struct Evicted {
    pub ended: Ended,
    pub grace_seconds: i64,
}

/// All pods of this kubelet by uid.
#[derive(Default)]
pub(crate) struct PodTable(Mutex<HashMap<String, Arc<PodHandle>>>);

impl PodTable {
    pub(crate) fn get(&self, uid: &str) -> Option<Arc<PodHandle>> {
        self.0.lock().get(uid).cloned()
    }

    pub(crate) fn insert(&self, uid: &str, handle: Arc<PodHandle>) {
        self.0.lock().insert(uid.to_string(), handle);
    }

    pub(crate) fn remove(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    pub(crate) fn all(&self) -> Vec<(String, Arc<PodHandle>)> {
        self.0.lock().iter().map(|(uid, handle)| (uid.clone(), handle.clone())).collect()
    }

    /// The pod of this name; when an old one of the same name is still ending, the newer.
    pub(crate) fn named(&self, namespace: &str, name: &str) -> Option<Arc<PodHandle>> {
        let table = self.0.lock();
        let mut found: Vec<_> = table
            .values()
            .filter(|handle| {
                let latest = handle.pod.borrow();
                latest.pod.metadata.name.as_deref() == Some(name)
                    && latest.pod.metadata.namespace.as_deref() == Some(namespace)
            })
            .cloned()
            .collect();
        found.sort_by_key(|handle| handle.pod.borrow().pod.metadata.creation_timestamp.clone());
        found.pop()
    }
}
