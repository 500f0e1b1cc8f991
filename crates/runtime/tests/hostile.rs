//! Pods and images that mean harm: each is contained or gets an error, and nothing outside the container's root is touched.
//! (Hostile layers of images are in `images.rs` and `src/image/layer/tests.rs`.)

mod world;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use keelson_cri::v1::*;
use keelson_testbed::image::{self, Layer};
use world::{World, fuse::Silent, processes_of};

/// A world whose `keelson.local/evil` is busybox with `layer` above it.
async fn world_with(layer: impl FnOnce(&Path) -> Layer) -> World {
    let mut world = World::new().await;
    let image = image::busybox("keelson.local/evil:latest").unwrap().layer(layer(world.dir.path()));
    image.write_layout(&world.dir.path().join("images/evil")).unwrap();
    world.kill_server();
    world.start().await;
    world
}

fn evil(world: &World, name: &str, script: &str) -> ContainerConfig {
    let image = Some(ImageSpec { image: "keelson.local/evil".into(), ..Default::default() });
    ContainerConfig { image, ..world.shell(name, script) }
}

fn privileged(config: &mut ContainerConfig) {
    let security = LinuxContainerSecurityContext { privileged: true, ..Default::default() };
    config.linux.get_or_insert_default().security_context = Some(security);
}

/// Everything below `dir`, with contents.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(contents(&path));
            found.push((path, Vec::new()));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

fn victim(world: &Path) -> PathBuf {
    let victim = world.join("victim");
    std::fs::create_dir_all(victim.join("sub")).unwrap();
    std::fs::write(victim.join("passwd"), "traitor:x:4242:4242::/:/bin/sh\n").unwrap();
    std::fs::write(victim.join("file"), "untouched").unwrap();
    victim
}

/// The image has links to the machine wherever the runtime mounts, reads or makes something.
#[tokio::test]
async fn links_in_an_image_lead_nowhere() {
    for name in ["dev", "proc", "sys", "etc/hosts", "etc/resolv.conf", "dev/shm", "data", "work", "etc/passwd"] {
        let mut world = world_with(|dir| {
            let victim = victim(dir);
            let target = match name {
                "etc/passwd" => victim.join("passwd"),
                "etc/hosts" | "etc/resolv.conf" => victim.join("file"),
                _ => victim,
            };
            Layer::new().symlink(name, target.to_str().unwrap())
        })
        .await;
        let victim = victim(world.dir.path());
        let before = contents(&victim);
        let volume = world.dir.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        let pod = world.pod("links");
        let sandbox = world.run_pod(&pod).await;
        let mut config = evil(&world, "main", "echo here > file; echo up; id -u; sleep 1000");
        config.working_dir = "/work/deep".into();
        config.mounts.push(Mount {
            container_path: "/data/sub".into(),
            host_path: volume.to_str().unwrap().into(),
            ..Default::default()
        });
        let security = LinuxContainerSecurityContext { run_as_username: "traitor".into(), ..Default::default() };
        if name == "etc/passwd" {
            config.linux.get_or_insert_default().security_context = Some(security);
        }
        // An error is as good as a container that has its own.
        let created = Box::pin(world.create(&sandbox, &pod, config)).await;
        if let Ok(id) = &created {
            if world.start_container(id).await.is_ok() {
                world.logged("main.log", "stdout F up").await;
            }
        } else {
            assert!(["etc/passwd", "dev", "proc", "sys"].contains(&name), "{name}: {created:?}");
        }
        assert!(name != "etc/passwd" || created.is_err(), "a user of the machine's file");
        assert_eq!(contents(&victim), before, "{name}");
        let mounts = world::mounts_below(&victim);
        assert!(mounts.is_empty(), "{name}: {mounts:?}");
        world.finish().await;
    }
}

