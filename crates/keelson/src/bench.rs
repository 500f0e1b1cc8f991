//! `keelson bench`: the budgets of the design, each beside what is measured now, on a cluster made for it and removed after.
//! Absolute figures drift with the machine: compare within one run. Load is bounded in count; nothing leaves the machine.

mod admission;
mod api;
mod authentication;
mod authorization;
mod etcd;
mod fairness;
mod lifecycle;
mod node;
mod pipeline;
mod process;
mod request;
mod scale;
mod scheduling;
mod scratch;
mod standalone;
mod watch;

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;

use crate::cli::Failure;
use crate::signals::terminated;

/// What a group may take at most; one that hangs must not keep the others from being measured.
const GROUP_TIMEOUT: Duration = Duration::from_secs(900);

/// `keelson bench`
#[derive(Args)]
pub(crate) struct Bench {
    /// Only the groups whose name contains this: scheduler, binary, pipeline, fairness, admission, authentication, authorization, etcd,
    /// container, image, startup, pod, node, API, API watchers, API memory, scheduling
    #[arg(long)]
    only: Option<String>,
    /// Divide every load by this, to see quickly whether all groups work; the figures are then none to hold against the budgets
    #[arg(long, default_value = "1")]
    divide_load: NonZeroUsize,
}

/// By what the loads are divided.
#[derive(Clone, Copy)]
pub(crate) struct Size(usize);

impl Size {
    /// Of so many operations or objects, how many there are.
    pub(crate) fn of(self, full: usize) -> usize {
        (full / self.0).max(1)
    }
}

/// A line of the table.
#[derive(Clone)]
pub(crate) struct Row {
    what: String,
    budget: Figure,
    measured: f64,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, budget: Figure, measured: f64) -> Self {
        Self { what: what.into(), budget, measured }
    }
}

/// A count as row names write it: `10,000`.
pub(crate) fn thousands(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A budget and which side of it is good.
#[derive(Clone, Copy)]
pub(crate) enum Figure {
    /// At most so many milliseconds.
    Millis(f64),
    /// At most so many MiB.
    Mib(f64),
    /// At least so many a second.
    PerSecond(f64),
    /// At least so many MiB a second.
    MibPerSecond(f64),
    /// At most so many microseconds.
    Micros(f64),
    /// At most so many times as much.
    Times(f64),
}

/// The design sets none for this figure.
pub(crate) const NO_BUDGET: f64 = f64::INFINITY;

impl Figure {
    fn is_met(self, measured: f64) -> bool {
        match self {
            Self::Millis(limit) | Self::Mib(limit) | Self::Micros(limit) | Self::Times(limit) => measured <= limit,
            Self::PerSecond(least) | Self::MibPerSecond(least) => measured >= least,
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::Millis(_) if value >= 1000.0 => format!("{:.2} s", value / 1000.0),
            Self::Millis(_) if value < 10.0 => format!("{value:.1} ms"),
            Self::Millis(_) => format!("{value:.0} ms"),
            Self::Mib(_) => format!("{value:.1} MiB"),
            Self::PerSecond(_) => format!("{value:.0}/s"),
            Self::MibPerSecond(_) => format!("{value:.0} MiB/s"),
            Self::Micros(_) => format!("{value:.1} µs"),
            Self::Times(_) => format!("{value:.2} x"),
        }
    }

    fn show_limit(self) -> String {
        let (Self::Millis(limit)
        | Self::Mib(limit)
        | Self::Micros(limit)
        | Self::Times(limit)
        | Self::PerSecond(limit)
        | Self::MibPerSecond(limit)) = self;
        if limit > 0.0 && limit.is_finite() { self.show(limit) } else { "-".into() }
    }
}

/// What prints rows, and knows which groups have failed.
struct Table<'a> {
    only: Option<&'a str>,
    failed: Vec<&'static str>,
}

