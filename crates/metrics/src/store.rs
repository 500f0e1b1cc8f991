//! The latest two scrapes, and when there is another: while somebody asks, every [`INTERVAL`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::exposition::{Point, Scrape};
use crate::scrape::Scraper;
use crate::usage::{Usage, usage};

/// Between two scrapes while somebody asks.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);
/// So long after the last question kubelets are asked no more.
const IDLE: Duration = Duration::from_secs(120);
/// A scrape older than this is no beginning of a window.
const STALE: Duration = Duration::from_secs(60);
/// Between the two scrapes of a first question: kubelets share a pass for a second.
const FIRST_WINDOW: Duration = Duration::from_millis(1_500);

/// By namespace, pod and container.
type Containers<T> = HashMap<(String, String, String), T>;

/// All kubelets' answers at one time.
#[derive(Debug, Default)]
struct Round {
    nodes: HashMap<String, Point>,
    containers: Containers<Point>,
}

/// Usage of everything.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    pub nodes: HashMap<String, Usage>,
    /// By namespace and pod; containers by name, sorted. Pods of which a container's usage is unknown are left out.
    pub pods: HashMap<(String, String), Vec<(String, Usage)>>,
}

struct Known {
    at: Instant,
    round: Round,
    latest: Arc<Latest>,
}

/// Scrapes and remembers.
pub(crate) struct Store {
    client: kube::Client,
    scraper: Scraper,
    known: Mutex<Option<Known>>,
    /// When somebody asked last.
    asked: watch::Sender<Option<Instant>>,
}

impl Store {
    pub(crate) fn new(client: kube::Client, scraper: Scraper) -> Self {
        Self { client, scraper, known: Mutex::new(None), asked: watch::Sender::new(None) }
    }

    /// What is used now; scrapes when nobody has asked for a while. Fails when the API server does not say which nodes there
    /// are.
    pub(crate) async fn latest(&self) -> Result<Arc<Latest>, kube::Error> {
        self.asked.send_replace(Some(Instant::now()));
        let mut known = self.known.lock().await;
        // Who waited for another's scrape finds it here.
        if let Some(known) = known.as_ref().filter(|known| known.at.elapsed() < INTERVAL + INTERVAL / 2) {
            return Ok(known.latest.clone());
        }
        if known.as_ref().is_none_or(|known| known.at.elapsed() > STALE) {
            *known = None;
            self.scrape(&mut known).await?;
            tokio::time::sleep(FIRST_WINDOW).await;
        }
        self.scrape(&mut known).await
    }

    /// Scrapes again and again while somebody asks, until `shutdown`.
    pub(crate) async fn keep(&self, shutdown: CancellationToken) {
        let work = async {
            let mut asked = self.asked.subscribe();
            loop {
                // The sender lives as long as this does.
                let lately = |at: &Option<Instant>| at.is_some_and(|at| at.elapsed() < IDLE);
                let _ = asked.wait_for(lately).await;
                tokio::time::sleep(INTERVAL).await;
                let mut known = self.known.lock().await;
                let due = known.as_ref().is_some_and(|known| known.at.elapsed() >= INTERVAL / 2);
                if due && let Err(error) = self.scrape(&mut known).await {
                    tracing::warn!(%error, "nodes cannot be listed to be measured");
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn scrape(&self, known: &mut Option<Known>) -> Result<Arc<Latest>, kube::Error> {
        let nodes = kube::Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await?;
        let mut round = Round::default();
        for (name, Scrape { node, containers }) in self.scraper.all(&nodes.items).await {
            round.nodes.extend(node.map(|point| (name, point)));
            round.containers.extend(containers);
        }
        let latest = Arc::new(compare(known.as_ref().map(|known| &known.round), &round));
        *known = Some(Known { at: Instant::now(), round, latest: latest.clone() });
        Ok(latest)
    }
}

fn compare(before: Option<&Round>, now: &Round) -> Latest {
    let mut latest = Latest::default();
    for (name, point) in &now.nodes {
        let known = before.and_then(|before| before.nodes.get(name));
        latest.nodes.extend(usage(known, point).map(|usage| (name.clone(), usage)));
    }
    let mut incomplete = Vec::new();
    for (key, point) in &now.containers {
        let known = before.and_then(|before| before.containers.get(key));
        let (namespace, pod, container) = key.clone();
        match usage(known, point) {
            Some(usage) => latest.pods.entry((namespace, pod)).or_default().push((container, usage)),
            None => incomplete.push((namespace, pod)),
        }
    }
    for pod in incomplete {
        latest.pods.remove(&pod);
    }
    for containers in latest.pods.values_mut() {
        containers.sort_by(|a, b| a.0.cmp(&b.0));
    }
    latest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_whole_or_absent() {
        let point = |cpu_seconds, at_ms| Point { cpu_seconds, at_ms, memory_bytes: 1.0, started_ms: 1 };
        let key = |pod: &str, container: &str| ("ns".to_string(), pod.to_string(), container.to_string());
        let before = Round { containers: [(key("a", "x"), point(1.0, 100_000))].into(), ..Default::default() };
        let containers = [
            (key("a", "x"), point(2.0, 102_000)),
            (key("b", "x"), point(2.0, 102_000)),
            (key("b", "y"), point(2.0, 102_000)),
        ];
        let now = Round { containers: containers.into(), nodes: [("n".to_string(), point(1.0, 2))].into() };
        let latest = compare(Some(&before), &now);
        let pods: Vec<_> = latest.pods.keys().map(|(_, pod)| pod.as_str()).collect();
        assert_eq!(pods, ["a"], "nothing is known yet of b, which is old");
        assert!(latest.nodes.is_empty());
    }
}
