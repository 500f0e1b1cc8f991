//! What containers and pods use, sampled twice for CPU.

use std::{collections::HashMap, time::Duration};

use clap::Args;
use keelson_cri::v1::*;
use serde_json::json;

use crate::{Error, Out, Runtime, format};

#[derive(Args, Debug)]
struct Sampling {
    /// Filter by id
    #[arg(long)]
    id: Option<String>,
    /// Filter by key=value label
    #[arg(long)]
    label: Vec<String>,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    output: format::Output,
    /// Sample duration for CPU usage in seconds
    #[arg(long, short, default_value_t = 1)]
    seconds: u64,
    /// Go on until interrupted
    #[arg(long, short)]
    watch: bool,
    #[arg(value_name = "ID")]
    only: Option<String>,
}

impl Sampling {
    fn id(&self) -> String {
        self.id.clone().or_else(|| self.only.clone()).unwrap_or_default()
    }

    async fn pause(&self) {
        tokio::time::sleep(Duration::from_secs(self.seconds)).await;
    }
}

/// A moment's CPU time: nanoseconds since the epoch, nanoseconds used.
type Sample = (i64, u64);

fn sample(cpu: Option<&CpuUsage>) -> Sample {
    cpu.map_or((0, 0), |cpu| (cpu.timestamp, cpu.usage_core_nano_seconds.map_or(0, |value| value.value)))
}

/// Per cent of one CPU between two samples.
fn percent(old: Sample, new: Sample) -> Result<String, Error> {
    if new.1 == 0 {
        return Ok("0.00".into());
    }
    match new.0 - old.0 {
        ..=0 => Err(Error::Words("cpu stat is not updated during sample".into())),
        elapsed => Ok(format!("{:.2}", new.1.saturating_sub(old.1) as f64 / elapsed as f64 * 100.0)),
    }
}

fn value(value: Option<&UInt64Value>) -> u64 {
    value.map_or(0, |value| value.value)
}

/// Moves the cursor home and clears the screen, between two rounds.
fn clear(out: Out<'_>) -> Result<(), Error> {
    format::print(out, "\x1b[H\x1b[2J")
}

/// `crictl stats`
#[derive(Args, Debug)]
pub(crate) struct Containers {
    #[command(flatten)]
    sampling: Sampling,
    /// Show all containers (default shows just running)
    #[arg(long, short)]
    all: bool,
    /// Filter by pod id
    #[arg(long, short, default_value = "", hide_default_value = true)]
    pod: String,
}

impl Containers {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        let filter = ContainerStatsFilter {
            id: self.sampling.id(),
            pod_sandbox_id: self.pod.clone(),
            label_selector: format::labels(&self.sampling.label)?,
        };
        loop {
            let first = containers(&mut runtime, &filter).await?;
            if self.sampling.output != format::Output::Table {
                let stats: Vec<_> = first.iter().map(format::message).collect();
                return format::document(out, &json!({"stats": stats}), self.sampling.output);
            }
            self.sampling.pause().await;
            let id = |stats: &ContainerStats| stats.attributes.as_ref().map(|own| own.id.clone()).unwrap_or_default();
            let old: HashMap<String, Sample> = first.iter().map(|own| (id(own), sample(own.cpu.as_ref()))).collect();
            let mut table = format::Table::new(&["CONTAINER", "NAME", "CPU %", "MEM", "DISK", "INODES", "SWAP"]);
            for own in containers(&mut runtime, &filter).await? {
                let (id, new) = (id(&own), sample(own.cpu.as_ref()));
                let memory = value(own.memory.as_ref().and_then(|memory| memory.working_set_bytes.as_ref()));
                let Some(old) = old.get(&id).filter(|_| self.all || new.1 != 0 || memory != 0) else { continue };
                let name =
                    own.attributes.and_then(|own| own.metadata).map(|metadata| metadata.name).unwrap_or_default();
                let layer = own.writable_layer.unwrap_or_default();
                let swap = value(own.swap.as_ref().and_then(|swap| swap.swap_usage_bytes.as_ref()));
                table.row([
                    format::short(&id),
                    name,
                    percent(*old, new)?,
                    format::human_size(memory, 4),
                    format::human_size(value(layer.used_bytes.as_ref()), 4),
                    value(layer.inodes_used.as_ref()).to_string(),
                    format::human_size(swap, 4),
                ]);
            }
            if !self.sampling.watch {
                return table.print(out);
            }
            clear(out)?;
            table.print(out)?;
        }
    }
}

async fn containers(runtime: &mut Runtime, filter: &ContainerStatsFilter) -> Result<Vec<ContainerStats>, Error> {
    let request = runtime.ask(ListContainerStatsRequest { filter: Some(filter.clone()) });
    let answer = runtime.clients.runtime.list_container_stats(request).await;
    let mut stats = answer.map_err(Error::call("list container stats"))?.into_inner().stats;
    stats.sort_by_cached_key(|stats| stats.attributes.as_ref().map(|own| own.id.clone()));
    Ok(stats)
}

/// `crictl statsp`
#[derive(Args, Debug)]
pub(crate) struct Pods {
    #[command(flatten)]
    sampling: Sampling,
}

impl Pods {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        let filter =
            PodSandboxStatsFilter { id: self.sampling.id(), label_selector: format::labels(&self.sampling.label)? };
        loop {
            let first = pods(&mut runtime, &filter).await?;
            if self.sampling.output != format::Output::Table {
                let stats: Vec<_> = first.iter().map(format::message).collect();
                return format::document(out, &json!({"stats": stats}), self.sampling.output);
            }
            self.sampling.pause().await;
            let id = |stats: &PodSandboxStats| stats.attributes.as_ref().map(|own| own.id.clone()).unwrap_or_default();
            let cpu = |stats: &PodSandboxStats| sample(stats.linux.as_ref().and_then(|linux| linux.cpu.as_ref()));
            let old: HashMap<String, Sample> = first.iter().map(|own| (id(own), cpu(own))).collect();
            let mut table = format::Table::new(&["POD", "POD ID", "CPU %", "MEM"]);
            for own in pods(&mut runtime, &filter).await? {
                let (id, new) = (id(&own), cpu(&own));
                let memory = own.linux.as_ref().and_then(|linux| linux.memory.as_ref());
                let memory = value(memory.and_then(|memory| memory.working_set_bytes.as_ref()));
                let Some(old) = old.get(&id).filter(|_| new.1 != 0 || memory != 0) else { continue };
                let name =
                    own.attributes.and_then(|own| own.metadata).map(|metadata| metadata.name).unwrap_or_default();
                table.row([name, format::short(&id), percent(*old, new)?, format::human_size(memory, 4)]);
            }
            if !self.sampling.watch {
                return table.print(out);
            }
            clear(out)?;
            table.print(out)?;
        }
    }
}

async fn pods(runtime: &mut Runtime, filter: &PodSandboxStatsFilter) -> Result<Vec<PodSandboxStats>, Error> {
    let request = runtime.ask(ListPodSandboxStatsRequest { filter: Some(filter.clone()) });
    let answer = runtime.clients.runtime.list_pod_sandbox_stats(request).await;
    let mut stats = answer.map_err(Error::call("list pod sandbox stats"))?.into_inner().stats;
    stats.sort_by_cached_key(|stats| stats.attributes.as_ref().map(|own| own.id.clone()));
    Ok(stats)
}
