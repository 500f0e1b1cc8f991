//! CRI's RuntimeService.

use std::{pin::Pin, sync::Arc, time::Duration};

use keelson_cri::v1::{runtime_service_server::RuntimeService, *};
use tokio::task::spawn_blocking;
use tokio_stream::{Stream, StreamExt, wrappers::BroadcastStream};
use tonic::{Request, Response, Status};

use super::{detached, matches_labels};
use crate::{Error, container, core::Core, exec, handlers, metrics, sandbox, shim, shim_client, stats};

type Answer<T> = Result<Response<T>, Status>;

pub(crate) struct Service(pub(crate) Arc<Core>);

fn missing(field: &str) -> Status {
    Status::invalid_argument(format!("{field} is missing"))
}

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        Ok(Response::new(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: keelson_cri::RUNTIME_NAME.into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let request = request.into_inner();
        let config = request.config.ok_or_else(|| missing("config"))?;
        let core = self.0.clone();
        let pod_sandbox_id =
            detached(async move { sandbox::run(&core, config, request.runtime_handler).await }).await?;
        Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id }))
    }

    async fn stop_pod_sandbox(&self, request: Request<StopPodSandboxRequest>) -> Answer<StopPodSandboxResponse> {
        // What is not there has been stopped.
        if let Ok(found) = self.0.sandbox(&request.into_inner().pod_sandbox_id) {
            let core = self.0.clone();
            detached(async move { sandbox::stop(&core, &found).await }).await?;
        }
        Ok(Response::new(StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(&self, request: Request<RemovePodSandboxRequest>) -> Answer<RemovePodSandboxResponse> {
        if let Ok(found) = self.0.sandbox(&request.into_inner().pod_sandbox_id) {
            let core = self.0.clone();
            detached(async move { sandbox::remove(&core, &found).await }).await?;
        }
        Ok(Response::new(RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(&self, request: Request<PodSandboxStatusRequest>) -> Answer<PodSandboxStatusResponse> {
        let request = request.into_inner();
        let found = self.0.sandbox(&request.pod_sandbox_id)?;
        let statuses = self.0.containers_of(&found.id).iter().map(|container| container.status(&self.0)).collect();
        let mut info = std::collections::HashMap::new();
        if request.verbose {
            info.insert("info".into(), crate::info::sandbox(&self.0, &found).to_string());
        }
        Ok(Response::new(PodSandboxStatusResponse {
            status: Some(found.status()),
            info,
            containers_statuses: statuses,
            timestamp: crate::core::now_ns(),
        }))
    }

    async fn list_pod_sandbox(&self, request: Request<ListPodSandboxRequest>) -> Answer<ListPodSandboxResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let wanted = |entry: &PodSandbox| {
            entry.id.starts_with(&filter.id)
                && filter.state.as_ref().is_none_or(|state| state.state == entry.state)
                && matches_labels(&entry.labels, &filter.label_selector)
        };
        let items = self.0.sandboxes().iter().map(|found| found.list_entry()).filter(wanted).collect();
        Ok(Response::new(ListPodSandboxResponse { items }))
    }

    async fn create_container(&self, request: Request<CreateContainerRequest>) -> Answer<CreateContainerResponse> {
        let request = request.into_inner();
        let config = request.config.ok_or_else(|| missing("config"))?;
        let sandbox = self.0.sandbox(&request.pod_sandbox_id)?;
        let sandbox_config = request.sandbox_config.unwrap_or_else(|| sandbox.config());
        let core = self.0.clone();
        let container_id =
            detached(async move { container::create(&core, &sandbox, config, sandbox_config).await }).await?;
        Ok(Response::new(CreateContainerResponse { container_id }))
    }

    async fn start_container(&self, request: Request<StartContainerRequest>) -> Answer<StartContainerResponse> {
        let (core, found) = (self.0.clone(), self.0.container(&request.into_inner().container_id)?);
        detached(async move { container::start(&core, &found).await }).await?;
        Ok(Response::new(StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let request = request.into_inner();
        if let Ok(found) = self.0.container(&request.container_id) {
            let core = self.0.clone();
            let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
            // The caller's deadline counts here: a kubelet that gives up asks again with less grace.
            container::stop(&core, &found, grace).await?;
        }
        Ok(Response::new(StopContainerResponse {}))
    }

    async fn remove_container(&self, request: Request<RemoveContainerRequest>) -> Answer<RemoveContainerResponse> {
        if let Ok(found) = self.0.container(&request.into_inner().container_id) {
            let core = self.0.clone();
            detached(async move { container::remove(&core, &found).await }).await?;
        }
        Ok(Response::new(RemoveContainerResponse {}))
    }

    async fn list_containers(&self, request: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let wanted = |entry: &Container| {
            entry.id.starts_with(&filter.id)
                && entry.pod_sandbox_id.starts_with(&filter.pod_sandbox_id)
                && filter.state.as_ref().is_none_or(|state| state.state == entry.state)
                && matches_labels(&entry.labels, &filter.label_selector)
        };
        let containers = self.0.containers().iter().map(|found| found.list_entry()).filter(wanted).collect();
        Ok(Response::new(ListContainersResponse { containers }))
    }

    async fn container_status(&self, request: Request<ContainerStatusRequest>) -> Answer<ContainerStatusResponse> {
        let request = request.into_inner();
        let found = self.0.container(&request.container_id)?;
        let mut info = std::collections::HashMap::new();
        if request.verbose {
            info.insert("info".into(), crate::info::container(&found).to_string());
        }
        Ok(Response::new(ContainerStatusResponse { status: Some(found.status(&self.0)), info }))
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let found = self.0.container(&request.container_id)?;
        if let Some(resources) = request.linux {
            let core = self.0.clone();
            // Lowering a limit may take the kernel a while, and nobody else is to wait. One change after the other.
            super::detached(async move {
                let _changing = found.changing.lock().await;
                let container = found.clone();
                let update = spawn_blocking(move || crate::resources::update(&container, &resources, &core.machine));
                update.await.map_err(|error| Error::Other(error.to_string()))?
            })
            .await?;
        }
        Ok(Response::new(UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        let found = self.0.container(&request.into_inner().container_id)?;
        let reopen = shim::protocol::Request::ReopenLog { id: found.id.clone() };
        match shim_client::ask(&found.sandbox.state, &reopen).await? {
            shim::protocol::Reply::Ok => Ok(Response::new(ReopenContainerLogResponse {})),
            shim::protocol::Reply::Error { message } => Err(Error::Shim(message).into()),
            _ => Err(Error::Precondition("container is not running".into()).into()),
        }
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let request = request.into_inner();
        let found = self.0.container(&request.container_id)?;
        let limit = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        let limit = (!limit.is_zero()).then_some(limit);
        Ok(Response::new(exec::sync(&found, &request.cmd, limit).await?))
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecResponse> {
        let url = crate::streaming::exec_url(&self.0, request.into_inner())?;
        Ok(Response::new(ExecResponse { url }))
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Answer<AttachResponse> {
        let url = crate::streaming::attach_url(&self.0, request.into_inner())?;
        Ok(Response::new(AttachResponse { url }))
    }

    async fn port_forward(&self, request: Request<PortForwardRequest>) -> Answer<PortForwardResponse> {
        let url = crate::streaming::port_forward_url(&self.0, request.into_inner())?;
        Ok(Response::new(PortForwardResponse { url }))
    }

    async fn container_stats(&self, request: Request<ContainerStatsRequest>) -> Answer<ContainerStatsResponse> {
        let found = self.0.container(&request.into_inner().container_id)?;
        Ok(Response::new(ContainerStatsResponse { stats: Some(stats::container(&found).await) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let wanted = |found: &Arc<crate::core::Container>| {
            found.id.starts_with(&filter.id)
                && found.sandbox.id.starts_with(&filter.pod_sandbox_id)
                && found.is_running()
                && found.with(|record| {
                    record.config.as_ref().is_some_and(|c| matches_labels(&c.labels, &filter.label_selector))
                })
        };
        let found: Vec<_> = self.0.containers().into_iter().filter(wanted).collect();
        let stats = futures::future::join_all(found.iter().map(|found| stats::container(found))).await;
        Ok(Response::new(ListContainerStatsResponse { stats }))
    }

    async fn pod_sandbox_stats(&self, request: Request<PodSandboxStatsRequest>) -> Answer<PodSandboxStatsResponse> {
        let found = self.0.sandbox(&request.into_inner().pod_sandbox_id)?;
        Ok(Response::new(PodSandboxStatsResponse { stats: Some(stats::sandbox(&self.0, &found).await) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<ListPodSandboxStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let mut stats = Vec::new();
        for found in self.0.sandboxes() {
            let labels = found.list_entry().labels;
            if found.is_ready() && found.id.starts_with(&filter.id) && matches_labels(&labels, &filter.label_selector) {
                stats.push(stats::sandbox(&self.0, &found).await);
            }
        }
        Ok(Response::new(ListPodSandboxStatsResponse { stats }))
    }

    async fn update_runtime_config(
        &self,
        _: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        // The pod CIDR reaches pods through the network plugin's configuration, which the node agent writes.
        Ok(Response::new(UpdateRuntimeConfigResponse {}))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        let condition = |kind: &str, status, reason: &str, message: String| RuntimeCondition {
            r#type: kind.into(),
            status,
            reason: reason.into(),
            message,
        };
        let network = match self.0.cni.network() {
            Ok(_) => condition("NetworkReady", true, "", String::new()),
            Err(error) => condition("NetworkReady", false, "NetworkPluginNotReady", error.to_string()),
        };
        let own = RuntimeHandlerFeatures {
            recursive_read_only_mounts: true,
            user_namespaces: self.0.machine.user_namespaces,
        };
        let other = |features: &handlers::Features| RuntimeHandlerFeatures {
            recursive_read_only_mounts: features.recursive_read_only,
            user_namespaces: false,
        };
        let others = self.0.handlers.iter().map(|(name, features)| (name.clone(), other(features)));
        let handlers = std::iter::once((String::new(), own)).chain(others);
        let runtime_handlers =
            handlers.map(|(name, features)| RuntimeHandler { name, features: Some(features) }).collect();
        Ok(Response::new(StatusResponse {
            status: Some(RuntimeStatus {
                conditions: vec![condition("RuntimeReady", true, "", String::new()), network],
            }),
            info: if request.into_inner().verbose { crate::info::runtime(&self.0) } else { Default::default() },
            runtime_handlers,
            features: Some(RuntimeFeatures { supplemental_groups_policy: true }),
        }))
    }

    async fn checkpoint_container(
        &self,
        _: Request<CheckpointContainerRequest>,
    ) -> Answer<CheckpointContainerResponse> {
        Err(Error::Unsupported("checkpointing containers is not supported by this runtime".into()).into())
    }

    type GetContainerEventsStream = Pin<Box<dyn Stream<Item = Result<ContainerEventResponse, Status>> + Send>>;

    async fn get_container_events(&self, _: Request<GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        let lagged =
            |_| Status::resource_exhausted("the listener was too slow and missed events; list, and listen again");
        let events = BroadcastStream::new(self.0.events.subscribe()).map(move |event| event.map_err(lagged));
        let shutdown = self.0.shutdown.clone();
        let events = async_stream_until(events, async move { shutdown.cancelled().await });
        Ok(Response::new(Box::pin(events)))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<ListMetricDescriptorsRequest>,
    ) -> Answer<ListMetricDescriptorsResponse> {
        Ok(Response::new(ListMetricDescriptorsResponse { descriptors: metrics::descriptors() }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<ListPodSandboxMetricsRequest>,
    ) -> Answer<ListPodSandboxMetricsResponse> {
        let mut pod_metrics = Vec::new();
        for found in self.0.sandboxes().into_iter().filter(|found| found.is_ready()) {
            pod_metrics.push(metrics::of_sandbox(&self.0, &found).await);
        }
        Ok(Response::new(ListPodSandboxMetricsResponse { pod_metrics }))
    }

    async fn runtime_config(&self, _: Request<RuntimeConfigRequest>) -> Answer<RuntimeConfigResponse> {
        let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs as i32 };
        Ok(Response::new(RuntimeConfigResponse { linux: Some(linux) }))
    }
}

/// `stream`, ended by `end`: a listener must not hold up the server's end.
fn async_stream_until<S: Stream + Send + 'static>(
    stream: S,
    end: impl Future<Output = ()> + Send + 'static,
) -> impl Stream<Item = S::Item> + Send {
    futures::StreamExt::take_until(stream, Box::pin(end))
}
