//! Pods: list, inspect, stop, remove.

use clap::Args;
use keelson_cri::v1::*;

use crate::{Error, Out, Runtime, format};

/// `crictl pods`
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Filter by pod id
    #[arg(long, default_value = "", hide_default_value = true)]
    id: String,
    /// Filter by pod name regular expression pattern
    #[arg(long)]
    name: Option<String>,
    /// Filter by pod namespace regular expression pattern
    #[arg(long)]
    namespace: Option<String>,
    /// Filter by pod state
    #[arg(long, short, value_parser = ["ready", "notready"], ignore_case = true)]
    state: Option<String>,
    /// Filter by key=value label
    #[arg(long)]
    label: Vec<String>,
    /// Show verbose info for pods
    #[arg(long, short)]
    verbose: bool,
    /// List only pod IDs
    #[arg(long, short)]
    quiet: bool,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    output: format::Output,
    /// Show the most recently created pod
    #[arg(long, short)]
    latest: bool,
    /// Show the last n recently created pods; 0 for unlimited
    #[arg(long, short = 'n', default_value_t = 0)]
    last: usize,
    /// Show output without truncating the ID
    #[arg(long)]
    no_trunc: bool,
}

fn state_name(state: i32) -> &'static str {
    PodSandboxState::try_from(state).map_or("", |state| state.as_str_name())
}

fn state_word(state: i32) -> &'static str {
    if state == PodSandboxState::SandboxReady as i32 { "Ready" } else { "NotReady" }
}

impl List {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        let state = self.state.as_ref().map(|state| match state.to_ascii_lowercase().as_str() {
            "ready" => PodSandboxState::SandboxReady,
            _ => PodSandboxState::SandboxNotready,
        });
        let filter = PodSandboxFilter {
            id: self.id.clone(),
            state: state.map(|state| PodSandboxStateValue { state: state as i32 }),
            label_selector: format::labels(&self.label)?,
        };
        let request = runtime.ask(ListPodSandboxRequest { filter: Some(filter) });
        let answer =
            runtime.clients.runtime.list_pod_sandbox(request).await.map_err(Error::call("list pod sandboxes"))?;
        let (name, namespace) = (format::pattern(self.name.as_ref())?, format::pattern(self.namespace.as_ref())?);
        let mut pods = answer.into_inner().items;
        pods.retain(|pod| {
            pod.metadata.as_ref().is_none_or(|pod| name.is_match(&pod.name) && namespace.is_match(&pod.namespace))
        });
        pods.sort_by_key(|pod| std::cmp::Reverse(pod.created_at));
        let count = if self.latest { 1 } else { self.last };
        pods.truncate(if count == 0 { usize::MAX } else { count });
        if self.output != format::Output::Table {
            let items = pods.iter().map(|pod| {
                let mut value = format::message(pod);
                format::set(&mut value, "state", state_name(pod.state));
                value
            });
            return format::document(out, &serde_json::json!({"items": items.collect::<Vec<_>>()}), self.output);
        }
        let mut table = format::Table::new(&["POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT", "RUNTIME"]);
        for pod in &pods {
            let metadata = pod.metadata.clone().unwrap_or_default();
            let runtime = if pod.runtime_handler.is_empty() { "(default)" } else { &pod.runtime_handler };
            if self.quiet {
                format::line(out, &pod.id)?;
            } else if self.verbose {
                let mut text = format!(
                    "ID: {}\nName: {}\nUID: {}\nNamespace: {}\nAttempt: {}\nStatus: {}\nCreated: {}\n",
                    pod.id,
                    metadata.name,
                    metadata.uid,
                    metadata.namespace,
                    metadata.attempt,
                    state_word(pod.state),
                    format::ago(pod.created_at)
                );
                for (title, pairs) in [("Labels", &pod.labels), ("Annotations", &pod.annotations)] {
                    let mut pairs: Vec<_> = pairs.iter().collect();
                    pairs.sort();
                    text += &format!("{title}:\n");
                    text.extend(pairs.iter().map(|(key, value)| format!("\t{key} -> {value}\n")));
                }
                format::line(out, &format!("{text}Runtime: {runtime}\n"))?;
            } else {
                table.row([
                    format::short_unless(self.no_trunc, &pod.id),
                    format::ago(pod.created_at),
                    state_word(pod.state).into(),
                    metadata.name,
                    metadata.namespace,
                    metadata.attempt.to_string(),
                    runtime.into(),
                ]);
            }
        }
        if self.quiet || self.verbose { Ok(()) } else { table.print(out) }
    }
}

