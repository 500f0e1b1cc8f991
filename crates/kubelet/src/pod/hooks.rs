//! postStart and preStop hooks.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};

use super::view;
use crate::probe::{self, Outcome};
use crate::runtime::Runtime;

/// Runs a hook; the error is what its event says.
pub(crate) async fn run(
    runtime: &Runtime,
    pod: &Pod,
    container: &Container,
    container_id: &str,
    pod_ip: &str,
    handler: &LifecycleHandler,
    limit: Duration,
) -> Result<(), String> {
    let name = &container.name;
    if let Some(exec) = &handler.exec {
        let command = exec.command.as_deref().unwrap_or_default();
        let failed = |error: String, output: &str| {
            format!(
                "Exec lifecycle hook ([{}]) for Container {name:?} in Pod {:?} failed - error: {error}, message: {output:?}",
                command.join(" "),
                view::format(pod)
            )
        };
        let answer = runtime.exec_sync(container_id, command, limit).await.map_err(|e| failed(e.to_string(), ""))?;
        if answer.exit_code != 0 {
            let mut output = answer.stdout;
            output.extend_from_slice(&answer.stderr);
            let error = format!("command '{}' exited with {}", command.join(" "), answer.exit_code);
            return Err(failed(error, &String::from_utf8_lossy(&output)));
        }
    } else if let Some(action) = &handler.http_get {
        let request = probe::http::Request::of(action, container, pod_ip, "kube-lifecycle/1.35")?;
        match probe::http::probe(&request, limit).await {
            Outcome::Success => {}
            Outcome::Failure(error) | Outcome::Unknown(error) => {
                return Err(format!(
                    "HTTP lifecycle hook ({}) for Container {name:?} in Pod {:?} failed - error: {error}",
                    action.path.as_deref().unwrap_or_default(),
                    view::format(pod)
                ));
            }
        }
    } else if let Some(sleep) = &handler.sleep {
        let wanted = Duration::from_secs(sleep.seconds.max(0) as u64);
        tokio::time::sleep(wanted.min(limit)).await;
        if wanted > limit {
            return Err(format!("Sleep lifecycle hook ({}) was cut short", sleep.seconds));
        }
    } else {
        // tcpSocket is in the API but upstream has never carried it out as a hook.
        return Err("Invalid handler: no such lifecycle handler".into());
    }
    Ok(())
}
