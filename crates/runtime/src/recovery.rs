//! What a new runtime makes of what an old one left: half-made things go, the rest is as its shims say.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Error,
    cni::Cni,
    container,
    core::Core,
    image::layer::remove_tree,
    mounts,
    records::{self, ContainerPhase, ContainerRecord, Found, SandboxPhase, SandboxRecord},
    sandbox,
};

/// Rebuilds sandboxes and containers from disk.
pub(crate) async fn recover(core: &Arc<Core>) -> Result<(), Error> {
    for dir in records::list_dirs(&core.config.root.join("sandboxes"))? {
        let why = match records::load::<SandboxRecord>(&dir) {
            Found::Record(record) => match core.add_sandbox(record) {
                Ok(_) => continue,
                Err(error) => error.to_string(),
            },
            // Killed before its record was written: there was nothing else yet. (The network would be, had a power cut left
            // the one without the other.)
            Found::Nothing => {
                sandbox::release_network(core, &dir).await;
                remove(&dir);
                continue;
            }
            Found::Damaged(why) => why,
        };
        sandbox::release_network(core, &dir).await;
        set_aside(core, &dir, &why);
    }
    for dir in records::list_dirs(&core.config.root.join("containers"))? {
        let record = match records::load::<ContainerRecord>(&dir) {
            Found::Record(record) => record,
            Found::Nothing => {
                remove(&dir);
                continue;
            }
            Found::Damaged(why) => {
                set_aside(core, &dir, &why);
                continue;
            }
        };
        let cgroup = PathBuf::from(&record.cgroup);
        let added = match core.sandbox(&record.sandbox_id) {
            Ok(sandbox) => core.add_container(&sandbox, record).map(drop).map_err(|error| error.to_string()),
            Err(_) => {
                // Its pod's record is gone; nobody could stop it any more.
                container::end_group(&cgroup).await;
                remove(&dir);
                continue;
            }
        };
        if let Err(why) = added {
            container::end_group(&cgroup).await;
            set_aside(core, &dir, &why);
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

/// One object that cannot be cleaned away is no reason for a node to have no runtime.
fn remove(dir: &Path) {
    if let Err(error) = remove_tree(dir) {
        tracing::warn!(dir = %dir.display(), %error, "a half-made directory could not be removed");
    }
}

/// Keeps what cannot be used for somebody to look at, where it is in nobody's way.
fn set_aside(core: &Core, dir: &Path, why: &str) {
    let kind = dir.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let aside = core.config.root.join("damaged");
    let target = aside.join(format!("{kind}-{name}"));
    tracing::error!(dir = %dir.display(), to = %target.display(), why, "a record cannot be used and is set aside");
    if let Err(error) = std::fs::create_dir_all(&aside).and_then(|()| std::fs::rename(dir, &target)) {
        tracing::error!(dir = %dir.display(), %error, "a damaged directory could not be set aside");
    }
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
            Err(error) => {
                tracing::warn!(sandbox = %found.id, %error, "a pod's shim could not be replaced");
                if phase == SandboxPhase::Ready {
                    // Its containers may well be running. Nothing is said of them before a shim has been asked.
                    return sandbox::keep_starting_shim(core, found);
                }
            }
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
