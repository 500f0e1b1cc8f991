//! What confines containers, on this kernel: user namespaces, seccomp profiles of the node's own, mounts, and what is refused.

mod world;

use keelson_cri::v1::*;
use world::World;

/// The first of the node's IDs that the pod's are.
const FIRST: u32 = 1 << 18;

fn user_namespace(pod: &mut PodSandboxConfig, pid: NamespaceMode) -> NamespaceOption {
    let ids = vec![IdMapping { host_id: FIRST, container_id: 0, length: 65536 }];
    let userns = UserNamespace { mode: NamespaceMode::Pod as i32, uids: ids.clone(), gids: ids };
    let options = NamespaceOption { pid: pid as i32, userns_options: Some(userns), ..Default::default() };
    let security = pod.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options = Some(options.clone());
    options
}

fn volume(world: &World, name: &str, ids: &[IdMapping]) -> Mount {
    let path = world.dir.path().join(name);
    std::fs::create_dir_all(&path).unwrap();
    Mount {
        container_path: format!("/{name}"),
        host_path: path.to_str().unwrap().into(),
        uid_mappings: ids.to_vec(),
        gid_mappings: ids.to_vec(),
        ..Default::default()
    }
}

#[tokio::test]
async fn root_of_a_user_namespace_is_nobody_on_the_node() {
    use std::os::unix::fs::MetadataExt;
    let mut world = World::new().await;
    let mut pod = world.pod("user");
    let options = user_namespace(&mut pod, NamespaceMode::Container);
    let sandbox = world.run_pod(&pod).await;
    let ids = options.userns_options.as_ref().unwrap().uids.clone();
    let mut config = world.shell("main", "echo up; echo again > /dev/stdout; sleep 1000");
    let (mapped, plain) = (volume(&world, "mapped", &ids), volume(&world, "plain", &[]));
    std::fs::write(world.dir.path().join("mapped/old"), "").unwrap();
    config.mounts = vec![mapped, plain];
    let resources = LinuxContainerResources { oom_score_adj: 700, ..Default::default() };
    config.linux.as_mut().unwrap().resources = Some(resources);
    config.working_dir = "/not/there/yet".into();
    let security = LinuxContainerSecurityContext {
        namespace_options: Some(options),
        seccomp: Some(SecurityProfile::default()),
        ..Default::default()
    };
    config.linux.as_mut().unwrap().security_context = Some(security);
    let id = world.run(&sandbox, &pod, config).await;
    world.logged("main.log", "stdout F again").await;
    let map = world.sh(&id, "cat /proc/self/uid_map /proc/1/gid_map").await;
    let line = format!("{:>10} {FIRST:>10} {:>10}", 0, 65536);
    assert_eq!(map, format!("{line}\n{line}"));
    assert_eq!(
        world.sh(&id, "id -u; stat -c %u / /bin /not/there/yet /mapped/old /plain").await,
        "0\n0\n0\n0\n0\n65534"
    );
    assert_eq!(world.sh(&id, "cat /proc/1/oom_score_adj /proc/self/oom_score_adj").await, "700\n700");
    // It is root of its network, and of nothing else.
    world.sh(&id, "hostname here && hostname user; ip link set lo down && ip link set lo up; ip addr show eth0").await;
    world.sh(&id, "touch /mapped/new /bin/new && chown 7:7 /mapped/new && rm /bin/vi && mkdir -m 700 /tmp/d").await;
    let refused = world.exec(&id, &["touch", "/plain/new"]).await.unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Permission denied"), "{refused:?}");
    let new = std::fs::metadata(world.dir.path().join("mapped/new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (7, 7));
    let upper = world.dir.path().join(format!("root/containers/{id}/upper/tmp/d"));
    assert_eq!(std::fs::metadata(upper).unwrap().uid(), FIRST);
    // What is executed in it has its environment, and is confined like it.
    assert_eq!(
        world.sh(&id, "echo $PATH").await,
        world.sh(&id, "tr '\\0' '\\n' < /proc/1/environ | sed -n s/^PATH=//p").await
    );
    let own = "grep -hE '^(Seccomp|CapEff|CapBnd|NoNewPrivs):' /proc/$p/status; cat /proc/$p/cgroup | grep -c /$ID";
    let own = |p: &str| own.replace("$p", p).replace("$ID", &id);
    assert_eq!(world.sh(&id, &own("self")).await, world.sh(&id, &own("1")).await);
    assert!(world.sh(&id, &own("self")).await.contains("Seccomp:\t2"));
    let missing = world.exec(&id, &["/no/such/program"]).await.unwrap();
    assert_ne!(missing.exit_code, 0);
    let procs = world.processes(&id);
    let process = std::fs::metadata(format!("/proc/{}", procs.lines().next().unwrap())).unwrap();
    assert_eq!(process.uid(), FIRST);
    // Unmounting what was brought leaves what was brought from.
    world.clients.runtime.remove_container(RemoveContainerRequest { container_id: id }).await.unwrap();
    assert!(world.dir.path().join("mapped/old").exists());
    world.finish().await;
}

#[tokio::test]
async fn a_pod_with_a_user_namespace_may_share_its_processes() {
    let mut world = World::new().await;
    let mut pod = world.pod("shared");
    let options = user_namespace(&mut pod, NamespaceMode::Pod);
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "sleep 1000");
    let security = LinuxContainerSecurityContext { namespace_options: Some(options), ..Default::default() };
    config.linux.as_mut().unwrap().security_context = Some(security);
    let id = world.run(&sandbox, &pod, config).await;
    let processes = world.sh(&id, "ps -o user,args").await;
    assert!(processes.contains("root     ") && processes.contains("shim pause"), "{processes}");
    world.finish().await;
}

/// Whoever joins has a PID there that no process of the node has: what is looked up by it is not found.
#[tokio::test]
async fn a_container_joins_another_whose_processes_come_and_go() {
    const JOINS: u32 = 6;
    let mut world = World::new().await;
    let mut pod = world.pod("visited");
    pod.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "echo up; while :; do sleep 0.02; done");
    // To choose the next PID takes privileges.
    let security = LinuxContainerSecurityContext { privileged: true, ..Default::default() };
    config.linux.as_mut().unwrap().security_context = Some(security);
    let target = world.run(&sandbox, &pod, config).await;
    world.logged("main.log", "stdout F up").await;
    let free = |from: &u32| (*from..from + 2000).all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists());
    let next = (300..30_000).step_by(100).find(free).expect("numbers that no process of the node has");
    world.sh(&target, &format!("echo {next} > /proc/sys/kernel/ns_last_pid")).await;
    for number in 0..JOINS {
        let name = format!("visitor{number}");
        let mut config = world.shell(&name, "grep -c '[w]hile' /proc/1/cmdline; echo $$");
        let options =
            NamespaceOption { pid: NamespaceMode::Target as i32, target_id: target.clone(), ..Default::default() };
        let security = LinuxContainerSecurityContext { namespace_options: Some(options), ..Default::default() };
        config.linux.as_mut().unwrap().security_context = Some(security);
        let id = world.run(&sandbox, &pod, config).await;
        assert_eq!(world.ended(&id).await.exit_code, 0);
        let log = world.container_log(&format!("{name}.log"));
        let said: Vec<&str> = log.iter().filter_map(|line| line.split(' ').nth(2)).collect();
        let [seen, pid] = said.as_slice() else { panic!("{log:?}") };
        assert_eq!(*seen, "1", "{name} does not see its target");
        assert!((next..next + 2000).contains(&pid.parse().unwrap()), "{name} is {pid}, not after {next}");
    }
    world.finish().await;
}

