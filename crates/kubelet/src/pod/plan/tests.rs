use super::*;
use serde_json::{Value, json};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn pod(spec: Value) -> Pod {
    let mut pod: Pod =
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec})).unwrap();
    for container in pod.spec.as_mut().unwrap().containers.iter_mut() {
        container.image = Some("i".into());
    }
    pod
}

/// A world in one line: `sandbox` up or not, and containers as `name:state[:exit]`, newest first. States: `run`, `made`,
/// `unknown`, `exit`. Ids are `<name><rank>`.
struct World {
    pod: Pod,
    observed: Observed,
    busy: Busy,
    probed: BTreeMap<String, Probed>,
    retry_at: BTreeMap<String, Timestamp>,
    crashes: BTreeMap<String, Backoff>,
    stopped: BTreeSet<String>,
    stop: Option<Stop>,
}

impl World {
    fn new(spec: Value, sandbox: bool, containers: &[&str]) -> World {
        let pod = pod(spec);
        let mut observed = Observed::default();
        let any = sandbox || !containers.is_empty();
        if any {
            let record = super::super::observed::SandboxRecord { id: "s".into(), ready: sandbox, ..Default::default() };
            observed.sandboxes.push(record);
        }
        let mut ranks: BTreeMap<&str, u32> = BTreeMap::new();
        for text in containers.iter().rev() {
            let mut parts = text.split(':');
            let name = parts.next().unwrap();
            let state = match parts.next().unwrap() {
                "run" => State::Running,
                "made" => State::Created,
                "unknown" => State::Unknown,
                _ => State::Exited,
            };
            let rank = ranks.entry(name).or_default();
            let hash = view::find_container(&pod, name).map(|container| container_hash(&container)).unwrap_or_default();
            observed.containers.insert(
                0,
                ContainerRecord {
                    id: format!("{name}{rank}"),
                    name: name.into(),
                    restart_count: *rank,
                    sandbox_id: "s".into(),
                    state,
                    finished_at: (state == State::Exited).then(|| at(-1)),
                    exit_code: parts.next().and_then(|code| code.parse().ok()).unwrap_or(0),
                    hash,
                    ..Default::default()
                },
            );
            *rank += 1;
        }
        World {
            pod,
            observed,
            busy: Busy::default(),
            probed: BTreeMap::new(),
            retry_at: BTreeMap::new(),
            crashes: BTreeMap::new(),
            stopped: BTreeSet::new(),
            stop: None,
        }
    }

    fn plan(&self) -> Plan {
        plan(&Input {
            pod: &self.pod,
            observed: &self.observed,
            busy: &self.busy,
            probed: &self.probed,
            retry_at: &self.retry_at,
            crashes: &self.crashes,
            stopped: &self.stopped,
            max_backoff: Duration::from_secs(300),
            stop: self.stop.as_ref(),
            now: at(0),
        })
    }

    /// The plan's actions, a word each, and `done` when nothing is left to stop.
    fn says(&self) -> String {
        let plan = self.plan();
        let mut words: Vec<String> = plan
            .actions
            .iter()
            .map(|action| match action {
                Action::CreateSandbox { attempt, stop_first } => format!("sandbox{attempt}-{}", stop_first.len()),
                Action::StopSandbox { id } => format!("stop-{id}"),
                Action::RemoveSandbox { id } => format!("remove-{id}"),
                Action::Start { name, restart_count, replaces } => {
                    format!("start-{name}{restart_count}{}", if replaces.is_some() { "!" } else { "" })
                }
                Action::Kill { id, grace_seconds, why, after, .. } => {
                    let after: String = after.iter().map(|id| format!("<{id}")).collect();
                    format!("kill-{id}-{grace_seconds}-{why:?}{after}")
                }
                Action::Remove { id } => format!("remove-{id}"),
            })
            .collect();
        if plan.stopped {
            words.push("done".into());
        }
        words.join(" ")
    }
}

