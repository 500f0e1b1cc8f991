//! Image garbage collection: images that no container uses go when the image filesystem is fuller than it may be, the longest
//! unused first; when they are older than they may be; and all of them under disk pressure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keelson_cri::v1 as cri;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::node::about;
use crate::node::machine::filesystem;

/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(300);

/// What is known of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    first_seen: Timestamp,
    last_used: Option<Timestamp>,
    size_bytes: u64,
    pinned: bool,
    used: bool,
}

/// Remembers since when images are there and unused.
#[derive(Default)]
pub(crate) struct ImageGc(Mutex<BTreeMap<String, Record>>);

/// Runs until `shutdown`.
pub(crate) async fn run(ctx: Arc<Context>, shutdown: CancellationToken) {
    let work = async {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            ctx.image_gc.collect(&ctx).await;
        }
    };
    let _ = shutdown.run_until_cancelled(work).await;
}

impl ImageGc {
    async fn collect(&self, ctx: &Context) {
        let now = keelson_client::clock::now();
        let mut records = self.0.lock().await;
        if let Err(error) = detect(ctx, &mut records, now).await {
            tracing::debug!(%error, "images cannot be listed");
            return;
        }
        let config = &ctx.config;
        let min_age = SignedDuration::try_from(config.image_minimum_gc_age).unwrap_or(SignedDuration::MAX);
        if let Some(max_age) = config.image_maximum_gc_age {
            let max_age = SignedDuration::try_from(max_age).unwrap_or(SignedDuration::MAX);
            let old: Vec<String> = records
                .iter()
                .filter(|(_, record)| !record.used && !record.pinned)
                .filter(|(_, record)| now.duration_since(record.last_used.unwrap_or(record.first_seen)) > max_age)
                .map(|(id, _)| id.clone())
                .collect();
            remove(ctx, &mut records, &old, "age").await;
        }
        ctx.images.forget_all_but(records.keys().cloned().collect(), now).await;
        let Ok(Some(usage)) = ctx.runtime.image_fs().await else { return };
        let (space, known) = filesystem(Path::new(&usage.fs_id.unwrap_or_default().mountpoint));
        if !known || space.size_bytes == 0 {
            let message = "invalid capacity 0 on image filesystem";
            ctx.events.warning(&about(&config.node_name), "InvalidDiskCapacity", message);
            return;
        }
        let wanted = to_free(
            space.size_bytes,
            space.free_bytes,
            config.image_gc_high_threshold_percent,
            config.image_gc_low_threshold_percent,
        );
        let Some(wanted) = wanted else { return };
        let doomed = choose(&records, wanted, min_age, now);
        let freed = remove(ctx, &mut records, &doomed, "space").await;
        ctx.images.forget_all_but(records.keys().cloned().collect(), now).await;
        if freed < wanted {
            let message = format!(
                "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found \
                 {freed} bytes eligible to free."
            );
            ctx.events.warning(&about(&config.node_name), "FreeDiskSpaceFailed", message);
        }
    }

    /// Removes every image that no container uses.
    pub(crate) async fn remove_unused(&self, ctx: &Context) {
        let now = keelson_client::clock::now();
        let mut records = self.0.lock().await;
        if let Err(error) = detect(ctx, &mut records, now).await {
            tracing::debug!(%error, "images cannot be listed");
            return;
        }
        let min_age = SignedDuration::try_from(ctx.config.image_minimum_gc_age).unwrap_or(SignedDuration::MAX);
        let doomed = choose(&records, u64::MAX, min_age, now);
        remove(ctx, &mut records, &doomed, "space").await;
        ctx.images.forget_all_but(records.keys().cloned().collect(), now).await;
    }
}

