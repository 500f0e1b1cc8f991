use super::*;
use serde_json::{Value, json};

use crate::pod::observed::SandboxRecord;
use crate::pod::plan;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

struct World {
    pod: Pod,
    old: PodStatus,
    observed: Observed,
    probed: BTreeMap<String, Probed>,
    waiting: BTreeMap<String, Waiting>,
    stopped: bool,
    ended: Option<Ended>,
}

impl World {
    fn new(spec: Value) -> World {
        let metadata = json!({"name": "p", "namespace": "n", "uid": "u", "generation": 4});
        World {
            pod: serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap(),
            old: PodStatus::default(),
            observed: Observed::default(),
            probed: BTreeMap::new(),
            waiting: BTreeMap::new(),
            stopped: false,
            ended: None,
        }
    }

    fn sandbox(mut self) -> World {
        let ips = vec!["10.0.0.9".to_string()];
        self.observed.sandboxes.push(SandboxRecord { id: "s".into(), ready: true, ips, ..Default::default() });
        self
    }

    fn container(mut self, name: &str, state: State, exit_code: i32) -> World {
        let hash = view::find_container(&self.pod, name).map(|container| plan::container_hash(&container)).unwrap();
        let record = ContainerRecord {
            id: format!("{name}-id"),
            name: name.into(),
            sandbox_id: "s".into(),
            state,
            started_at: Some(at(1)),
            finished_at: (state == State::Exited).then(|| at(2)),
            exit_code,
            hash,
            ..Default::default()
        };
        self.observed.containers.push(record);
        self
    }

    fn status(&self) -> PodStatus {
        status(&Input {
            pod: &self.pod,
            old: &self.old,
            observed: &self.observed,
            probed: &self.probed,
            waiting: &self.waiting,
            ended: self.ended.as_ref(),
            resize: &Default::default(),
            stopped: self.stopped,
            host_ips: &["10.1.1.1".to_string()],
            runtime_name: "rt",
            mounts_recursively: true,
            now: at(10),
        })
    }
}

/// `phase; condition=value(reason) …` of what is false or has a reason.
fn summary(status: &PodStatus) -> String {
    let conditions = status.conditions.iter().flatten().filter(|c| c.status == "False" || c.reason.is_some());
    let texts = conditions.map(|c| format!("{}={}({})", c.type_, c.status, c.reason.as_deref().unwrap_or_default()));
    let phase = status.phase.clone().unwrap_or_default();
    std::iter::once(phase).chain(texts).collect::<Vec<_>>().join(" ")
}

const UNREADY: &str = "Ready=False(ContainersNotReady) ContainersReady=False(ContainersNotReady)";

#[test]
fn mounts_and_users() {
    let mount = |name: &str, read_only: bool, mode: Value| json!({"name": name, "mountPath": format!("/{name}"), "readOnly": read_only, "recursiveReadOnly": mode});
    let mounts = json!([
        mount("a", true, json!("IfPossible")),
        mount("b", true, json!("Enabled")),
        mount("c", true, json!("Disabled")),
        mount("d", true, Value::Null),
        mount("e", false, Value::Null)
    ]);
    let mut world = World::new(json!({"containers": [{"name": "c", "volumeMounts": mounts}]})).sandbox().container(
        "c",
        State::Running,
        0,
    );
    let user = json!({"uid": 7, "gid": 8, "supplementalGroups": [8, 9]});
    world.observed.containers[0].user = Some(serde_json::from_value(user.clone()).unwrap());
    let status = world.status().container_statuses.unwrap().remove(0);
    let told: Vec<_> = status.volume_mounts.unwrap().into_iter().map(|mount| mount.recursive_read_only).collect();
    let expected = [Some("Enabled"), Some("Enabled"), Some("Disabled"), Some("Disabled"), None];
    assert_eq!(told, expected.map(|mode| mode.map(str::to_string)));
    assert_eq!(serde_json::to_value(status.user).unwrap(), json!({"linux": user}));
}

