//! Ending a container: its event, its preStop hook, its turn, then the stop signal.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use keelson_cri::steps;
use tokio::sync::watch;

use super::observed::{Observed, State};
use super::plan::Why;
use super::{events, hooks, view};
use crate::context::Context;
use crate::error::Error;

/// Least time a container gets to stop, whatever used up the grace.
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// Whom a container waits for before it is told to end.
pub(crate) struct Turn {
    /// Ids of containers.
    pub after: Vec<String>,
    pub observed: watch::Receiver<Arc<Observed>>,
}

impl Turn {
    /// Waits until the others have ended, but not longer than `limit`.
    async fn come(mut self, limit: Duration) {
        let alive = |observed: &Observed| {
            let mut others = observed.containers.iter().filter(|record| self.after.contains(&record.id));
            others.any(|record| matches!(record.state, State::Running | State::Unknown))
        };
        let over = self.observed.wait_for(|observed| !alive(observed));
        // Whoever is still there goes together with this one.
        drop(tokio::time::timeout(limit, over).await);
    }
}

/// What the event of a container's end says.
fn killing(pod: &Pod, name: &str, why: &Why) -> String {
    let cause = match why {
        Why::DefinitionChanged => "definition changed",
        Why::Liveness => "failed liveness probe",
        Why::Startup => "failed startup probe",
        Why::PostStart => return "FailedPostStartHook".into(),
        Why::Unknown => return "Container is in unknown state, try killing it before restart".into(),
        Why::Resized => return format!("Container {name} resize requires restart"),
        Why::Pod | Why::SandboxChanged => return format!("Stopping container {name}"),
    };
    // Upstream says of sidecars that they are init containers, and does not say that they start again.
    if view::init_containers(pod).iter().any(|init| init.name == name) {
        return format!("Init container {name} {cause}");
    }
    let container = view::containers(pod).iter().find(|container| container.name == name);
    let policy = container.and_then(|container| container.restart_policy.as_deref());
    let again = *why == Why::DefinitionChanged || policy.unwrap_or_else(|| view::restart_policy(pod)) != "Never";
    format!("Container {name} {cause}{}", if again { ", will be restarted" } else { "" })
}

/// Ends a container within `grace`: its event, its preStop hook, the wait for its turn, then the stop signal and what is left.
#[expect(clippy::too_many_arguments, reason = "what a container's end depends on, once")]
pub(crate) async fn end(
    ctx: &Context,
    pod: &Pod,
    id: &str,
    name: &str,
    grace: Duration,
    why: &Why,
    pod_ip: &str,
    turn: Option<Turn>,
) -> Result<(), Error> {
    let about = events::about_container(pod, name);
    let message = killing(pod, name, why);
    ctx.events.normal(&about, "Killing", message);
    steps::reached("kubelet-killing");
    let started = tokio::time::Instant::now();
    let container = view::find_container(pod, name);
    let hook = container.as_ref().and_then(|c| c.lifecycle.as_ref()).and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    if let (Some(container), Some(hook)) = (&container, hook)
        && !grace.is_zero()
    {
        let run = hooks::run(&ctx.runtime, pod, container, id, pod_ip, hook, grace);
        match tokio::time::timeout(grace, run).await {
            Ok(Ok(())) => {}
            Ok(Err(message)) => {
                tracing::warn!(pod = view::format(pod), container = name, message, "preStop hook failed");
                ctx.events.warning(&about, "FailedPreStopHook", "PreStopHook failed");
            }
            Err(_) => tracing::warn!(pod = view::format(pod), container = name, "preStop hook used up the grace"),
        }
    }
    if let Some(turn) = turn {
        turn.come(grace.saturating_sub(started.elapsed())).await;
    }
    let left = grace.saturating_sub(started.elapsed()).max(LEAST_GRACE);
    // CRI counts whole seconds; a fraction that the hook used up must not cost the container a whole one.
    ctx.runtime.stop_container(id, Duration::from_secs(left.as_secs_f64().round() as u64)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::observed::ContainerRecord;

    #[tokio::test(start_paused = true)]
    async fn a_turn_comes_with_the_others_end_or_the_grace() {
        let world = |state| {
            let record = |id: &str, state| ContainerRecord { id: id.into(), state, ..Default::default() };
            let containers = vec![record("app", state), record("other", State::Running)];
            Arc::new(Observed { containers, ..Default::default() })
        };
        let sender = watch::Sender::new(world(State::Running));
        let turn = |after: &[&str]| {
            let after = after.iter().map(|id| id.to_string()).collect();
            Turn { after, observed: sender.subscribe() }.come(Duration::from_secs(20))
        };
        let began = tokio::time::Instant::now();
        turn(&[]).await;
        assert!(began.elapsed().is_zero(), "nobody to wait for");
        turn(&["app"]).await;
        assert_eq!(began.elapsed(), Duration::from_secs(20), "the grace is all there is");
        let ended = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            sender.send_replace(world(State::Exited));
        };
        tokio::join!(turn(&["app"]), ended);
        assert_eq!(began.elapsed(), Duration::from_secs(23));
    }
}