/// Brings the records up to date.
async fn detect(
    ctx: &Context,
    records: &mut BTreeMap<String, Record>,
    now: Timestamp,
) -> Result<(), crate::error::Error> {
    let images = ctx.runtime.list_images().await?;
    let containers = ctx.runtime.list_containers(None).await?;
    // Pods that are about to start have no container yet.
    let wanted: BTreeSet<String> = ctx
        .pods
        .all()
        .iter()
        .map(|(_, handle)| handle.pod.borrow().pod.clone())
        .filter(|pod| !matches!(crate::pod::view::phase(pod), "Succeeded" | "Failed"))
        .flat_map(|pod| {
            let spec = pod.spec.clone().unwrap_or_default();
            let volumes = spec.volumes.into_iter().flatten().filter_map(|volume| volume.image?.reference);
            let containers = spec.containers.into_iter().chain(spec.init_containers.into_iter().flatten());
            containers.filter_map(|container| container.image).chain(volumes)
        })
        .filter_map(|image| crate::images::with_tag(&image))
        .collect();
    let of_containers: BTreeSet<&str> = containers
        .iter()
        .flat_map(|container| {
            let asked = container.image.as_ref().map_or("", |image| image.image.as_str());
            [container.image_ref.as_str(), container.image_id.as_str(), asked]
        })
        .filter(|name| !name.is_empty())
        .collect();
    let is_used = |image: &cri::Image| {
        let names = || image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
        names().any(|name| of_containers.contains(name.as_str()) || wanted.contains(name))
    };
    records.retain(|id, _| images.iter().any(|image| image.id == *id));
    for image in &images {
        let used = is_used(image);
        let record = records.entry(image.id.clone()).or_insert(Record {
            first_seen: now,
            last_used: None,
            size_bytes: image.size,
            pinned: image.pinned,
            used,
        });
        (record.size_bytes, record.pinned, record.used) = (image.size, image.pinned, used);
        if used {
            record.last_used = Some(now);
        }
    }
    Ok(())
}

/// How many bytes are too many, when the filesystem is fuller than `high` percent: as many as bring it to `low`.
fn to_free(capacity: u64, available: u64, high: u8, low: u8) -> Option<u64> {
    let used_percent = 100 - (u128::from(available) * 100 / u128::from(capacity.max(1))).min(100);
    if high >= 100 || used_percent < u128::from(high) {
        return None;
    }
    let keep_free = u128::from(capacity) * u128::from(100 - low.min(100)) / 100;
    u64::try_from(keep_free.saturating_sub(u128::from(available))).ok().filter(|wanted| *wanted > 0)
}

/// The images to remove so that `wanted` bytes are free, the longest unused first; none younger than `min_age`.
fn choose(records: &BTreeMap<String, Record>, wanted: u64, min_age: SignedDuration, now: Timestamp) -> Vec<String> {
    let mut unused: Vec<_> = records.iter().filter(|(_, record)| !record.used && !record.pinned).collect();
    unused.sort_by_key(|(_, record)| (record.last_used, record.first_seen));
    let mut freed = 0u64;
    let mut doomed = Vec::new();
    for (id, record) in unused {
        if freed >= wanted {
            break;
        }
        if now.duration_since(record.first_seen) < min_age {
            continue;
        }
        freed = freed.saturating_add(record.size_bytes);
        doomed.push(id.clone());
    }
    doomed
}

/// Removes images; gives how many bytes they had.
async fn remove(ctx: &Context, records: &mut BTreeMap<String, Record>, doomed: &[String], reason: &str) -> u64 {
    let mut freed = 0u64;
    for id in doomed {
        match ctx.runtime.remove_image(id).await {
            Ok(()) => {
                tracing::info!(image = id, reason, "removed an unused image");
                ctx.metrics.image_collected(reason);
                freed = freed.saturating_add(records.remove(id).map_or(0, |record| record.size_bytes));
            }
            Err(error) => tracing::warn!(image = id, %error, "an unused image stays"),
        }
    }
    if !doomed.is_empty() {
        ctx.images.changed.notify_one();
    }
    freed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_much_is_too_much() {
        for (capacity, available, high, low, expected) in [
            (1000, 160, 85, 80, None),
            (1000, 150, 85, 80, Some(50)),
            (1000, 0, 85, 80, Some(200)),
            (1000, 0, 100, 80, None),
        ] {
            assert_eq!(to_free(capacity, available, high, low), expected, "{available}");
        }
    }

    #[test]
    fn the_longest_unused_first() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let record = |first: i64, last: Option<i64>, used, pinned| Record {
            first_seen: at(first),
            last_used: last.map(at),
            size_bytes: 10,
            pinned,
            used,
        };
        let records: BTreeMap<_, _> = [
            ("used", record(0, Some(900), true, false)),
            ("pinned", record(0, None, false, true)),
            ("lately", record(0, Some(800), false, false)),
            ("long-ago", record(0, Some(100), false, false)),
            ("never", record(5, None, false, false)),
            ("new", record(990, None, false, false)),
        ]
        .map(|(id, record)| (id.to_string(), record))
        .into();
        let age = SignedDuration::from_secs(120);
        assert_eq!(choose(&records, 15, age, at(1000)), ["never", "long-ago"]);
        assert_eq!(choose(&records, u64::MAX, age, at(1000)), ["never", "long-ago", "lately"]);
        assert_eq!(choose(&records, u64::MAX, SignedDuration::ZERO, at(1000)).len(), 4);
    }
}