#[tokio::test]
async fn mounts_and_working_directories_stay_inside() {
    let mut world = World::new().await;
    let victim = victim(world.dir.path());
    let before = contents(&victim);
    let pod = world.pod("inside");
    let sandbox = world.run_pod(&pod).await;
    let up = format!("/../../../../../../..{}", victim.display());
    let volume = world.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    let mut config = world.shell("climber", "cat file; ls; echo up; sleep 1000");
    config.working_dir.clone_from(&up);
    config.mounts.push(Mount { container_path: up, host_path: volume.to_str().unwrap().into(), ..Default::default() });
    if let Ok(id) = Box::pin(world.create(&sandbox, &pod, config)).await
        && world.start_container(&id).await.is_ok()
    {
        world.logged("climber.log", "stdout F up").await;
        assert!(!world.container_log("climber.log").iter().any(|line| line.contains("untouched")));
    }
    // A descriptor of the runtime's as working directory (CVE-2024-21626).
    for number in 3..24 {
        let name = format!("cwd{number}");
        let script = format!("cat ../../../../../../../../{}/file; pwd; echo up", victim.display());
        let mut config = world.shell(&name, &script);
        config.working_dir = format!("/proc/self/fd/{number}");
        if let Ok(id) = Box::pin(world.create(&sandbox, &pod, config)).await
            && world.start_container(&id).await.is_ok()
        {
            world.ended(&id).await;
            let log = world.container_log(&format!("{name}.log"));
            assert!(!log.iter().any(|line| line.contains("untouched")), "{number}: {log:?}");
        }
    }
    assert_eq!(contents(&victim), before);
    world.finish().await;
}

/// A program that is the runtime's own binary (CVE-2019-5736): it can be run, not written.
#[tokio::test]
async fn the_runtimes_binary_is_not_overwritten() {
    let mut world = world_with(|_| Layer::new().file("evil", 0o755, "#!/proc/self/exe\n")).await;
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_keelson-runtime"));
    let state = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path).unwrap();
        (metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.mode())
    };
    let before = state(&binary);
    let mut pod = world.pod("overwrite");
    pod.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let sandbox = world.run_pod(&pod).await;
    let out = world.dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    // Tries to write to every program that runs in its sight.
    let script = "echo up; while :; do for p in /proc/[0-9]*; do
            case $(readlink $p/exe) in */busybox|'') ;; *)
                { echo x >> $p/exe; } 2> /dev/null && echo written > /out/written;
            esac; done; done";
    let mut config = evil(&world, "main", script);
    privileged(&mut config);
    config.mounts.push(Mount {
        container_path: "/out".into(),
        host_path: out.to_str().unwrap().into(),
        ..Default::default()
    });
    let id = world.run(&sandbox, &pod, config).await;
    world.logged("main.log", "stdout F up").await;
    // Most often it sees nothing: who enters a container hides.
    for _ in 0..40 {
        let _ = world.exec(&id, &["/evil"]).await;
    }
    // The same as a container's own command.
    let mut config = evil(&world, "second", "");
    config.command = vec!["/evil".into()];
    let second = Box::pin(world.create(&sandbox, &pod, config)).await.unwrap();
    if world.start_container(&second).await.is_ok() {
        assert_ne!(world.ended(&second).await.exit_code, 0);
    }
    assert!(!out.join("written").exists(), "the runtime's binary was written to");
    assert_eq!(state(&binary), before);
    world.finish().await;
}

#[tokio::test]
async fn no_descriptor_and_no_device_comes_along() {
    let mut world = World::new().await;
    let pod = world.pod("fds");
    let sandbox = world.run_pod(&pod).await;
    let script = "ls -l /proc/self/fd | sed 's/.* //' > /tmp/fds; mknod /tmp/disk b 254 0; echo up; sleep 1000";
    let config = world.shell("main", script);
    let id = world.run(&sandbox, &pod, config).await;
    world.logged("main.log", "stdout F up").await;
    for script in ["wc -l < /tmp/fds", "ls -l /proc/self/fd | wc -l"] {
        // `total 0`, 0, 1, 2 and the directory.
        assert!(
            world.sh(&id, script).await.parse::<u32>().unwrap() <= 5,
            "{script}: {}",
            world.sh(&id, "cat /tmp/fds").await
        );
    }
    for script in ["cat /tmp/disk", "head -c 1 /dev/mem", "head -c 1 /dev/kmsg", "echo b > /proc/sysrq-trigger"] {
        let answer = world.exec(&id, &["/bin/sh", "-c", script]).await.unwrap();
        assert_ne!(answer.exit_code, 0, "{script}: {}", String::from_utf8_lossy(&answer.stdout));
    }
    // Shared memory is the pod's own, and limited.
    let full = world.sh(&id, "dd if=/dev/zero of=/dev/shm/big bs=1M count=100 2>&1 || true; du -m /dev/shm/big").await;
    assert!(full.contains("No space left on device") && full.ends_with("/dev/shm/big"), "{full}");
    assert!(!Path::new("/dev/shm/big").exists());
    world.finish().await;
}