/// Its own groups, to read; nobody else's.
#[tokio::test]
async fn control_groups_are_seen_and_not_changed() {
    let mut world = World::new().await;
    let pod = world.pod("groups");
    let sandbox = world.run_pod(&pod).await;
    let id = world.run(&sandbox, &pod, world.shell("main", "sleep 1000")).await;
    let inside = if world::is_unified() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/memory" };
    assert_eq!(world.sh(&id, &format!("grep -c '^1$' {inside}/cgroup.procs")).await, "1");
    let own = world.group_file(&id, "memory", "memory.limit_in_bytes", "memory.max");
    let limit = world.sh(&id, &format!("cat {inside}/{}", own.file_name().unwrap().to_str().unwrap())).await;
    assert_eq!(limit, std::fs::read_to_string(own).unwrap().trim());
    let written =
        world.exec(&id, &["sh", "-c", "mkdir $(dirname $(find /sys/fs/cgroup -name cgroup.procs | head -n 1))/x"]);
    let written = written.await.unwrap();
    assert!(String::from_utf8_lossy(&written.stderr).contains("Read-only file system"), "{written:?}");
    world.finish().await;
}

#[tokio::test]
async fn the_first_process_of_a_shared_namespace_leads_nowhere() {
    let mut world = World::new().await;
    for own_users in [false, true] {
        let mut pod = world.pod("shared");
        let mut options = user_namespace(&mut pod, NamespaceMode::Pod);
        if !own_users {
            options.userns_options = None;
            pod.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options = Some(options.clone());
        }
        let sandbox = world.run_pod(&pod).await;
        let mut config = world.shell("main", "sleep 1000");
        let add_capabilities = vec!["SYS_PTRACE".into(), "SYS_ADMIN".into()];
        let security = LinuxContainerSecurityContext {
            namespace_options: Some(options),
            capabilities: Some(Capability { add_capabilities, ..Default::default() }),
            ..Default::default()
        };
        config.linux.as_mut().unwrap().security_context = Some(security);
        let id = world.run(&sandbox, &pod, config).await;
        let script = "grep -q pause /proc/1/cmdline && ls -A /proc/1/root/ && ls -A /proc/1/cwd/ && \
            touch /proc/1/root/f 2>&1 | grep -o 'Read-only file system'";
        let response = world.exec(&id, &["/bin/sh", "-c", script]).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&response.stdout), "Read-only file system\n", "{response:?}");
        let status = world.sh(&id, "grep -hE '^(Uid|CapPrm|CapBnd|NoNewPrivs|Seccomp):' /proc/1/status").await;
        let none = "0000000000000000";
        let user = "65535\t65535\t65535\t65535";
        assert_eq!(status, format!("Uid:\t{user}\nCapPrm:\t{none}\nCapBnd:\t{none}\nNoNewPrivs:\t1\nSeccomp:\t2"));
        for kind in ["net", "ipc", "uts"] {
            let links = world.sh(&id, &format!("readlink /proc/1/ns/{kind}; readlink /proc/self/ns/{kind}")).await;
            let (first, own) = links.split_once('\n').unwrap();
            assert_eq!(first, own);
        }
        // It still reaps.
        world.sh(&id, "(sleep 0.1 &) ; (sleep 0.1 &); sleep 0.3; ! ps -o stat | grep Z").await;
    }
    world.finish().await;
}

