//! The pod life-cycle event generator: wakes the task of a pod when something happened to its containers. From the
//! runtime's event stream where it has one (KEP-3386), else by comparing lists once a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use keelson_cri::v1 as cri;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::error::Error;
use crate::runtime::labels;

/// How often a runtime without events is asked.
const RELIST: Duration = Duration::from_secs(1);
/// Waits after a broken stream grow between these.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Runs until `shutdown`. Pods that nobody knows go to `unknown`.
pub(crate) async fn run(ctx: Arc<Context>, unknown: mpsc::Sender<String>, shutdown: CancellationToken) {
    let mut backoff = keelson_client::Backoff::new(RECONNECT.0, RECONNECT.1);
    loop {
        let round = async {
            match ctx.runtime.container_events().await {
                Ok(stream) => {
                    backoff.reset();
                    follow(&ctx, stream, &unknown).await;
                }
                Err(Error::Cri(status)) if status.code() == tonic::Code::Unimplemented => {
                    relist_forever(&ctx, &unknown).await;
                }
                Err(error) => tracing::debug!(%error, "no container events"),
            }
            ctx.check_health.notify_one();
            backoff.wait().await;
        };
        tokio::select! {
            () = round => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn follow(
    ctx: &Context,
    mut stream: tonic::Streaming<cri::ContainerEventResponse>,
    unknown: &mpsc::Sender<String>,
) {
    // What happened before the stream was there.
    for (_, handle) in ctx.pods.all() {
        handle.look.notify_one();
    }
    while let Ok(Some(event)) = stream.message().await {
        let from_sandbox = event.pod_sandbox_status.as_ref().and_then(|status| status.metadata.as_ref());
        let uid = from_sandbox.map(|metadata| metadata.uid.clone()).or_else(|| {
            event.containers_statuses.iter().find_map(|status| status.labels.get(labels::POD_UID).cloned())
        });
        match uid {
            Some(uid) => wake(ctx, &uid, unknown),
            None => {
                for (_, handle) in ctx.pods.all() {
                    let observed = handle.observed.borrow().clone();
                    let sandbox = observed.sandboxes.iter().any(|sandbox| sandbox.id == event.container_id);
                    if sandbox || observed.containers.iter().any(|container| container.id == event.container_id) {
                        handle.look.notify_one();
                    }
                }
            }
        }
    }
}

fn wake(ctx: &Context, uid: &str, unknown: &mpsc::Sender<String>) {
    match ctx.pods.get(uid) {
        Some(handle) => handle.look.notify_one(),
        // A full queue is fine: the next sweep finds whoever is still there.
        None => drop(unknown.try_send(uid.to_string())),
    }
}

/// Id → (pod uid, state).
type Seen = HashMap<String, (String, i32)>;

async fn list(ctx: &Context) -> Result<Seen, Error> {
    let (sandboxes, containers) =
        tokio::try_join!(ctx.runtime.list_sandboxes(None), ctx.runtime.list_containers(None))?;
    let uid = |labels: &HashMap<String, String>| labels.get(labels::POD_UID).cloned();
    let sandboxes = sandboxes.into_iter().filter_map(|s| Some((s.id, (uid(&s.labels)?, s.state))));
    let containers = containers.into_iter().filter_map(|c| Some((c.id, (uid(&c.labels)?, c.state))));
    Ok(sandboxes.chain(containers).collect())
}

async fn relist_forever(ctx: &Context, unknown: &mpsc::Sender<String>) {
    let mut seen = Seen::new();
    let mut ticks = tokio::time::interval(RELIST);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = match list(ctx).await {
            Ok(now) => now,
            Err(error) => {
                tracing::debug!(%error, "relist failed");
                ctx.check_health.notify_one();
                continue;
            }
        };
        for uid in changed(&seen, &now) {
            wake(ctx, &uid, unknown);
        }
        seen = now;
    }
}

/// Uids of pods in which something differs.
fn changed(before: &Seen, now: &Seen) -> Vec<String> {
    let new = now.iter().filter(|(id, state)| before.get(*id) != Some(state));
    let gone = before.iter().filter(|(id, _)| !now.contains_key(*id));
    let mut uids: Vec<String> = new.chain(gone).map(|(_, (uid, _))| uid.clone()).collect();
    uids.sort();
    uids.dedup();
    uids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences() {
        let seen = |list: &[(&str, &str, i32)]| -> Seen {
            list.iter().map(|(id, uid, state)| (id.to_string(), (uid.to_string(), *state))).collect()
        };
        let before = seen(&[("a", "1", 0), ("b", "2", 0), ("c", "3", 0), ("d", "4", 0)]);
        let now = seen(&[("a", "1", 0), ("b", "2", 1), ("d", "4", 0), ("e", "5", 0)]);
        assert_eq!(changed(&before, &now), ["2", "3", "5"]);
        assert!(changed(&now, &now).is_empty());
    }
}