#[test]
fn phases_and_conditions() {
    let plain = || World::new(json!({"restartPolicy": "OnFailure", "containers": [{"name": "c"}]}));
    let init = || World::new(json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]}));
    for (world, expected) in [
        (plain(), format!("Pending PodReadyToStartContainers=False() {UNREADY}")),
        (plain().sandbox(), format!("Pending {UNREADY}")),
        (plain().sandbox().container("c", State::Running, 0), "Running".into()),
        (plain().sandbox().container("c", State::Exited, 1), format!("Running {UNREADY}")),
        (
            plain().sandbox().container("c", State::Exited, 0),
            "Succeeded Initialized=True(PodCompleted) Ready=False(PodCompleted) ContainersReady=False(PodCompleted)"
                .into(),
        ),
        (init().sandbox(), format!("Pending Initialized=False(ContainersNotInitialized) {UNREADY}")),
        (
            init().sandbox().container("i", State::Running, 0),
            format!("Pending Initialized=False(ContainersNotInitialized) {UNREADY}"),
        ),
        (init().sandbox().container("i", State::Exited, 0), format!("Pending {UNREADY}")),
        (init().sandbox().container("i", State::Exited, 0).container("c", State::Running, 0), "Running".into()),
    ] {
        assert_eq!(summary(&world.status()), expected);
    }
}

#[test]
fn container_states() {
    let world = World::new(json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c", "image": "x"}]}));
    let status = world.status();
    let state = status.container_statuses.unwrap().pop().unwrap().state.unwrap().waiting.unwrap();
    assert_eq!((state.reason.as_deref(), state.message), (Some("PodInitializing"), None));

    let mut world = World::new(json!({"containers": [{"name": "c"}]})).sandbox().container("c", State::Exited, 137);
    world.observed.containers[0].reason = "OOMKilled".into();
    world.observed.containers[0].restart_count = 2;
    world.waiting.insert("c".into(), Waiting { reason: "CrashLoopBackOff".into(), message: "m".into() });
    let c = world.status().container_statuses.unwrap().pop().unwrap();
    assert_eq!(c.state.unwrap().waiting.unwrap().reason.as_deref(), Some("CrashLoopBackOff"));
    let last = c.last_state.unwrap().terminated.unwrap();
    assert_eq!((last.reason.as_deref(), last.exit_code, c.restart_count), (Some("OOMKilled"), 137, 2));
    assert_eq!(c.container_id.as_deref(), Some("rt://c-id"));
}

#[test]
fn readiness_follows_probes_and_gates() {
    let spec = json!({"readinessGates": [{"conditionType": "x/y"}],
        "containers": [{"name": "c", "readinessProbe": {"tcpSocket": {"port": 1}}}]});
    let mut world = World::new(spec).sandbox().container("c", State::Running, 0);
    assert_eq!(summary(&world.status()), format!("Running {UNREADY}"));
    world.probed.insert("c-id".into(), Probed { started: true, ready: true, failed: None });
    assert_eq!(summary(&world.status()), "Running Ready=False(ReadinessGatesNotReady)");
    world.pod.status = serde_json::from_value(json!({"conditions": [{"type": "x/y", "status": "True"}]})).unwrap();
    assert_eq!(summary(&world.status()), "Running");
}

#[test]
fn patches_say_only_what_changed() {
    let mut world = World::new(json!({"containers": [{"name": "c"}]})).sandbox();
    let first = world.status();
    world.old = first.clone();
    assert_eq!(patch("u", &first, &world.status()), None);
    let world = world.container("c", State::Running, 0);
    let second = world.status();
    let patch = patch("u", &first, &second).unwrap();
    assert_eq!(patch["metadata"]["uid"], "u");
    let status = patch["status"].as_object().unwrap();
    assert_eq!(status.keys().collect::<Vec<_>>(), ["conditions", "containerStatuses", "phase"]);
    let kinds: Vec<_> = status["conditions"].as_array().unwrap().iter().map(|c| c["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Ready", "ContainersReady"]);
    assert_eq!(status["conditions"][0]["reason"], Value::Null, "what is no longer said is erased");
    assert!(status["conditions"][0].as_object().unwrap().contains_key("reason"));
}

#[test]
fn a_pod_without_its_sandbox_keeps_its_address() {
    let mut world = World::new(json!({"restartPolicy": "Never", "containers": [{"name": "c"}]})).sandbox();
    world.old = world.status();
    world.observed.sandboxes.clear();
    world.stopped = true;
    assert_eq!(world.status().pod_ip.as_deref(), Some("10.0.0.9"));
}

#[test]
fn what_the_runtime_forgot_has_failed() {
    let mut world = World::new(json!({"containers": [{"name": "c"}]})).sandbox();
    let before = json!({"phase": "Running", "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true,
        "restartCount": 2, "containerID": "rt://c-id", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]});
    world.pod.status = Some(serde_json::from_value(before).unwrap());
    let container = world.status().container_statuses.unwrap().pop().unwrap();
    let last = container.last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("ContainerStatusUnknown")));
    assert_eq!((container.restart_count, container.state.unwrap().waiting.is_some()), (3, true));
    assert_eq!(world.status().phase.as_deref(), Some("Running"), "it is to start again");
    // With the sandbox gone and nothing to start, that is the end of it.
    world.stopped = true;
    let status = world.status();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert!(status.container_statuses.unwrap()[0].state.as_ref().unwrap().terminated.is_some());
}

