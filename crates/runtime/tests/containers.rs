//! Real containers on this kernel, through CRI. Needs root and busybox-static.

mod world;

use std::time::{Duration, Instant};

use keelson_cri::v1::*;
use world::World;

#[tokio::test]
async fn a_container_runs_and_ends() {
    let mut world = World::new().await;
    let pod = world.pod("echo");
    let sandbox = world.run_pod(&pod).await;
    let config = world.shell("main", "echo out; echo err >&2; printf tail; exit 7");
    let id = world.run(&sandbox, &pod, config).await;
    let status = world.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
    assert!(status.created_at <= status.started_at && status.started_at <= status.finished_at, "{status:?}");
    let mut lines = world.container_log("main.log");
    lines.sort();
    assert_eq!(lines, ["stderr F err", "stdout F out", "stdout P tail"]);
    world.finish().await;
}

#[tokio::test]
async fn the_inside_is_a_pods() {
    let mut world = World::new().await;
    let pod = world.pod("inside");
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "sleep 1000");
    config.envs = vec![KeyValue { key: "GREETING".into(), value: "hello there".into() }];
    config.working_dir = "/not/there/yet".into();
    config.mounts = vec![Mount {
        container_path: "/data".into(),
        host_path: world.dir.path().join("volume").to_str().unwrap().into(),
        readonly: true,
        ..Default::default()
    }];
    let id = world.run(&sandbox, &pod, config).await;
    assert_eq!(world.sh(&id, "hostname; cat /etc/hostname").await, "inside\ninside");
    assert_eq!(world.sh(&id, "echo $GREETING $HOSTNAME $HOME; pwd").await, "hello there inside /root\n/not/there/yet");
    let resolv = world.sh(&id, "cat /etc/resolv.conf").await;
    assert_eq!(resolv, "search default.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5");
    // What brought a command in may be seen for a moment, until it has left.
    let seen = "ps -o comm | sort -u | grep -v -e ps -e sort -e grep -e sh";
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while world.sh(&id, seen).await != "COMMAND\nsleep" {
        assert!(tokio::time::Instant::now() < deadline, "others are seen: {}", world.sh(&id, seen).await);
    }
    assert!(world.sh(&id, "ip addr show eth0; ip addr show lo").await.contains("10.99.0.2/24"));
    assert!(world.sh(&id, "ping -c1 -W1 127.0.0.1").await.contains("1 packets received"));
    assert_eq!(world.exec(&id, &["/bin/sh", "-c", "echo x > /data/f"]).await.unwrap().exit_code, 1);
    // Its groups hold it.
    let procs = world.processes(&id);
    assert_eq!(procs.lines().count(), 1);
    // Capabilities are the default ones.
    let caps = world.sh(&id, "grep CapEff /proc/self/status").await;
    assert_eq!(caps, "CapEff:\t00000000a80425fb");
    let status =
        world.clients.runtime.pod_sandbox_status(PodSandboxStatusRequest { pod_sandbox_id: sandbox, verbose: false });
    assert_eq!(status.await.unwrap().into_inner().status.unwrap().network.unwrap().ip, "10.99.0.2");
    world.finish().await;
}

/// As kubelets ask for `volumes[].image`: the whole image, a path in it, and what cannot be had.
#[tokio::test]
async fn images_are_volumes() {
    let mut world = World::new().await;
    let pod = world.pod("images");
    let sandbox = world.run_pod(&pod).await;
    let image = |name: &str, path: &str| Mount {
        container_path: path.into(),
        image: Some(ImageSpec { image: name.into(), ..Default::default() }),
        ..Default::default()
    };
    let mut config = world.shell("main", "sleep 1000");
    let busybox = config.image.as_ref().unwrap().image.clone();
    config.mounts = vec![image(&busybox, "/whole"), image(&busybox, "/part")];
    let part = |path: &str| (format!("{}/part", keelson_cri::IMAGE_SUB_PATH), path.to_string());
    config.annotations.extend([part("bin")]);
    let id = world.run(&sandbox, &pod, config.clone()).await;
    assert_eq!(
        world.sh(&id, "cmp /whole/bin/busybox /bin/busybox && cmp /part/busybox /bin/busybox; echo $?").await,
        "0"
    );
    for script in ["/whole/bin/busybox true", "/part/busybox true", "touch /whole/new", "rm /part/busybox"] {
        let refused = world.exec(&id, &["/bin/sh", "-c", script]).await.unwrap();
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            refused.exit_code != 0 && (why.contains("ermission denied") || why.contains("Read-only")),
            "{script}: {why}"
        );
    }
    for (name, path, complaint) in [
        (busybox.as_str(), "none", "sub path \"none\""),
        // Out of the image is its root, and there is no such thing either.
        (busybox.as_str(), "../../../../proc/self", "sub path"),
        ("keelson.test/none:1", "bin", "image volume \"keelson.test/none:1\": not found"),
    ] {
        let mut config = config.clone();
        config.metadata = Some(ContainerMetadata { name: "refused".into(), attempt: 0 });
        config.mounts = vec![image(name, "/part")];
        config.annotations.extend([part(path)]);
        let refused = world.create(&sandbox, &pod, config).await.unwrap_err();
        assert!(refused.message().contains(complaint), "{refused}");
    }
    world.finish().await;
}

