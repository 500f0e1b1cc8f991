//! helm 4, with its defaults: server-side apply, and `--wait` by its own watcher.

use super::{BUSYBOX, mentions, says, up_with_busybox};

/// What the release's images are replaced by.
const IMAGE: &str = "--set image.repository=keelson.local/hello,image.tag=latest";

#[test]
fn a_release_lives_its_life() {
    let cluster = up_with_busybox();
    let c = &cluster;
    says(c, "helm create demo", "Creating demo\n");
    says(c, &format!("sed -i 's#image: busybox#image: {BUSYBOX}#' demo/templates/tests/test-connection.yaml"), "");
    let install = mentions(
        c,
        &format!("helm install demo ./demo {IMAGE} --wait --timeout 60s"),
        &["NAME: demo\n", "STATUS: deployed\nREVISION: 1\nDESCRIPTION: Install complete\n"],
    );
    assert!(!install.contains("[exit"), "{install}");
    // It waited: all is there at once.
    says(c, "kubectl get deployment demo -o jsonpath='{.status.readyReplicas}'", "1");
    says(
        c,
        "kubectl get deployment demo -o jsonpath='{.metadata.managedFields[?(@.manager==\"helm\")].operation}'",
        "Apply",
    );
    mentions(c, "helm list", &["demo\tdefault  \t1 ", "deployed\tdemo-0.1.0"]);
    mentions(c, "helm test demo", &["TEST SUITE:     demo-test-connection\n", "Phase:          Succeeded\n"]);
    mentions(
        c,
        &format!("helm upgrade demo ./demo {IMAGE} --set replicaCount=2 --wait --timeout 60s"),
        &["Release \"demo\" has been upgraded. Happy Helming!\n", "REVISION: 2\nDESCRIPTION: Upgrade complete\n"],
    );
    says(c, "kubectl get deployment demo -o jsonpath='{.status.readyReplicas}'", "2");
    says(c, "helm rollback demo 1 --wait --timeout 60s", "Rollback was a success! Happy Helming!\n");
    says(c, "kubectl get deployment demo -o jsonpath='{.status.readyReplicas}'", "1");
    let history = c.shell("helm history demo | cut -f 1,3,6");
    let history: Vec<String> = history.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        history,
        [
            "REVISION STATUS DESCRIPTION",
            "1 superseded Install complete",
            "2 superseded Upgrade complete",
            "3 deployed Rollback to 1",
        ]
    );
    mentions(c, "helm status demo", &["STATUS: deployed\n", "REVISION: 3\n"]);
    mentions(c, "helm get manifest demo", &["kind: Deployment\n", "image: \"keelson.local/hello:latest\"\n"]);

    // What somebody else has changed is theirs until it is taken.
    says(c, "kubectl scale deployment demo --replicas=3", "deployment.apps/demo scaled\n");
    mentions(
        c,
        &format!("helm upgrade demo ./demo {IMAGE} --set replicaCount=1"),
        &["conflict with \"kubectl\" with subresource \"scale\"", ".spec.replicas", "[exit 1]"],
    );
    mentions(
        c,
        &format!("helm upgrade demo ./demo {IMAGE} --force-conflicts --wait --timeout 60s"),
        &["has been upgraded"],
    );
    says(c, "kubectl get deployment demo -o jsonpath='{.spec.replicas}'", "1");
    mentions(
        c,
        &format!("helm upgrade demo ./demo {IMAGE} --set service.port=99999"),
        &["spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive", "[exit 1]"],
    );

    says(c, "helm uninstall demo --wait --timeout 60s", "release \"demo\" uninstalled\n");
    says(c, "kubectl get deployments,services,serviceaccounts -l app.kubernetes.io/instance=demo -o name", "");
    says(c, "kubectl get secrets -o name", "");
}