#[tokio::test]
async fn odd_bytes_are_an_error_or_arrive_as_they_are() {
    let mut world = World::new().await;
    let pod = world.pod("odd");
    let sandbox = world.run_pod(&pod).await;
    let pair = |key: &str, value: &str| KeyValue { key: key.into(), value: value.into() };
    let mut config = world.shell("plain", "echo \"$ODD\"; env | grep -c '^MANY'; sleep 1000");
    config.envs.push(pair("ODD", "two\nlines = $(x) \u{7f}\u{1b}[31m"));
    config.envs.extend((0..5000).map(|n| pair(&format!("MANY{n}"), "x")));
    let id = world.run(&sandbox, &pod, config).await;
    world.logged("plain.log", "stdout F two").await;
    world.logged("plain.log", "stdout F 5000").await;
    assert!(world.container_log("plain.log").contains(&"stdout F lines = $(x) \u{7f}\u{1b}[31m".to_owned()));
    let bad = [
        ("null", pair("A", "b\0c"), "x".to_owned()),
        ("key", pair("A\0", "b"), "x".to_owned()),
        ("huge", pair("A", &"x".repeat(1 << 20)), "x".to_owned()),
        ("argument", pair("A", "b"), "a\0b".to_owned()),
    ];
    for (name, env, argument) in bad {
        let mut config = world.shell(name, "echo ran");
        config.envs.push(env);
        config.command.push(argument);
        if let Ok(id) = Box::pin(world.create(&sandbox, &pod, config)).await
            && world.start_container(&id).await.is_ok()
        {
            assert_ne!(world.ended(&id).await.exit_code, 0, "{name}");
        }
        let log = world.container_log(&format!("{name}.log"));
        assert!(!log.iter().any(|line| line.ends_with("ran")), "{name}: {log:?}");
    }
    for command in [vec!["a\0b"], vec![""], vec!["../../../bin/sh\n"]] {
        let answer = world.exec(&id, &command).await;
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.exit_code != 0), "{command:?}");
    }
    for id in ["..", "../containers", "/", "", "\0"] {
        let request = ContainerStatusRequest { container_id: id.into(), verbose: false };
        assert!(world.clients.runtime.container_status(request).await.is_err(), "{id:?}");
    }
    assert_eq!(world.sh(&id, "echo still").await, "still");
    world.finish().await;
}