#[tokio::test]
async fn limits_cannot_be_lifted_from_inside() {
    let mut world = World::new().await;
    let pod = world.pod("limits");
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "sleep 1000");
    let resources = LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() };
    config.linux.as_mut().unwrap().resources = Some(resources);
    let id = world.run(&sandbox, &pod, config).await;
    let (file, group) = if world::is_unified() {
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/more")
    } else {
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/pids/more")
    };
    assert_eq!(world.sh(&id, &format!("cat {file}")).await, (64 << 20).to_string());
    for script in [&format!("echo -1 > {file}"), &format!("mkdir {group}"), "touch /sys/fs/cgroup/file"] {
        let response = world.exec(&id, &["/bin/sh", "-c", script]).await.unwrap();
        let words = String::from_utf8_lossy(&response.stderr);
        assert!(response.exit_code != 0 && words.contains("Read-only file system"), "{script}: {response:?}");
    }
    world.finish().await;
}

#[tokio::test]
async fn profiles_of_the_node_confine() {
    let mut world = World::new().await;
    let pod = world.pod("profile");
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[
        {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28},
        {"names":["kill"],"action":"SCMP_ACT_ERRNO","args":[{"index":1,"value":10,"op":"SCMP_CMP_EQ"}]}]}"#;
    let file = world.dir.path().join("profile.json");
    std::fs::write(&file, profile).unwrap();
    std::fs::write(world.dir.path().join("bad.json"), r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#).unwrap();
    let localhost = |file: &std::path::Path| {
        let profile_type = security_profile::ProfileType::Localhost as i32;
        Some(SecurityProfile { profile_type, localhost_ref: file.to_str().unwrap().into() })
    };
    for handler in ["", "runc"] {
        let sandbox = world.run_pod_on(&pod, handler).await;
        let mut config = world.shell("main", "sleep 1000");
        let security = config.linux.as_mut().unwrap().security_context.get_or_insert_default();
        security.seccomp = localhost(&file);
        let id = world.run(&sandbox, &pod, config.clone()).await;
        let words = world.exec(&id, &["mkdir", "/tmp/d"]).await.unwrap();
        assert!(String::from_utf8_lossy(&words.stderr).contains("No space left on device"), "{words:?}");
        let script = "kill -10 $$; kill -0 $$ && grep Seccomp: /proc/self/status";
        let response = world.exec(&id, &["/bin/sh", "-c", script]).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&response.stdout), "Seccomp:\t2\n");
        for (name, expected) in [("none.json", "cannot load seccomp profile"), ("bad.json", "defaultAction")] {
            let mut config = config.clone();
            config.metadata.as_mut().unwrap().name = name.into();
            let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
            security.seccomp = localhost(&world.dir.path().join(name));
            let error = world.create(&sandbox, &pod, config).await.unwrap_err();
            assert!(error.message().contains(expected) && error.message().contains("localhost_ref"), "{error}");
        }
        let request = RemovePodSandboxRequest { pod_sandbox_id: sandbox };
        world.clients.runtime.remove_pod_sandbox(request).await.unwrap();
    }
    world.finish().await;
}

