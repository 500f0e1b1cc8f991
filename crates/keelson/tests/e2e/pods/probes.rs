//! Probes of all sorts, and readiness gates.

use serde_json::json;

use super::render::{FAILED, UP, unready};
use super::table::{Row, container, deaf, fails_once_up, until_told, with};

pub(super) fn rows() -> Vec<Row> {
    let probed = |script: &str, probes: serde_json::Value| {
        json!({"terminationGracePeriodSeconds": 10, "containers": [with(
            with(container("c", script), json!({"ports": [{"name": "web", "containerPort": 8080}]})), probes)]})
    };
    let exec =
        |command: &str| json!({"exec": {"command": ["sh", "-c", command]}, "periodSeconds": 1, "timeoutSeconds": 60});
    let httpd = "mkdir /www; httpd -p 8080 -h /www; trap 'exit 0' TERM; sleep 3600 & wait";
    let sick = fails_once_up(1);
    let running = "c: running ready started";
    let plain = "c: Pulled Created Started";
    let path = "http://IP:8080/ok";
    vec![
        Row::new("is-not-alive", probed(
            &until_told("", 3),
            json!({"livenessProbe": with(exec(&format!("echo sick; {sick}")), json!({"failureThreshold": 1, "initialDelaySeconds": 2}))}),
        ))
        .reads(&["Running", UP, "c: running ready started restarts=1 last=Error 3"])
        .events(&[&format!("{plain} !Unhealthy(Liveness probe failed: sick\n) Killing(Container c failed liveness probe, will be restarted)")]),
        Row::new("is-not-alive-and-stays-so", with(
            probed(&until_told("", 3), json!({"livenessProbe": with(exec(&sick), json!({"failureThreshold": 2}))})),
            json!({"restartPolicy": "Never"}),
        ))
        .reads(&["Failed", FAILED, "c: Error 3"])
        .events(&[&format!("{plain} !Unhealthy(Liveness probe failed: ) Killing(Container c failed liveness probe)")]),
        Row::new("is-killed-soon", with(
            probed(deaf(), json!({"livenessProbe": with(exec(&sick), json!({"failureThreshold": 1, "terminationGracePeriodSeconds": 1}))})),
            json!({"terminationGracePeriodSeconds": 3600, "restartPolicy": "Never"}),
        ))
        .within(60)
        .reads(&["Failed", FAILED, "c: Error 137"]),
        Row::new("does-not-start", with(
            probed(&until_told("", 3), json!({"startupProbe": with(exec(&sick), json!({"failureThreshold": 2})), "livenessProbe": exec("exit 0"), "readinessProbe": exec("exit 0")})),
            json!({"restartPolicy": "OnFailure"}),
        ))
        .reads(&["Running", &unready("c"), "c: running"])
        .reads(&["Running", &unready("c"), "c: running restarts=1 last=Error 3"])
        .events(&[&format!("{plain} !Unhealthy(Startup probe failed: ) Killing(Container c failed startup probe, will be restarted)")]),
        Row::new("starts-and-is-ready", probed(
            "sleep 2; touch /up; trap 'exit 0' TERM; sleep 3600 & wait",
            json!({"startupProbe": with(exec("test -e /up"), json!({"failureThreshold": 99})), "readinessProbe": with(exec("exit 0"), json!({"successThreshold": 2}))}),
        ))
        .reads(&["Running", &unready("c"), "c: running"])
        .reads(&["Running", &unready("c"), "c: running started"])
        .reads(&["Running", UP, running]),
        Row::new("becomes-ready-by-http", probed(
            httpd,
            json!({"readinessProbe": {"httpGet": {"port": "web", "path": "/ok", "httpHeaders": [{"name": "Host", "value": "probe.test"}]}, "periodSeconds": 1, "timeoutSeconds": 60, "failureThreshold": 1, "initialDelaySeconds": 2}}),
        ))
        .reads(&["Running", &unready("c"), "c: running started"])
        .events(&[&format!("{plain} !Unhealthy(Readiness probe failed: HTTP probe failed with statuscode: 404)")])
        .shell("kubectl exec NAME -- touch /www/ok")
        .reads(&["Running", UP, running])
        .shell("kubectl exec NAME -- rm /www/ok")
        .reads(&["Running", &unready("c"), "c: running started"]),
        Row::new("does-not-answer-http", probed(
            &until_told("", 0),
            json!({"readinessProbe": {"httpGet": {"port": 8080, "path": "/ok"}, "periodSeconds": 1, "timeoutSeconds": 60}}),
        ))
        .events(&[&format!("{plain} !Unhealthy(Readiness probe failed: Get \"{path}\": dial tcp IP:8080: connect: connection refused)")])
        .reads(&["Running", &unready("c"), "c: running started"]),
        Row::new("becomes-ready-by-tcp", probed(httpd, json!({"readinessProbe": {"tcpSocket": {"port": "web"}, "periodSeconds": 1, "timeoutSeconds": 60}})))
            .reads(&["Running", UP, running]),
        Row::new("does-not-answer-tcp", probed(&until_told("", 0), json!({"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "timeoutSeconds": 60}})))
            .events(&[&format!("{plain} !Unhealthy(Readiness probe failed: dial tcp IP:8080: connect: connection refused)")])
            .reads(&["Running", &unready("c"), "c: running started"]),
        Row::new("does-not-answer-grpc", probed(&until_told("", 0), json!({"readinessProbe": {"grpc": {"port": 8080}, "periodSeconds": 1, "timeoutSeconds": 2}})))
            .events(&[&format!("{plain} !Unhealthy(Readiness probe failed: *)")])
            .reads(&["Running", &unready("c"), "c: running started"]),
        Row::new("is-sent-elsewhere", probed(
            "exec nc -ll -p 8080 -e sh -c 'read a; printf \"HTTP/1.1 302 Found\\r\\nLocation: http://elsewhere.test/\\r\\nContent-Length: 2\\r\\n\\r\\nhi\"; sleep 1'",
            json!({"readinessProbe": {"httpGet": {"port": 8080, "path": "/ok"}, "periodSeconds": 1, "timeoutSeconds": 60, "initialDelaySeconds": 2}}),
        ))
        .reads(&["Running", UP, running])
        .events(&[&format!("{plain} !ProbeWarning(Readiness probe warning: Probe terminated redirects, Response body: hi)")]),
        Row::new("answers-too-late", probed(&until_told("", 0), json!({"readinessProbe": {"exec": {"command": ["sleep", "30"]}, "periodSeconds": 1, "timeoutSeconds": 1}})))
            .events(&[&format!("{plain} !Unhealthy(Readiness probe failed: command timed out: \"sleep 30\" timed out after 1s)")])
            .reads(&["Running", &unready("c"), "c: running started"]),
        Row::new("has-a-gate", json!({"readinessGates": [{"conditionType": "example.test/open"}], "containers": [container("c", &until_told("", 0))]}))
            .reads(&["Running", &UP.replace(" Ready", " !Ready(ReadinessGatesNotReady: corresponding condition of pod readiness gate \"example.test/open\" does not exist.)"), running])
            .patch("status", json!({"status": {"conditions": [{"type": "example.test/open", "status": "False"}]}}))
            .reads(&["Running", &format!("!example.test/open {}", UP.replace(" Ready", " !Ready(ReadinessGatesNotReady: the status of pod readiness gate \"example.test/open\" is not \"True\", but False)")), running])
            .patch("status", json!({"status": {"conditions": [{"type": "example.test/open", "status": "True"}]}}))
            .reads(&["Running", &format!("example.test/open {UP}"), running]),
    ]
}
