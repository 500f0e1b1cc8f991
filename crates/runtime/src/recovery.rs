//! What a new runtime makes of what an old one left: half-made things go, the rest is as its shims say.

use std::sync::Arc;

use crate::{
    Error, container,
    core::{Core, EXIT_FILE, now_ns},
    image::layer::remove_tree,
    mounts,
    records::{self, ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord},
    sandbox, shim,
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
        if let Err(error) = sandbox::remove(core, found).await {
            tracing::warn!(sandbox = %found.id, %error, "a half-made pod could not be removed");
        }
        return;
    }
    let alive = phase == SandboxPhase::Ready && found.state.is_dir();
    let mut adopted = false;
    if alive {
        match sandbox::spawn_shim(core, found).await {
            Ok(()) => {
                adopted = true;
                if let Err(error) = sandbox::check_network(core, found).await {
                    tracing::warn!(sandbox = %found.id, %error, "a pod's network is not as it was");
                }
            }
            Err(error) => tracing::warn!(sandbox = %found.id, %error, "a pod's shim could not be replaced"),
        }
    }
    for container in core.containers_of(&found.id) {
        recover_container(core, &container, adopted);
    }
    if phase == SandboxPhase::Ready && !adopted {
        // The machine was restarted: processes and namespaces are gone.
        sandbox::dismantle(core, found).await;
        if let Err(error) = found.update(|record| record.set_phase(SandboxPhase::NotReady)) {
            tracing::warn!(sandbox = %found.id, %error, "a pod's record could not be written");
        }
    }
}

/// A container that was running or about to: its exit file, its process, or nothing tells how it is.
fn recover_container(core: &Core, found: &crate::core::Container, adopted: bool) {
    if !matches!(found.phase(), ContainerPhase::Starting | ContainerPhase::Running) {
        return;
    }
    let unknown = shim::Exit { code: 255, finished_at_ns: now_ns(), oom_killed: false, unknown: true };
    match shim::read_json::<shim::Exit>(&found.root.join(EXIT_FILE)) {
        Ok(Some(exit)) => core.container_ended(found, &exit),
        _ if adopted && container::running_pid(found).is_some() => {
            found.update(|record| {
                if record.phase() == ContainerPhase::Starting {
                    record.started_at = now_ns();
                    record.set_phase(ContainerPhase::Running);
                }
                true
            });
        }
        // Its shim will say.
        _ if adopted && found.phase() == ContainerPhase::Running => {}
        _ => core.container_ended(found, &unknown),
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