fn two(policy: &str) -> Value {
    json!({"restartPolicy": policy, "terminationGracePeriodSeconds": 20, "containers": [{"name": "a"}, {"name": "b"}]})
}

fn with_init() -> Value {
    json!({"restartPolicy": "Never", "initContainers": [
        {"name": "i"}, {"name": "side", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 1}}}, {"name": "j"}],
        "containers": [{"name": "a"}]})
}

#[test]
fn what_runs_next() {
    for (spec, sandbox, containers, expected) in [
        (two("Always"), false, vec![], "sandbox0-0"),
        (two("Always"), true, vec![], "start-a0 start-b0"),
        (two("Always"), true, vec!["a:run"], "start-b0"),
        (two("Always"), true, vec!["a:run", "b:run"], ""),
        (two("Always"), true, vec!["a:exit:0", "b:run"], "start-a1"),
        (two("OnFailure"), true, vec!["a:exit:0", "b:run"], ""),
        (two("OnFailure"), true, vec!["a:exit:1", "b:run"], "start-a1"),
        (two("Never"), true, vec!["a:exit:1", "b:run"], ""),
        // Made but never started, by a kubelet that died in between.
        (two("Always"), true, vec!["a:made", "b:run"], "start-a0!"),
        // It may run still.
        (two("Always"), true, vec!["a:unknown", "b:run"], "kill-a0-20-Unknown"),
        // All over.
        (two("Never"), true, vec!["a:exit:1", "b:exit:0"], "stop-s"),
        (two("OnFailure"), true, vec!["a:exit:0", "b:exit:0"], "stop-s"),
        // The sandbox died: what still runs ends, then a new one comes.
        (two("Always"), false, vec!["a:run", "b:exit:0"], "kill-a0-20-SandboxChanged"),
        (two("Always"), false, vec!["a:exit:137", "b:exit:0"], "sandbox1-1"),
        (two("Never"), false, vec!["a:exit:0"], "sandbox1-1"),
        // More dead ones than are kept.
        (two("Always"), true, vec!["a:run", "b:run", "a:exit:1", "a:exit:1", "a:exit:1"], "remove-a1 remove-a0"),
        // Init containers one after the other, the sidecar until it is started.
        (with_init(), true, vec![], "start-i0"),
        (with_init(), true, vec!["i:run"], ""),
        (with_init(), true, vec!["i:exit:0"], "start-side0"),
        (with_init(), true, vec!["i:exit:0", "side:run"], ""),
        (with_init(), true, vec!["i:exit:1"], "stop-s"),
        // Once an app container ran, init containers are done, whatever became of their remains; sidecars are kept up.
        (with_init(), true, vec!["a:run"], "start-side0"),
        (with_init(), true, vec!["a:run", "side:exit:0"], "start-side1"),
        (with_init(), true, vec!["a:exit:0", "side:run"], "kill-side0-30-Pod"),
    ] {
        let world = World::new(spec.clone(), sandbox, &containers);
        assert_eq!(world.says(), expected, "{spec} {containers:?}");
    }
}

#[test]
fn a_started_sidecar_lets_the_next_go() {
    let mut world = World::new(with_init(), true, &["i:exit:0", "side:run"]);
    world.probed.insert("side0".into(), Probed { started: true, ready: true, failed: None });
    assert_eq!(world.says(), "start-j0");
}

#[test]
fn steps_under_way_are_not_repeated() {
    let mut world = World::new(two("Always"), true, &["b:run"]);
    world.busy.starting.insert("a".into());
    assert_eq!(world.says(), "");
    let mut world = World::new(two("Always"), false, &[]);
    world.busy.sandbox = true;
    assert_eq!(world.says(), "");
}

