//! Kills at bad moments: the runtime, the shim, both. Containers go on, and nothing is forgotten.

mod world;

use std::time::{Duration, Instant};

use keelson_cri::v1::*;
use world::{World, processes_of};

fn kill(pid: i32) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
}

fn shims(world: &World) -> Vec<i32> {
    processes_of(&world.dir.path().join("state/sandboxes"), world.server_pid())
}

#[tokio::test]
async fn a_killed_runtime_finds_everything_again() {
    let mut world = World::new().await;
    let pod = world.pod("survivor");
    let sandbox = world.run_pod(&pod).await;
    let config = world.shell("main", "n=0; while true; do echo $n; n=$((n+1)); sleep 0.02; done");
    let running = world.run(&sandbox, &pod, config).await;
    let config = world.shell("brief", "while [ ! -e /tmp/go ]; do sleep 0.02; done; exit 9");
    let brief = world.run(&sandbox, &pod, config).await;
    let config = world.shell("created", "echo later");
    let created = world.create(&sandbox, &pod, config).await.unwrap();
    world.logged("main.log", "stdout F 3").await;
    let pid = world.processes(&brief);
    world.kill_server();
    // This one ends while nobody but its shim looks.
    std::fs::write(format!("/proc/{}/root/tmp/go", pid.lines().next().unwrap()), "").unwrap();
    let exit = world.dir.path().join(format!("root/containers/{brief}/exit.json"));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !exit.exists() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    world.start().await;
    assert_eq!(world.status(&running).await.state(), ContainerState::ContainerRunning);
    assert_eq!(world.status(&created).await.state(), ContainerState::ContainerCreated);
    let status = world.status(&brief).await;
    assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 9));
    assert_eq!(world.sh(&running, "echo inside").await, "inside");
    world.start_container(&created).await.unwrap();
    assert_eq!(world.ended(&created).await.exit_code, 0);
    // The end of the survivor is still noticed, and no line of its log is missing.
    let request = StopContainerRequest { container_id: running.clone(), timeout: 0 };
    world.clients.runtime.stop_container(request).await.unwrap();
    assert_eq!(world.status(&running).await.exit_code, 137);
    let lines = world.container_log("main.log");
    let expected: Vec<String> = (0..lines.len()).map(|n| format!("stdout F {n}")).collect();
    assert_eq!(lines, expected);
    world.finish().await;
}

