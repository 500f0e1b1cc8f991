//! How many replicas each ReplicaSet is to have now.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::plan::{Set, Sets, replicas};
use super::revision::{DESIRED_REPLICAS, MAX_REPLICAS};
use crate::common::intstr::scaled;
use crate::common::objects::{annotation, created, name};

/// Asked for.
pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Available.
pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

fn total<'a>(sets: impl IntoIterator<Item = &'a ReplicaSet>) -> i32 {
    sets.into_iter().map(size).fold(0, i32::saturating_add)
}

pub(super) fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// `maxSurge` and `maxUnavailable` as numbers. Both zero would never move, so one may then be unavailable.
fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    if is_recreate(deployment) {
        return (0, 0);
    }
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".into());
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&quarter);
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&quarter);
    let surge = scaled(surge, replicas(deployment), true).unwrap_or(0).max(0);
    let unavailable = scaled(unavailable, replicas(deployment), false).unwrap_or(0).max(0);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// How many pods there may be above the Deployment's size.
pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    fenceposts(deployment).0
}

/// How many of the Deployment's size may be missing.
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    fenceposts(deployment).1.min(replicas(deployment))
}

/// Sizes a ReplicaSet remembers, so that a later change of the Deployment's size is told from a rollout and spread in
/// proportion.
pub(super) fn annotate_size(deployment: &Deployment, set: &mut ReplicaSet) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(DESIRED_REPLICAS.into(), replicas(deployment).to_string());
    let max = replicas(deployment).saturating_add(max_surge(deployment));
    annotations.insert(MAX_REPLICAS.into(), max.to_string());
}

/// Sets a size; returns the event's message when it differs.
fn resize(deployment: &Deployment, set: &mut Set, to: i32) -> Option<(String, String)> {
    let from = size(&set.wanted);
    annotate_size(deployment, &mut set.wanted);
    if from == to {
        return None;
    }
    if let Some(spec) = &mut set.wanted.spec {
        spec.replicas = Some(to);
    }
    let name = name(&set.wanted.metadata).to_owned();
    let direction = if to > from { "up" } else { "down" };
    let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
    Some((name, message))
}

/// Whether the Deployment's size changed since its active ReplicaSets were last sized.
pub(super) fn is_scaling(deployment: &Deployment, sets: &Sets) -> bool {
    sets.all().filter(|set| size(set) > 0).any(|set| {
        let desired = annotation(&set.metadata, DESIRED_REPLICAS).and_then(|desired| desired.parse::<i32>().ok());
        desired.is_some_and(|desired| desired != replicas(deployment))
    })
}

/// The size of the new ReplicaSet: as large as the surge allows.
pub(super) fn new_replicas(deployment: &Deployment, sets: &Sets) -> i32 {
    let Some(new) = &sets.new else { return 0 };
    if is_recreate(deployment) {
        return replicas(deployment);
    }
    let current = size(&new.wanted);
    let room = replicas(deployment).saturating_add(max_surge(deployment)) - total(sets.all());
    if room <= 0 {
        return current;
    }
    current.saturating_add(room.min(replicas(deployment) - current))
}

/// Sizes the new ReplicaSet; whether that changed anything.
pub(super) fn scale_new(deployment: &Deployment, sets: &mut Sets) -> bool {
    let wanted = replicas(deployment);
    let Some(current) = sets.new.as_ref().map(|set| size(&set.wanted)) else { return false };
    if current == wanted {
        return false;
    }
    let to = if current > wanted { wanted } else { new_replicas(deployment, sets) };
    if to == current {
        return false;
    }
    let event = sets.new.as_mut().and_then(|set| resize(deployment, set, to));
    let changed = event.is_some();
    sets.scaled.extend(event);
    changed
}

/// Takes from the old ReplicaSets what can be spared: first pods that are not available anyway, then as many as there
/// are available beyond the minimum. Whether that changed anything.
pub(super) fn scale_old(deployment: &Deployment, sets: &mut Sets) -> bool {
    let old_total = total(sets.old.iter().map(|set| &set.wanted));
    if old_total == 0 {
        return false;
    }
    let minimum = replicas(deployment) - max_unavailable(deployment);
    let new_unavailable = sets.new.as_ref().map_or(0, |set| size(&set.wanted) - available(&set.wanted));
    let spare = total(sets.all()) - minimum - new_unavailable;
    if spare <= 0 {
        return false;
    }
    let before = sets.scaled.len();
    let mut taken = 0;
    for set in &mut sets.old {
        let (current, available) = (size(&set.wanted), available(&set.wanted));
        let count = (current - available).min(spare - taken);
        if current == 0 || count <= 0 {
            continue;
        }
        taken += count;
        sets.scaled.extend(resize(deployment, set, current - count));
    }
    let mut spare = sets.all().map(available).fold(0, i32::saturating_add) - minimum;
    for set in &mut sets.old {
        let current = size(&set.wanted);
        let count = current.min(spare);
        if count <= 0 {
            continue;
        }
        spare -= count;
        sets.scaled.extend(resize(deployment, set, current - count));
    }
    sets.scaled.len() > before
}

