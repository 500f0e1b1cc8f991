//! Probes: one task per running container runs its startup, liveness and readiness probes and tells the pod's task what
//! changed. How a probe is carried out is in the modules below.

mod grpc;
pub(crate) mod http;
mod tcp;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ObjectReference, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use keelson_client::EventRecorder;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::metrics::ProbeOf;
use crate::runtime::Runtime;

/// Longest probe output in an event, bytes.
const MAX_OUTPUT: usize = 1024;

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }
}

/// One try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// A success that is worth an event.
    Warning(String),
    Failure(String),
    /// Could not be carried out; counts as neither.
    Unknown(String),
}

/// A probe changed its mind.
#[derive(Clone, Debug)]
pub(crate) struct News {
    pub container_id: String,
    pub kind: Kind,
    pub good: bool,
    /// The probe's own termination grace, seconds.
    pub grace_seconds: Option<i64>,
}

/// Everything a prober needs.
pub(crate) struct Target {
    pub runtime: Runtime,
    pub events: EventRecorder,
    pub about: ObjectReference,
    pub container: Container,
    pub container_id: String,
    pub pod_ip: String,
    pub started_at: jiff::Timestamp,
    /// What readiness was before this kubelet.
    pub was_ready: bool,
    /// Whether the startup probe passed before this kubelet.
    pub was_started: bool,
}

impl Target {
    fn measured(&self, kind: Kind) -> ProbeOf<'_> {
        ProbeOf {
            kind: kind.name(),
            container: &self.container.name,
            pod: self.about.name.as_deref().unwrap_or_default(),
            namespace: self.about.namespace.as_deref().unwrap_or_default(),
            pod_uid: self.about.uid.as_deref().unwrap_or_default(),
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.runtime.metrics().forget_probes(self.measured(Kind::Startup));
    }
}

/// Runs a container's probes until it is aborted. From `ending` on only readiness counts: whether the container still serves
/// what it has begun.
pub(crate) async fn run(target: Target, news: mpsc::Sender<News>, ending: CancellationToken) {
    if let Some(probe) = target.container.startup_probe.clone().filter(|_| !target.was_started) {
        let startup = follow(&target, Kind::Startup, &probe, &news);
        if ending.run_until_cancelled(startup).await != Some(true) {
            return;
        }
    }
    let liveness = async {
        if let Some(probe) = target.container.liveness_probe.clone() {
            ending.run_until_cancelled(follow(&target, Kind::Liveness, &probe, &news)).await;
        }
    };
    let readiness = async {
        if let Some(probe) = target.container.readiness_probe.clone() {
            follow(&target, Kind::Readiness, &probe, &news).await;
        }
    };
    tokio::join!(liveness, readiness);
}

/// Runs one probe again and again. Startup ends with its first verdict, and gives it; liveness ends with failure.
async fn follow(target: &Target, kind: Kind, probe: &Probe, news: &mpsc::Sender<News>) -> bool {
    let seconds = |value: Option<i32>, default: u64| Duration::from_secs(value.map_or(default, |v| v.max(0) as u64));
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let delay = seconds(probe.initial_delay_seconds, 0);
    // By the runtime's clock it may have begun in the future.
    let age = Duration::try_from(keelson_client::clock::now().duration_since(target.started_at)).unwrap_or_default();
    tokio::time::sleep(delay.saturating_sub(age)).await;
    let mut verdict = Verdict::new(kind, probe, target.was_ready);
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let began = tokio::time::Instant::now();
        let outcome = once(target, probe).await;
        let result = match outcome {
            Outcome::Success | Outcome::Warning(_) => "successful",
            Outcome::Failure(_) => "failed",
            Outcome::Unknown(_) => "unknown",
        };
        target.runtime.metrics().probed(target.measured(kind), result, began.elapsed());
        report(target, kind, &outcome);
        let Some(good) = verdict.take(&outcome) else { continue };
        let change = News {
            container_id: target.container_id.clone(),
            kind,
            good,
            grace_seconds: probe.termination_grace_period_seconds,
        };
        if news.send(change).await.is_err() {
            return good;
        }
        match kind {
            Kind::Startup => return good,
            Kind::Liveness if !good => return false,
            _ => {}
        }
    }
}

fn report(target: &Target, kind: Kind, outcome: &Outcome) {
    let name = kind.name();
    let cut = |text: &str| text.get(..text.floor_char_boundary(MAX_OUTPUT)).unwrap_or_default().to_string();
    match outcome {
        Outcome::Success => {}
        Outcome::Warning(text) => {
            target.events.warning(&target.about, "ProbeWarning", format!("{name} probe warning: {}", cut(text)));
        }
        Outcome::Failure(text) => {
            target.events.warning(&target.about, "Unhealthy", format!("{name} probe failed: {}", cut(text)));
        }
        Outcome::Unknown(text) => {
            let text = format!("{name} probe errored and resulted in unknown state: {}", cut(text));
            target.events.warning(&target.about, "Unhealthy", text);
        }
    }
}

