//! Graceful node shutdown: while the machine goes down, its pods are ended in order of their priority, each with the grace
//! that the configuration has for it, before logind lets the machine go on. [`groups`] says who ends when, [`logind`]
//! talks with logind.

mod groups;
mod logind;
mod state;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Evicted, PodHandle};
use crate::node::about;
use crate::pod::status::Ended;
use crate::pod::view;
use groups::Group;
use logind::Watch;

pub(crate) use groups::check;

/// Pause before the bus is connected to again.
const RECONNECT: Duration = Duration::from_secs(1);
/// Upstream's `Reason` of the node's events and of pods that come too late.
const NODE_SHUTDOWN: &str = "NodeShutdown";
/// Upstream's `Reason` of pods that a shutdown ended.
pub(crate) const TERMINATED: &str = "Terminated";
const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";
/// What the node's condition Ready says meanwhile.
pub(crate) const SHUTTING_DOWN: &str = "node is shutting down";

/// Runs until `shutdown`, or until it is clear that this machine cannot be watched: as upstream, the kubelet goes on without.
pub(crate) async fn run(ctx: Arc<Context>, shutdown: CancellationToken) {
    let groups = groups::groups(&ctx.config);
    if groups.is_empty() {
        return;
    }
    let work = async {
        let mut watch = match start(&ctx, &groups).await {
            Ok(watch) => watch,
            Err(error) => return tracing::error!(%error, "Failed to start node shutdown manager"),
        };
        match state::load(&ctx.config.root_dir) {
            Ok(state) => ctx.metrics.graceful_shutdown(state.start_seconds(), state.end_seconds()),
            Err(error) => tracing::error!(%error, "Failed to load graceful shutdown state"),
        }
        loop {
            follow(&ctx, &groups, watch).await;
            tracing::warn!("the system bus is gone: the node's shutdown is not seen until it is back");
            watch = loop {
                tokio::time::sleep(RECONNECT).await;
                match start(&ctx, &groups).await {
                    Ok(watch) => break watch,
                    Err(error) => tracing::error!(%error, "Unable to watch the node for shutdown events"),
                }
            };
        }
    };
    let _ = shutdown.run_until_cancelled(work).await;
}

async fn start(ctx: &Context, groups: &[Group]) -> Result<Watch, crate::Error> {
    let period = groups.iter().map(|group| group.period).sum();
    Watch::start(ctx.config.dbus_address.as_deref(), &ctx.config.logind_config_dir, period).await
}

/// Heeds what logind says until the bus is gone.
async fn follow(ctx: &Context, groups: &[Group], mut watch: Watch) {
    while let Some(is_shutting_down) = watch.next().await {
        let what = if is_shutting_down { "shutdown event" } else { "shutdown cancellation" };
        tracing::info!("logind tells of a {what}");
        let message = format!("Shutdown manager detected {what}");
        ctx.events.normal(&about(&ctx.config.node_name), NODE_SHUTDOWN, message);
        ctx.shutting_down.send_replace(is_shutting_down);
        if is_shutting_down {
            end_all(ctx, groups).await;
            watch.release();
            tracing::info!("the node may shut down now");
        } else if let Err(error) = watch.inhibit().await {
            tracing::error!(%error, "the next shutdown will not wait for pods");
        }
    }
}

async fn end_all(ctx: &Context, groups: &[Group]) {
    let start = keelson_client::clock::now();
    let note = |end| {
        let state = state::State::new(start, end);
        if let Err(error) = state::store(&ctx.config.root_dir, &state) {
            tracing::error!(%error, "Failed to store graceful shutdown state");
        }
        ctx.metrics.graceful_shutdown(state.start_seconds(), state.end_seconds());
    };
    note(None);
    let all = ctx.pods.all().into_iter().map(|(_, handle)| handle);
    let active: Vec<_> = all.filter(|handle| !*handle.released.borrow()).collect();
    let priorities: Vec<i32> = active.iter().map(|handle| priority(&handle.pod.borrow().pod)).collect();
    for (group, members) in groups.iter().zip(groups::split(groups, &priorities)) {
        let members: Vec<_> = members.into_iter().filter_map(|index| active.get(index)).collect();
        for handle in &members {
            end(handle, group);
        }
        let ends = members.iter().map(|handle| async {
            let mut released = handle.released.subscribe();
            let _ = released.wait_for(|released| *released).await;
        });
        if tokio::time::timeout(group.period, futures::future::join_all(ends)).await.is_err() {
            tracing::warn!(priority = group.priority, "not all pods have ended in the time that they have");
        }
    }
    note(Some(keelson_client::clock::now()));
}

/// Tells the pod's task. One that is given up already only gets less time.
fn end(handle: &PodHandle, group: &Group) {
    handle.pod.send_modify(|latest| {
        let seconds = i64::try_from(group.period.as_secs()).unwrap_or(i64::MAX);
        let own = view::spec(&latest.pod).and_then(|spec| spec.termination_grace_period_seconds);
        let grace_seconds = own.map_or(seconds, |own| own.min(seconds));
        let evicted = match latest.evicted.as_deref() {
            Some(before) => {
                Evicted { ended: before.ended.clone(), grace_seconds: before.grace_seconds.min(grace_seconds) }
            }
            None => {
                let (reason, message) = (TERMINATED.to_string(), MESSAGE.to_string());
                Evicted { ended: Ended { reason, message, rejected: false, disrupted: true }, grace_seconds }
            }
        };
        latest.evicted = Some(Arc::new(evicted));
    });
}

fn priority(pod: &Pod) -> i32 {
    view::spec(pod).and_then(|spec| spec.priority).unwrap_or(0)
}

/// Why a new pod is refused while the node is `shutting_down`.
pub(crate) fn refuse(shutting_down: bool) -> Option<Ended> {
    shutting_down.then(|| Ended::rejection(NODE_SHUTDOWN, "Pod was rejected as the node is shutting down."))
}
