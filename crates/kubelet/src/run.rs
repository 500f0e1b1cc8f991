//! Putting a kubelet together and running it.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use keelson_client::{EventRecorder, SharedInformer};
use kube::Api;
use kube::runtime::watcher;
use parking_lot::RwLock;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::cgroup::Cgroups;
use crate::config::Config;
use crate::context::{Context, PodTable, RuntimeHealth};
use crate::devices::Devices;
use crate::error::Error;
use crate::image_gc::ImageGc;
use crate::images::Images;
use crate::managers::{self, Managers};
use crate::metrics::Metrics;
use crate::node::machine::{self, Machine};
use crate::node::{self, health};
use crate::objects::Objects;
use crate::pod::sandbox::Resolver;
use crate::resources::{self, Limits, Swap};
use crate::runtime::Runtime;
use crate::security::Abilities;
use crate::server::Server;
use crate::static_pods::{self, mirror};
use crate::stats::Stats;
use crate::volumes::Volumes;
use crate::{eviction, image_gc, manager, node_shutdown, pleg, pod_resources, quantity, rotation};

/// Unknown pods waiting to be cleaned up.
const UNKNOWN_CAPACITY: usize = 256;

/// Runs the kubelet until `shutdown`. Containers go on after that.
pub async fn run(client: kube::Client, mut config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    check_machine(&config)?;
    make_directories(&config)?;
    reserve_cpus(&mut config)?;
    let server = Server::bind(&config).await?;
    let machine = Machine::read(&config);
    let ctx = Arc::new(context(client, config, &machine)?);
    // Known before the first pod is looked at, so that nobody waits for a check that says "all is well".
    ctx.health.send_replace(health::check(&ctx).await.unwrap_or_else(health::down));
    if let Ok(version) = ctx.runtime.version().await {
        *ctx.runtime_name.write() = version.runtime_name;
    }
    ctx.images.recover().await;
    let cpu = ctx.allocatable.get("cpu").map(quantity::milli).unwrap_or(machine.cpu_milli);
    ctx.cgroups.set_up(resources::shares(cpu), i64::try_from(ctx.pods_memory_bytes).unwrap_or(i64::MAX))?;
    let fields = format!("spec.nodeName={}", ctx.config.node_name);
    let pods =
        SharedInformer::start(Api::<Pod>::all(ctx.client.clone()), watcher::Config::default().fields(&fields), None);
    let (unknown, unknown_pods) = mpsc::channel(UNKNOWN_CAPACITY);
    let port = server.port();
    let statics = match &ctx.config.static_pod_path {
        Some(path) => static_pods::read(path, &ctx.config.node_name),
        None => static_pods::Set::new(),
    };
    let statics = watch::Sender::new(statics);
    let (static_pods, wanted) = (statics.subscribe(), statics.subscribe());
    let mirrors = watch::Sender::new(None);
    let (known_mirrors, static_pod_ended) = (mirrors.subscribe(), Arc::new(Notify::new()));
    tokio::join!(
        node::run(ctx.clone(), machine, port, shutdown.clone()),
        health::run(ctx.clone(), shutdown.clone()),
        pleg::run(ctx.clone(), unknown, shutdown.clone()),
        rotation::run(ctx.clone(), shutdown.clone()),
        ctx.devices.clone().run(shutdown.clone()),
        eviction::run(ctx.clone(), shutdown.clone()),
        managers::run(ctx.clone(), shutdown.clone()),
        pod_resources::run(ctx.clone(), shutdown.clone()),
        image_gc::run(ctx.clone(), shutdown.clone()),
        node_shutdown::run(ctx.clone(), shutdown.clone()),
        server.run(ctx.clone(), shutdown.clone()),
        manager::run(
            ctx.clone(),
            manager::Sources {
                pods,
                unknown: unknown_pods,
                statics: static_pods,
                mirrors,
                ended: static_pod_ended.clone()
            },
            shutdown.clone(),
        ),
        mirror::keep(ctx.clone(), wanted, known_mirrors, static_pod_ended, shutdown.clone()),
        async {
            if let Some(path) = ctx.config.static_pod_path.clone() {
                static_pods::follow(path, ctx.config.node_name.clone(), statics, shutdown.clone()).await;
            } else {
                shutdown.cancelled().await;
            }
        },
    );
    Ok(())
}

/// `reservedSystemCPUs` goes before what is reserved of CPU by amount.
fn reserve_cpus(config: &mut Config) -> Result<(), Error> {
    if config.reserved_system_cpus.is_empty() {
        return Ok(());
    }
    let cpus = managers::reserved_cpus(&config.reserved_system_cpus, &topology()?)?;
    config.kube_reserved.remove("cpu");
    let count = i64::try_from(cpus.len()).unwrap_or(i64::MAX);
    config.system_reserved.insert("cpu".into(), quantity::from_count(count));
    Ok(())
}

