//! The runtime itself: its version, state, configuration and events.

use clap::Args;
use keelson_cri::v1::*;
use serde_json::json;

use crate::{Error, Out, Runtime, format};

/// `crictl version`
#[derive(Args, Debug)]
pub(crate) struct Version {}

impl Version {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        let request = runtime.ask(VersionRequest { version: "v1".into() });
        let answer = runtime.clients.runtime.version(request).await;
        let answer = answer.map_err(Error::call("getting the runtime version"))?.into_inner();
        let rows = [
            ("Version", answer.version),
            ("RuntimeName", answer.runtime_name),
            ("RuntimeVersion", answer.runtime_version),
            ("RuntimeApiVersion", answer.runtime_api_version),
        ];
        rows.iter().try_for_each(|(name, value)| format::line(out, &format!("{name}:  {value}")))
    }
}

/// `crictl info`
#[derive(Args, Debug)]
pub(crate) struct Info {
    /// Output format
    #[arg(long, short, value_parser = ["json", "yaml"], default_value = "json")]
    output: String,
    /// Do not show verbose information
    #[arg(long, short)]
    quiet: bool,
}

impl Info {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        let request = runtime.ask(StatusRequest { verbose: !self.quiet });
        let answer = runtime.clients.runtime.status(request).await;
        let answer = answer.map_err(Error::call("getting status of runtime"))?.into_inner();
        let mut value = format::status(format::message(&answer.status), answer.info);
        if let Some(object) = value.as_object_mut() {
            object.insert("runtimeHandlers".into(), format::message(&answer.runtime_handlers));
            object.insert("features".into(), format::message(&answer.features));
        }
        format::document(out, &value, if self.output == "yaml" { format::Output::Yaml } else { format::Output::Json })
    }
}

/// `crictl runtime-config`
#[derive(Args, Debug)]
pub(crate) struct RuntimeConfig {}

impl RuntimeConfig {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        let request = runtime.ask(RuntimeConfigRequest {});
        let answer = runtime.clients.runtime.runtime_config(request).await;
        let answer = answer.map_err(Error::call("get runtime config"))?.into_inner();
        let driver = answer.linux.map(|linux| linux.cgroup_driver().as_str_name()).unwrap_or_default();
        format::line(out, &format!("cgroup driver: {driver}"))
    }
}

/// `crictl events`
#[derive(Args, Debug)]
pub(crate) struct Events {
    /// Output format
    #[arg(long, short, value_parser = ["json", "yaml"], default_value = "json")]
    output: String,
}

impl Events {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        let events = runtime.clients.runtime.get_container_events(GetEventsRequest {}).await;
        let mut events = events.map_err(Error::call("getting container events"))?.into_inner();
        while let Some(event) = events.message().await.map_err(Error::call("getting container events"))? {
            let mut value = format::message(&event);
            let state = |state: Option<&str>| json!(state.unwrap_or_default());
            if let Some(pod) = value.get_mut("podSandboxStatus").and_then(|pod| pod.as_object_mut()) {
                let own = event.pod_sandbox_status.as_ref().map(|pod| pod.state().as_str_name());
                pod.insert("state".into(), state(own));
            }
            let shown = value.get_mut("containersStatuses").and_then(|all| all.as_array_mut()).into_iter().flatten();
            for (shown, own) in shown.zip(&event.containers_statuses) {
                if let Some(shown) = shown.as_object_mut() {
                    shown.insert("state".into(), state(Some(own.state().as_str_name())));
                }
            }
            let text = match self.output.as_str() {
                "yaml" => serde_saphyr::to_string(&value).map_err(|error| Error::Words(error.to_string()))? + "---",
                _ => value.to_string(),
            };
            format::line(out, &text)?;
        }
        Ok(())
    }
}