#[tokio::test]
async fn containers_of_a_pod_share_network_and_ipc_but_not_processes() {
    let mut world = World::new().await;
    let pod = world.pod("two");
    let sandbox = world.run_pod(&pod).await;
    let config = world.shell("server", "echo hi > /dev/shm/note; httpd -f -p 8080 -h /etc");
    let server = world.run(&sandbox, &pod, config).await;
    let config = world.shell("client", "sleep 1000");
    let client = world.run(&sandbox, &pod, config).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while world.exec(&client, &["wget", "-qO-", "http://127.0.0.1:8080/hostname"]).await.unwrap().exit_code != 0 {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(world.sh(&client, "wget -qO- http://127.0.0.1:8080/hostname; cat /dev/shm/note").await, "two\nhi");
    assert!(!world.sh(&client, "ps").await.contains("httpd"));
    assert!(world.sh(&server, "ps").await.contains("httpd"));
    world.finish().await;
}

#[tokio::test]
async fn a_pod_may_share_its_processes() {
    let mut world = World::new().await;
    let mut pod = world.pod("shared");
    let linux = pod.linux.as_mut().unwrap();
    let options = NamespaceOption { pid: NamespaceMode::Pod as i32, ..Default::default() };
    linux.security_context.as_mut().unwrap().namespace_options = Some(options.clone());
    let sandbox = world.run_pod(&pod).await;
    let mut ids = Vec::new();
    for (name, script) in [("one", "exec sleep 1003"), ("two", "sleep 1004 & exec sleep 1005")] {
        let mut config = world.shell(name, script);
        let security = LinuxContainerSecurityContext { namespace_options: Some(options.clone()), ..Default::default() };
        config.linux = Some(LinuxContainerConfig { security_context: Some(security), ..Default::default() });
        ids.push(world.run(&sandbox, &pod, config).await);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    let (one, two) = (ids[0].clone(), ids[1].clone());
    while !world.sh(&one, "ps -o args").await.contains("sleep 1005") {
        assert!(Instant::now() < deadline);
    }
    let processes = world.sh(&one, "ps -o args").await;
    assert!(["shim pause", "sleep 1003", "sleep 1004"].iter().all(|name| processes.contains(name)), "{processes}");
    // The end of a container's first process ends the others of its group, in the shared namespace too.
    world.sh(&one, "kill -9 $(ps -o pid,args | grep '[s]leep 1005$' | awk '{print $1}')").await;
    assert_eq!(world.ended(&two).await.exit_code, 137);
    while world.sh(&one, "ps -o args").await.contains("sleep 1004") {
        assert!(Instant::now() < deadline);
    }
    world.finish().await;
}

#[tokio::test]
async fn host_network_needs_no_plugin() {
    let mut world = World::new().await;
    std::fs::remove_file(world.dir.path().join("net.d/10-test.conflist")).unwrap();
    let status =
        world.clients.runtime.status(StatusRequest { verbose: false }).await.unwrap().into_inner().status.unwrap();
    let network = status.conditions.iter().find(|condition| condition.r#type == "NetworkReady").unwrap();
    assert_eq!((network.status, network.reason.as_str()), (false, "NetworkPluginNotReady"));
    let pod = world.pod("isolated");
    let request = RunPodSandboxRequest { config: Some(pod), runtime_handler: String::new() };
    let error = world.clients.runtime.run_pod_sandbox(request).await.unwrap_err();
    assert!(error.message().contains("cni plugin not initialized"), "{error}");
    let mut pod = world.pod("host");
    let options = NamespaceOption {
        network: NamespaceMode::Node as i32,
        pid: NamespaceMode::Container as i32,
        ..Default::default()
    };
    pod.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options = Some(options);
    let sandbox = world.run_pod(&pod).await;
    let config = world.shell("main", "readlink /proc/self/ns/net");
    let id = world.run(&sandbox, &pod, config).await;
    world.ended(&id).await;
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(world.container_log("main.log"), [format!("stdout F {}", own.display())]);
    world.finish().await;
}

#[tokio::test]
async fn exec_reports_code_output_and_timeout() {
    let mut world = World::new().await;
    let pod = world.pod("exec");
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "sleep 1000");
    let resources = LinuxContainerResources { oom_score_adj: 700, ..Default::default() };
    config.linux.as_mut().unwrap().resources = Some(resources);
    let id = world.run(&sandbox, &pod, config).await;
    // The kernel is to choose a command no later than what it runs beside.
    assert_eq!(world.sh(&id, "cat /proc/1/oom_score_adj /proc/self/oom_score_adj").await, "700\n700");
    let response = world.exec(&id, &["/bin/sh", "-c", "echo out; echo err >&2; exit 3"]).await.unwrap();
    assert_eq!(
        (response.exit_code, response.stdout.as_slice(), response.stderr.as_slice()),
        (3, &b"out\n"[..], &b"err\n"[..])
    );
    let large = world.exec(&id, &["/bin/sh", "-c", "dd if=/dev/zero bs=1024 count=2000 2>/dev/null"]).await.unwrap();
    assert_eq!(large.stdout.len(), 2_048_000);
    let error = world.exec(&id, &["/no/such/program"]).await.unwrap_err();
    assert!(error.message().contains("/no/such/program"), "{error}");
    let request = ExecSyncRequest { container_id: id.clone(), cmd: vec!["sleep".into(), "77".into()], timeout: 1 };
    let error = world.clients.runtime.exec_sync(request).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
    let deadline = Instant::now() + Duration::from_secs(10);
    while world.sh(&id, "ps -o args").await.contains("sleep 77") {
        assert!(Instant::now() < deadline, "the command outlived its timeout");
    }
    // Nothing piles up in the container's directory.
    let bundle = world.dir.path().join(format!("state/sandboxes/{sandbox}/c/{id}"));
    while std::fs::read_dir(&bundle)
        .unwrap()
        .flatten()
        .any(|entry| entry.file_name().to_str().unwrap().starts_with('x'))
    {
        assert!(Instant::now() < deadline, "exec directories are left");
    }
    world.finish().await;
}

#[tokio::test]
async fn memory_is_limited_and_the_kill_is_told() {
    let mut world = World::new().await;
    let pod = world.pod("oom");
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "x=a; while true; do x=$x$x; done");
    config.linux.as_mut().unwrap().resources =
        Some(LinuxContainerResources { memory_limit_in_bytes: 16 << 20, oom_score_adj: 1000, ..Default::default() });
    let id = world.run(&sandbox, &pod, config).await;
    let status = world.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    world.finish().await;
}

#[tokio::test]
async fn stopping_asks_first() {
    let mut world = World::new().await;
    let pod = world.pod("stop");
    let sandbox = world.run_pod(&pod).await;
    let config = world.shell("polite", "trap 'echo bye; exit 5' TERM; echo up; while true; do sleep 0.1; done");
    let polite = world.run(&sandbox, &pod, config).await;
    let config = world.shell("deaf", "trap '' TERM; echo up; while true; do sleep 0.1; done");
    let deaf = world.run(&sandbox, &pod, config).await;
    for (id, name, grace, code) in [(&polite, "polite", 20, 5), (&deaf, "deaf", 1, 137)] {
        world.logged(&format!("{name}.log"), "stdout F up").await;
        let request = StopContainerRequest { container_id: id.clone(), timeout: grace };
        let began = Instant::now();
        world.clients.runtime.stop_container(request.clone()).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(world.status(id).await.exit_code, code);
        // Again is fine.
        world.clients.runtime.stop_container(request).await.unwrap();
    }
    world.logged("polite.log", "stdout F bye").await;
    let remove = RemoveContainerRequest { container_id: polite };
    world.clients.runtime.remove_container(remove.clone()).await.unwrap();
    world.clients.runtime.remove_container(remove).await.unwrap();
    world.finish().await;
}

#[tokio::test]
async fn users_and_read_only_roots() {
    let mut world = World::new().await;
    let pod = world.pod("user");
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "id -u; id -g; id -G; echo again > /dev/stdout; touch /x || echo refused");
    config.linux.as_mut().unwrap().security_context = Some(LinuxContainerSecurityContext {
        run_as_user: Some(Int64Value { value: 1000 }),
        run_as_group: Some(Int64Value { value: 2000 }),
        supplemental_groups: vec![3000],
        readonly_rootfs: true,
        no_new_privs: true,
        masked_paths: vec!["/proc/kcore".into()],
        readonly_paths: vec!["/proc/sys".into()],
        ..Default::default()
    });
    let id = world.run(&sandbox, &pod, config).await;
    assert_eq!(world.ended(&id).await.exit_code, 0);
    let lines = world.container_log("main.log");
    let stdout: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix("stdout F ")).collect();
    assert_eq!(stdout, ["1000", "2000", "2000 3000", "again", "refused"]);
    world.finish().await;
}

