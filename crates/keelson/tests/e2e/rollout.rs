//! Rollouts: a new version replaces the old one under traffic, and back.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use keelson_testbed::cluster::{TIMEOUT, wait};

use super::{http_get, says, up};

const STATUS: &str = "kubectl rollout status deployment/web --timeout=60s";

#[test]
fn a_new_version_replaces_the_old_one_without_a_failed_request() {
    let cluster = up();
    cluster.kubectl("create deployment web --image keelson.local/hello:1 --port 80 --replicas 3");
    // As a user who cares writes it: in the Service once it answers, and until every node knows that it goes.
    let probe = r#"{"spec":{"template":{"spec":{"containers":[{"name":"hello",
        "readinessProbe":{"httpGet":{"port":80},"periodSeconds":1},
        "lifecycle":{"preStop":{"sleep":{"seconds":3}}}}]}}}}"#;
    cluster.kubectl_args(&["patch", "deployment", "web", "-p", probe]);
    cluster.kubectl("expose deployment web --port 8090 --target-port 80 --type LoadBalancer");
    cluster.shell(STATUS);
    let ip = cluster.wait_for("get service web -o jsonpath={.status.loadBalancer.ingress[0].ip}", |ip| !ip.is_empty());
    wait("the first answer", TIMEOUT, || http_get((&ip, 8090), "/")).unwrap();

    let client = Client::default();
    let columns = r#"{.status.availableReplicas} {.status.replicas}{"\n"}"#;
    let replicas = cluster.background(&format!("kubectl get deployment web -w -o jsonpath='{columns}'"));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| client.hammer(&ip, 8090));
        }
        // Also when the test fails, the threads end.
        let _stop = Stop(&client.stop);
        client.wait_for_answers_of("1");
        says(
            &cluster,
            "kubectl set image deployment/web hello=keelson.local/hello:2",
            "deployment.apps/web image updated\n",
        );
        let progress = cluster.shell(STATUS);
        assert!(progress.ends_with("deployment \"web\" successfully rolled out\n"), "{progress}");
        client.wait_for_answers_of("2");
        assert!(cluster.shell("kubectl rollout undo deployment/web").contains("deployment.apps/web rolled back"));
        cluster.shell(STATUS);
        client.forget();
        client.wait_for_answers_of("1");
    });
    let failures = client.failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} failed requests, such as {:?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );

    // A quarter of three is no pod at all that may be missing.
    let seen = replicas.wait_for(|seen| seen.contains("3 4") && seen.ends_with("3 3\n"));
    for line in seen.lines() {
        let available = line.split_once(' ').and_then(|(available, _)| available.parse::<u32>().ok());
        assert!(available.is_some_and(|available| available >= 3), "{seen}");
    }
}

