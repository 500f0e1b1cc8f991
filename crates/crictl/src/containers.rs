//! Containers: list, inspect, start, stop, update, remove.

use clap::Args;
use keelson_cri::v1::*;
use serde_json::{Value, json};

use crate::{Error, Out, Runtime, format};

const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";

/// `crictl ps`
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Show all containers
    #[arg(long, short)]
    all: bool,
    /// Filter by container id
    #[arg(long, default_value = "", hide_default_value = true)]
    id: String,
    /// Filter by container name regular expression pattern
    #[arg(long)]
    name: Option<String>,
    /// Filter by pod namespace regular expression pattern
    #[arg(long)]
    namespace: Option<String>,
    /// Filter by pod id
    #[arg(long, short, default_value = "", hide_default_value = true)]
    pod: String,
    /// Filter by container image
    #[arg(long)]
    image: Option<String>,
    /// Filter by container state
    #[arg(long, short, value_parser = ["created", "running", "exited", "unknown"], ignore_case = true)]
    state: Option<String>,
    /// Filter by key=value label
    #[arg(long)]
    label: Vec<String>,
    /// Show verbose information for containers
    #[arg(long, short)]
    verbose: bool,
    /// Only display container IDs
    #[arg(long, short)]
    quiet: bool,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    output: format::Output,
    /// Show the most recently created container (includes all states)
    #[arg(long, short)]
    latest: bool,
    /// Show n last recently created containers (includes all states); 0 for unlimited
    #[arg(long, short = 'n', default_value_t = 0)]
    last: usize,
    /// Show output without truncating the ID
    #[arg(long)]
    no_trunc: bool,
    /// Show image path instead of image id
    #[arg(long, short = 'r')]
    resolve_image_path: bool,
}

fn state_name(state: i32) -> &'static str {
    ContainerState::try_from(state).map_or("", |state| state.as_str_name())
}

fn state_word(state: i32) -> &'static str {
    match ContainerState::try_from(state) {
        Ok(ContainerState::ContainerCreated) => "Created",
        Ok(ContainerState::ContainerRunning) => "Running",
        Ok(ContainerState::ContainerExited) => "Exited",
        _ => "Unknown",
    }
}

impl List {
    fn state(&self) -> Option<ContainerStateValue> {
        let state = match self.state.as_ref().map(|state| state.to_ascii_lowercase()).as_deref() {
            Some("created") => ContainerState::ContainerCreated,
            Some("exited") => ContainerState::ContainerExited,
            Some("unknown") => ContainerState::ContainerUnknown,
            Some(_) => ContainerState::ContainerRunning,
            None if self.all => return None,
            None => ContainerState::ContainerRunning,
        };
        // The newest ones are shown whatever their state.
        let newest = self.latest || self.last > 0;
        (!newest).then_some(ContainerStateValue { state: state as i32 })
    }

    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        let filter = ContainerFilter {
            id: self.id.clone(),
            state: self.state(),
            pod_sandbox_id: self.pod.clone(),
            label_selector: format::labels(&self.label)?,
        };
        let request = runtime.ask(ListContainersRequest { filter: Some(filter) });
        let answer = runtime.clients.runtime.list_containers(request).await.map_err(Error::call("list containers"))?;
        let mut containers = answer.into_inner().containers;
        let (name, namespace) = (format::pattern(self.name.as_ref())?, format::pattern(self.namespace.as_ref())?);
        let label = |container: &Container, key| container.labels.get(key).cloned().unwrap_or("unknown".into());
        containers.retain(|container| {
            let own = container.metadata.as_ref().map(|metadata| metadata.name.as_str()).unwrap_or_default();
            name.is_match(own) && namespace.is_match(&label(container, POD_NAMESPACE))
        });
        if let Some(image) = &self.image {
            let wanted = image_id(&mut runtime, image).await?;
            let mut kept = Vec::new();
            for container in containers {
                let own = container.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
                if wanted.is_some() && image_id(&mut runtime, &own).await? == wanted {
                    kept.push(container);
                }
            }
            containers = kept;
        }
        containers.sort_by_key(|container| std::cmp::Reverse(container.created_at));
        let count = if self.latest { 1 } else { self.last };
        containers.truncate(if count == 0 { usize::MAX } else { count });
        if self.output != format::Output::Table {
            let items = containers.iter().map(|container| {
                let mut value = format::message(container);
                format::set(&mut value, "state", state_name(container.state));
                value
            });
            return format::document(out, &json!({"containers": items.collect::<Vec<_>>()}), self.output);
        }
        let mut table = format::Table::new(&[
            "CONTAINER",
            "IMAGE",
            "CREATED",
            "STATE",
            "NAME",
            "ATTEMPT",
            "POD ID",
            "POD",
            "NAMESPACE",
        ]);
        for container in &containers {
            let metadata = container.metadata.clone().unwrap_or_default();
            let mut image = container.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
            if self.resolve_image_path {
                image = image_name(&mut runtime, &image).await?.unwrap_or(image);
            } else if image.starts_with("sha256:") {
                image = format::short_unless(self.no_trunc, &image);
            }
            if self.quiet {
                format::line(out, &container.id)?;
            } else if self.verbose {
                let mut text = format!(
                    "ID: {}\nPodID: {}\nNamespace: {}\nName: {}\nAttempt: {}\nState: {}\nImage: {image}\nCreated: {}\n",
                    container.id,
                    container.pod_sandbox_id,
                    label(container, POD_NAMESPACE),
                    metadata.name,
                    metadata.attempt,
                    state_word(container.state),
                    format::ago(container.created_at)
                );
                for (title, pairs) in [("Labels", &container.labels), ("Annotations", &container.annotations)] {
                    let mut pairs: Vec<_> = pairs.iter().collect();
                    pairs.sort();
                    text += &format!("{title}:\n");
                    text.extend(pairs.iter().map(|(key, value)| format!("\t{key} -> {value}\n")));
                }
                format::line(out, &text)?;
            } else {
                table.row([
                    format::short_unless(self.no_trunc, &container.id),
                    image,
                    format::ago(container.created_at),
                    state_word(container.state).into(),
                    metadata.name,
                    metadata.attempt.to_string(),
                    format::short_unless(self.no_trunc, &container.pod_sandbox_id),
                    label(container, POD_NAME),
                    label(container, POD_NAMESPACE),
                ]);
            }
        }
        if self.quiet || self.verbose { Ok(()) } else { table.print(out) }
    }
}

