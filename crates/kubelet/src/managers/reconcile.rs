//! Running containers are kept on the CPUs that are theirs: those that share get others when others take some for
//! themselves. Done when the shared CPUs change, and after each `cpuManagerReconcilePeriod`.

use std::collections::HashMap;
use std::sync::Arc;

use keelson_cri::v1 as cri;
use tokio_util::sync::CancellationToken;

use super::cpuset::CpuSet;
use crate::context::Context;
use crate::pod::observed::State;

/// Runs until `shutdown`.
pub(crate) async fn run(ctx: Arc<Context>, shutdown: CancellationToken) {
    if ctx.managers.shared().is_none() {
        return shutdown.cancelled().await;
    }
    // By container id.
    let mut written: HashMap<String, CpuSet> = HashMap::new();
    loop {
        tokio::select! {
            () = ctx.managers.changed.notified() => {}
            () = tokio::time::sleep(ctx.config.cpu_manager_reconcile_period) => {}
            () = shutdown.cancelled() => return,
        }
        reconcile(&ctx, &mut written).await;
    }
}

async fn reconcile(ctx: &Context, written: &mut HashMap<String, CpuSet>) {
    let mut present = HashMap::new();
    for (uid, handle) in ctx.pods.all() {
        let observed = handle.observed.borrow().clone();
        for record in observed.containers.iter().filter(|record| record.state == State::Running) {
            let Some(cpus) = ctx.managers.cpus_of(&uid, &record.name).filter(|cpus| !cpus.is_empty()) else { continue };
            if written.get(&record.id) != Some(&cpus) {
                let linux = cri::LinuxContainerResources { cpuset_cpus: cpus.to_string(), ..Default::default() };
                if let Err(error) = ctx.runtime.update_container(&record.id, linux).await {
                    tracing::warn!(container = record.name, pod = uid, %error, "a container's CPUs stay as they are");
                    continue;
                }
            }
            present.insert(record.id.clone(), cpus);
        }
    }
    *written = present;
}