#[tokio::test]
async fn the_default_seccomp_profile_confines() {
    let mut world = World::new().await;
    let pod = world.pod("seccomp");
    let sandbox = world.run_pod(&pod).await;
    for (name, uid, no_new_privs, capabilities) in [
        ("root", 0, false, "00000000a80425fb"),
        ("strict", 0, true, "00000000a80425fb"),
        ("user", 1000, false, "0000000000000000"),
    ] {
        let mut config = world.shell(name, "sleep 1000");
        config.linux.as_mut().unwrap().security_context = Some(LinuxContainerSecurityContext {
            run_as_user: Some(Int64Value { value: uid }),
            no_new_privs,
            seccomp: Some(SecurityProfile { profile_type: 0, ..Default::default() }),
            ..Default::default()
        });
        let id = world.run(&sandbox, &pod, config).await;
        for process in ["self", "1"] {
            let status =
                world.sh(&id, &format!("grep -E '^(Seccomp|CapEff|CapBnd|NoNewPrivs):' /proc/{process}/status")).await;
            let bit = u8::from(no_new_privs);
            let expected =
                format!("CapEff:\t{capabilities}\nCapBnd:\t00000000a80425fb\nNoNewPrivs:\t{bit}\nSeccomp:\t2");
            assert_eq!(status, expected, "{name} {process}");
        }
        let refused = world.exec(&id, &["unshare", "-U", "true"]).await.unwrap();
        assert!(
            refused.exit_code != 0 && String::from_utf8_lossy(&refused.stderr).contains("not permitted"),
            "{refused:?}"
        );
        // Signals arrive as they should: nothing is blocked or ignored that the shim has use for itself.
        let signals = world.sh(&id, "grep -hE '^Sig(Blk|Ign):' /proc/self/status /proc/1/status").await;
        let sigpipe = |line: &str| u64::from_str_radix(line, 16).unwrap() & 1 << 12;
        for line in signals.lines() {
            match line.split_once(":\t").unwrap() {
                ("SigBlk", set) => assert_eq!(set, "0000000000000000", "{signals}"),
                (_, set) => assert_eq!(sigpipe(set), 0, "{signals}"),
            }
        }
        assert_eq!(world.sh(&id, "echo a | cat; (sleep 0 & wait); ls / > /dev/null && echo fine").await, "a\nfine");
    }
    let config = world.shell("open", "unshare -U true && echo allowed");
    world.run(&sandbox, &pod, config).await;
    world.logged("open.log", "stdout F allowed").await;
    world.finish().await;
}

