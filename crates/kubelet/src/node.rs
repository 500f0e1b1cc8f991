//! The Node object: registered once, kept true, and the Lease that says this kubelet is alive.

pub(crate) mod health;
mod lease;
pub(crate) mod machine;
pub(crate) mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_cri::v1 as cri;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use machine::Machine;

/// Waits after a refused registration or update grow between these.
const RETRY: (std::time::Duration, std::time::Duration) =
    (std::time::Duration::from_millis(100), std::time::Duration::from_secs(7));

/// How long the runtime is waited for: that it is silent is to be told, too.
const ANSWER: std::time::Duration = std::time::Duration::from_secs(2);
/// Pause after the runtime refused the pod CIDR.
const CIDR_RETRY: std::time::Duration = std::time::Duration::from_secs(2);
/// How long one try to register may take.
const REGISTRATION: std::time::Duration = std::time::Duration::from_secs(30);

/// Runs until `shutdown`.
pub(crate) async fn run(ctx: Arc<Context>, machine: Machine, port: u16, shutdown: CancellationToken) {
    let work = async {
        let mut keeper = Keeper::new(ctx.clone(), machine, port);
        keeper.register().await;
        tokio::join!(keeper.keep(), lease::keep(&ctx), follow(&ctx));
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
}

/// What events about the node are about; upstream gives the name as uid.
pub(crate) fn about(name: &str) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".into()),
        api_version: Some("v1".into()),
        name: Some(name.into()),
        uid: Some(name.into()),
        ..Default::default()
    }
}

/// Keeps the Node at hand, and tells the runtime the node's pod CIDR when the API server gives one.
async fn follow(ctx: &Context) {
    use futures::StreamExt;
    use kube::runtime::{WatchStreamExt, watcher};
    let api = Api::<Node>::all(ctx.client.clone());
    let config = watcher::Config::default().fields(&format!("metadata.name={}", ctx.config.node_name));
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut listed = None;
    let (mut wanted, mut told): (Option<String>, Option<String>) = (None, None);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = tokio::time::sleep(CIDR_RETRY), if wanted.is_some() && wanted != told => {
                give_pod_cidr(ctx, &wanted, &mut told).await;
                continue;
            }
        };
        let Some(event) = event else { return };
        let node = match event {
            Ok(watcher::Event::Init) => {
                listed = None;
                continue;
            }
            Ok(watcher::Event::InitApply(node)) => {
                listed = Some(node);
                continue;
            }
            Ok(watcher::Event::InitDone) => listed.take(),
            Ok(watcher::Event::Apply(node)) => Some(node),
            Ok(watcher::Event::Delete(_)) => None,
            Err(_) => continue,
        };
        let node = node.map(Arc::new);
        ctx.node.send_replace(Some(node.clone()));
        let cidrs = node.as_ref().and_then(|node| node.spec.as_ref()).and_then(|spec| {
            let cidrs = spec.pod_cidrs.as_ref().filter(|cidrs| !cidrs.is_empty()).map(|cidrs| cidrs.join(","));
            cidrs.or(spec.pod_cidr.clone())
        });
        wanted = cidrs.or(wanted);
        give_pod_cidr(ctx, &wanted, &mut told).await;
    }
}

/// Tells the runtime the pod CIDRs that are `wanted`, unless it has been `told`.
async fn give_pod_cidr(ctx: &Context, wanted: &Option<String>, told: &mut Option<String>) {
    let Some(cidrs) = wanted.as_ref().filter(|cidrs| told.as_ref() != Some(*cidrs)) else { return };
    match ctx.runtime.set_pod_cidr(cidrs).await {
        Ok(()) => {
            *told = wanted.clone();
            ctx.check_health.notify_one();
        }
        Err(error) => tracing::warn!(%error, "the runtime does not take the pod CIDR yet"),
    }
}