/// A fork bomb meets the pod's limit of processes, and the pod can still be stopped.
#[tokio::test]
async fn a_fork_bomb_is_contained() {
    let mut world = World::new().await;
    let group = world.make_pods_group("pids");
    std::fs::write(group.join("pids.max"), "60").unwrap();
    for share_pid in [false, true] {
        let mut pod = world.pod("bomb");
        if share_pid {
            let security = pod.linux.as_mut().unwrap().security_context.as_mut().unwrap();
            security.namespace_options = Some(NamespaceOption { pid: NamespaceMode::Pod as i32, ..Default::default() });
            security.privileged = true;
        }
        let sandbox = world.run_pod(&pod).await;
        let bomb = "echo up; bomb() { bomb | bomb & }; while :; do bomb; done 2> /dev/null";
        let config = world.shell("bomb", bomb);
        let id = world.run(&sandbox, &pod, config).await;
        let deadline = Instant::now() + Duration::from_secs(30);
        let current = || std::fs::read_to_string(group.join("pids.current")).unwrap().trim().parse::<u32>().unwrap();
        // The bomb may be over before it is looked at: a shell that cannot fork ends.
        while current() < 55 && world.status(&id).await.state() == ContainerState::ContainerRunning {
            assert!(Instant::now() < deadline, "the limit was not met: {}", current());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(current() >= 55 || world.status(&id).await.exit_code == 2, "{:?}", world.status(&id).await);
        let begin = Instant::now();
        let request = StopContainerRequest { container_id: id.clone(), timeout: 1 };
        world.clients.runtime.stop_container(request).await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(15), "stopping took {:?}", begin.elapsed());
        let request = StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() };
        world.clients.runtime.stop_pod_sandbox(request).await.unwrap();
        let request = RemovePodSandboxRequest { pod_sandbox_id: sandbox };
        world.clients.runtime.remove_pod_sandbox(request).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while current() != 0 {
            assert!(Instant::now() < deadline, "{} processes are left", current());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    world.finish().await;
}

/// Much output, lines without end, both at once: nothing is lost, and the shim stays small.
#[tokio::test]
async fn a_log_flood_costs_no_memory() {
    let mut world = World::new().await;
    let pod = world.pod("flood");
    let sandbox = world.run_pod(&pod).await;
    let script = "seq 400000 & head -c 20000000 /dev/zero | tr '\\0' x >&2; wait; echo; echo end";
    let config = world.shell("main", script);
    let id = world.run(&sandbox, &pod, config).await;
    assert_eq!(world.ended(&id).await.exit_code, 0);
    let log = world.container_log("main.log");
    let numbers = log.iter().filter_map(|line| line.strip_prefix("stdout F ")).filter_map(|n| n.parse::<u32>().ok());
    assert!(numbers.eq(1..=400_000), "a line is missing or out of order");
    let bytes: usize = log.iter().filter_map(|line| line.strip_prefix("stderr P ")).map(str::len).sum();
    assert_eq!(bytes, 20_000_000);
    for shim in processes_of(&world.dir.path().join("state/sandboxes"), world.server_pid()) {
        let status = std::fs::read_to_string(format!("/proc/{shim}/status")).unwrap();
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
        let kib: u64 = anonymous.unwrap().trim().parse().unwrap();
        assert!(kib < 4 << 10, "the shim has {kib} KiB of its own");
    }
    world.finish().await;
}

/// Groups within groups, with processes in them, made by a privileged container that sees the pod's processes.
#[tokio::test]
async fn nested_control_groups_go_with_their_container() {
    let mut world = World::new().await;
    let mut pod = world.pod("nest");
    let security = pod.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options = Some(NamespaceOption { pid: NamespaceMode::Pod as i32, ..Default::default() });
    security.privileged = true;
    let sandbox = world.run_pod(&pod).await;
    let script =
        "cd /sys/fs/cgroup/memory 2>/dev/null || cd /sys/fs/cgroup || exit 9; n=0; while [ $n -lt 40 ]; do mkdir d || exit 8; cd d; n=$((n+1)); done
        (sleep 1000 & echo $! > cgroup.procs); echo up; exit 3";
    let mut config = world.shell("main", script);
    privileged(&mut config);
    let id = world.run(&sandbox, &pod, config).await;
    let status = world.ended(&id).await;
    assert_eq!(status.exit_code, 3, "{:?}", world.container_log("main.log"));
    let request = RemoveContainerRequest { container_id: id.clone() };
    world.clients.runtime.remove_container(request).await.unwrap();
    let group = world.group_file(&id, "memory", "", "");
    let deadline = Instant::now() + Duration::from_secs(10);
    while group.exists() {
        assert!(Instant::now() < deadline, "{} is left", group.display());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.finish().await;
}

/// The state of the first process of a container's control group, as the kernel writes it: `D` sleeps whatever happens.
fn state_of(world: &World, id: &str) -> Option<char> {
    let group = format!("{}/{id}", world.cgroup);
    let dir = world::cgroup_dirs(&group).into_iter().next()?;
    let pids = std::fs::read_to_string(dir.join("cgroup.procs")).ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pids.lines().next()?)).ok()?;
    stat[stat.rfind(')')? + 2..].chars().next()
}

