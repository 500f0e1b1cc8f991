//! The runtime, a pod's shim and its helpers are killed at every step of the pod's life (`src/steps.rs`), alone and
//! together. Who drives the pod does what a kubelet does: looks what there is, and goes on from there. The container must
//! run once at a time and end with its own exit code, and in the end nothing is left.

mod world;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use keelson_cri::v1::*;
use tokio::{sync::Semaphore, task::JoinSet};
use world::World;

/// Pods that live at the same time.
const AT_ONCE: usize = 6;
const LIMIT: Duration = Duration::from_secs(60);

/// Whom a process kills that comes to the step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Victims {
    Itself,
    /// The process that started it.
    Parent,
    Server,
    ServerAndItself,
    ServerAndParent,
    All,
}
use Victims::*;

/// Every step, and the kills at it.
#[rustfmt::skip]
const STEPS: &[(&str, &[Victims])] = &[
    // The server, making a pod.
    ("sandbox-recorded", &[Itself]), ("sandbox-pinned", &[Itself]), ("sandbox-namespaces", &[Itself]),
    ("sandbox-shim", &[Itself]), ("cni-adding", &[Server]), ("sandbox-attached", &[Itself]), ("sandbox-networked", &[Itself]),
    ("sandbox-ready", &[Itself]),
    // Its shim.
    ("shim-pause-started", &[Itself, Server, ServerAndItself]), ("shim-pause-noted", &[Itself, Server, ServerAndItself]),
    ("shim-pause-unpinned", &[Itself, Server, ServerAndItself]), ("shim-listening", &[Itself, Server, ServerAndItself]),
    ("shim-ready", &[Itself, Server, ServerAndItself]),
    // The server, making and starting a container.
    ("container-recorded", &[Itself]), ("container-mounted", &[Itself]), ("container-written", &[Itself]),
    ("container-created", &[Itself]), ("start-recorded", &[Itself]), ("start-answered", &[Itself]), ("start-running", &[Itself]),
    // The shim and its helper.
    ("shim-launch-noted", &[Itself, Server, ServerAndItself]), ("shim-helper-started", &[Itself, Server, ServerAndItself]),
    ("helper-began", &[Itself, Parent, Server, ServerAndParent, All]),
    ("helper-created", &[Itself, Parent, Server, ServerAndParent, All]),
    ("helper-noted", &[Itself, Parent, Server, ServerAndParent, All]),
    ("helper-started", &[Itself, Parent, Server, ServerAndParent, All]),
    ("helper-done", &[Parent, Server, ServerAndParent]),
    ("shim-launched", &[Itself, Server, ServerAndItself]),
    // The end of a container. What ends while neither shim nor runtime lives is known to nobody: no such kill.
    ("shim-exit-seen", &[Itself, Server]), ("shim-exit-noted", &[Itself, Server, ServerAndItself]),
    ("shim-released", &[Itself, Server, ServerAndItself]), ("exit-heard", &[Itself]), ("exit-recorded", &[Itself]),
    // Stopping and removing.
    ("stop-signalled", &[Itself]), ("stop-killed", &[Itself]), ("container-unmounted", &[Itself]),
    ("container-half-removed", &[Itself]), ("stopping-recorded", &[Itself]), ("stopping-detached", &[Itself]),
    ("shim-stopping", &[Itself, Server, ServerAndItself]), ("stopping-shim", &[Itself]), ("stopping-dismantled", &[Itself]),
    ("sandbox-half-removed", &[Itself]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_every_step_lose_nothing_and_leave_nothing() {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let only = std::env::var("KEELSON_STEP").unwrap_or_default();
    let mut lives = JoinSet::new();
    for (step, victims) in STEPS.iter().flat_map(|(step, all)| all.iter().map(move |victims| (*step, *victims))) {
        if step.starts_with(&only) {
            let slots = slots.clone();
            lives.spawn(async move {
                let _slot = slots.acquire().await.unwrap();
                let begin = Instant::now();
                let life =
                    tokio::spawn(
                        async move { tokio::time::timeout(LIMIT, Life::new(step, victims).await.live()).await },
                    );
                let outcome = match life.await {
                    Ok(Ok(())) => None,
                    Ok(Err(_)) => Some("it took too long".to_owned()),
                    Err(panic) => {
                        let panic = panic.into_panic();
                        let words = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
                        panic.downcast_ref::<String>().cloned().or(words)
                    }
                };
                println!("{step} {victims:?}: {} ms", begin.elapsed().as_millis());
                outcome.map(|why| format!("{step}, {victims:?} killed: {why}"))
            });
        }
    }
    let failures: Vec<String> = lives.join_all().await.into_iter().flatten().collect();
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n\n"));
}

/// One pod's life with one kill in it.
struct Life {
    world: World,
    step: &'static str,
    victims: Victims,
    pod: PodSandboxConfig,
    /// Mounted into the container; says what happened there.
    out: PathBuf,
}

impl Life {
    async fn new(step: &'static str, victims: Victims) -> Self {
        let mut world = World::new().await;
        let out = world.dir.path().join("out");
        std::fs::create_dir(&out).unwrap();
        let mut pod = world.pod("life");
        if step.starts_with("shim-pause") {
            let linux = pod.linux.as_mut().and_then(|linux| linux.security_context.as_mut()).unwrap();
            linux.namespace_options = Some(NamespaceOption { pid: NamespaceMode::Pod as i32, ..Default::default() });
        }
        let server = world.server_pid();
        let text = match victims {
            Itself => "self".into(),
            Parent => "parent".into(),
            Server => server.to_string(),
            ServerAndItself => format!("{server} self"),
            ServerAndParent => format!("{server} parent"),
            All => format!("{server} parent self"),
        };
        std::fs::write(world.dir.path().join("steps").join(step), text).unwrap();
        Self { world, step, victims, pod, out }
    }

    async fn live(mut self) {
        let sandbox = self.sandbox().await;
        let script = "echo start >> /out/starts; echo begun; while [ ! -e /out/go ]; do sleep 0.02; done;
            echo last words; exit 7";
        let main = self.running(&sandbox, "main", script).await;
        self.world.logged("main.log", "stdout F begun").await;
        std::fs::write(self.out.join("go"), "").unwrap();
        let status = self.ended(&main).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"), "{}", self.world.log());
        let starts = std::fs::read_to_string(self.out.join("starts")).unwrap().lines().count();
        // Only a start of which nobody can know whether it happened may be undone. A helper that outlives its parents may have
        // got just as far.
        let went_on = self.step.starts_with("helper-") && matches!(self.victims, Parent | ServerAndParent);
        let unknown = self.step == "helper-started" || went_on;
        assert!(starts == 1 || starts == 2 && unknown, "it was started {starts} times");
        let both = matches!(self.victims, ServerAndItself | ServerAndParent | All);
        if !both {
            self.world.logged("main.log", "stdout F last words").await;
        }
        if self.step.starts_with("stop-") {
            self.stop_another(&sandbox).await;
        }
        loop {
            let removed = self.remove_pods().await;
            if !self.went_on(&removed).await && self.pods().await.is_empty() {
                removed.unwrap();
                break;
            }
        }
        let reached = self.world.dir.path().join("steps").join(format!("{}.reached", self.step));
        assert!(reached.exists(), "the pod's life has no such step");
        self.world.finish().await;
    }

    /// A container that ends because it is asked to, or is killed.
    async fn stop_another(&mut self, sandbox: &str) {
        let side = self.running(sandbox, "side", "trap 'exit 5' TERM; echo begun; while :; do sleep 0.02; done").await;
        self.world.logged("side.log", "stdout F begun").await;
        let grace = if self.step == "stop-killed" { 0 } else { 20 };
        let status = loop {
            let request = StopContainerRequest { container_id: side.clone(), timeout: grace };
            let stopped = self.world.clients.runtime.stop_container(request).await;
            if !self.went_on(&stopped).await {
                stopped.unwrap();
                break self.ended(&side).await;
            }
        };
        assert_eq!(status.exit_code, if grace == 0 { 137 } else { 5 }, "{}", self.world.log());
    }

    /// First processes of the containers of this name: forks of theirs go by the same command line.
    fn processes(&self, name: &str) -> Vec<i32> {
        let found = world::processes_of(&self.world.dir.path().join(name), 0);
        let parent = |pid: &i32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse::<i32>().ok()
        };
        found.iter().copied().filter(|pid| parent(pid).is_some_and(|parent| !found.contains(&parent))).collect()
    }

    /// Starts the server again if it was killed, of which `answer` is a sign; whether it was.
    async fn went_on<T>(&mut self, answer: &Result<T, tonic::Status>) -> bool {
        let deadline = Instant::now() + Duration::from_millis(200);
        loop {
            if self.world.revive().await {
                return true;
            }
            if answer.is_ok() || Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn pods(&mut self) -> Vec<PodSandbox> {
        loop {
            let answer = self.world.clients.runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await;
            if let Ok(pods) = answer {
                return pods.into_inner().items;
            }
            assert!(self.went_on(&answer).await, "{answer:?}");
        }
    }

    async fn containers(&mut self, name: &str) -> Vec<Container> {
        loop {
            let answer = self.world.clients.runtime.list_containers(ListContainersRequest::default()).await;
            if let Ok(all) = answer {
                let named = |c: &Container| c.metadata.as_ref().is_some_and(|metadata| metadata.name == name);
                return all.into_inner().containers.into_iter().filter(named).collect();
            }
            assert!(self.went_on(&answer).await, "{answer:?}");
        }
    }

    async fn remove_pods(&mut self) -> Result<(), tonic::Status> {
        for pod in self.pods().await {
            let request = StopPodSandboxRequest { pod_sandbox_id: pod.id.clone() };
            self.world.clients.runtime.stop_pod_sandbox(request).await?;
            let request = RemovePodSandboxRequest { pod_sandbox_id: pod.id };
            self.world.clients.runtime.remove_pod_sandbox(request).await?;
        }
        Ok(())
    }

    /// A pod that is ready: the one there is, or another.
    async fn sandbox(&mut self) -> String {
        for attempt in 100.. {
            let ready = self.pods().await.into_iter().find(|pod| pod.state() == PodSandboxState::SandboxReady);
            if let Some(pod) = ready {
                return pod.id;
            }
            if self.remove_pods().await.is_ok() {
                self.pod.metadata.as_mut().unwrap().attempt = attempt;
                let request = RunPodSandboxRequest { config: Some(self.pod.clone()), runtime_handler: String::new() };
                let answer = self.world.clients.runtime.run_pod_sandbox(request).await;
                assert!(answer.is_ok() || attempt < 110, "{answer:?}\n{}", self.world.log());
                self.went_on(&answer).await;
            }
            self.world.revive().await;
        }
        unreachable!()
    }

    /// A running container: the one there is, or another.
    async fn running(&mut self, sandbox: &str, name: &str, script: &str) -> String {
        for attempt in 0.. {
            assert!(attempt < 10, "{}", self.world.log());
            let found = self.containers(name).await;
            if let Some(running) = found.iter().find(|found| found.state() == ContainerState::ContainerRunning) {
                let found = self.processes(name);
                assert_eq!(found.len(), 1, "it runs once: {found:?}");
                return running.id.clone();
            }
            for old in found {
                let request = RemoveContainerRequest { container_id: old.id };
                let answer = self.world.clients.runtime.remove_container(request).await;
                self.went_on(&answer).await;
            }
            let label = self.world.dir.path().join(name);
            let running = self.processes(name);
            assert!(running.is_empty(), "a container runs that nobody knows of: {running:?}");
            let mut config = self.world.shell(name, &format!(": {}; {script}", label.display()));
            config.metadata = Some(ContainerMetadata { name: name.into(), attempt });
            config.mounts.push(Mount {
                container_path: "/out".into(),
                host_path: self.out.to_str().unwrap().into(),
                ..Default::default()
            });
            let pod = self.pod.clone();
            let created = Box::pin(self.world.create(sandbox, &pod, config)).await;
            self.went_on(&created).await;
            if let Ok(id) = created {
                let started = self.world.start_container(&id).await;
                self.went_on(&started).await;
            }
        }
        unreachable!()
    }

    async fn ended(&mut self, id: &str) -> ContainerStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let request = ContainerStatusRequest { container_id: id.into(), verbose: false };
            if let Ok(answer) = self.world.clients.runtime.container_status(request).await {
                let status = answer.into_inner().status.unwrap();
                if status.state() == ContainerState::ContainerExited {
                    return status;
                }
                assert!(Instant::now() < deadline, "{status:?}\n{}", self.world.log());
            }
            self.world.revive().await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
