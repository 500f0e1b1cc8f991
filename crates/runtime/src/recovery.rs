//! What a new runtime makes of what an old one left: half-made things go, the rest is as its shims say.

use std::sync::Arc;

use crate::{
    Error,
    cni::Cni,
    container,
    core::Core,
    image::layer::remove_tree,
    mounts,
    records::{self, ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord},
    sandbox,
};

/// Rebuilds sandboxes and containers from disk.
pub(crate) async fn recover(core: &Arc<Core>) -> Result<(), Error> {
    for dir in records::list_dirs(&core.config.root.join("sandboxes"))? {
        match records::load::<SandboxRecord>(&dir) {
            Some(record) => {
                core.add_sandbox(record)?;
            }
            // Killed before its record was written: there was nothing else yet.
            None => remove_tree(&dir).map_err(Error::io("remove", &dir))?,
        }
    }
    for dir in records::list_dirs(&core.config.root.join("containers"))? {
        let record = records::load::<ContainerRecord>(&dir);
        match record.and_then(|record| Some((core.sandbox(&record.sandbox_id).ok()?, record))) {
            Some((sandbox, record)) => {
                core.add_container(&sandbox, record)?;
            }
            None => remove_tree(&dir).map_err(Error::io("remove", &dir))?,
        }
    }
    for found in core.containers() {
        if found.phase() == ContainerPhase::Creating {
            container::discard(core, &found).await;
        }
    }
    for found in core.sandboxes() {
        recover_sandbox(core, &found).await;
    }
    remove_strays(core)
}

async fn recover_sandbox(core: &Arc<Core>, found: &Arc<crate::core::Sandbox>) {
    let phase = found.with(SandboxRecord::phase);
    if phase == SandboxPhase::Creating {
        // Nobody learned its ID: it goes away whole.
        Cni::end_orphans(&found.id).await;
        if let Err(error) = sandbox::remove(core, found).await {
            tracing::warn!(sandbox = %found.id, %error, "a half-made pod could not be removed");
        }
        return;
    }
    let containers = core.containers_of(&found.id);
    let running = containers.iter().any(|c| matches!(c.phase(), ContainerPhase::Starting | ContainerPhase::Running));
    let alive = found.state.is_dir() && (phase == SandboxPhase::Ready || phase == SandboxPhase::Stopping && running);
    let mut adopted = false;
    if alive {
        match sandbox::spawn_shim(core, found).await {
            Ok(()) => {
                adopted = true;
                if phase == SandboxPhase::Ready
                    && let Err(error) = sandbox::check_network(core, found).await
                {
                    tracing::warn!(sandbox = %found.id, %error, "a pod's network is not as it was");
                }
            }
            Err(error) => tracing::warn!(sandbox = %found.id, %error, "a pod's shim could not be replaced"),
        }
    }
    for container in containers {
        container::settle(core, &container, adopted).await;
    }
    if phase == SandboxPhase::Stopping {
        Cni::end_orphans(&found.id).await;
        let (core, found) = (core.clone(), found.clone());
        // It may take its time; nobody has to wait for it.
        tokio::spawn(async move {
            if let Err(error) = sandbox::stop(&core, &found).await {
                tracing::warn!(sandbox = %found.id, %error, "a half-stopped pod could not be stopped");
            }
        });
        return;
    }
    if phase == SandboxPhase::Ready && !adopted {
        // The machine was restarted: processes and namespaces are gone.
        sandbox::dismantle(core, found).await;
        if let Err(error) = found.update(|record| record.set_phase(SandboxPhase::NotReady)) {
            tracing::warn!(sandbox = %found.id, %error, "a pod's record could not be written");
        }
    }
}

/// Removes state directories that no record knows, with their mounts.
fn remove_strays(core: &Core) -> Result<(), Error> {
    for dir in records::list_dirs(&core.config.state.join("sandboxes"))? {
        let known = dir.file_name().and_then(|name| name.to_str()).is_some_and(|id| core.sandbox(id).is_ok());
        if !known {
            for point in mounts::below(&dir) {
                mounts::unmount_all(&point);
            }
            remove_tree(&dir).map_err(Error::io("remove", &dir))?;
        }
    }
    Ok(())
}