/// `crictl inspectp`
#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// Pods; none for all
    #[arg(value_name = "POD-ID")]
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
        for pod_sandbox_id in ids {
            let request = runtime.ask(PodSandboxStatusRequest { pod_sandbox_id, verbose: !self.quiet });
            let answer = runtime.clients.runtime.pod_sandbox_status(request).await;
            let answer = answer.map_err(Error::call("get status of pod sandbox"))?.into_inner();
            let status = answer.status.unwrap_or_default();
            let mut value = format::message(&status);
            format::set(&mut value, "state", state_name(status.state));
            format::set(&mut value, "createdAt", format::time(status.created_at));
            statuses.push(format::status(value, answer.info));
        }
        format::statuses(out, statuses, if self.output == "yaml" { format::Output::Yaml } else { format::Output::Json })
    }
}

async fn all(runtime: &mut Runtime) -> Result<Vec<String>, Error> {
    let request = runtime.ask(ListPodSandboxRequest::default());
    let answer = runtime.clients.runtime.list_pod_sandbox(request).await.map_err(Error::call("list pod sandboxes"))?;
    Ok(answer.into_inner().items.into_iter().map(|pod| pod.id).collect())
}

/// `crictl stopp`
#[derive(Args, Debug)]
pub(crate) struct Stop {
    #[arg(value_name = "POD-ID", required = true)]
    ids: Vec<String>,
}

impl Stop {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        for id in self.ids {
            stop(&mut runtime, &id).await?;
            format::line(out, &format!("Stopped sandbox {id}"))?;
        }
        Ok(())
    }
}

// Takes as long as the pod's network plugin does; no limit of this program's.
async fn stop(runtime: &mut Runtime, id: &str) -> Result<(), Error> {
    let request = StopPodSandboxRequest { pod_sandbox_id: id.into() };
    runtime.clients.runtime.stop_pod_sandbox(request).await.map(drop).map_err(Error::call("stopping the pod sandbox"))
}

/// `crictl rmp`
#[derive(Args, Debug)]
pub(crate) struct Remove {
    #[arg(value_name = "POD-ID", required_unless_present = "all")]
    ids: Vec<String>,
    /// Force removal of the pod sandbox, disregarding if running
    #[arg(long, short)]
    force: bool,
    /// Remove all pods
    #[arg(long, short)]
    all: bool,
}

impl Remove {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        let ids = if self.all { all(&mut runtime).await? } else { self.ids };
        for id in ids {
            let request = runtime.ask(PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: false });
            let answer = runtime.clients.runtime.pod_sandbox_status(request).await;
            let status = answer.map_err(Error::call("get sandbox status"))?.into_inner().status.unwrap_or_default();
            if status.state() == PodSandboxState::SandboxReady {
                if !self.force {
                    return Err(Error::Words(format!("pod sandbox {id:?} is running, please stop it first")));
                }
                stop(&mut runtime, &id).await?;
            }
            let request = RemovePodSandboxRequest { pod_sandbox_id: id.clone() };
            let removed = runtime.clients.runtime.remove_pod_sandbox(request).await;
            removed.map_err(Error::call("removing the pod sandbox"))?;
            format::line(out, &format!("Removed sandbox {id}"))?;
        }
        Ok(())
    }
}