#[tokio::test]
async fn a_container_cannot_write_to_the_runtimes_binary() {
    let mut world = World::new().await;
    let mut pod = world.pod("breakout");
    let linux = pod.linux.as_mut().unwrap();
    let options = NamespaceOption { pid: NamespaceMode::Pod as i32, ..Default::default() };
    let security = linux.security_context.as_mut().unwrap();
    (security.namespace_options, security.privileged) = (Some(options.clone()), true);
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "sleep 1000");
    let security =
        LinuxContainerSecurityContext { namespace_options: Some(options), privileged: true, ..Default::default() };
    config.linux.as_mut().unwrap().security_context = Some(security);
    let id = world.run(&sandbox, &pod, config).await;
    // The pod's first process is the binary; even a privileged process finds it on a read-only file system.
    let pid = "$(ps -o pid,args | grep '[s]him pause' | awk '{print $1}')";
    let script = format!("chmod 777 /proc/{pid}/exe");
    let response = world.exec(&id, &["/bin/sh", "-c", &script]).await.unwrap();
    let error = String::from_utf8_lossy(&response.stderr);
    assert!(response.exit_code != 0 && error.contains("Read-only file system"), "{error}");
    world.finish().await;
}

#[tokio::test]
async fn a_start_that_fails_says_why() {
    let mut world = World::new().await;
    let pod = world.pod("broken");
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "");
    config.command = vec!["/no/such/entrypoint".into()];
    let id = world.create(&sandbox, &pod, config).await.unwrap();
    let mut events = world.clients.runtime.get_container_events(GetEventsRequest {}).await.unwrap().into_inner();
    let error = world.start_container(&id).await.unwrap_err();
    assert!(error.message().contains("/no/such/entrypoint"), "{error}");
    let event = tokio::time::timeout(Duration::from_secs(10), events.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(event.container_event_type(), ContainerEventType::ContainerStoppedEvent);
    assert_eq!(event.containers_statuses[0].reason, "StartError");
    let status = world.status(&id).await;
    assert_eq!(
        (status.state(), status.exit_code, status.reason.as_str()),
        (ContainerState::ContainerExited, 128, "StartError")
    );
    // An image that nobody has.
    let mut config = world.shell("other", "");
    config.image.as_mut().unwrap().image = "nobody.test/has:this".into();
    let error = world.create(&sandbox, &pod, config).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::NotFound);
    world.finish().await;
}

