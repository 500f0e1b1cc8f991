//! A cluster for the bench: how fast it starts, what it needs, and how fast a pod comes and goes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use keelson_cluster::layout::Profile;
use keelson_cluster::lifecycle::{self, Step, UpOptions};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use super::process::{self, Server};
use super::{Figure, Row, Size, millis};
use crate::cli::Failure;

/// Idle time before memory is read.
const SETTLE: Duration = Duration::from_secs(10);
/// Pods started one after the other.
const PODS: usize = 20;
const POD_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Cluster {
    place: Place,
    profile: Profile,
    client: kube::Client,
    startup: Vec<Row>,
}

/// Where a cluster is, whole or half made. It goes with its user.
struct Place {
    data_dir: PathBuf,
    removed: bool,
}

impl Place {
    fn remove(&mut self) -> Result<(), Failure> {
        self.removed = true;
        lifecycle::delete(&self.data_dir, &profile_name())?;
        std::fs::remove_dir_all(&self.data_dir)?;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.removed
            && let Err(error) = self.remove()
        {
            tracing::warn!(%error, dir = %self.data_dir.display(), "the bench's cluster is not removed");
        }
    }
}

impl Cluster {
    /// Starts it, and looks at its memory when it has settled.
    pub(super) async fn up() -> Result<Self, Failure> {
        let data_dir = std::env::temp_dir().join(format!("keelson-bench-{}", std::process::id()));
        let options = options(&data_dir)?;
        let place = Place { data_dir, removed: false };
        let start_at = Instant::now();
        let (api, profile) = start(&options).await?;
        let ready = start_at.elapsed();
        let client = keelson_client::connect::from_kubeconfig(&options.kubeconfig, None).await?;
        tokio::time::sleep(SETTLE).await;
        let (all, server) = process::memory_mib(&place.data_dir, &profile)?;
        let startup = vec![
            Row::new("API server start to /readyz", Figure::Millis(300.0), millis(api)),
            Row::new("keelson up to node Ready", Figure::Millis(1500.0), millis(ready)),
            Row::new("idle memory of the control plane (PSS)", Figure::Mib(40.0), server),
            Row::new("idle memory of the whole cluster (PSS)", Figure::Mib(64.0), all),
        ];
        Ok(Self { place, profile, client, startup })
    }

    pub(super) fn client(&self) -> &kube::Client {
        &self.client
    }

    /// The control plane's process.
    pub(super) fn server(&self) -> Result<Server, Failure> {
        Server::find(&self.place.data_dir, &self.profile)
    }

    /// Stops the cluster, starts it again, and says how many milliseconds the API server took with what is in its store.
    pub(super) async fn restart(&mut self) -> Result<f64, Failure> {
        lifecycle::down(&self.place.data_dir, &self.profile.name)?;
        let options = options(&self.place.data_dir)?;
        let (api, _) = start(&options).await?;
        self.client = keelson_client::connect::from_kubeconfig(&options.kubeconfig, None).await?;
        tokio::time::sleep(SETTLE).await;
        Ok(millis(api))
    }

    pub(super) fn startup(&self) -> impl Iterator<Item = Row> {
        self.startup.iter().cloned()
    }

    /// One pod after the other: created to Running, deleted to gone. Medians.
    pub(super) async fn pods(&self, size: Size, print: impl Fn(Row)) -> Result<(), Failure> {
        let api: Api<Pod> = Api::default_namespaced(self.client.clone());
        let (mut started, mut gone) = (Vec::new(), Vec::new());
        for index in 0..size.of(PODS) {
            let name = format!("bench-{index}");
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
                "terminationGracePeriodSeconds": 2,
                "containers": [{"name": "c", "image": "keelson.local/hello"}]}});
            let start = Instant::now();
            api.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
            until(&api, &name, |pod| pod.is_some_and(is_running)).await?;
            started.push(millis(start.elapsed()));
            let start = Instant::now();
            api.delete(&name, &DeleteParams::default()).await?;
            until(&api, &name, |pod| pod.is_none()).await?;
            gone.push(millis(start.elapsed()));
        }
        print(Row::new("one pod, created to Running (median)", Figure::Millis(150.0), median(started)));
        print(Row::new("one pod, deleted to gone (median)", Figure::Millis(100.0), median(gone)));
        Ok(())
    }

    /// Proportional set size of all of the node's processes, without containers', MiB.
    pub(super) fn memory_mib(&self) -> Result<f64, Failure> {
        Ok(process::memory_mib(&self.place.data_dir, &self.profile)?.0)
    }

    /// Processor time of all of the node's processes so far, without containers'.
    pub(super) fn cpu(&self) -> Result<Duration, Failure> {
        process::cpu(&self.place.data_dir, &self.profile)
    }

    /// The node's first process.
    pub(super) fn init_pid(&self) -> Result<u32, Failure> {
        process::init_pid(&self.place.data_dir, &self.profile)
    }

    /// Removes it.
    pub(super) fn delete(mut self) -> Result<(), Failure> {
        self.place.remove()
    }
}

fn profile_name() -> String {
    format!("bench-{}", std::process::id())
}

fn options(data_dir: &Path) -> Result<UpOptions, Failure> {
    Ok(UpOptions {
        profile: profile_name(),
        data_dir: data_dir.to_owned(),
        nodes: None,
        port: None,
        runtime: None,
        extra_config: None,
        mounts: None,
        kubeconfig: data_dir.join("kubeconfig"),
        exe: std::env::current_exe()?,
    })
}

/// Starts a cluster; also says how long the API server took.
async fn start(options: &UpOptions) -> Result<(Duration, Profile), Failure> {
    let mut api = Duration::ZERO;
    let profile = lifecycle::up(options, |step: Step| {
        if step.what == "API server ready" {
            api = step.took;
        }
    })
    .await?;
    Ok((api, profile))
}

/// Size of the binary.
pub(super) fn binary() -> Result<Row, Failure> {
    let bytes = std::fs::metadata(std::env::current_exe()?)?.len();
    Ok(Row::new("binary, all of it", Figure::Mib(40.0), bytes as f64 / f64::from(1 << 20)))
}

async fn until(api: &Api<Pod>, name: &str, condition: impl Fn(Option<&Pod>) -> bool) -> Result<(), Failure> {
    let wait = kube::runtime::wait::await_condition(api.clone(), name, condition);
    match tokio::time::timeout(POD_TIMEOUT, wait).await {
        Ok(result) => Ok(result.map(drop)?),
        Err(_) => Err(format!("pod {name} took more than {POD_TIMEOUT:?}").into()),
    }
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