#[tokio::test]
async fn read_only_reaches_mounts_below() {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    let mut world = World::new().await;
    let pod = world.pod("mounts");
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "sleep 1000");
    let mut volumes = [volume(&world, "plain", &[]), volume(&world, "deep", &[])];
    for volume in &mut volumes {
        volume.readonly = true;
        let below = std::path::Path::new(&volume.host_path).join("below");
        std::fs::create_dir(&below).unwrap();
        mount("below", &below, "tmpfs", MountFlags::empty(), c"").unwrap();
    }
    volumes[1].recursive_read_only = true;
    config.mounts = volumes.to_vec();
    let id = world.run(&sandbox, &pod, config).await;
    let script = "touch /plain/f; touch /plain/below/f; touch /deep/f; touch /deep/below/f; true";
    let errors = String::from_utf8(world.exec(&id, &["/bin/sh", "-c", script]).await.unwrap().stderr).unwrap();
    let failed: Vec<_> = errors.lines().filter_map(|line| line.split(": ").nth(1)).collect();
    assert_eq!(failed, ["/plain/f", "/deep/f", "/deep/below/f"], "{errors}");
    world.clients.runtime.remove_container(RemoveContainerRequest { container_id: id }).await.unwrap();
    for volume in &volumes {
        unmount(std::path::Path::new(&volume.host_path).join("below"), UnmountFlags::DETACH).unwrap();
    }
    world.finish().await;
}