impl Table<'_> {
    fn wants(&self, group: &str) -> bool {
        self.only.is_none_or(|only| group.contains(only))
    }

    /// Measures a group if it is wanted. An error is a line of the table, and the other groups go on.
    async fn group(&mut self, name: &'static str, measure: impl Future<Output = Result<(), Failure>>) {
        if !self.wants(name) {
            return;
        }
        let result = tokio::time::timeout(GROUP_TIMEOUT, measure).await;
        if let Err(error) = result.unwrap_or_else(|_| Err(format!("not done in {GROUP_TIMEOUT:?}").into())) {
            println!("{:66} failed: {error}", format!("group {name}"));
            self.failed.push(name);
        }
    }
}

fn print(row: Row) {
    let mark = if row.budget.is_met(row.measured) { "" } else { "  over budget" };
    let (budget, measured) = (row.budget.show_limit(), row.budget.show(row.measured));
    println!("{:66} {budget:>12} {measured:>12}{mark}", row.what);
}

/// The groups that need a cluster.
const ON_A_CLUSTER: [&str; 7] = ["startup", "pod", "node", "API", "API watchers", "scheduling", "API memory"];

impl Bench {
    /// Prints the table; a row that is over its budget is marked, and is no failure. A group that cannot be measured is one,
    /// once all others have been. Who ends it early finds nothing left of it.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        tokio::select! {
            result = Box::pin(self.measure()) => result,
            () = terminated() => Err("ended before all was measured".into()),
        }
    }

    async fn measure(self) -> Result<(), Failure> {
        let size = Size(self.divide_load.get());
        println!("{:66} {:>12} {:>12}", "WHAT", "BUDGET", "MEASURED");
        let mut table = Table { only: self.only.as_deref(), failed: Vec::new() };
        table
            .group("scheduler", async { scheduling::alone(size).map(print).ok_or_else(|| "no node fits".into()) })
            .await;
        table.group("binary", async { lifecycle::binary().map(print) }).await;
        table.group("pipeline", Box::pin(pipeline::costs(size, print))).await;
        table.group("fairness", fairness::costs(size, print)).await;
        table.group("admission", Box::pin(admission::costs(size, print))).await;
        table.group("authentication", authentication::costs(size, print)).await;
        table.group("authorization", authorization::costs(size, print)).await;
        table.group("etcd", etcd::beside(size, print)).await;
        table.group("container", node::alone::beside_others(size, print)).await;
        table.group("image", Box::pin(node::pull::beside_containerd(size, print))).await;
        if ON_A_CLUSTER.iter().any(|group| table.wants(group)) {
            match lifecycle::Cluster::up().await {
                Ok(mut cluster) => {
                    Box::pin(on_a_cluster(&mut cluster, size, &mut table)).await;
                    cluster.delete()?;
                }
                Err(error) => {
                    println!("{:66} failed: {error}", "a cluster");
                    table.failed.push("cluster");
                }
            }
        }
        if table.failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", table.failed.join(", ")).into()) }
    }
}

async fn on_a_cluster(cluster: &mut lifecycle::Cluster, size: Size, table: &mut Table<'_>) {
    cluster.startup().for_each(print);
    table.group("pod", Box::pin(cluster.pods(size, print))).await;
    table.group("node", Box::pin(node::loads(cluster, size, print))).await;
    table.group("API", async { api::rates(cluster.client(), &cluster.server()?, size, print).await }).await;
    let watchers = async { watch::deliveries(cluster.client(), &cluster.server()?, size, print).await };
    table.group("API watchers", watchers).await;
    table.group("scheduling", async { scheduling::through_the_api(cluster.client(), size).await.map(print) }).await;
    let memory = async {
        // Without what the loads before have left in the allocator and in the store's history.
        cluster.restart().await?;
        let server = cluster.server()?;
        let objects = scale::memory(cluster.client(), &server, size, print).await?;
        let took = cluster.restart().await?;
        let what = format!("API server start to /readyz, {} objects in the store", thousands(objects));
        print(Row::new(what, Figure::Millis(300.0), took));
        Ok(())
    };
    table.group("API memory", Box::pin(memory)).await;
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