fn topology() -> Result<managers::topology::Topology, Error> {
    let memory = machine::meminfo("MemTotal:").and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
    managers::topology::Topology::read(std::path::Path::new("/sys"), memory)
}

/// Whether the machine is one that the configuration takes.
fn check_machine(config: &Config) -> Result<(), Error> {
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    if config.fail_swap_on && swaps.lines().count() > 1 {
        return Err(Error::message(format!(
            "running with swap on is not supported, please disable swap or set failSwapOn to false. /proc/swaps \
             contained: {:?}",
            swaps.lines().collect::<Vec<_>>()
        )));
    }
    let cgroups = Cgroups::new(&config.cgroup_mount, &config.cgroup_root, config.cgroups_per_qos);
    if config.fail_cgroup_v1 && !cgroups.is_v2() {
        return Err(Error::message(
            "kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will be \
             removed in a future release",
        ));
    }
    Ok(())
}

fn make_directories(config: &Config) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    for dir in [&config.root_dir, &config.root_dir.join("pods")] {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o750).create(dir).map_err(Error::file("create", dir))?;
    }
    if let Some(path) = config.static_pod_path.as_ref().filter(|path| !path.exists()) {
        std::fs::create_dir_all(path).map_err(Error::file("create", path))?;
    }
    for dir in [&config.pod_logs_dir, &config.container_logs_dir] {
        std::fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
    }
    Ok(())
}

fn context(client: kube::Client, config: Config, machine: &Machine) -> Result<Context, Error> {
    let metrics = Arc::new(Metrics::new(&config.node_name).map_err(|error| Error::message(error.to_string()))?);
    let runtime = Runtime::connect(
        &config.container_runtime_endpoint,
        config.runtime_request_timeout,
        config.image_pull_deadline,
        metrics.clone(),
    )?;
    let events = EventRecorder::new(client.clone(), "kubelet", Some(&config.node_name));
    let cgroups = Cgroups::new(&config.cgroup_mount, &config.cgroup_root, config.cgroups_per_qos);
    let services = SharedInformer::start(Api::<Service>::all(client.clone()), watcher::Config::default(), Some(slim));
    let runtime_classes =
        SharedInformer::start(Api::<RuntimeClass>::all(client.clone()), watcher::Config::default(), None);
    let objects = Arc::new(Objects::new(&client));
    let devices = Devices::new(&config.root_dir);
    let memory_bytes = u64::try_from(machine.memory_bytes).unwrap_or(0);
    let managers = Managers::new(&config, topology()?, memory_bytes, devices.clone(), metrics.managers().clone())?;
    Ok(Context {
        devices,
        managers,
        volumes: Volumes::new(&config.root_dir, &client, objects.clone(), config.enabled("GitRepoVolumeDriver")),
        images: Images::new(runtime.clone(), objects.clone(), events.clone(), &config)?,
        limits: Limits {
            memory_capacity_bytes: machine.memory_bytes,
            cpu_cfs_quota: config.cpu_cfs_quota,
            cgroup_v2: cgroups.is_v2(),
            swap: match config.swap_behavior.as_str() {
                _ if !cgroups.counts_swap() => Swap::Unaccounted,
                "LimitedSwap" => Swap::Limited(machine.swap_bytes),
                _ => Swap::None,
            },
            huge_page_sizes: machine.huge_page_sizes.clone(),
            min_oom_score_adj: machine::min_oom_score_adj(),
        },
        allocatable: machine.allocatable(&config),
        host_ips: vec![config.node_ip.to_string()],
        node_dns: Resolver::parse(&std::fs::read_to_string(&config.resolv_conf).unwrap_or_default()),
        health: watch::Sender::new(RuntimeHealth::default()),
        node: watch::Sender::new(None),
        check_health: Notify::new(),
        runtime_name: RwLock::default(),
        abilities: RwLock::new(Abilities::of_kernel()),
        pods: PodTable::default(),
        stats: Stats::default(),
        image_gc: ImageGc::default(),
        node_conditions: watch::Sender::new(BTreeSet::new()),
        shutting_down: watch::Sender::new(false),
        pods_memory_bytes: machine::pods_memory_bytes(machine, &config).max(0) as u64,
        metrics,
        started: keelson_client::clock::now(),
        machine: machine.clone(),
        config,
        client,
        runtime,
        events,
        cgroups,
        services,
        runtime_classes,
        objects,
    })
}

/// Only what environment variables are made of.
fn slim(service: &mut Service) {
    service.status = None;
    service.metadata.labels = None;
    service.metadata.annotations = None;
    if let Some(spec) = &mut service.spec {
        spec.selector = None;
    }
}
