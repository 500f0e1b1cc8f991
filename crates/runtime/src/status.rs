//! Records in CRI's words: statuses and list entries.

use keelson_cri::v1::{
    Container as CriContainer, ContainerResources, ContainerState, ContainerStatus, ContainerUser,
    LinuxPodSandboxStatus, Namespace, PodIp, PodSandbox, PodSandboxNetworkStatus, PodSandboxState, PodSandboxStatus,
};

use crate::{
    core::{Container, Core, Sandbox},
    oci,
    records::{ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord},
};

impl Sandbox {
    pub(crate) fn status(&self) -> PodSandboxStatus {
        self.with(|record| {
            let config = record.config.clone().unwrap_or_default();
            let mut ips = record.ips.iter().cloned();
            let network = PodSandboxNetworkStatus {
                ip: ips.next().unwrap_or_default(),
                additional_ips: ips.map(|ip| PodIp { ip }).collect(),
            };
            PodSandboxStatus {
                id: record.id.clone(),
                state: sandbox_state(record) as i32,
                created_at: record.created_at,
                network: Some(network),
                linux: Some(LinuxPodSandboxStatus {
                    namespaces: Some(Namespace { options: Some(oci::namespaces(&config)) }),
                }),
                metadata: config.metadata,
                labels: config.labels,
                annotations: config.annotations,
                runtime_handler: record.runtime_handler.clone(),
            }
        })
    }

    pub(crate) fn list_entry(&self) -> PodSandbox {
        self.with(|record| {
            let config = record.config.clone().unwrap_or_default();
            PodSandbox {
                id: record.id.clone(),
                metadata: config.metadata,
                state: sandbox_state(record) as i32,
                created_at: record.created_at,
                labels: config.labels,
                annotations: config.annotations,
                runtime_handler: record.runtime_handler.clone(),
            }
        })
    }
}

fn sandbox_state(record: &SandboxRecord) -> PodSandboxState {
    match record.phase() {
        SandboxPhase::Ready => PodSandboxState::SandboxReady,
        SandboxPhase::Creating | SandboxPhase::Stopping | SandboxPhase::NotReady => PodSandboxState::SandboxNotready,
    }
}

impl Container {
    pub(crate) fn state(&self) -> ContainerState {
        container_state(self.phase())
    }

    pub(crate) fn status(&self, core: &Core) -> ContainerStatus {
        let name = core.images.find(&self.with(|record| record.image_id.clone()));
        self.with(|record| {
            let config = record.config.clone().unwrap_or_default();
            let mut image = config.image.clone().unwrap_or_default();
            // CRI wants a name a person would know, where there is one.
            if let Some(found) = name {
                let asked = core.images.reference(&image.user_specified_image).map(|name| name.to_string());
                let asked = asked.ok().filter(|name| found.names.contains(name));
                if let Some(name) = asked.or_else(|| found.names.first().cloned()) {
                    image.image = name;
                }
            }
            ContainerStatus {
                id: record.id.clone(),
                metadata: config.metadata,
                state: container_state(record.phase()) as i32,
                created_at: record.created_at,
                started_at: record.started_at,
                finished_at: record.finished_at,
                exit_code: record.exit_code,
                image: Some(image),
                image_ref: record.image_ref.clone(),
                image_id: record.image_id.clone(),
                reason: record.reason.clone(),
                message: record.message.clone(),
                labels: config.labels,
                annotations: config.annotations,
                mounts: config.mounts,
                log_path: record.log_path.clone(),
                resources: config.linux.map(|linux| ContainerResources { linux: linux.resources, windows: None }),
                user: record.user.clone().map(|linux| ContainerUser { linux: Some(linux) }),
            }
        })
    }

    pub(crate) fn list_entry(&self) -> CriContainer {
        self.with(|record: &ContainerRecord| {
            let config = record.config.clone().unwrap_or_default();
            CriContainer {
                id: record.id.clone(),
                pod_sandbox_id: record.sandbox_id.clone(),
                metadata: config.metadata,
                image: config.image,
                image_ref: record.image_ref.clone(),
                state: container_state(record.phase()) as i32,
                created_at: record.created_at,
                labels: config.labels,
                annotations: config.annotations,
                image_id: record.image_id.clone(),
            }
        })
    }
}

fn container_state(phase: ContainerPhase) -> ContainerState {
    match phase {
        ContainerPhase::Creating | ContainerPhase::Created | ContainerPhase::Starting => {
            ContainerState::ContainerCreated
        }
        ContainerPhase::Running => ContainerState::ContainerRunning,
        ContainerPhase::Exited => ContainerState::ContainerExited,
    }
}