#[tokio::test]
async fn logs_rotate() {
    let mut world = World::new().await;
    let pod = world.pod("rotate");
    let sandbox = world.run_pod(&pod).await;
    let config = world.shell("main", "echo one; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo two; sleep 1000");
    let id = world.run(&sandbox, &pod, config).await;
    world.logged("main.log", "stdout F one").await;
    std::fs::rename(world.logs_dir().join("main.log"), world.logs_dir().join("main.log.1")).unwrap();
    let request = ReopenContainerLogRequest { container_id: id.clone() };
    world.clients.runtime.reopen_container_log(request).await.unwrap();
    world.sh(&id, "touch /tmp/go").await;
    world.logged("main.log", "stdout F two").await;
    assert_eq!(world.container_log("main.log.1"), ["stdout F one"]);
    world.finish().await;
}

#[tokio::test]
async fn events_and_stats_tell_what_happens() {
    let mut world = World::new().await;
    let mut events = world.clients.runtime.get_container_events(GetEventsRequest {}).await.unwrap().into_inner();
    let pod = world.pod("events");
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "while [ ! -e /tmp/go ]; do sleep 0.05; done");
    config.linux.as_mut().unwrap().resources =
        Some(LinuxContainerResources { memory_limit_in_bytes: 64 << 20, cpu_shares: 512, ..Default::default() });
    let id = world.run(&sandbox, &pod, config).await;
    let request = ContainerStatsRequest { container_id: id.clone() };
    let stats = world.clients.runtime.container_stats(request).await.unwrap().into_inner().stats.unwrap();
    assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 0);
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
    let request = PodSandboxStatsRequest { pod_sandbox_id: sandbox.clone() };
    let stats =
        world.clients.runtime.pod_sandbox_stats(request).await.unwrap().into_inner().stats.unwrap().linux.unwrap();
    assert_eq!((stats.containers.len(), stats.network.unwrap().default_interface.unwrap().name.as_str()), (1, "eth0"));
    let runtime = &mut world.clients.runtime;
    let described = runtime.list_metric_descriptors(ListMetricDescriptorsRequest {}).await.unwrap().into_inner();
    let told = runtime.list_pod_sandbox_metrics(ListPodSandboxMetricsRequest {}).await.unwrap().into_inner();
    let [of_pod] = told.pod_metrics.as_slice() else { panic!("one pod: {told:?}") };
    let [of_container] = of_pod.container_metrics.as_slice() else { panic!("one container: {of_pod:?}") };
    assert_eq!((&of_pod.pod_sandbox_id, &of_container.container_id), (&sandbox, &id));
    let label = |metric: &Metric, key: &str| {
        let known = described.descriptors.iter().find(|known| known.name == metric.name).expect("a descriptor");
        assert_eq!(known.label_keys.len(), metric.label_values.len(), "{metric:?}");
        known.label_keys.iter().position(|label| label == key).map(|at| metric.label_values[at].clone())
    };
    let value = |metrics: &[Metric], name: &str| {
        let found =
            metrics.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("no {name}: {metrics:?}"));
        found.value.unwrap().value
    };
    assert!(value(&of_container.metrics, "container_memory_working_set_bytes") > 0);
    assert!(value(&of_container.metrics, "container_processes") >= 1);
    assert!(value(&of_container.metrics, "container_start_time_seconds") > 1_700_000_000);
    assert!(of_container.metrics.iter().all(|metric| label(metric, "name").as_ref() == Some(&id)));
    let network = of_pod.metrics.iter().find(|metric| metric.name == "container_network_transmit_bytes_total").unwrap();
    assert_eq!(label(network, "interface").as_deref(), Some("eth0"));
    let update = LinuxContainerResources { memory_limit_in_bytes: 32 << 20, cpu_shares: 256, ..Default::default() };
    let request =
        UpdateContainerResourcesRequest { container_id: id.clone(), linux: Some(update), ..Default::default() };
    world.clients.runtime.update_container_resources(request).await.unwrap();
    let limit = world.group_file(&id, "memory", "memory.limit_in_bytes", "memory.max");
    assert_eq!(std::fs::read_to_string(limit).unwrap().trim(), "33554432");
    world.sh(&id, "touch /tmp/go").await;
    world.ended(&id).await;
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let event = tokio::time::timeout(Duration::from_secs(10), events.message()).await.unwrap().unwrap().unwrap();
        let what = if event.container_id == id { "container" } else { "sandbox" };
        seen.push((what, event.container_event_type()));
    }
    use ContainerEventType::*;
    assert_eq!(
        seen,
        [
            ("sandbox", ContainerCreatedEvent),
            ("sandbox", ContainerStartedEvent),
            ("container", ContainerCreatedEvent),
            ("container", ContainerStartedEvent),
            ("container", ContainerStoppedEvent),
        ]
    );
    world.finish().await;
}

