//! Specifications from configurations, with plain values.

use keelson_cri::v1::{Capability, KeyValue, LinuxContainerConfig, Mount, MountPropagation};

use super::*;

fn machine() -> Machine {
    Machine {
        capabilities: DEFAULT_CAPABILITIES
            .iter()
            .chain(&["CAP_NET_ADMIN", "CAP_SYS_ADMIN"])
            .map(|c| (*c).into())
            .collect(),
        unified_cgroups: false,
        cgroup_hierarchies: vec!["memory".into()],
        swap_limit: false,
        hugetlb: false,
        hugetlb_beside: true,
        apparmor: false,
        selinux: false,
        user_namespaces: true,
        oom_score_adj_floor: 0,
    }
}

fn image() -> ImageConfig {
    ImageConfig {
        entrypoint: vec!["/entry".into()],
        cmd: vec!["cmd".into()],
        env: vec!["A=image".into(), "B=image".into()],
        working_dir: "/work".into(),
        ..Default::default()
    }
}

fn build(config: &ContainerConfig, sandbox: &PodSandboxConfig) -> Result<Value, Error> {
    spec(&Input {
        config,
        sandbox,
        image: &image(),
        user: &User { uid: 5, gid: 6, groups: vec![6], home: Some("/home/u".into()) },
        machine: &machine(),
        rootfs: Path::new("/r"),
        namespaces: Path::new("/ns"),
        pid_namespace: None,
        cgroup: Path::new("/g/c"),
        files: vec![("/etc/hosts", "/s/hosts".into())],
        devices: Vec::new(),
        seccomp: None,
        external: false,
    })
}

fn with_security(security: LinuxContainerSecurityContext) -> ContainerConfig {
    let linux = LinuxContainerConfig { security_context: Some(security), ..Default::default() };
    ContainerConfig { linux: Some(linux), ..Default::default() }
}

fn command(command: &[&str], args: &[&str], expected: &[&str]) {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let config = ContainerConfig { command: words(command), args: words(args), ..Default::default() };
    assert_eq!(command_line(&config, &image()).unwrap(), words(expected));
}

#[test]
fn command_lines() {
    command(&[], &[], &["/entry", "cmd"]);
    command(&[], &["a"], &["/entry", "a"]);
    command(&["c"], &[], &["c"]);
    command(&["c"], &["a"], &["c", "a"]);
    assert!(command_line(&ContainerConfig::default(), &ImageConfig::default()).is_err());
}

#[test]
fn later_variables_win() {
    let env = |key: &str| KeyValue { key: key.into(), value: "pod".into() };
    let config = ContainerConfig { envs: vec![env("B"), env("HOME")], ..Default::default() };
    let spec = build(&config, &PodSandboxConfig { hostname: "web".into(), ..Default::default() }).unwrap();
    assert_eq!(spec["process"]["env"], json!([DEFAULT_PATH, "HOSTNAME=web", "HOME=pod", "A=image", "B=pod"]));
    assert_eq!(spec["process"]["cwd"], "/work");
}

fn capability_set(add: &[&str], drop: &[&str], privileged: bool) -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let security = LinuxContainerSecurityContext {
        privileged,
        capabilities: Some(Capability {
            add_capabilities: words(add),
            drop_capabilities: words(drop),
            ..Default::default()
        }),
        ..Default::default()
    };
    let (value, lent) = capabilities(&security, &machine(), false).unwrap();
    assert!(lent.is_empty());
    serde_json::from_value(value["effective"].clone()).unwrap()
}

#[test]
fn capability_sets() {
    assert_eq!(capability_set(&[], &[], false).len(), 14);
    assert_eq!(capability_set(&["NET_ADMIN"], &[], false).len(), 15);
    assert_eq!(capability_set(&["CAP_CHOWN"], &[], false).len(), 14);
    assert_eq!(capability_set(&[], &["ALL"], false).len(), 0);
    assert_eq!(capability_set(&["net_bind_service"], &["ALL"], false), ["CAP_NET_BIND_SERVICE"]);
    assert_eq!(capability_set(&["ALL"], &["SYS_ADMIN"], false).len(), 15);
    assert_eq!(capability_set(&["ALL"], &["ALL"], false).len(), 0);
    assert_eq!(capability_set(&["NET_ADMIN"], &["NET_ADMIN", "NET_RAW"], false).len(), 13);
    assert_eq!(capability_set(&[], &["ALL"], true).len(), 16);
}