#[tokio::test]
async fn another_oci_runtime_runs_a_pod() {
    let mut world = World::new().await;
    let status = world.clients.runtime.status(StatusRequest { verbose: false }).await.unwrap().into_inner();
    let names: Vec<_> = status.runtime_handlers.iter().map(|handler| handler.name.as_str()).collect();
    assert!(names.contains(&"") && names.contains(&"runc"), "{names:?}");
    let pod = world.pod("other");
    let request = RunPodSandboxRequest { config: Some(pod.clone()), runtime_handler: "nope".into() };
    let error = world.clients.runtime.run_pod_sandbox(request).await.unwrap_err();
    assert_eq!(error.message(), "failed to get sandbox runtime: no runtime for \"nope\" is configured");
    let sandbox = world.run_pod_on(&pod, "runc").await;
    let mut config = world.shell("main", "echo out; echo err >&2; trap 'exit 5' TERM; while true; do sleep 0.1; done");
    config.linux.as_mut().unwrap().security_context = Some(LinuxContainerSecurityContext {
        run_as_user: Some(Int64Value { value: 1000 }),
        seccomp: Some(SecurityProfile::default()),
        ..Default::default()
    });
    config.linux.as_mut().unwrap().resources =
        Some(LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() });
    let id = world.run(&sandbox, &pod, config).await;
    world.logged("main.log", "stderr F err").await;
    let state = world.dir.path().join(format!("state/sandboxes/{sandbox}/c/{id}/lc/{id}/state.json"));
    assert!(std::fs::read_to_string(state).unwrap().contains("init_process_pid"), "runc keeps its state elsewhere");
    let lines =
        world.sh(&id, "id -u; hostname; grep Seccomp: /proc/1/status; ip addr show eth0 | grep -o 10.99.0.2").await;
    assert_eq!(lines, "1000\nother\nSeccomp:\t2\n10.99.0.2");
    let refused = world.exec(&id, &["unshare", "-U", "true"]).await.unwrap();
    assert_ne!(refused.exit_code, 0);
    assert_eq!(world.exec(&id, &["/bin/sh", "-c", "exit 3"]).await.unwrap().exit_code, 3);
    let limit = world.group_file(&id, "memory", "memory.limit_in_bytes", "memory.max");
    assert_eq!(std::fs::read_to_string(limit).unwrap().trim(), "67108864");
    // What it has to say when it cannot is passed on.
    let mut broken = world.shell("broken", "");
    broken.command = vec!["/no/such/entrypoint".into()];
    let broken = world.create(&sandbox, &pod, broken).await.unwrap();
    let error = world.start_container(&broken).await.unwrap_err();
    assert!(error.message().contains("/no/such/entrypoint"), "{error}");
    // The runtime may be killed meanwhile.
    world.kill_server();
    world.start().await;
    assert_eq!(world.sh(&id, "echo inside").await, "inside");
    let request = StopContainerRequest { container_id: id.clone(), timeout: 20 };
    world.clients.runtime.stop_container(request).await.unwrap();
    assert_eq!(world.status(&id).await.exit_code, 5);
    world.finish().await;
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_by_name() {
    let mut world = World::new().await;
    let mut pod = world.pod("refused");
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "");
    config.cdi_devices = vec![CdiDevice { name: "vendor.test/gpu=0".into() }];
    let error = world.create(&sandbox, &pod, config).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    let why = "CDI device injection failed: unresolvable CDI devices vendor.test/gpu=0";
    assert!(error.message().contains(why), "{error}");
    let security = pod.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.selinux_options = Some(SeLinuxOption { level: "s0:c1".into(), ..Default::default() });
    let request = RunPodSandboxRequest { config: Some(pod), runtime_handler: String::new() };
    let error = world.clients.runtime.run_pod_sandbox(request).await.unwrap_err();
    assert!(error.message().starts_with("linux.security_context.selinux_options is not supported"), "{error}");
    world.finish().await;
}

#[tokio::test]
async fn a_dev_from_the_node_is_left_as_it_is() {
    let mut world = World::new().await;
    let mut pod = world.pod("dev");
    pod.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let sandbox = world.run_pod(&pod).await;
    // Not the machine's own, in case something goes wrong.
    let dev = world.dir.path().join("dev");
    for dir in ["pts", "shm"] {
        std::fs::create_dir_all(dev.join(dir)).unwrap();
    }
    for (name, minor) in [("null", "3"), ("zero", "5")] {
        let made = std::process::Command::new("mknod").arg(dev.join(name)).args(["c", "1", minor]).status().unwrap();
        assert!(made.success());
    }
    std::os::unix::fs::symlink("/proc/self/fd", dev.join("fd")).unwrap();
    let below = world.dir.path().join("message");
    std::fs::write(&below, "").unwrap();
    let mut config = world.shell("main", "echo up > /dev/null && echo bye > /dev/termination-log; sleep 1000");
    let mount = |path: &str, host: &std::path::Path| Mount {
        container_path: path.into(),
        host_path: host.to_str().unwrap().into(),
        ..Default::default()
    };
    config.mounts = vec![mount("/dev/termination-log", &below), mount("/dev", &dev)];
    let security = LinuxContainerSecurityContext { privileged: true, ..Default::default() };
    config.linux.as_mut().unwrap().security_context = Some(security);
    let id = world.run(&sandbox, &pod, config).await;
    let names = "fd null pts shm termination-log zero";
    assert_eq!(world.sh(&id, "cd /dev && echo *").await, names);
    world.sh(&id, "test -e /dev/shm && while [ ! -s /dev/termination-log ]; do sleep 0.02; done").await;
    assert_eq!(std::fs::read_to_string(&below).unwrap(), "bye\n");
    let mut found: Vec<_> =
        std::fs::read_dir(&dev).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    assert_eq!(found.join(" "), names);
    world.finish().await;
}