/// One pod's whole life, by a client of its own.
async fn live_and_die(
    mut runtime: keelson_cri::Clients,
    pod: PodSandboxConfig,
    config: ContainerConfig,
) -> Result<i32, tonic::Status> {
    let request = RunPodSandboxRequest { config: Some(pod.clone()), runtime_handler: String::new() };
    let pod_sandbox_id = runtime.runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
    let request = CreateContainerRequest {
        pod_sandbox_id: pod_sandbox_id.clone(),
        config: Some(config),
        sandbox_config: Some(pod),
    };
    let container_id = runtime.runtime.create_container(request).await?.into_inner().container_id;
    runtime.runtime.start_container(StartContainerRequest { container_id: container_id.clone() }).await?;
    let cmd = ["/bin/sh", "-c", "exit 3"].map(String::from).to_vec();
    let request = ExecSyncRequest { container_id: container_id.clone(), cmd, timeout: 30 };
    let code = runtime.runtime.exec_sync(request).await?.into_inner().exit_code;
    runtime.runtime.stop_container(StopContainerRequest { container_id: container_id.clone(), timeout: 0 }).await?;
    runtime.runtime.remove_container(RemoveContainerRequest { container_id }).await?;
    runtime.runtime.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() }).await?;
    runtime.runtime.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id }).await?;
    Ok(code)
}

#[tokio::test]
async fn many_pods_at_once() {
    let mut world = World::new().await;
    let mut lives = Vec::new();
    for index in 0..16 {
        let pod = world.pod(&format!("pod{index}"));
        let config = world.shell(&format!("c{index}"), "echo up; sleep 1000");
        lives.push(tokio::spawn(Box::pin(live_and_die(world.clients.clone(), pod, config))));
    }
    for life in lives {
        assert_eq!(life.await.unwrap().map_err(|status| format!("{status}\n{}", world.log())), Ok(3));
    }
    world.finish().await;
}

#[tokio::test]
async fn programs_start_as_the_kernel_would_start_them() {
    let mut world = World::new().await;
    let pod = world.pod("programs");
    let sandbox = world.run_pod(&pod).await;
    let bin = world.dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    for (name, text) in [("own", "#!/bin/sh\nexec sleep 1000\n"), ("nobodys", "#!/bin/sh\n"), ("text", "echo hello\n")]
    {
        std::fs::write(bin.join(name), text).unwrap();
        let mode = if name == "nobodys" { 0o600 } else { 0o700 };
        std::fs::set_permissions(bin.join(name), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    let mount = Mount { container_path: "/b".into(), host_path: bin.to_str().unwrap().into(), ..Default::default() };
    let config = |world: &World, name: &str| {
        let mut config = world.shell(name, "");
        config.command = vec![format!("/b/{name}")];
        config.mounts = vec![mount.clone()];
        config
    };
    // Executable by its owner only, who is the one to execute it.
    let own = config(&world, "own");
    world.run(&sandbox, &pod, own).await;
    let nobodys = config(&world, "nobodys");
    let id = world.create(&sandbox, &pod, nobodys).await.unwrap();
    let error = world.start_container(&id).await.unwrap_err();
    assert!(error.message().contains("permission denied"), "{error}");
    // Not something for a shell to make sense of.
    let text = config(&world, "text");
    let id = world.run(&sandbox, &pod, text).await;
    assert_ne!(world.ended(&id).await.exit_code, 0);
    world.logged("text.log", "stderr F exec /b/text: exec format error").await;
    world.finish().await;
}

#[tokio::test]
async fn a_real_time_signal_stops_what_waits_for_it() {
    let mut world = World::new().await;
    let pod = world.pod("signals");
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "trap 'exit 7' 37; echo up; while true; do sleep 0.05; done");
    config.annotations.insert(keelson_cri::STOP_SIGNAL.into(), "SIGRTMIN+3".into());
    let id = world.run(&sandbox, &pod, config).await;
    world.logged("main.log", "stdout F up").await;
    let request = StopContainerRequest { container_id: id.clone(), timeout: 20 };
    world.clients.runtime.stop_container(request).await.unwrap();
    assert_eq!(world.status(&id).await.exit_code, 7);
    world.finish().await;
}

#[tokio::test]
async fn a_command_that_leaves_a_chatterbox_behind_holds_nobody_up() {
    let mut world = World::new().await;
    let pod = world.pod("chatter");
    let sandbox = world.run_pod(&pod).await;
    let config = world.shell("main", "sleep 1000");
    let id = world.run(&sandbox, &pod, config).await;
    let response = world.exec(&id, &["/bin/sh", "-c", "yes & sleep 0.1; exit 3"]).await.unwrap();
    assert_eq!(response.exit_code, 3);
    assert_eq!(world.sh(&id, "echo next").await, "next");
    let request = StopContainerRequest { container_id: id, timeout: 0 };
    world.clients.runtime.stop_container(request).await.unwrap();
    world.finish().await;
}

#[tokio::test]
async fn layers_of_image_volumes_outlive_their_image() {
    let mut world = World::new().await;
    let layer = keelson_testbed::image::Layer::new().file("data", 0o644, "kept");
    let image = keelson_testbed::image::busybox("keelson.local/volume:latest").unwrap().layer(layer);
    image.write_layout(&world.dir.path().join("images/volume")).unwrap();
    world.kill_server();
    world.start().await;
    let name = ImageSpec { image: "keelson.local/volume:latest".into(), ..Default::default() };
    let pull = PullImageRequest { image: Some(name.clone()), ..Default::default() };
    world.clients.image.pull_image(pull).await.unwrap();
    let pod = world.pod("volume");
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "sleep 1000");
    let mount = Mount { container_path: "/v".into(), image: Some(name.clone()), readonly: true, ..Default::default() };
    config.mounts = vec![mount];
    let id = world.run(&sandbox, &pod, config).await;
    world.clients.image.remove_image(RemoveImageRequest { image: Some(name) }).await.unwrap();
    assert_eq!(world.sh(&id, "cat /v/data").await, "kept");
    world.finish().await;
}

