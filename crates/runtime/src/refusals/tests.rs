//! Every refusal, with the name it is to carry.

use keelson_cri::v1::{
    IdMapping, LinuxContainerConfig, LinuxContainerResources, LinuxPodSandboxConfig, LinuxSandboxSecurityContext,
    Mount, NamespaceOption, UserNamespace,
};

use super::*;

fn machine(apparmor: bool, selinux: bool) -> Machine {
    Machine {
        capabilities: Vec::new(),
        unified_cgroups: false,
        cgroup_hierarchies: Vec::new(),
        swap_limit: false,
        hugetlb: false,
        hugetlb_beside: false,
        apparmor,
        selinux,
        user_namespaces: true,
        oom_score_adj_floor: 0,
    }
}

fn with(security: LinuxContainerSecurityContext) -> ContainerConfig {
    let linux = LinuxContainerConfig { security_context: Some(security), ..Default::default() };
    ContainerConfig { linux: Some(linux), ..Default::default() }
}

fn pod(security: LinuxSandboxSecurityContext) -> PodSandboxConfig {
    let linux = LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() };
    PodSandboxConfig { linux: Some(linux), ..Default::default() }
}

fn ids(host_id: u32) -> Vec<IdMapping> {
    vec![IdMapping { host_id, container_id: 0, length: 65536 }]
}

fn user_pod(network: NamespaceMode) -> PodSandboxConfig {
    let userns = UserNamespace { mode: NamespaceMode::Pod as i32, uids: ids(1 << 16), gids: ids(1 << 16) };
    let options = NamespaceOption { network: network as i32, userns_options: Some(userns), ..Default::default() };
    pod(LinuxSandboxSecurityContext { namespace_options: Some(options), privileged: true, ..Default::default() })
}

#[track_caller]
fn check(config: &ContainerConfig, pod: &PodSandboxConfig, machine: &Machine, expected: &str) {
    let outcome = container(config, pod, machine).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(if expected.is_empty() { outcome.is_empty() } else { outcome.contains(expected) }, "{outcome:?}");
}

fn profile(profile_type: ProfileType, name: &str) -> Option<SecurityProfile> {
    Some(SecurityProfile { profile_type: profile_type as i32, localhost_ref: name.into() })
}

#[test]
fn profiles_are_honoured_or_refused() {
    let (none, both) = (machine(false, false), machine(true, true));
    let pod = PodSandboxConfig::default();
    let apparmor = |profile| with(LinuxContainerSecurityContext { apparmor: profile, ..Default::default() });
    for (kind, name, without, with) in [
        (ProfileType::Unconfined, "", "", ""),
        (ProfileType::RuntimeDefault, "", "", "linux.security_context.apparmor is not supported"),
        (ProfileType::Localhost, "localhost/mine", "this node's kernel has no AppArmor", ""),
    ] {
        check(&apparmor(profile(kind, name)), &pod, &none, without);
        check(&apparmor(profile(kind, name)), &pod, &both, with);
    }
    let security = LinuxContainerSecurityContext {
        apparmor: profile(ProfileType::Localhost, "localhost/mine"),
        ..Default::default()
    };
    assert_eq!(apparmor_profile(&security, &both).unwrap().as_deref(), Some("mine"));
    let options = SeLinuxOption { level: "s0:c1".into(), ..Default::default() };
    let labelled = with(LinuxContainerSecurityContext { selinux_options: Some(options), ..Default::default() });
    check(&labelled, &pod, &none, "linux.security_context.selinux_options is not supported: SELinux is not enabled");
    check(&labelled, &pod, &both, "this runtime sets no SELinux labels");
    let empty =
        with(LinuxContainerSecurityContext { selinux_options: Some(SeLinuxOption::default()), ..Default::default() });
    check(&empty, &pod, &both, "");
    for (path, expected) in [("unconfined", ""), ("localhost/x", "seccomp_profile_path is not supported")] {
        let old = with(LinuxContainerSecurityContext { seccomp_profile_path: path.into(), ..Default::default() });
        check(&old, &pod, &none, expected);
    }
}

#[test]
fn other_fields() {
    let (pod, machine) = (PodSandboxConfig::default(), machine(false, false));
    let resources =
        LinuxContainerResources { unified: [("memory.high".to_owned(), "1".to_owned())].into(), ..Default::default() };
    let unified = LinuxContainerConfig { resources: Some(resources), ..Default::default() };
    check(&ContainerConfig { linux: Some(unified), ..Default::default() }, &pod, &machine, "linux.resources.unified");
    let privileged = with(LinuxContainerSecurityContext { privileged: true, ..Default::default() });
    let plain = self::pod(LinuxSandboxSecurityContext::default());
    check(&privileged, &plain, &machine, "no privileged container allowed in sandbox");
    check(&privileged, &pod, &machine, "");
}

#[test]
fn mounts_say_which_of_them() {
    let machine = machine(false, false);
    let mount = |change: fn(&mut Mount)| {
        let mut mount = Mount { container_path: "/m".into(), host_path: "/".into(), ..Default::default() };
        change(&mut mount);
        ContainerConfig { mounts: vec![mount], ..Default::default() }
    };
    let plain = PodSandboxConfig::default();
    check(&mount(|m| m.recursive_read_only = true), &plain, &machine, "mounts[/m].recursive_read_only: needs readonly");
    let slave = mount(|m| {
        (m.recursive_read_only, m.readonly) = (true, true);
        m.set_propagation(MountPropagation::PropagationHostToContainer);
    });
    check(&slave, &plain, &machine, "needs private propagation");
    check(&mount(|m| m.uid_mappings = ids(7)), &plain, &machine, "mounts[/m].uidMappings");
    let mapped = mount(|m| (m.uid_mappings, m.gid_mappings) = (ids(1 << 16), ids(1 << 16)));
    check(&mapped, &user_pod(NamespaceMode::Pod), &machine, "");
    let both = mount(|m| m.set_propagation(MountPropagation::PropagationBidirectional));
    check(&both, &user_pod(NamespaceMode::Pod), &machine, "mounts[/m].propagation is not supported");
}

#[test]
fn user_namespaces_are_the_pods_own() {
    let machine = machine(false, false);
    sandbox(&user_pod(NamespaceMode::Pod), &machine).unwrap();
    let error = sandbox(&user_pod(NamespaceMode::Node), &machine).unwrap_err().to_string();
    assert!(error.contains("namespace_options.network: a pod with a user namespace"), "{error}");
}

#[test]
fn the_mount_of_a_path() {
    let table =
        "1 0 8:1 / / rw shared:1 - ext4 a rw\n2 1 8:1 / /v rw - ext4 a rw\n3 1 8:1 / /v/s rw master:4 - ext4 a rw\n";
    let of = |path: &str| mount_of(table, Path::new(path)).unwrap();
    assert_eq!(of("/x"), ("/".into(), true, false));
    assert_eq!(of("/v/x"), ("/v".into(), false, false));
    assert_eq!(of("/v/s/x"), ("/v/s".into(), false, true));
}