/// Processes that cannot be killed: the runtime says so in time, all else goes on, and nothing is left once they can die.
#[tokio::test]
async fn processes_that_no_signal_wakes_hold_up_nobody_else() {
    let mut world = World::new().await;
    let dir = world.dir.path().join("silent");
    std::fs::create_dir(&dir).unwrap();
    let mut silent = Silent::mount(&dir);
    let pod = world.pod("asleep");
    let sandbox = world.run_pod(&pod).await;
    let volume =
        Mount { container_path: "/silent".into(), host_path: dir.to_str().unwrap().into(), ..Default::default() };
    let mut config = world.shell("asleep", "echo up; exec cat /silent/file");
    config.mounts.push(volume.clone());
    let asleep = world.run(&sandbox, &pod, config).await;
    let mut config = world.shell("worker", "trap 'exit 4' TERM; while :; do sleep 0.1; done");
    config.mounts.push(volume.clone());
    let worker = world.run(&sandbox, &pod, config).await;
    // One that falls asleep before it is its own program.
    let mut config = world.shell("unborn", "echo up");
    config.mounts.push(volume);
    config.working_dir = "/silent/dir".into();
    let unborn = Box::pin(world.create(&sandbox, &pod, config)).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while silent.asleep() == 0 {
        assert!(Instant::now() < deadline, "{:?}", world.container_log("asleep.log"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A command that does not come back is given up.
    let cmd = ["cat", "/silent/other"].map(String::from).to_vec();
    let request = ExecSyncRequest { container_id: asleep.clone(), cmd, timeout: 1 };
    let error = world.clients.runtime.exec_sync(request).await.unwrap_err();
    assert!(error.message().contains("timeout 1s exceeded"), "{error}");
    // All at once: nobody waits for another.
    let mut runtime = world.clients.runtime.clone();
    let request = StartContainerRequest { container_id: unborn.clone() };
    let starting = tokio::spawn(async move { runtime.start_container(request).await.map(drop) });
    let begin = Instant::now();
    let mut runtime = world.clients.runtime.clone();
    let request = StopContainerRequest { container_id: asleep.clone(), timeout: 1 };
    let stopping = tokio::spawn(async move { runtime.stop_container(request).await.map(drop) });
    let mut commands = 0;
    while begin.elapsed() < Duration::from_secs(3) {
        assert_eq!(world.sh(&worker, "echo $((6 * 7))").await, "42");
        commands += 1;
    }
    assert!(commands > 5, "{commands} commands in 3 s");
    assert!(!stopping.is_finished() && !starting.is_finished());
    assert_eq!(state_of(&world, &asleep), Some('D'));
    // The pod cannot be stopped either, but what can end ends.
    let mut runtime = world.clients.runtime.clone();
    let stop_pod = StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() };
    let request = stop_pod.clone();
    let stopping_pod = tokio::spawn(async move { runtime.stop_pod_sandbox(request).await.map(drop) });
    assert_eq!(world.ended(&worker).await.exit_code, 137);
    let error = starting.await.unwrap().unwrap_err();
    assert!(error.message().contains("OCI runtime create failed"), "{error}");
    assert_eq!(world.status(&unborn).await.exit_code, 128);
    // What is left of it is not forgotten.
    let request = RemoveContainerRequest { container_id: unborn.clone() };
    let error = world.clients.runtime.remove_container(request).await.unwrap_err();
    assert!(error.message().contains("do not die"), "{error}");
    for failed in [stopping, stopping_pod] {
        let error = failed.await.unwrap().unwrap_err();
        assert!(error.message().contains("is still there"), "{error}");
    }
    assert!(begin.elapsed() < Duration::from_secs(50), "{:?}", begin.elapsed());
    assert_eq!(world.status(&asleep).await.state(), ContainerState::ContainerRunning);
    // A new runtime finds things as they are.
    world.kill_server();
    world.start().await;
    assert_eq!(world.status(&asleep).await.state(), ContainerState::ContainerRunning);
    silent.release();
    assert_eq!(world.ended(&asleep).await.exit_code, 137);
    world.clients.runtime.stop_pod_sandbox(stop_pod).await.unwrap();
    world.finish().await;
}