/// Whoever runs in a terminal may open it again.
#[tokio::test]
async fn a_terminal_is_its_users() {
    let mut world = World::new().await;
    let pod = world.pod("terminal");
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "sleep 1000");
    config.tty = true;
    let security =
        LinuxContainerSecurityContext { run_as_user: Some(Int64Value { value: 1000 }), ..Default::default() };
    config.linux.as_mut().unwrap().security_context = Some(security);
    let id = world.run(&sandbox, &pod, config).await;
    let terminal = world.sh(&id, "for dir in /proc/[0-9]*; do readlink $dir/fd/1; done | grep -m1 /dev/pts").await;
    assert_eq!(
        world.sh(&id, &format!("stat -c %u {terminal}; echo x > {terminal} && echo written")).await,
        "1000\nwritten"
    );
    world.finish().await;
}

/// Devices may be anywhere, as for other runtimes; and images go by the first digits of their IDs.
#[tokio::test]
async fn devices_outside_of_dev_and_images_by_short_ids() {
    let mut world = World::new().await;
    let image = ImageSpec { image: world::BUSYBOX.into(), ..Default::default() };
    let status = |image| ImageStatusRequest { image: Some(image), verbose: false };
    let found = world.clients.image.image_status(status(image)).await.unwrap().into_inner().image.unwrap();
    let digits = found.id.strip_prefix("sha256:").unwrap();
    for (name, known) in [(&digits[..13], true), (&digits[..12], true), (&digits[..6], false), ("0123456789abc", false)]
    {
        let image = ImageSpec { image: name.into(), ..Default::default() };
        let answer = world.clients.image.image_status(status(image)).await.unwrap().into_inner().image;
        assert_eq!(answer.map(|image| image.id), known.then(|| found.id.clone()), "{name}");
    }
    let pod = world.pod("device");
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "sleep 1000");
    let device = |path: &str, permissions: &str| Device {
        container_path: path.into(),
        host_path: "/dev/zero".into(),
        permissions: permissions.into(),
    };
    config.devices = vec![device("/opt/zero", "rw"), device("/dev/other", "rw")];
    let id = world.run(&sandbox, &pod, config).await;
    assert_eq!(world.sh(&id, "for file in /opt/zero /dev/other; do head -c 3 $file | wc -c; done").await, "3\n3");
    world.finish().await;
}

/// A program of 32 bits that writes `up` and ends.
#[cfg(target_arch = "x86_64")]
fn narrow_program() -> Vec<u8> {
    let code: &[u8] = &[
        0xb8, 4, 0, 0, 0, 0xbb, 1, 0, 0, 0, 0xb9, 0x73, 0x80, 4, 8, 0xba, 3, 0, 0, 0, 0xcd,
        0x80, // write(1, text, 3)
        0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80, // exit(0)
    ];
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    let size = 0x54 + code.len() as u32 + 3;
    // Version, entry, program header; no sections; then the one segment, read and executed.
    for word in [1, 0x0804_8054, 0x34, 0, 0, 0x0020_0034, 1, 0, 1, 0, 0x0804_8000, 0x0804_8000, size, size, 5, 0x1000] {
        file.extend(u32::to_le_bytes(word));
    }
    [&file, code, b"up\n"].concat()
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn programs_of_32_bits_run_behind_the_default_filter() {
    use std::os::unix::fs::PermissionsExt;
    let mut world = World::new().await;
    let file = world.dir.path().join("narrow");
    std::fs::write(&file, narrow_program()).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    let pod = world.pod("narrow");
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "");
    config.command = vec!["/narrow".into()];
    config.mounts = vec![Mount {
        container_path: "/narrow".into(),
        host_path: file.to_str().unwrap().into(),
        ..Default::default()
    }];
    let security = LinuxContainerSecurityContext { seccomp: Some(SecurityProfile::default()), ..Default::default() };
    config.linux.as_mut().unwrap().security_context = Some(security);
    let id = world.run(&sandbox, &pod, config).await;
    assert_eq!(world.ended(&id).await.exit_code, 0);
    world.logged("main.log", "stdout F up").await;
    world.finish().await;
}