fn namespace_kinds(options: NamespaceOption) -> String {
    let sandbox = PodSandboxConfig {
        linux: Some(keelson_cri::v1::LinuxPodSandboxConfig {
            security_context: Some(keelson_cri::v1::LinuxSandboxSecurityContext {
                namespace_options: Some(options),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let spec = build(&ContainerConfig::default(), &sandbox).unwrap();
    let kinds: Vec<&str> =
        spec["linux"]["namespaces"].as_array().unwrap().iter().filter_map(|ns| ns["type"].as_str()).collect();
    kinds.join(" ")
}

#[test]
fn namespaces_follow_the_pod() {
    let (pod, container, node) =
        (NamespaceMode::Pod as i32, NamespaceMode::Container as i32, NamespaceMode::Node as i32);
    let options = |network, pid, ipc| NamespaceOption { network, pid, ipc, ..Default::default() };
    assert_eq!(namespace_kinds(options(pod, container, pod)), "mount network uts ipc pid");
    assert_eq!(namespace_kinds(options(node, node, node)), "mount");
    assert_eq!(namespace_kinds(options(node, container, pod)), "mount ipc pid");
}

#[test]
fn mounts_nest_and_override_the_pods_files() {
    let one = |path: &str| {
        let mount = Mount { container_path: path.into(), host_path: "/h".into(), ..Default::default() };
        let config = ContainerConfig { mounts: vec![mount], ..Default::default() };
        let spec = build(&config, &PodSandboxConfig::default()).unwrap();
        let mounts = spec["mounts"].as_array().unwrap().clone();
        mounts.into_iter().rev().take(2).map(|mount| mount["destination"].clone()).collect::<Vec<_>>()
    };
    // A volume does not hide a file of the pod's below it.
    assert_eq!(one("/etc"), ["/etc/hosts", "/etc"]);
    let mount = |path: &str, propagation| Mount {
        container_path: path.into(),
        host_path: "/h".into(),
        propagation,
        ..Default::default()
    };
    let config = ContainerConfig {
        mounts: vec![
            mount("/a/b", 0),
            mount("/a", MountPropagation::PropagationHostToContainer as i32),
            mount("/etc/hosts", 0),
        ],
        ..Default::default()
    };
    let spec = build(&config, &PodSandboxConfig::default()).unwrap();
    let mounts: Vec<(&str, &str)> = spec["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|mount| mount["type"] == "bind" && mount["destination"] != "/sys/fs/cgroup/memory")
        .map(|mount| (mount["destination"].as_str().unwrap(), mount["source"].as_str().unwrap()))
        .collect();
    assert_eq!(mounts, [("/a", "/h"), ("/a/b", "/h"), ("/etc/hosts", "/h")]);
    assert_eq!(spec["linux"]["rootfsPropagation"], "slave");
}

#[test]
fn oom_scores_below_the_floor_are_left_alone() {
    let with = |oom_score_adj| {
        let resources = LinuxContainerResources { oom_score_adj, ..Default::default() };
        let linux = LinuxContainerConfig { resources: Some(resources), ..Default::default() };
        build(&ContainerConfig { linux: Some(linux), ..Default::default() }, &PodSandboxConfig::default()).unwrap()
    };
    assert_eq!(with(1000)["process"]["oomScoreAdj"], 1000);
    assert!(with(-997)["process"].get("oomScoreAdj").is_none());
}

#[test]
fn privileged_masks_nothing() {
    let security = LinuxContainerSecurityContext { masked_paths: vec!["/proc/kcore".into()], ..Default::default() };
    let spec = build(&with_security(security.clone()), &PodSandboxConfig::default()).unwrap();
    assert_eq!(spec["linux"]["maskedPaths"], json!(["/proc/kcore"]));
    let spec = build(
        &with_security(LinuxContainerSecurityContext { privileged: true, ..security }),
        &PodSandboxConfig::default(),
    );
    assert_eq!(spec.unwrap()["linux"]["maskedPaths"], json!([]));
}

#[test]
fn seccomp_profiles() {
    let with = |profile: ProfileType, no_new_privs| {
        let profile = SecurityProfile { profile_type: profile as i32, ..Default::default() };
        let security = LinuxContainerSecurityContext { seccomp: Some(profile), no_new_privs, ..Default::default() };
        build(&with_security(security), &PodSandboxConfig::default())
    };
    let spec = with(ProfileType::RuntimeDefault, false).unwrap();
    assert_eq!(spec["annotations"], json!({SECCOMP_ANNOTATION: "CAP_SYS_ADMIN"}));
    assert_eq!(with(ProfileType::RuntimeDefault, true).unwrap()["annotations"], json!({SECCOMP_ANNOTATION: ""}));
    assert_eq!(with(ProfileType::Unconfined, false).unwrap()["annotations"], json!({}));
    let profile = SecurityProfile { profile_type: ProfileType::Localhost as i32, localhost_ref: "localhost/p".into() };
    let mut security = LinuxContainerSecurityContext { seccomp: Some(profile), ..Default::default() };
    assert_eq!(seccomp_file(&security), Some("p".into()));
    security.privileged = true;
    assert_eq!(seccomp_file(&security), None);
}

#[test]
fn what_is_not_supported_is_refused() {
    let unknown = Capability { add_capabilities: vec!["FLY".into()], ..Default::default() };
    let security = LinuxContainerSecurityContext { capabilities: Some(unknown), ..Default::default() };
    assert!(matches!(build(&with_security(security), &PodSandboxConfig::default()), Err(Error::Invalid(_))));
}

#[test]
fn control_groups_are_the_containers_own() {
    let mount = |privileged: bool| {
        let security = LinuxContainerSecurityContext { privileged, ..Default::default() };
        let spec = build(&with_security(security), &PodSandboxConfig::default()).unwrap();
        let mounts = spec["mounts"].as_array().unwrap().clone();
        mounts.into_iter().find(|mount| mount["destination"] == "/sys/fs/cgroup/memory").unwrap()
    };
    assert_eq!(mount(false)["source"], "/sys/fs/cgroup/memory/g/c");
    assert!(mount(false)["options"].as_array().unwrap().contains(&json!("ro")));
    assert!(mount(true)["options"].as_array().unwrap().contains(&json!("rw")));
}

#[test]
fn mounts_that_travel_are_left_to_the_hook() {
    let check = |path: &str, propagation: MountPropagation, late: bool| {
        let mount = Mount {
            container_path: path.into(),
            host_path: "/h".into(),
            propagation: propagation as i32,
            ..Default::default()
        };
        let config = ContainerConfig { mounts: vec![mount], ..Default::default() };
        let mut spec = build(&config, &PodSandboxConfig::default()).unwrap();
        assert_eq!(mounts::defer(&mut spec, Path::new("/r")).unwrap(), late);
        let binds = spec["mounts"].as_array().unwrap().iter().filter(|mount| mount["type"] == "bind").count();
        let hook = spec.pointer("/hooks/createContainer/0/args/3").and_then(Value::as_str);
        assert_eq!((binds == 0, hook.is_some()), (late, late), "{path} {propagation:?}");
        if let Some(text) = hook {
            let text: Value = serde_json::from_str(text).unwrap();
            assert_eq!(text["root"], "/r");
            let named = |mount: &Value| mount["destination"] == path && mount["source"] == "/h";
            assert!(text["mounts"].as_array().unwrap().iter().any(named), "{text}");
        }
    };
    check("/a", MountPropagation::PropagationPrivate, false);
    check("/dev/sub", MountPropagation::PropagationPrivate, false);
    check("/dev", MountPropagation::PropagationPrivate, true);
    check("/dev/", MountPropagation::PropagationPrivate, true);
    check("/a", MountPropagation::PropagationHostToContainer, true);
    check("/a", MountPropagation::PropagationBidirectional, true);
}