/// Each mount lets others through as it is asked to, whatever the container's other mounts do.
#[tokio::test]
async fn mounts_travel_as_each_is_told() {
    use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
    let tmpfs = |path: &std::path::Path| mount("none", path, "tmpfs", MountFlags::empty(), c"size=64k").unwrap();
    let mut world = World::new().await;
    let mut pod = world.pod("travel");
    pod.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let sandbox = world.run_pod(&pod).await;
    let dir = world.dir.path().join("shared");
    for name in ["shared/both", "shared/down", "shared/none", "volume"] {
        std::fs::create_dir_all(world.dir.path().join(name)).unwrap();
    }
    for name in ["both", "down", "none"] {
        tmpfs(&dir.join(name));
        mount_change(dir.join(name), MountPropagationFlags::SHARED).unwrap();
        for inner in ["inside", "node", "volume"] {
            std::fs::create_dir(dir.join(name).join(inner)).unwrap();
        }
    }
    let volume = |container_path: &str, host_path: std::path::PathBuf, propagation: MountPropagation| Mount {
        container_path: container_path.into(),
        host_path: host_path.to_str().unwrap().into(),
        propagation: propagation as i32,
        ..Default::default()
    };
    let mut config = world.shell("main", "sleep 1000");
    config.mounts = vec![
        volume("/both", dir.join("both"), MountPropagation::PropagationBidirectional),
        volume("/down", dir.join("down"), MountPropagation::PropagationHostToContainer),
        volume("/none", dir.join("none"), MountPropagation::PropagationPrivate),
        volume("/none/volume", world.dir.path().join("volume"), MountPropagation::PropagationPrivate),
        volume("/file", world.dir.path().join("log"), MountPropagation::PropagationPrivate),
    ];
    config.mounts[4].readonly = true;
    let security = LinuxContainerSecurityContext { privileged: true, ..Default::default() };
    config.linux.as_mut().unwrap().security_context = Some(security);
    let id = world.run(&sandbox, &pod, config).await;
    world.sh(&id, "for dir in both down none; do mount -t tmpfs none /$dir/inside || exit 1; done").await;
    for name in ["both", "down", "none"] {
        tmpfs(&dir.join(name).join("node"));
    }
    let points = world::mounts_below(&dir);
    let inside: Vec<_> = points.iter().filter(|point| !point.ends_with("node")).collect();
    assert_eq!(inside, [&dir.join("both"), &dir.join("down"), &dir.join("none"), &dir.join("both/inside")]);
    let seen = world
        .sh(&id, "for dir in both down none; do grep -q \" /$dir/node \" /proc/mounts && echo $dir; done; true")
        .await;
    assert_eq!(seen, "both\ndown");
    let refused = world.sh(&id, "grep -q \" /none/volume \" /proc/mounts && echo x >> /file || echo refused").await;
    assert_eq!(refused, "refused");
    // What cannot be mounted is named.
    let gone = world.dir.path().join("gone");
    let mut config = world.shell("second", "sleep 1000");
    config.mounts = vec![
        volume("/down", dir.join("down"), MountPropagation::PropagationHostToContainer),
        volume("/gone", gone.clone(), MountPropagation::PropagationPrivate),
    ];
    let second = Box::pin(world.create(&sandbox, &pod, config)).await.unwrap();
    std::fs::remove_dir(&gone).unwrap();
    let error = world.start_container(&second).await.unwrap_err();
    assert!(error.message().contains(&format!("mount {} on /gone: No such file", gone.display())), "{error}");
    for point in points.iter().rev() {
        unmount(point, UnmountFlags::DETACH).unwrap();
    }
    world.finish().await;
}