#[tokio::test]
async fn a_killed_shim_is_replaced_and_its_containers_go_on() {
    let mut world = World::new().await;
    let pod = world.pod("orphan");
    let sandbox = world.run_pod(&pod).await;
    let config = world.shell("main", "n=0; while [ ! -e /tmp/end ]; do echo $n; n=$((n+1)); sleep 0.02; done; exit 4");
    let id = world.run(&sandbox, &pod, config).await;
    world.logged("main.log", "stdout F 3").await;
    let before = shims(&world);
    assert_eq!(before.len(), 1, "{before:?}");
    kill(before[0]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while shims(&world).iter().all(|pid| before.contains(pid)) {
        assert!(Instant::now() < deadline, "no new shim: {}", world.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let lines = world.container_log("main.log").len();
    world.logged("main.log", &format!("stdout F {}", lines + 5)).await;
    assert_eq!(world.status(&id).await.state(), ContainerState::ContainerRunning);
    assert_eq!(world.sh(&id, "echo still").await, "still");
    world.sh(&id, "touch /tmp/end").await;
    let status = world.ended(&id).await;
    assert_eq!(status.exit_code, 4, "{status:?}");
    world.finish().await;
}

#[tokio::test]
async fn both_killed_at_once() {
    let mut world = World::new().await;
    let pod = world.pod("both");
    let sandbox = world.run_pod(&pod).await;
    let config = world.shell("main", "while true; do echo tick; sleep 0.05; done");
    let alive = world.run(&sandbox, &pod, config).await;
    let config = world.shell("dies", "echo up; sleep 1000");
    let dies = world.run(&sandbox, &pod, config).await;
    world.logged("dies.log", "stdout F up").await;
    let procs = world.processes(&dies);
    let shim = shims(&world);
    world.kill_server();
    shim.iter().for_each(|pid| kill(*pid));
    procs.lines().for_each(|pid| kill(pid.parse().unwrap()));
    world.start().await;
    assert_eq!(world.status(&alive).await.state(), ContainerState::ContainerRunning);
    let status = world.ended(&dies).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
    let sandbox_status = PodSandboxStatusRequest { pod_sandbox_id: sandbox, verbose: false };
    let status = world.clients.runtime.pod_sandbox_status(sandbox_status).await.unwrap().into_inner().status.unwrap();
    assert_eq!(status.state(), PodSandboxState::SandboxReady);
    world.finish().await;
}

#[tokio::test]
async fn half_made_pods_are_cleaned_away() {
    let mut world = World::new().await;
    // A plugin that never answers keeps the sandbox half made.
    let slow = world.dir.path().join("cni/dummy");
    let original = std::fs::read_to_string(&slow).unwrap();
    let marker = world.dir.path().join("adding");
    let script = format!("#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\ntouch {}\nexec sleep 1000\n", marker.display());
    std::fs::write(&slow, script).unwrap();
    let pod = world.pod("half");
    let request = RunPodSandboxRequest { config: Some(pod), runtime_handler: String::new() };
    let mut runtime = world.clients.runtime.clone();
    let call = tokio::spawn(async move { runtime.run_pod_sandbox(request).await });
    let deadline = Instant::now() + Duration::from_secs(10);
    while !marker.exists() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.kill_server();
    assert!(call.await.unwrap().is_err());
    std::fs::write(&slow, original).unwrap();
    world.start().await;
    let pods =
        world.clients.runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await.unwrap().into_inner().items;
    assert!(pods.is_empty(), "{pods:?}");
    world.finish().await;
}

#[tokio::test]
async fn after_a_reboot_pods_are_not_ready_and_containers_ended() {
    let mut world = World::new().await;
    let pod = world.pod("reboot");
    let sandbox = world.run_pod(&pod).await;
    let config = world.shell("main", "sleep 1000");
    let id = world.run(&sandbox, &pod, config).await;
    let shim = shims(&world);
    let procs = world.processes(&id);
    world.kill_server();
    shim.iter().for_each(|pid| kill(*pid));
    procs.lines().for_each(|pid| kill(pid.parse().unwrap()));
    for point in world::mounts_below(world.dir.path()).iter().rev() {
        rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    std::fs::remove_dir_all(world.dir.path().join("state")).unwrap();
    world.start().await;
    let status = world.status(&id).await;
    assert_eq!(
        (status.state(), status.exit_code, status.reason.as_str()),
        (ContainerState::ContainerExited, 255, "Unknown")
    );
    let sandbox_status = PodSandboxStatusRequest { pod_sandbox_id: sandbox, verbose: false };
    let status = world.clients.runtime.pod_sandbox_status(sandbox_status).await.unwrap().into_inner().status.unwrap();
    assert_eq!(status.state(), PodSandboxState::SandboxNotready);
    world.finish().await;
}

async fn phase(world: &mut World, sandbox: &str) -> PodSandboxState {
    let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.into(), verbose: false };
    world.clients.runtime.pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap().state()
}

fn processes(world: &World, id: &str) -> Vec<i32> {
    world.processes(id).lines().map(|pid| pid.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_shim_that_cannot_start_is_not_a_reboot() {
    let mut world = World::new().await;
    let pod = world.pod("unstartable");
    let sandbox = world.run_pod(&pod).await;
    let config = world.shell("main", "sleep 1000");
    let main = world.run(&sandbox, &pod, config).await;
    let config = world.shell("other", "sleep 1000");
    let other = world.run(&sandbox, &pod, config).await;
    let before = (processes(&world, &main), shims(&world));
    // Its log is the first thing that a shim needs.
    let log = world.dir.path().join(format!("state/sandboxes/{sandbox}/shim.log"));
    std::fs::remove_file(&log).unwrap();
    std::fs::create_dir(&log).unwrap();
    world.kill_server();
    before.1.iter().for_each(|pid| kill(*pid));
    world.start().await;
    assert_eq!(world.status(&main).await.state(), ContainerState::ContainerRunning);
    assert_eq!(phase(&mut world, &sandbox).await, PodSandboxState::SandboxReady);
    assert_eq!(processes(&world, &main), before.0);
    // Stopping works without it, by the control group.
    let request = StopContainerRequest { container_id: other.clone(), timeout: 0 };
    world.clients.runtime.stop_container(request).await.unwrap();
    let status = world.status(&other).await;
    assert_eq!((status.state(), processes(&world, &other)), (ContainerState::ContainerExited, Vec::new()));
    std::fs::remove_dir(&log).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while world.exec(&main, &["true"]).await.is_err() {
        assert!(Instant::now() < deadline, "no shim: {}", world.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(processes(&world, &main), before.0);
    world.finish().await;
}

#[tokio::test]
async fn exit_codes_survive_a_full_disk() {
    let mut world = World::new().await;
    let pod = world.pod("full");
    let sandbox = world.run_pod(&pod).await;
    let config = world.shell("main", "while [ ! -e /tmp/go ]; do sleep 0.02; done; exit 9");
    let id = world.run(&sandbox, &pod, config).await;
    let pid = processes(&world, &id)[0];
    // Where the exit file is to be made, nothing can be made.
    std::fs::create_dir(world.dir.path().join(format!("root/containers/{id}/exit.tmp"))).unwrap();
    world.kill_server();
    std::fs::write(format!("/proc/{pid}/root/tmp/go"), "").unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !processes(&world, &id).is_empty() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    world.start().await;
    let status = world.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (9, "Error"));
    world.finish().await;
}

#[tokio::test]
async fn damaged_records_harm_nobody_else() {
    let mut world = World::new().await;
    let pod = world.pod("good");
    let good = world.run_pod(&pod).await;
    let config = world.shell("main", "sleep 1000");
    let id = world.run(&good, &pod, config).await;
    let bad = world.pod("bad");
    let bad = world.run_pod(&bad).await;
    let shim = shims(&world);
    world.kill_server();
    // As some file systems leave them after a power cut.
    std::fs::write(world.dir.path().join(format!("root/sandboxes/{bad}/record.pb")), "").unwrap();
    std::fs::create_dir(world.dir.path().join("root/containers/none")).unwrap();
    std::fs::write(world.dir.path().join("root/containers/none/record.pb"), "").unwrap();
    let lost = shim.into_iter().find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&bad)
    });
    kill(lost.unwrap());
    world.start().await;
    assert_eq!(world.status(&id).await.state(), ContainerState::ContainerRunning);
    let pods = world.clients.runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await.unwrap().into_inner();
    assert_eq!(pods.items.iter().map(|pod| &pod.id).collect::<Vec<_>>(), [&good]);
    // Its address is free again, and what is left of it can be looked at.
    let names = |dir: &str| {
        let entries = std::fs::read_dir(world.dir.path().join(dir)).unwrap().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names("addresses"), [good]);
    assert_eq!(names("root/damaged"), ["containers-none".to_owned(), format!("sandboxes-{bad}")]);
    world.finish().await;
}

/// The plugin's script with `line` before it.
fn plugin_with(world: &World, line: &str) -> String {
    let path = world.dir.path().join("cni/dummy");
    let original = std::fs::read_to_string(&path).unwrap();
    let changed = original.replacen("#!/bin/sh\n", &format!("#!/bin/sh\n{line}\n"), 1);
    std::fs::write(&path, changed).unwrap();
    original
}

#[tokio::test]
async fn a_pod_whose_network_cannot_be_removed_is_kept_until_it_can() {
    let mut world = World::new().await;
    let marker = world.dir.path().join("broken");
    std::fs::write(&marker, "").unwrap();
    let line = format!(
        "if [ -e {} ]; then [ $CNI_COMMAND = ADD ] && touch {}/addresses/$CNI_CONTAINERID; exit 1; fi",
        marker.display(),
        world.dir.path().display()
    );
    plugin_with(&world, &line);
    let pod = world.pod("leak");
    let request = RunPodSandboxRequest { config: Some(pod), runtime_handler: String::new() };
    world.clients.runtime.run_pod_sandbox(request).await.unwrap_err();
    let pods = world.clients.runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await.unwrap().into_inner();
    let [left] = pods.items.as_slice() else { panic!("{pods:?}") };
    assert_eq!(left.state(), PodSandboxState::SandboxNotready);
    let stop = StopPodSandboxRequest { pod_sandbox_id: left.id.clone() };
    world.clients.runtime.stop_pod_sandbox(stop.clone()).await.unwrap_err();
    std::fs::remove_file(&marker).unwrap();
    world.clients.runtime.stop_pod_sandbox(stop).await.unwrap();
    assert_eq!(std::fs::read_dir(world.dir.path().join("addresses")).unwrap().count(), 0);
    world.finish().await;
}

#[tokio::test]
async fn a_pod_that_is_stopped_while_it_is_made_is_stopped() {
    let mut world = World::new().await;
    let go = world.dir.path().join("go");
    plugin_with(&world, &format!("[ $CNI_COMMAND = ADD ] && while [ ! -e {} ]; do sleep 0.02; done", go.display()));
    let pod = world.pod("early");
    let request = RunPodSandboxRequest { config: Some(pod), runtime_handler: String::new() };
    let mut runtime = world.clients.runtime.clone();
    let run = tokio::spawn(async move { runtime.run_pod_sandbox(request).await });
    let deadline = Instant::now() + Duration::from_secs(10);
    let id = loop {
        let pods = world.clients.runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await.unwrap().into_inner();
        if let [pod] = pods.items.as_slice() {
            break pod.id.clone();
        }
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let mut runtime = world.clients.runtime.clone();
    let request = StopPodSandboxRequest { pod_sandbox_id: id.clone() };
    let stop = tokio::spawn(async move { runtime.stop_pod_sandbox(request).await });
    // Both are at work; nothing tells when the second one waits.
    tokio::time::sleep(Duration::from_millis(300)).await;
    std::fs::write(&go, "").unwrap();
    run.await.unwrap().unwrap();
    stop.await.unwrap().unwrap();
    assert_eq!(phase(&mut world, &id).await, PodSandboxState::SandboxNotready);
    world.finish().await;
}
