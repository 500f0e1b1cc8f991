//! postStart and preStop hooks.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};

use super::view;
use crate::probe;
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
            let stderr = String::from_utf8_lossy(&answer.stderr);
            let error = format!("command '{}' exited with {}: {stderr}", command.join(" "), answer.exit_code);
            let mut output = answer.stdout;
            output.extend_from_slice(&answer.stderr);
            return Err(failed(error, &String::from_utf8_lossy(&output)));
        }
    } else if let Some(action) = &handler.http_get {
        let called = match probe::http::Request::of(action, container, pod_ip, "kube-lifecycle/1.35") {
            Ok(request) => probe::http::call(&request, limit).await,
            Err(error) => Err(error),
        };
        called.map_err(|error| {
            let path = action.path.as_deref().unwrap_or_default();
            let pod = view::format(pod);
            format!("HTTP lifecycle hook ({path}) for Container {name:?} in Pod {pod:?} failed - error: {error}")
        })?;
    } else if let Some(sleep) = &handler.sleep {
        let wanted = Duration::from_secs(sleep.seconds.max(0) as u64);
        tokio::time::sleep(wanted.min(limit)).await;
        if wanted > limit {
            return Err(format!(
                "Sleep lifecycle hook ({}) for Container {name:?} in Pod {:?} failed - error: container terminated \
                 before sleep hook finished",
                sleep.seconds,
                view::format(pod)
            ));
        }
    } else {
        // tcpSocket is in the API but upstream has never carried it out as a hook.
        return Err("Cannot run handler: invalid handler: it has no exec, httpGet or sleep".into());
    }
    Ok(())
}
