//! The container runtime as the kubelet sees it: CRI calls with deadlines and the kubelet's own labels. No decisions.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use keelson_cri::{Clients, v1 as cri};

use crate::error::Error;
use crate::metrics::Metrics;

/// Labels and annotations by which a kubelet finds its own again; upstream's names, so that crictl and log shippers
/// understand them.
pub(crate) mod labels {
    pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
    pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
    pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    pub(crate) const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
    pub(crate) const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    pub(crate) const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    pub(crate) const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    pub(crate) const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
}

/// Extra time over a stop's or exec's own timeout before the call itself is given up.
const SLACK: Duration = Duration::from_secs(30);

/// CRI clients with deadlines.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    clients: Clients,
    timeout: Duration,
    pull_timeout: Duration,
    metrics: Arc<Metrics>,
}

impl Runtime {
    /// Clients of `endpoint`; nothing is dialled yet.
    pub(crate) fn connect(
        endpoint: &str,
        timeout: Duration,
        pull_timeout: Duration,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        Ok(Runtime { clients: keelson_cri::connect(endpoint)?, timeout, pull_timeout, metrics })
    }

    /// Where calls, and who else has this runtime, are counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// One call, counted under `operation`.
    async fn within<T>(
        &self,
        operation: &str,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, Error> {
        let started = tokio::time::Instant::now();
        // tonic's futures are large, and a pod's task would carry them all.
        let answer = match tokio::time::timeout(limit, Box::pin(call)).await {
            Ok(answer) => answer,
            Err(_) => Err(tonic::Status::deadline_exceeded("context deadline exceeded")),
        };
        self.metrics.runtime_call(operation, started.elapsed(), answer.is_err());
        Ok(answer?.into_inner())
    }

    /// Name and version of the runtime.
    pub(crate) async fn version(&self) -> Result<cri::VersionResponse, Error> {
        let request = cri::VersionRequest { version: "v1".into() };
        self.within("version", self.timeout, self.clients.runtime.clone().version(request)).await
    }

    /// RuntimeReady and NetworkReady, and what the runtime can do.
    pub(crate) async fn status(&self) -> Result<cri::StatusResponse, Error> {
        let request = cri::StatusRequest { verbose: false };
        self.within("status", self.timeout, self.clients.runtime.clone().status(request)).await
    }

    /// Tells the runtime the node's pod CIDR.
    pub(crate) async fn set_pod_cidr(&self, pod_cidr: &str) -> Result<(), Error> {
        let network_config = Some(cri::NetworkConfig { pod_cidr: pod_cidr.into() });
        let request = cri::UpdateRuntimeConfigRequest { runtime_config: Some(cri::RuntimeConfig { network_config }) };
        self.within("update_runtime_config", self.timeout, self.clients.runtime.clone().update_runtime_config(request))
            .await?;
        Ok(())
    }

    /// Starts a sandbox and gives its id.
    pub(crate) async fn run_pod_sandbox(&self, config: cri::PodSandboxConfig, handler: &str) -> Result<String, Error> {
        let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.into() };
        // Upstream doubles the deadline here: the sandbox's image may have to be pulled.
        let answer = self
            .within("run_podsandbox", self.timeout * 2, self.clients.runtime.clone().run_pod_sandbox(request))
            .await?;
        Ok(answer.pod_sandbox_id)
    }