#[test]
fn the_rejected_say_nothing_of_containers() {
    let world = World::new(json!({"containers": [{"name": "c"}]}));
    let refused = Ended::rejection("OutOfcpu", "Pod was rejected: no");
    let status = status(&Input {
        pod: &world.pod,
        old: &world.old,
        observed: &world.observed,
        probed: &world.probed,
        waiting: &world.waiting,
        ended: Some(&refused),
        stopped: true,
        mounts_recursively: false,
        host_ips: &["10.1.1.1".to_string()],
        runtime_name: "rt",
        resize: &Default::default(),
        now: at(10),
    });
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("OutOfcpu")));
    assert!(status.conditions.is_none() && status.container_statuses.is_none() && status.host_ip.is_none());
    // What others said of it before is taken back, but not what is theirs alone.
    let old: PodStatus = serde_json::from_value(json!({"conditions": [
        {"type": "PodScheduled", "status": "True"}, {"type": "example.test/x", "status": "True"}]}))
    .unwrap();
    let patch = patch("u", &old, &status).unwrap();
    assert_eq!(patch["status"]["conditions"], json!([{"$patch": "delete", "type": "PodScheduled"}]));
}

/// Until nothing of it runs, a pod that is taken away keeps what it was given, and says so.
#[test]
fn a_pod_is_not_over_while_it_runs() {
    let spec = json!({"containers": [{"name": "a"}]});
    let mut world = World::new(spec).sandbox().container("a", State::Running, 0);
    world.old = world.status();
    let ended = Ended { reason: "Evicted".into(), message: "no room".into(), rejected: false, disrupted: true };
    world.ended = Some(ended);
    let ending = world.status();
    assert_eq!((ending.phase.as_deref(), ending.reason.as_deref()), (Some("Running"), None));
    let disrupted = |status: &PodStatus| status.conditions.iter().flatten().any(|c| c.type_ == "DisruptionTarget");
    assert!(!disrupted(&ending));
    world.observed.containers.clear();
    let mut world = world.container("a", State::Exited, 0);
    world.stopped = true;
    let over = world.status();
    assert_eq!((over.phase.as_deref(), over.reason.as_deref()), (Some("Failed"), Some("Evicted")));
    assert!(disrupted(&over));
}

/// What somebody else wrote over the kubelet's part is said again, and what is others' to say is let be.
#[test]
fn a_status_that_was_written_over_is_said_again() {
    let world = World::new(json!({"containers": [{"name": "a"}]})).sandbox().container("a", State::Running, 0);
    let own = world.status();
    let mut shown = own.clone();
    shown.nominated_node_name = Some("n2".into());
    shown.conditions.as_mut().unwrap().push(PodCondition {
        type_: "example.com/gate".into(),
        status: "True".into(),
        ..PodCondition::default()
    });
    assert_eq!(patch("u", &own_part(Some(&shown), &own), &own), None);
    let ready = shown.conditions.as_mut().unwrap().iter_mut().find(|c| c.type_ == "Ready").unwrap();
    ready.status = "False".into();
    let said = patch("u", &own_part(Some(&shown), &own), &own).unwrap();
    let conditions = said["status"]["conditions"].as_array().unwrap();
    assert_eq!(
        conditions.iter().map(|c| (&c["type"], &c["status"])).collect::<Vec<_>>(),
        [(&json!("Ready"), &json!("True"))]
    );
    assert_eq!(said["status"].as_object().unwrap().len(), 1);
    assert!(patch("u", &own_part(None, &own), &own).is_some());
}