#[test]
fn rollouts_are_counted_undone_paused_and_resumed() {
    let cluster = up();
    let c = &cluster;
    let image = |expected: &str| {
        let image = "get deployment web -o jsonpath={.spec.template.spec.containers[0].image}";
        assert_eq!(cluster.kubectl(image), format!("keelson.local/hello:{expected}"));
    };
    says(
        c,
        "kubectl create deployment web --image keelson.local/hello:1 --replicas 2",
        "deployment.apps/web created\n",
    );
    let progress = cluster.shell(STATUS);
    assert!(progress.ends_with("deployment \"web\" successfully rolled out\n"), "{progress}");
    says(c, "kubectl get deployment web -o jsonpath='{.metadata.generation} {.status.observedGeneration}'", "1 1");
    says(c, "kubectl annotate deployment web kubernetes.io/change-cause=first", "deployment.apps/web annotated\n");
    cluster.wait_for("rollout history deployment/web", |history| history.contains("1         first"));

    says(c, "kubectl set image deployment/web hello=keelson.local/hello:2", "deployment.apps/web image updated\n");
    // This annotation alone may be overwritten without being asked to.
    says(c, "kubectl annotate deployment web kubernetes.io/change-cause=second", "deployment.apps/web annotated\n");
    cluster.shell(STATUS);
    cluster.wait_for("rollout history deployment/web", |history| {
        history == "deployment.apps/web \nREVISION  CHANGE-CAUSE\n1         first\n2         second\n\n"
    });
    let second = cluster.kubectl("rollout history deployment/web --revision=2");
    assert!(second.contains("with revision #2\n") && second.contains("Image:\tkeelson.local/hello:2"), "{second}");
    let sets = cluster.wait_for("get replicasets --no-headers", |sets| {
        sets.lines().any(|set| set.split_whitespace().skip(1).take(3).eq(["0", "0", "0"]))
    });
    assert_eq!(sets.lines().count(), 2, "the old set is kept for undo:\n{sets}");

    says(c, "kubectl rollout undo deployment/web", "deployment.apps/web rolled back\n");
    cluster.shell(STATUS);
    image("1");
    cluster
        .wait_for("rollout history deployment/web", |history| history.contains("2         second\n3         first\n"));
    says(c, "kubectl rollout undo deployment/web --to-revision=2", "deployment.apps/web rolled back\n");
    cluster.shell(STATUS);
    image("2");
    says(
        c,
        "kubectl rollout undo deployment/web --to-revision=77",
        "error: unable to find specified revision 77 in history\n[exit 1]\n",
    );

    says(c, "kubectl rollout pause deployment/web", "deployment.apps/web paused\n");
    says(c, "kubectl rollout pause deployment/web", "error: deployments.apps \"web\" is already paused\n[exit 1]\n");
    cluster
        .wait_for("get deployment web -o jsonpath={.status.conditions[?(@.type==\"Progressing\")].reason}", |reason| {
            reason == "DeploymentPaused"
        });
    says(c, "kubectl set image deployment/web hello=keelson.local/hello:3", "deployment.apps/web image updated\n");
    says(
        c,
        "kubectl rollout undo deployment/web",
        "error: you cannot rollback a paused deployment; resume it first with 'kubectl rollout resume' and try again\n\
         [exit 1]\n",
    );
    cluster.wait_for("get deployment web -o jsonpath={.metadata.generation}={.status.observedGeneration}", |text| {
        text.split_once('=').is_some_and(|(wanted, seen)| wanted == seen)
    });
    says(c, "kubectl get deployment web -o jsonpath='{.status.updatedReplicas}'", "");
    says(c, "kubectl rollout resume deployment/web", "deployment.apps/web resumed\n");
    says(c, "kubectl rollout resume deployment/web", "error: deployments.apps \"web\" is not paused\n[exit 1]\n");
    cluster.shell(STATUS);
    says(c, "kubectl get deployment web -o jsonpath='{.status.updatedReplicas}'", "2");

    let before = cluster.kubectl("get pods -o name");
    says(c, "kubectl rollout restart deployment/web", "deployment.apps/web restarted\n");
    cluster.shell(STATUS);
    cluster
        .wait_for("get pods -o name", |now| now.lines().count() == 2 && now.lines().all(|pod| !before.contains(pod)));

    says(c, "kubectl scale deployment web --replicas=4", "deployment.apps/web scaled\n");
    cluster.shell(STATUS);
    says(
        c,
        "kubectl scale deployment web --replicas=1 --current-replicas=9",
        "error: Expected replicas to be 9, was 4\n[exit 1]\n",
    );
    let events = cluster.kubectl("describe deployment web");
    assert!(events.contains("Scaled up replica set web-"), "{events}");
    says(c, "kubectl set image deployment/web hello=keelson.local/nowhere:1", "deployment.apps/web image updated\n");
    let stuck = cluster.shell("kubectl rollout status deployment/web --timeout=2s");
    assert!(stuck.ends_with("error: timed out waiting for the condition\n[exit 1]\n"), "{stuck}");
    let ready = cluster.kubectl("get deployment web -o jsonpath={.status.availableReplicas}");
    assert!(ready.parse::<u32>().unwrap() >= 3, "a version that does not start takes one pod of four at most: {ready}");
}

/// A client that asks again and again, each time on a new connection.
#[derive(Default)]
struct Client {
    stop: AtomicBool,
    answers: Mutex<BTreeMap<String, u32>>,
    failures: Mutex<Vec<String>>,
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Client {
    fn hammer(&self, ip: &str, port: u16) {
        while !self.stop.load(Ordering::Relaxed) {
            let answer = http_get((ip, port), "/");
            let version = answer.as_deref().and_then(|a| a.split_once("(version ")?.1.split_once(')')).map(|(v, _)| v);
            match version {
                Some(version) => *self.answers.lock().unwrap().entry(version.to_owned()).or_default() += 1,
                None => self.failures.lock().unwrap().push(format!("{answer:?}")),
            }
        }
    }

    fn forget(&self) {
        self.answers.lock().unwrap().clear();
    }

    fn wait_for_answers_of(&self, version: &str) {
        let count = || self.answers.lock().unwrap().get(version).copied().unwrap_or(0);
        wait(&format!("answers of version {version}"), TIMEOUT, || (count() >= 50).then_some(())).unwrap();
    }
}