async fn image(runtime: &mut Runtime, name: &str) -> Result<Option<Image>, Error> {
    let image = Some(ImageSpec { image: name.into(), ..Default::default() });
    let request = runtime.ask(ImageStatusRequest { image, verbose: false });
    let answer = runtime.clients.image.image_status(request).await.map_err(Error::call("image status"))?;
    Ok(answer.into_inner().image)
}

async fn image_id(runtime: &mut Runtime, name: &str) -> Result<Option<String>, Error> {
    Ok(image(runtime, name).await?.map(|image| image.id))
}

async fn image_name(runtime: &mut Runtime, name: &str) -> Result<Option<String>, Error> {
    Ok(image(runtime, name).await?.and_then(|image| image.repo_tags.into_iter().chain(image.repo_digests).next()))
}

/// `crictl inspect`
#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// Containers; none for all
    #[arg(value_name = "CONTAINER-ID")]
    ids: Vec<String>,
    /// Output format
    #[arg(long, short, value_parser = ["json", "yaml"], default_value = "json")]
    output: String,
    /// Do not show verbose information
    #[arg(long, short)]
    quiet: bool,
}

impl Inspect {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        let ids = if self.ids.is_empty() { all(&mut runtime).await? } else { self.ids };
        let mut statuses = Vec::new();
        for id in ids {
            let (status, info) = status(&mut runtime, &id, !self.quiet).await?;
            statuses.push(format::status(shown(&status), info));
        }
        format::statuses(out, statuses, if self.output == "yaml" { format::Output::Yaml } else { format::Output::Json })
    }
}

fn shown(status: &ContainerStatus) -> Value {
    let mut value = format::message(status);
    let started = if status.state() == ContainerState::ContainerCreated { 0 } else { status.started_at };
    let finished = if status.state() == ContainerState::ContainerRunning { 0 } else { status.finished_at };
    format::set(&mut value, "state", state_name(status.state));
    for (key, time) in [("createdAt", status.created_at), ("startedAt", started), ("finishedAt", finished)] {
        format::set(&mut value, key, format::time(time));
    }
    value
}

