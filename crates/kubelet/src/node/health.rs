//! Whether the runtime and its network are ready: asked when somebody saw something odd, often while they are not, and
//! now and then while they are.

use std::sync::Arc;
use std::time::Duration;

use keelson_cri::v1 as cri;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, RuntimeHealth};
use crate::security::Abilities;

/// How often a runtime that is not ready is asked.
const UNREADY: Duration = Duration::from_millis(250);
/// How often a ready one is.
const READY: Duration = Duration::from_secs(10);
/// How long one may be silent before it counts as down.
const SILENCE: Duration = Duration::from_secs(30);
/// Until it counts as silent.
const ANSWER: Duration = Duration::from_secs(10);

/// Runs until `shutdown`.
pub(crate) async fn run(ctx: Arc<Context>, shutdown: CancellationToken) {
    let mut heard: Option<Instant> = None;
    loop {
        let health = match check(&ctx).await {
            Some(health) => {
                heard = Some(Instant::now());
                health
            }
            // Restarted, it may be.
            None if heard.is_some_and(|heard| heard.elapsed() < SILENCE) => ctx.health.borrow().clone(),
            None => down(),
        };
        let ready = heard.is_some_and(|heard| heard.elapsed() < UNREADY) && health == RuntimeHealth::default();
        ctx.health.send_if_modified(|known| {
            let changed = *known != health;
            *known = health;
            changed
        });
        let pause = async {
            tokio::time::sleep(UNREADY).await;
            if ready {
                tokio::select! {
                    () = tokio::time::sleep(READY) => {}
                    () = ctx.check_health.notified() => {}
                }
            }
        };
        tokio::select! {
            () = pause => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Asks the runtime now; `None` when it does not answer.
pub(crate) async fn check(ctx: &Context) -> Option<RuntimeHealth> {
    let why = match tokio::time::timeout(ANSWER, ctx.runtime.status()).await {
        Ok(Ok(answer)) => {
            *ctx.abilities.write() = Abilities::new(&answer);
            return Some(judge(&answer.status.unwrap_or_default().conditions));
        }
        Ok(Err(error)) => error.to_string(),
        Err(elapsed) => elapsed.to_string(),
    };
    tracing::debug!(why, "the runtime does not answer");
    None
}

/// Of a runtime that does not answer.
pub(crate) fn down() -> RuntimeHealth {
    RuntimeHealth { runtime_error: Some("container runtime is down".into()), network_error: None }
}

fn judge(conditions: &[cri::RuntimeCondition]) -> RuntimeHealth {
    let problem = |kind: &str| {
        let condition = conditions.iter().find(|condition| condition.r#type == kind)?;
        let text = format!("{kind}=false reason:{} message:{}", condition.reason, condition.message);
        (!condition.status).then_some(text)
    };
    RuntimeHealth {
        runtime_error: problem("RuntimeReady").map(|text| format!("container runtime not ready: {text}")),
        network_error: problem("NetworkReady"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions() {
        let condition = |kind: &str, status| cri::RuntimeCondition {
            r#type: kind.into(),
            status,
            reason: "Why".into(),
            message: "what".into(),
        };
        assert_eq!(
            judge(&[condition("RuntimeReady", true), condition("NetworkReady", true)]),
            RuntimeHealth::default()
        );
        let broken = judge(&[condition("RuntimeReady", true), condition("NetworkReady", false)]);
        assert_eq!(broken.network_error.as_deref(), Some("NetworkReady=false reason:Why message:what"));
        assert_eq!(broken.runtime_error, None);
    }
}