/// Where the kernel has the controller, in whatever hierarchy.
#[tokio::test]
async fn huge_pages_are_limited() {
    let mut world = World::new().await;
    let pod = world.pod("huge");
    let sandbox = world.run_pod(&pod).await;
    let limits = |bytes| LinuxContainerResources {
        hugepage_limits: vec![HugepageLimit { page_size: "2MB".into(), limit: bytes }],
        ..Default::default()
    };
    let mut config = world.shell("main", "sleep 1000");
    config.linux.as_mut().unwrap().resources = Some(limits(4 << 20));
    let id = world.run(&sandbox, &pod, config).await;
    let dirs = world::cgroup_dirs(&format!("{}/{id}", world.cgroup));
    let names = ["hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes"];
    let found = dirs.iter().flat_map(|dir| names.map(|name| dir.join(name))).find(|file| file.exists());
    let Some(file) = found else {
        let all = std::fs::read_to_string("/proc/cgroups").unwrap_or_default();
        assert!(!all.contains("hugetlb"), "the kernel has the controller: {all}");
        return world.finish().await;
    };
    let limit = || std::fs::read_to_string(&file).unwrap().trim().to_owned();
    assert_eq!(limit(), (4 << 20).to_string());
    // Commands are in the group as well.
    world.exec(&id, &["/bin/sh", "-c", "sleep 1000 & sleep 0.1"]).await.unwrap();
    let procs = std::fs::read_to_string(file.with_file_name("cgroup.procs")).unwrap();
    assert_eq!(procs.lines().count(), 2, "{procs}");
    let request = UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(limits(8 << 20)),
        ..Default::default()
    };
    world.clients.runtime.update_container_resources(request).await.unwrap();
    assert_eq!(limit(), (8 << 20).to_string());
    let group = file.parent().unwrap().parent().unwrap().to_owned();
    let request = RemoveContainerRequest { container_id: id };
    world.clients.runtime.remove_container(request).await.unwrap();
    // The hierarchy beside v1's is this runtime's alone to clean up.
    assert!(!(group.starts_with("/sys/fs/cgroup/unified") && group.exists()), "{}", group.display());
    world.finish().await;
}

#[tokio::test]
async fn limits_change_before_the_start_as_well_and_all_or_none() {
    let mut world = World::new().await;
    let pod = world.pod("limits");
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "sleep 1000");
    let resources = |memory_limit_in_bytes, cpu_shares, cpuset_cpus: &str| LinuxContainerResources {
        memory_limit_in_bytes,
        cpu_shares,
        cpuset_cpus: cpuset_cpus.into(),
        ..Default::default()
    };
    config.linux.as_mut().unwrap().resources = Some(resources(32 << 20, 512, ""));
    let id = world.create(&sandbox, &pod, config).await.unwrap();
    let request =
        |linux| UpdateContainerResourcesRequest { container_id: id.clone(), linux: Some(linux), ..Default::default() };
    world.clients.runtime.update_container_resources(request(resources(64 << 20, 0, ""))).await.unwrap();
    world.start_container(&id).await.unwrap();
    let memory = "cd /sys/fs/cgroup && cat memory.max memory/memory.limit_in_bytes 2> /dev/null; true";
    assert_eq!(world.sh(&id, memory).await, (64 << 20).to_string());
    // No such processor: what was changed before is as it was.
    let cpu = "cd /sys/fs/cgroup && cat cpu.weight cpu/cpu.shares 2> /dev/null; true";
    let before = world.sh(&id, cpu).await;
    let update = world.clients.runtime.update_container_resources(request(resources(0, 2048, "9999"))).await;
    assert!(update.unwrap_err().message().contains("cpuset.cpus"));
    assert_eq!(world.sh(&id, cpu).await, before);
    world.clients.runtime.update_container_resources(request(resources(0, 2048, ""))).await.unwrap();
    assert_ne!(world.sh(&id, cpu).await, before);
    world.finish().await;
}