/// A container's status and what the runtime says beside it.
pub(crate) async fn status(
    runtime: &mut Runtime,
    id: &str,
    verbose: bool,
) -> Result<(ContainerStatus, std::collections::HashMap<String, String>), Error> {
    let request = runtime.ask(ContainerStatusRequest { container_id: id.into(), verbose });
    let answer = runtime.clients.runtime.container_status(request).await;
    let answer = answer.map_err(Error::call("get container status"))?.into_inner();
    Ok((answer.status.unwrap_or_default(), answer.info))
}

async fn all(runtime: &mut Runtime) -> Result<Vec<String>, Error> {
    let request = runtime.ask(ListContainersRequest::default());
    let answer = runtime.clients.runtime.list_containers(request).await.map_err(Error::call("list containers"))?;
    Ok(answer.into_inner().containers.into_iter().map(|container| container.id).collect())
}

/// `crictl start`
#[derive(Args, Debug)]
pub(crate) struct Start {
    #[arg(value_name = "CONTAINER-ID", required = true)]
    ids: Vec<String>,
}

impl Start {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        for id in self.ids {
            let request = StartContainerRequest { container_id: id.clone() };
            runtime.clients.runtime.start_container(request).await.map_err(Error::call("starting the container"))?;
            format::line(out, &id)?;
        }
        Ok(())
    }
}

/// `crictl stop`
#[derive(Args, Debug)]
pub(crate) struct Stop {
    #[arg(value_name = "CONTAINER-ID", required = true)]
    ids: Vec<String>,
    /// Seconds to wait to kill the container after a graceful stop is requested
    #[arg(long, short, default_value_t = 0)]
    timeout: i64,
}

impl Stop {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        for id in self.ids {
            let request = StopContainerRequest { container_id: id.clone(), timeout: self.timeout };
            runtime.clients.runtime.stop_container(request).await.map_err(Error::call("stopping the container"))?;
            format::line(out, &id)?;
        }
        Ok(())
    }
}

/// `crictl rm`
#[derive(Args, Debug)]
pub(crate) struct Remove {
    #[arg(value_name = "CONTAINER-ID", required_unless_present = "all")]
    ids: Vec<String>,
    /// Force removal of the container, disregarding if running
    #[arg(long, short)]
    force: bool,
    /// Remove all containers
    #[arg(long, short)]
    all: bool,
}

impl Remove {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        let ids = if self.all { all(&mut runtime).await? } else { self.ids };
        for id in ids {
            let (status, _) = status(&mut runtime, &id, false).await?;
            if status.state() == ContainerState::ContainerRunning && !self.force {
                return Err(Error::Words(format!("container {id:?} is running, please stop it first")));
            }
            let request = RemoveContainerRequest { container_id: id.clone() };
            runtime.clients.runtime.remove_container(request).await.map_err(Error::call("removing the container"))?;
            format::line(out, &id)?;
        }
        Ok(())
    }
}

/// `crictl update`
#[derive(Args, Debug)]
pub(crate) struct Update {
    #[arg(value_name = "CONTAINER-ID", required = true)]
    ids: Vec<String>,
    /// CPU CFS period to be used for hardcapping, in microseconds
    #[arg(long, default_value_t = 0)]
    cpu_period: i64,
    /// CPU CFS hardcap limit, in microseconds
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    cpu_quota: i64,
    /// CPU shares (relative weight vs. other containers)
    #[arg(long, default_value_t = 0)]
    cpu_share: i64,
    /// CPU(s) to use
    #[arg(long, default_value = "", hide_default_value = true)]
    cpuset_cpus: String,
    /// Memory node(s) to use
    #[arg(long, default_value = "", hide_default_value = true)]
    cpuset_mems: String,
    /// Memory limit, in bytes
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    memory: i64,
}

impl Update {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        let linux = LinuxContainerResources {
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpu_shares: self.cpu_share,
            cpuset_cpus: self.cpuset_cpus,
            cpuset_mems: self.cpuset_mems,
            memory_limit_in_bytes: self.memory,
            ..Default::default()
        };
        for id in self.ids {
            let request = runtime.ask(UpdateContainerResourcesRequest {
                container_id: id.clone(),
                linux: Some(linux.clone()),
                ..Default::default()
            });
            let updated = runtime.clients.runtime.update_container_resources(request).await;
            updated.map_err(Error::call("updating container resources"))?;
            format::line(out, &id)?;
        }
        Ok(())
    }
}