#[test]
fn crashes_wait_longer_each_time() {
    let mut world = World::new(two("Always"), true, &["a:exit:1", "b:run"]);
    world.crashes.insert("a".into(), Backoff { delay: Duration::from_secs(20), updated: at(-5) });
    let plan = world.plan();
    assert_eq!((plan.actions.len(), plan.wake_at), (0, Some(at(19))));
    world.retry_at.insert("a".into(), at(5));
    world.crashes.clear();
    assert_eq!(world.plan().wake_at, Some(at(5)), "a failed start is not tried at once");
}

#[test]
fn probes_and_changes_end_containers() {
    let mut world = World::new(two("Always"), true, &["a:run", "b:run"]);
    let failed = |why, grace| Probed { started: true, ready: false, failed: Some((why, grace)) };
    world.probed.insert("a0".into(), failed(Why::Liveness, None));
    world.probed.insert("b0".into(), failed(Why::Startup, Some(3)));
    assert_eq!(world.says(), "kill-a0-20-Liveness kill-b0-3-Startup");
    world.busy.killing.insert("a0".into(), at(20));
    assert_eq!(world.says(), "kill-b0-3-Startup");
    let mut world = World::new(two("Never"), true, &["a:run", "b:run"]);
    world.pod.spec.as_mut().unwrap().containers[0].image = Some("other".into());
    assert_eq!(world.says(), "kill-a0-20-DefinitionChanged");
    let mut world = World::new(two("Never"), true, &["a:exit:137", "b:run"]);
    world.pod.spec.as_mut().unwrap().containers[0].image = Some("other".into());
    assert_eq!(world.says(), "start-a1", "a changed container starts whatever the policy says");
}

#[test]
fn stopping_goes_apps_sidecars_sandbox() {
    let stop = |world: &mut World, seconds| world.stop = Some(Stop { deadline: at(seconds) });
    let mut world = World::new(with_init(), true, &["a:run", "side:run"]);
    stop(&mut world, 7);
    assert_eq!(world.says(), "kill-a0-7-Pod kill-side0-7-Pod<a0", "hooks of sidecars run at once, too");
    world.busy.killing.insert("a0".into(), at(7));
    world.busy.killing.insert("side0".into(), at(7));
    assert_eq!(world.says(), "");
    stop(&mut world, 1);
    assert_eq!(world.says(), "kill-a0-2-Pod kill-side0-2-Pod<a0", "a shorter grace counts at once");
    let several = json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "t", "restartPolicy": "Always"}],
        "containers": [{"name": "a"}]});
    let mut world = World::new(several, true, &["a:run", "t:run", "s:run"]);
    stop(&mut world, 9);
    assert_eq!(world.says(), "kill-a0-9-Pod kill-t0-9-Pod<a0 kill-s0-9-Pod<a0<t0");
    let mut world = World::new(with_init(), true, &["a:exit:0", "side:run"]);
    stop(&mut world, 0);
    assert_eq!(world.says(), "kill-side0-2-Pod");
    let mut world = World::new(with_init(), true, &["a:exit:0", "side:exit:0"]);
    stop(&mut world, 0);
    assert_eq!(world.says(), "stop-s");
    world.stopped.insert("s".into());
    assert_eq!(world.says(), "done");
    let mut world = World::new(two("Always"), false, &[]);
    stop(&mut world, 0);
    assert_eq!(world.says(), "done", "a pod that never began");
    world.busy.starting.insert("a".into());
    assert_eq!(world.says(), "", "a start that is being given up may still make something");
}

#[test]
fn restart_rules() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [
        {"name": "a", "restartPolicy": "OnFailure"},
        {"name": "b", "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}],
         "restartPolicy": "Never"}]}));
    let [a, b] = pod.spec.as_ref().unwrap().containers.as_slice() else { unreachable!() };
    assert_eq!([restarts(&pod, a, 1), restarts(&pod, a, 0)], [true, false]);
    assert_eq!([restarts(&pod, b, 42), restarts(&pod, b, 1)], [true, false]);
}
