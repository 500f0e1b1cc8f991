//! `keelson bench`: the budgets of the design, each beside what is measured now, on a cluster made for it and removed after.
//! Absolute figures drift with the machine: compare within one run. Load is bounded in count; nothing leaves the machine.

mod admission;
mod api;
mod authorization;
mod etcd;
mod lifecycle;
mod pipeline;
mod process;
mod request;
mod scale;
mod scheduling;
mod scratch;
mod watch;

use std::time::Duration;

use clap::Args;

use crate::cli::Failure;

/// `keelson bench`
#[derive(Args)]
pub(crate) struct Bench {
    /// Only the groups whose name contains this: scheduler, binary, pipeline, admission, etcd, pod, API, API watchers, API memory,
    /// scheduling
    #[arg(long)]
    only: Option<String>,
}

/// A line of the table.
pub(crate) struct Row {
    what: &'static str,
    budget: Figure,
    measured: f64,
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

impl Bench {
    /// Prints the table; a row that is over its budget is marked, and is no failure.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        println!("{:62} {:>12} {:>12}", "WHAT", "BUDGET", "MEASURED");
        let wanted = |group: &str| self.only.as_ref().is_none_or(|only| group.contains(only.as_str()));
        let print = |row: Row| {
            let mark = if row.budget.is_met(row.measured) { "" } else { "  over budget" };
            let (budget, measured) = (row.budget.show_limit(), row.budget.show(row.measured));
            println!("{:62} {budget:>12} {measured:>12}{mark}", row.what);
        };
        if wanted("scheduler") {
            scheduling::alone().into_iter().for_each(print);
        }
        if wanted("binary") {
            print(lifecycle::binary()?);
        }
        if wanted("pipeline") {
            pipeline::costs().await?.into_iter().for_each(print);
        }
        if wanted("admission") {
            admission::costs(print).await?;
        }
        if wanted("etcd") {
            etcd::beside(print).await?;
        }
        let mut cluster = lifecycle::Cluster::up().await?;
        let result = async {
            for row in cluster.startup() {
                print(row);
            }
            if wanted("pod") {
                for row in cluster.pods().await? {
                    print(row);
                }
            }
            if wanted("API") {
                api::rates(cluster.client(), &cluster.server()?, print).await?;
            }
            if wanted("API watchers") {
                watch::deliveries(cluster.client(), &cluster.server()?, print).await?;
            }
            if wanted("scheduling") {
                print(scheduling::through_the_api(cluster.client()).await?);
            }
            if wanted("API memory") {
                // Without what the loads before have left in the allocator and in the store's history.
                cluster.restart().await?;
                scale::memory(cluster.client(), &cluster.server()?, print).await?;
                print(cluster.restart().await?);
            }
            Ok::<_, Failure>(())
        }
        .await;
        cluster.delete()?;
        result
    }
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