/// Of two versions of the Node, the greater is the newer.
fn version(metadata: &ObjectMeta) -> Option<u64> {
    metadata.resource_version.as_deref()?.parse().ok()
}

struct Keeper {
    ctx: Arc<Context>,
    machine: Machine,
    port: u16,
    /// The status as the API server has it.
    sent: NodeStatus,
    /// The newest version of the Node that `sent` is of.
    told_at: Option<u64>,
    sent_at: Timestamp,
    /// As the runtime last told.
    images: Vec<cri::Image>,
    version: Option<cri::VersionResponse>,
    backoff: keelson_client::Backoff,
}

impl Keeper {
    fn new(ctx: Arc<Context>, machine: Machine, port: u16) -> Keeper {
        Keeper {
            ctx,
            machine,
            port,
            sent: NodeStatus::default(),
            told_at: None,
            sent_at: Timestamp::UNIX_EPOCH,
            images: Vec::new(),
            version: None,
            backoff: keelson_client::Backoff::new(RETRY.0, RETRY.1),
        }
    }

    fn api(&self) -> Api<Node> {
        Api::all(self.ctx.client.clone())
    }

    /// What is said of every node, whatever it was made with.
    fn default_labels(&self) -> BTreeMap<String, String> {
        let hostname = self.ctx.config.hostname().to_string();
        [
            ("kubernetes.io/hostname", hostname.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", machine::ARCHITECTURE),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", machine::ARCHITECTURE),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// Makes the Node, or takes over the one that is there.
    async fn register(&mut self) {
        let name = self.ctx.config.node_name.clone();
        self.ctx.events.normal(&about(&name), "Starting", "Starting kubelet.");
        loop {
            match keelson_client::within(REGISTRATION, self.try_register()).await {
                Ok(()) => break,
                Err(error) => tracing::warn!(node = name, %error, "the node is not registered yet"),
            }
            self.backoff.wait().await;
        }
        self.backoff.reset();
        self.ctx.events.normal(&about(&name), "NodeAllocatableEnforced", "Updated Node Allocatable limit across pods");
    }

    async fn try_register(&mut self) -> Result<(), kube::Error> {
        let api = self.api();
        let name = &self.ctx.config.node_name.clone();
        if let Some(node) = api.get_opt(name).await? {
            let known = node.metadata.labels.clone().unwrap_or_default();
            let missing: BTreeMap<_, _> =
                self.default_labels().into_iter().filter(|(label, value)| known.get(label) != Some(value)).collect();
            if !missing.is_empty() {
                let patch = serde_json::json!({ "metadata": { "labels": missing } });
                api.patch(name, &PatchParams::default(), &Patch::Strategic(&patch)).await?;
            }
            self.sent = node.status.unwrap_or_default();
            self.told_at = version(&node.metadata);
            return Ok(());
        }
        if !self.ctx.config.register_node {
            return Ok(());
        }
        let status = self.status(keelson_client::clock::now()).await;
        let mut labels = self.ctx.config.node_labels.clone();
        labels.extend(self.default_labels());
        let node = Node {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(labels),
                annotations: Some(
                    [("volumes.kubernetes.io/controller-managed-attach-detach".to_string(), "true".to_string())].into(),
                ),
                ..Default::default()
            },
            spec: Some(NodeSpec {
                taints: Some(self.ctx.config.register_with_taints.clone()).filter(|taints| !taints.is_empty()),
                provider_id: self.ctx.config.provider_id.clone(),
                ..Default::default()
            }),
            status: Some(status),
        };
        match api.create(&PostParams::default(), &node).await {
            Ok(created) => {
                self.sent = created.status.unwrap_or_default();
                self.told_at = version(&created.metadata);
                self.sent_at = keelson_client::clock::now();
                self.tell_transitions(&NodeStatus::default(), &node.status.unwrap_or_default());
                Ok(())
            }
            Err(error) if keelson_client::is_already_exists(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn status(&mut self, now: Timestamp) -> NodeStatus {
        let pressure = self.ctx.node_conditions.borrow().clone();
        let (images, version) = tokio::join!(
            tokio::time::timeout(ANSWER, self.ctx.runtime.list_images()),
            tokio::time::timeout(ANSWER, self.ctx.runtime.version()),
        );
        if let Ok(Ok(images)) = images {
            self.images = images;
        }
        if let Ok(Ok(version)) = version {
            *self.ctx.runtime_name.write() = version.runtime_name.clone();
            self.version = Some(version);
        }
        let abilities = self.ctx.abilities.read().clone();
        let (mut machine, mut allocatable) = (self.machine.clone(), self.ctx.allocatable.clone());
        self.ctx.devices.add_to(&mut machine.capacity, &mut allocatable);
        status::status(&status::Input {
            config: &self.ctx.config,
            abilities: &abilities,
            machine: &machine,
            allocatable: &allocatable,
            health: &self.ctx.health.borrow(),
            pressure: &pressure,
            shutting_down: *self.ctx.shutting_down.borrow(),
            images: &self.images,
            version: self.version.as_ref(),
            port: self.port,
            old: &self.sent,
            now,
        })
    }

    /// Keeps the status true: on every change of health or images, and every `node_status_update_frequency`.
    async fn keep(&mut self) {
        let ctx = self.ctx.clone();
        let mut health = ctx.health.subscribe();
        let mut pressure = ctx.node_conditions.subscribe();
        let mut shutting_down = ctx.shutting_down.subscribe();
        let mut node = ctx.node.subscribe();
        let mut ticks = tokio::time::interval(ctx.config.node_status_update_frequency);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = health.changed() => {}
                _ = pressure.changed() => {}
                _ = shutting_down.changed() => {}
                () = ctx.images.changed.notified() => {}
                () = ctx.devices.changed.notified() => {}
                Ok(()) = node.changed() => {
                    let node = node.borrow_and_update().clone();
                    if !self.is_overwritten(node.flatten().as_deref()) {
                        continue;
                    }
                }
            }
            let limit = ctx.config.node_status_update_frequency;
            while let Err(error) = keelson_client::within(limit, self.update()).await {
                tracing::warn!(%error, "the node's status is not updated");
                if keelson_client::is_not_found(&error) {
                    // Somebody deleted the Node: as upstream, it is made again only by a restart.
                    break;
                }
                self.backoff.wait().await;
            }
            self.backoff.reset();
        }
    }

    /// Takes notice of a Node that somebody else has written (a silent node's conditions become Unknown).
    fn is_overwritten(&mut self, node: Option<&Node>) -> bool {
        let Some(node) = node else { return false };
        let version = version(&node.metadata);
        let newer = version > self.told_at;
        if newer {
            self.told_at = version;
            self.sent = node.status.clone().unwrap_or_default();
        }
        newer
    }

    async fn update(&mut self) -> Result<(), kube::Error> {
        let now = keelson_client::clock::now();
        let status = self.status(now).await;
        let frequency = SignedDuration::try_from(self.ctx.config.node_status_report_frequency).unwrap_or_default();
        let due = now.duration_since(self.sent_at) >= frequency;
        let Some(patch) = status::patch(&self.sent, &status, due) else { return Ok(()) };
        let api = self.api();
        let told =
            api.patch_status(&self.ctx.config.node_name, &PatchParams::default(), &Patch::Strategic(&patch)).await?;
        self.told_at = self.told_at.max(version(&told.metadata));
        let before = std::mem::replace(&mut self.sent, status);
        self.sent_at = now;
        self.tell_transitions(&before, &self.sent);
        Ok(())
    }

    fn tell_transitions(&self, before: &NodeStatus, now: &NodeStatus) {
        let name = &self.ctx.config.node_name;
        for reason in status::transitions(before, now) {
            self.ctx.events.normal(&about(name), reason, format!("Node {name} status is now: {reason}"));
        }
    }
}
