//! What is measured, for who asks: `/stats/summary` and everything below `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Response, StatusCode};
use keelson_streaming::proxy::ProxyBody;

use super::{full, text};
use crate::context::Context;
use crate::node::machine;
use crate::pod::observed::State;
use crate::stats::exposition::{Exposition, Kind};
use crate::stats::summary::{self, Facts};
use crate::stats::{LEAST_DISK_INTERVAL, cadvisor as cadvisor_text, resource as resource_text};

/// Disks of who does not need them newer than this.
const DISK_AGE: Duration = Duration::from_secs(60);

fn series(content: String) -> Response<ProxyBody> {
    let mut response = text(StatusCode::OK, content);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

pub(super) async fn resource(ctx: &Arc<Context>) -> Response<ProxyBody> {
    series(resource_text::text(&*ctx.stats.snapshot(ctx).await))
}

pub(super) async fn cadvisor(ctx: &Arc<Context>) -> Response<ProxyBody> {
    let snapshot = ctx.stats.snapshot(ctx).await;
    let disks = ctx.stats.disks(ctx, DISK_AGE).await;
    series(cadvisor_text::text(&snapshot, &disks, &ctx.machine))
}

pub(super) fn probes(ctx: &Context) -> Response<ProxyBody> {
    series(ctx.metrics.probes_text())
}

pub(super) async fn own(ctx: &Arc<Context>) -> Response<ProxyBody> {
    let mut states = [0usize; 4];
    let mut running_pods = 0;
    for (_, handle) in ctx.pods.all() {
        let observed = handle.observed.borrow();
        running_pods += usize::from(observed.sandbox().is_some());
        for record in &observed.containers {
            states[match record.state {
                State::Created => 0,
                State::Running => 1,
                State::Exited => 2,
                State::Unknown => 3,
            }] += 1;
        }
    }
    let mut content = ctx.metrics.text(running_pods, states);
    content.push_str(&volumes(ctx).await);
    series(content)
}

/// `kubelet_volume_stats_*`, of volumes that have a claim.
async fn volumes(ctx: &Arc<Context>) -> String {
    let disks = ctx.stats.disks(ctx, DISK_AGE).await;
    let mut claims: Vec<_> = Vec::new();
    for (uid, handle) in ctx.pods.all() {
        let namespace = handle.pod.borrow().pod.metadata.namespace.clone().unwrap_or_default();
        for volume in disks.pods.get(&uid).into_iter().flat_map(|disk| &disk.volumes) {
            if let Some(claim) = &volume.claim {
                claims.push((namespace.clone(), claim.clone(), volume.space, volume.usage));
            }
        }
    }
    claims.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    claims.dedup_by(|a, b| (&a.0, &a.1) == (&b.0, &b.1));
    let mut exposition = Exposition::default();
    type Read = fn(machine::Space, crate::stats::disk::Usage) -> u64;
    let families: [(&'static str, &'static str, Read); 6] = [
        ("kubelet_volume_stats_available_bytes", "[ALPHA] Number of available bytes in the volume", |s, _| {
            s.free_bytes
        }),
        ("kubelet_volume_stats_capacity_bytes", "[ALPHA] Capacity in bytes of the volume", |s, _| s.size_bytes),
        ("kubelet_volume_stats_inodes", "[ALPHA] Maximum number of inodes in the volume", |s, _| s.inodes),
        ("kubelet_volume_stats_inodes_free", "[ALPHA] Number of free inodes in the volume", |s, _| s.inodes_free),
        ("kubelet_volume_stats_inodes_used", "[ALPHA] Number of used inodes in the volume", |_, used| used.inodes),
        ("kubelet_volume_stats_used_bytes", "[ALPHA] Number of used bytes in the volume", |_, used| used.bytes),
    ];
    for (name, help, read) in families {
        let mut family = exposition.family(name, help, Kind::Gauge);
        for (namespace, claim, space, usage) in &claims {
            let labels = [("namespace", namespace.as_str()), ("persistentvolumeclaim", claim.as_str())];
            family.sample(&labels, read(*space, *usage) as f64, None);
        }
    }
    exposition.finish()
}

pub(super) async fn summary(ctx: &Arc<Context>, query: &str) -> Response<ProxyBody> {
    let brief = query.split('&').any(|pair| matches!(pair, "only_cpu_and_memory=true" | "only_cpu_and_memory=1"));
    let snapshot = ctx.stats.snapshot(ctx).await;
    let disks = match brief {
        true => None,
        false => {
            let age = Duration::try_from(LEAST_DISK_INTERVAL).unwrap_or(DISK_AGE);
            Some(ctx.stats.disks(ctx, age).await)
        }
    };
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let usage = machine::Usage::read(&ctx.config.root_dir);
    let facts = Facts {
        node_name: &ctx.config.node_name,
        memory_capacity: ctx.machine.memory_bytes.max(0) as u64,
        booted: summary::boot_time(&uptime, snapshot.at),
        started: ctx.started,
        processes: (usage.pids_max, usage.pids),
    };
    let document = summary::summary(&facts, &snapshot, disks.as_deref());
    let mut response = Response::new(full(format!("{document:#}\n")));
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
