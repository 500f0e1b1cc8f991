//! What a pod sees around it: names, resolvers, hosts, namespaces of its own and of the node. Its containers say it in their
//! last words.

use serde_json::{Value, json};

use super::render::{DONE, UP};
use super::table::{Row, container, count_sleepers, until_told, with};

pub(super) fn rows() -> Vec<Row> {
    let says = |name: &str, more: Value, script: &str, expected: &str| {
        let script = format!("{{ {script}; }} > /dev/termination-log 2>&1");
        let spec = with(json!({"restartPolicy": "Never", "containers": [container("c", &script)]}), more);
        Row::new(name, spec).reads(&["Succeeded", DONE, &format!("c: Completed 0 {expected:?}")])
    };
    let ipc = |name: &str, hosts: bool, expected: &str| {
        let script = "[ $(readlink /proc/1/ns/ipc) = $(readlink /proc/self/ns/ipc) ] && echo same || echo another";
        let script = format!("{{ {script}; }} > /dev/termination-log 2>&1");
        // To look at the node's first process takes privileges.
        let container = with(container("c", &script), json!({"securityContext": {"privileged": true}}));
        Row::new(name, json!({"restartPolicy": "Never", "hostPID": true, "hostIPC": hosts, "containers": [container]}))
            .reads(&["Succeeded", DONE, &format!("c: Completed 0 {expected:?}")])
    };
    let resolver = "cat /etc/resolv.conf";
    let own_dns = json!({"nameservers": ["10.9.8.7"], "searches": ["one.test"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
    vec![
        says("names-itself", json!({}), "hostname; tail -n 1 /etc/hosts", "NAME\nIP\tNAME\n"),
        says("has-a-hostname", json!({"hostname": "own"}), "hostname; tail -n 1 /etc/hosts", "own\nIP\town\n"),
        says("has-a-subdomain", json!({"hostname": "own", "subdomain": "sub"}), "hostname; tail -n 1 /etc/hosts",
            "own\nIP\town.sub.default.svc.cluster.local\town\n"),
        says("has-a-full-name", json!({"hostname": "own", "subdomain": "sub", "setHostnameAsFQDN": true}), "hostname",
            "own.sub.default.svc.cluster.local\n"),
        Row::new("has-too-full-a-name", json!({"hostname": "a-name-of-fifty-five-characters-with-more-and-more-in-it", "subdomain": "sub",
            "setHostnameAsFQDN": true, "containers": [container("c", "true")]}))
        .events(&["pod: !FailedCreatePodSandBox(Failed to create pod sandbox: failed to construct FQDN from pod hostname and cluster domain, FQDN a-name-of-fifty-five-characters-with-more-and-more-in-it.sub.default.svc.cluster.local is too long (64 characters is the max, 86 characters requested))"]),
        says("has-host-aliases", json!({"hostAliases": [{"ip": "10.1.2.3", "hostnames": ["one.test", "two.test"]}]}), "tail -n 3 /etc/hosts",
            "\n# Entries added by HostAliases.\n10.1.2.3\tone.test\ttwo.test\n"),
        says("resolves-in-the-cluster", json!({}), resolver,
            "search default.svc.cluster.local svc.cluster.local cluster.local*\nnameserver 10.96.0.10\noptions ndots:5\n"),
        says("resolves-by-itself", json!({"dnsPolicy": "None", "dnsConfig": own_dns.clone()}), resolver,
            "search one.test\nnameserver 10.9.8.7\noptions ndots:2 edns0\n"),
        says("resolves-in-the-cluster-and-more", json!({"dnsConfig": own_dns}), resolver,
            "search default.svc.cluster.local svc.cluster.local cluster.local* one.test\nnameserver 10.96.0.10\nnameserver 10.9.8.7\noptions ndots:2 edns0\n"),
        says("is-on-the-nodes-network", json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
            "hostname; head -n 1 /etc/hosts; grep nameserver /etc/resolv.conf",
            "NODE\n# Kubernetes-managed hosts file (host network).\nnameserver 10.96.0.10\n"),
        // Not how many: what the agent forks is called as it is until it is a program of its own.
        says("sees-the-nodes-processes", json!({"hostPID": true}), "ps | grep -q '[k]eelson agent' && echo seen", "seen\n"),
        says("sees-its-own-processes", json!({}), "head -c 2 /proc/1/cmdline", "sh"),
        ipc("shares-the-nodes-ipc", true, "same\n"),
        ipc("has-its-own-ipc", false, "another\n"),
        Row::new("shares-its-processes", json!({"restartPolicy": "Never", "shareProcessNamespace": true, "containers": [
            container("a", &until_told("", 0)),
            container("b", &format!("{{ {}; }} > /dev/termination-log", count_sleepers())),
        ]}))
        .reads(&["Running", "*", "a: running ready started", "b: Completed 0 \"1\\n\""])
        .up("a")
        .delete()
        .reads(&["Succeeded", DONE, "a: Completed 0", "b: Completed 0 \"1\\n\""]),
        Row::new("is-labelled-later", json!({"volumes": [{"name": "d", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels['colour']"}}]}}],
            "containers": [with(container("c", "until grep -q blue /d/l; do sleep 0.2; done; trap 'exit 0' TERM; touch /seen; sleep 3600 & wait"),
                json!({"volumeMounts": [{"name": "d", "mountPath": "/d"}], "readinessProbe": {"exec": {"command": ["test", "-e", "/seen"]}, "periodSeconds": 1, "timeoutSeconds": 60}}))]}))
        .patch("", json!({"metadata": {"labels": {"colour": "blue"}}}))
        .reads(&["Running", UP, "c: running ready started"]),
    ]
}