/// `Recreate`: ends all old ReplicaSets. Whether that changed anything.
pub(super) fn stop_old(deployment: &Deployment, sets: &mut Sets) -> bool {
    let before = sets.scaled.len();
    for set in sets.old.iter_mut().filter(|set| size(&set.wanted) > 0) {
        sets.scaled.extend(resize(deployment, set, 0));
    }
    sets.scaled.len() > before
}

/// Follows a change of the Deployment's size without rolling on.
pub(super) fn scale(deployment: &Deployment, sets: &mut Sets) {
    let wanted = replicas(deployment);
    let mut active: Vec<&mut Set> = Vec::new();
    let (mut latest, mut spread): (Option<&mut Set>, bool) = (None, false);
    let is_saturated = sets.new.as_ref().is_some_and(|set| {
        let desired = annotation(&set.wanted.metadata, DESIRED_REPLICAS).and_then(|desired| desired.parse().ok());
        size(&set.wanted) == wanted && available(&set.wanted) == wanted && desired == Some(wanted)
    });
    for set in sets.new.iter_mut().chain(sets.old.iter_mut().rev()) {
        if size(&set.wanted) > 0 {
            active.push(set);
        } else if latest.is_none() {
            // The new one, or else the newest old one.
            latest = Some(set);
        }
    }
    match active.as_mut_slice() {
        [] => sets.scaled.extend(latest.and_then(|set| resize(deployment, set, wanted))),
        [only] => sets.scaled.extend(resize(deployment, only, wanted)),
        _ if is_saturated => {
            // The new one comes first when it has any replicas.
            for set in active.into_iter().skip(usize::from(wanted > 0)) {
                sets.scaled.extend(resize(deployment, set, 0));
            }
        }
        _ => spread = !is_recreate(deployment),
    }
    if spread {
        scale_in_proportion(deployment, sets);
    }
}

/// Spreads a change of size over all active ReplicaSets; what rounding leaves goes to the largest.
fn scale_in_proportion(deployment: &Deployment, sets: &mut Sets) {
    let wanted = replicas(deployment);
    let mut active: Vec<&mut Set> =
        sets.new.iter_mut().chain(&mut sets.old).filter(|set| size(&set.wanted) > 0).collect();
    let all = total(active.iter().map(|set| &set.wanted));
    let allowed = if wanted > 0 { wanted.saturating_add(max_surge(deployment)) } else { 0 };
    let to_add = allowed - all;
    // When growing, equals favour the newer; when shrinking, the older lose first.
    active.sort_by_key(|set| (-size(&set.wanted), created(&set.wanted.metadata)));
    if to_add > 0 {
        active.sort_by_key(|set| {
            (-size(&set.wanted), created(&set.wanted.metadata).map_or(i64::MIN, |time| -time.as_second()))
        });
    }
    let mut added = 0;
    let mut sizes: Vec<i32> = Vec::new();
    for set in &active {
        let current = size(&set.wanted);
        let share = if to_add == 0 { 0 } else { proportion(deployment, &set.wanted, to_add, added) };
        added += share;
        sizes.push(current + share);
    }
    if to_add != 0
        && let Some(first) = sizes.first_mut()
    {
        *first = (*first + to_add - added).max(0);
    }
    for (set, to) in active.into_iter().zip(sizes) {
        sets.scaled.extend(resize(deployment, set, to));
    }
}

fn proportion(deployment: &Deployment, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if size(set) == 0 || to_add == added {
        return 0;
    }
    let left = to_add - added;
    let share = fraction(deployment, set);
    if to_add > 0 { share.min(left) } else { share.max(left) }
}

/// What the ReplicaSet's size would change by, were it the only one to keep its share of the whole.
fn fraction(deployment: &Deployment, set: &ReplicaSet) -> i32 {
    let current = i64::from(size(set));
    if replicas(deployment) == 0 {
        return -size(set);
    }
    let max = i64::from(replicas(deployment)) + i64::from(max_surge(deployment));
    let before = annotation(&set.metadata, MAX_REPLICAS).and_then(|max| max.parse::<i64>().ok()).filter(|max| *max > 0);
    let status = deployment.status.as_ref().and_then(|status| status.replicas).map(i64::from);
    let Some(before) = before.or(status.filter(|count| *count > 0)) else { return 0 };
    // Rounded to the nearest, halves away from zero.
    let scaled = (2 * current * max + before) / (2 * before);
    i32::try_from(scaled - current).unwrap_or(0)
}