    /// Stops a sandbox and everything in it.
    pub(crate) async fn stop_pod_sandbox(&self, id: &str) -> Result<(), Error> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.into() };
        gone_is_fine(
            self.within("stop_podsandbox", self.timeout, self.clients.runtime.clone().stop_pod_sandbox(request)).await,
        )
    }

    /// Removes a stopped sandbox and its containers.
    pub(crate) async fn remove_pod_sandbox(&self, id: &str) -> Result<(), Error> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.into() };
        gone_is_fine(
            self.within("remove_podsandbox", self.timeout, self.clients.runtime.clone().remove_pod_sandbox(request))
                .await,
        )
    }

    /// Sandboxes of one pod, or all.
    pub(crate) async fn list_sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<cri::PodSandbox>, Error> {
        let filter = cri::PodSandboxFilter { label_selector: uid_selector(pod_uid), ..Default::default() };
        let request = cri::ListPodSandboxRequest { filter: Some(filter) };
        Ok(self
            .within("list_podsandbox", self.timeout, self.clients.runtime.clone().list_pod_sandbox(request))
            .await?
            .items)
    }

    /// A sandbox's status, `None` when it is gone.
    pub(crate) async fn sandbox_status(&self, id: &str) -> Result<Option<cri::PodSandboxStatus>, Error> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
        match self
            .within("podsandbox_status", self.timeout, self.clients.runtime.clone().pod_sandbox_status(request))
            .await
        {
            Ok(answer) => Ok(answer.status),
            Err(Error::Cri(status)) if status.code() == tonic::Code::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a container and gives its id.
    pub(crate) async fn create_container(
        &self,
        sandbox_id: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String, Error> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.into(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(self
            .within("create_container", self.timeout, self.clients.runtime.clone().create_container(request))
            .await?
            .container_id)
    }

    /// Starts a made container.
    pub(crate) async fn start_container(&self, id: &str) -> Result<(), Error> {
        let request = cri::StartContainerRequest { container_id: id.into() };
        self.within("start_container", self.timeout, self.clients.runtime.clone().start_container(request)).await?;
        Ok(())
    }

    /// Sends the stop signal, waits `grace`, then kills.
    pub(crate) async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Error> {
        let request = cri::StopContainerRequest { container_id: id.into(), timeout: grace.as_secs() as i64 };
        let limit = self.timeout.max(grace + SLACK);
        gone_is_fine(self.within("stop_container", limit, self.clients.runtime.clone().stop_container(request)).await)
    }

    /// Removes a container, killing it if it runs.
    pub(crate) async fn remove_container(&self, id: &str) -> Result<(), Error> {
        let request = cri::RemoveContainerRequest { container_id: id.into() };
        gone_is_fine(
            self.within("remove_container", self.timeout, self.clients.runtime.clone().remove_container(request)).await,
        )
    }

    /// Containers of one pod, or all.
    pub(crate) async fn list_containers(&self, pod_uid: Option<&str>) -> Result<Vec<cri::Container>, Error> {
        let filter = cri::ContainerFilter { label_selector: uid_selector(pod_uid), ..Default::default() };
        let request = cri::ListContainersRequest { filter: Some(filter) };
        Ok(self
            .within("list_containers", self.timeout, self.clients.runtime.clone().list_containers(request))
            .await?
            .containers)
    }

    /// A container's status, `None` when it is gone.
    pub(crate) async fn container_status(&self, id: &str) -> Result<Option<cri::ContainerStatus>, Error> {
        let request = cri::ContainerStatusRequest { container_id: id.into(), verbose: false };
        match self
            .within("container_status", self.timeout, self.clients.runtime.clone().container_status(request))
            .await
        {
            Ok(answer) => Ok(answer.status),
            Err(Error::Cri(status)) if status.code() == tonic::Code::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the runtime open the container's log file anew.
    pub(crate) async fn reopen_container_log(&self, id: &str) -> Result<(), Error> {
        let request = cri::ReopenContainerLogRequest { container_id: id.into() };
        self.within("reopen_container_log", self.timeout, self.clients.runtime.clone().reopen_container_log(request))
            .await?;
        Ok(())
    }

    /// Runs a command in a container and waits for it. A zero `timeout` means none of its own.
    pub(crate) async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<cri::ExecSyncResponse, Error> {
        let request =
            cri::ExecSyncRequest { container_id: id.into(), cmd: command.to_vec(), timeout: timeout.as_secs() as i64 };
        let limit = if timeout.is_zero() { self.timeout } else { timeout + SLACK };
        self.within("exec_sync", limit, self.clients.runtime.clone().exec_sync(request)).await
    }

    /// URL of the runtime's streaming server for a command in a container.
    pub(crate) async fn exec(&self, request: cri::ExecRequest) -> Result<String, Error> {
        Ok(self.within("exec", self.timeout, self.clients.runtime.clone().exec(request)).await?.url)
    }

    /// URL of the runtime's streaming server for a container's own process.
    pub(crate) async fn attach(&self, request: cri::AttachRequest) -> Result<String, Error> {
        Ok(self.within("attach", self.timeout, self.clients.runtime.clone().attach(request)).await?.url)
    }

    /// URL of the runtime's streaming server for a sandbox's ports.
    pub(crate) async fn port_forward(&self, sandbox_id: &str, port: Vec<i32>) -> Result<String, Error> {
        let request = cri::PortForwardRequest { pod_sandbox_id: sandbox_id.into(), port };
        Ok(self.within("port_forward", self.timeout, self.clients.runtime.clone().port_forward(request)).await?.url)
    }

    /// The stream of container events; runtimes older than the evented PLEG answer `Unimplemented`.
    pub(crate) async fn container_events(&self) -> Result<tonic::Streaming<cri::ContainerEventResponse>, Error> {
        let request = cri::GetEventsRequest {};
        Ok(self.clients.runtime.clone().get_container_events(request).await?.into_inner())
    }

    /// The image, `None` when the runtime does not have it.
    pub(crate) async fn image_status(&self, image: &str) -> Result<Option<cri::Image>, Error> {
        let request = cri::ImageStatusRequest { image: Some(image_spec(image)), verbose: false };
        Ok(self.within("image_status", self.timeout, self.clients.image.clone().image_status(request)).await?.image)
    }

    /// All images.
    pub(crate) async fn list_images(&self) -> Result<Vec<cri::Image>, Error> {
        let request = cri::ListImagesRequest { filter: None };
        Ok(self.within("list_images", self.timeout, self.clients.image.clone().list_images(request)).await?.images)
    }

    /// Changes a container's limits.
    pub(crate) async fn update_container(&self, id: &str, linux: cri::LinuxContainerResources) -> Result<(), Error> {
        let request =
            cri::UpdateContainerResourcesRequest { container_id: id.into(), linux: Some(linux), ..Default::default() };
        let mut client = self.clients.runtime.clone();
        self.within("update_container", self.timeout, client.update_container_resources(request)).await?;
        Ok(())
    }

    /// Usage of the running containers of one pod, or all.
    pub(crate) async fn container_stats(&self, pod_uid: Option<&str>) -> Result<Vec<cri::ContainerStats>, Error> {
        let filter = cri::ContainerStatsFilter { label_selector: uid_selector(pod_uid), ..Default::default() };
        let request = cri::ListContainerStatsRequest { filter: pod_uid.map(|_| filter) };
        Ok(self
            .within("list_container_stats", self.timeout, self.clients.runtime.clone().list_container_stats(request))
            .await?
            .stats)
    }

    /// Where images are and how much they take.
    pub(crate) async fn image_fs(&self) -> Result<Option<cri::FilesystemUsage>, Error> {
        let request = cri::ImageFsInfoRequest {};
        let answer =
            self.within("image_fs_info", self.timeout, self.clients.image.clone().image_fs_info(request)).await?;
        Ok(answer.image_filesystems.into_iter().next())
    }

    /// Removes an image with all its names.
    pub(crate) async fn remove_image(&self, id: &str) -> Result<(), Error> {
        let request = cri::RemoveImageRequest { image: Some(image_spec(id)) };
        gone_is_fine(self.within("remove_image", self.timeout, self.clients.image.clone().remove_image(request)).await)
    }

    /// Pulls an image and gives its reference.
    pub(crate) async fn pull_image(
        &self,
        image: &str,
        auth: Option<cri::AuthConfig>,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String, Error> {
        let request =
            cri::PullImageRequest { image: Some(image_spec(image)), auth, sandbox_config: Some(sandbox_config) };
        Ok(self
            .within("pull_image", self.pull_timeout, self.clients.image.clone().pull_image(request))
            .await?
            .image_ref)
    }
}

/// An image by the name the user gave.
pub(crate) fn image_spec(image: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: image.into(), user_specified_image: image.into(), ..Default::default() }
}

fn uid_selector(pod_uid: Option<&str>) -> HashMap<String, String> {
    pod_uid.map(|uid| (labels::POD_UID.to_string(), uid.to_string())).into_iter().collect()
}

fn gone_is_fine<T>(answer: Result<T, Error>) -> Result<(), Error> {
    match answer {
        Ok(_) => Ok(()),
        Err(Error::Cri(status)) if status.code() == tonic::Code::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