/// Counts tries until a threshold turns the verdict.
#[derive(Debug)]
struct Verdict {
    current: Option<bool>,
    last: Option<bool>,
    run: i32,
    success_threshold: i32,
    failure_threshold: i32,
}

impl Verdict {
    fn new(kind: Kind, probe: &Probe, was_ready: bool) -> Verdict {
        Verdict {
            current: match kind {
                Kind::Startup => None,
                Kind::Liveness => Some(true),
                Kind::Readiness => Some(was_ready),
            },
            last: None,
            run: 0,
            success_threshold: probe.success_threshold.unwrap_or(1).max(1),
            failure_threshold: probe.failure_threshold.unwrap_or(3).max(1),
        }
    }

    /// The new verdict, when this try turned it.
    fn take(&mut self, outcome: &Outcome) -> Option<bool> {
        let good = match outcome {
            Outcome::Success | Outcome::Warning(_) => true,
            Outcome::Failure(_) => false,
            Outcome::Unknown(_) => return None,
        };
        self.run = if self.last == Some(good) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(good);
        let threshold = if good { self.success_threshold } else { self.failure_threshold };
        if self.run < threshold || self.current == Some(good) {
            return None;
        }
        self.current = Some(good);
        Some(good)
    }
}

async fn once(target: &Target, probe: &Probe) -> Outcome {
    let timeout = Duration::from_secs(probe.timeout_seconds.unwrap_or(1).max(1) as u64);
    if let Some(exec) = &probe.exec {
        return exec_probe(target, exec.command.as_deref().unwrap_or_default(), timeout).await;
    }
    if let Some(action) = &probe.http_get {
        return match http::Request::of(action, &target.container, &target.pod_ip, "kube-probe/1.35") {
            Ok(request) => http::probe(&request, timeout).await,
            Err(error) => Outcome::Unknown(error),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| target.pod_ip.clone());
        return match port_number(&action.port, &target.container) {
            Some(port) => tcp::probe(&host, port, timeout).await,
            None => Outcome::Unknown(format!("couldn't find port: {:?}", action.port)),
        };
    }
    if let Some(action) = &probe.grpc {
        let Ok(port) = u16::try_from(action.port) else {
            return Outcome::Unknown(format!("invalid port number: {}", action.port));
        };
        return grpc::probe(&target.pod_ip, port, action.service.as_deref().unwrap_or_default(), timeout).await;
    }
    Outcome::Unknown("missing probe handler".into())
}

async fn exec_probe(target: &Target, command: &[String], timeout: Duration) -> Outcome {
    let timed_out = || {
        Outcome::Failure(format!("command timed out: {:?} timed out after {}s", command.join(" "), timeout.as_secs()))
    };
    let call = target.runtime.exec_sync(&target.container_id, command, timeout);
    // A runtime that does not keep the time is given a little more, then left alone.
    match tokio::time::timeout(timeout + Duration::from_secs(2), call).await {
        Err(_) => timed_out(),
        Ok(Ok(answer)) if answer.exit_code == 0 => Outcome::Success,
        Ok(Ok(mut answer)) => {
            answer.stdout.extend_from_slice(&answer.stderr);
            Outcome::Failure(String::from_utf8_lossy(&answer.stdout).into_owned())
        }
        Ok(Err(crate::Error::Cri(status))) if status.code() == tonic::Code::DeadlineExceeded => timed_out(),
        Ok(Err(error)) => Outcome::Unknown(error.to_string()),
    }
}

/// A port by number or by its name in the container.
pub(crate) fn port_number(port: &IntOrString, container: &Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())?
        }
    };
    u16::try_from(number).ok().filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        let probe = Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Default::default() };
        let (good, bad, odd) = (Outcome::Success, Outcome::Failure(String::new()), Outcome::Unknown(String::new()));
        let mut ready = Verdict::new(Kind::Readiness, &probe, false);
        let turns: Vec<_> =
            [&good, &good, &good, &bad, &bad, &odd, &bad, &bad, &good, &bad].map(|outcome| ready.take(outcome)).into();
        let expected = [None, Some(true), None, None, None, None, Some(false), None, None, None];
        assert_eq!(turns, expected);
        let mut live = Verdict::new(Kind::Liveness, &probe, false);
        assert_eq!(
            [&good, &good, &bad, &bad, &bad].map(|outcome| live.take(outcome)),
            [None, None, None, None, Some(false)]
        );
    }

    #[test]
    fn ports() {
        let container: Container =
            serde_json::from_value(serde_json::json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}))
                .unwrap();
        for (port, number) in [
            (IntOrString::Int(80), Some(80)),
            (IntOrString::String("web".into()), Some(8080)),
            (IntOrString::String("81".into()), Some(81)),
            (IntOrString::String("none".into()), None),
            (IntOrString::Int(0), None),
            (IntOrString::Int(70_000), None),
        ] {
            assert_eq!(port_number(&port, &container), number, "{port:?}");
        }
    }
}
