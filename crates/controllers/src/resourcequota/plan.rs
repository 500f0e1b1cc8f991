//! What to count for a quota, and what to make of it.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use keelson_api::quantity::{Format, Quantity};
use keelson_api::quota::{ALIASED, Amounts, Evaluator, Quota, add};
use serde_json::Value;

/// How long a quota must have been left alone before less is written to be used: the server charges before it writes, so
/// that what a count does not show yet may be on its way.
pub(super) const SETTLED: Duration = Duration::from_secs(1);
/// How long a count is put off at most because the server charges all the time: what was charged for nothing has to be given
/// back some day. What is charged during the count makes the write a conflict.
const PATIENCE: Duration = Duration::from_secs(5);

/// A resource that a quota counts, by group and plural.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Counted {
    pub(super) group: String,
    pub(super) resource: String,
}

impl Counted {
    pub(super) fn new(group: &str, resource: &str) -> Self {
        Self { group: group.to_owned(), resource: resource.to_owned() }
    }

    pub(super) fn evaluator(&self) -> Evaluator {
        Evaluator::of(&self.group, &self.resource)
    }
}

/// Resources whose objects are looked into.
const MEASURED: [(&str, &str); 4] =
    [("", "pods"), ("", "services"), ("", "persistentvolumeclaims"), ("resource.k8s.io", "resourceclaims")];

/// The resources that a quota counts.
pub(super) fn counted(quota: &Quota) -> BTreeSet<Counted> {
    let mut all = BTreeSet::new();
    for name in quota.wanted.keys() {
        for (group, resource) in MEASURED {
            if Evaluator::of(group, resource).counts(name) {
                all.insert(Counted::new(group, resource));
            }
        }
        if ALIASED.contains(&name.as_str()) {
            all.insert(Counted::new("", name));
        }
        if let Some(what) = name.strip_prefix("count/") {
            let (resource, group) = what.split_once('.').unwrap_or((what, ""));
            all.insert(Counted::new(group, resource));
        }
    }
    all
}

/// Adds what objects use to `used`, as far as the quota limits it.
pub(super) fn measure(quota: &Quota, evaluator: &Evaluator, objects: &[Value], now: Timestamp, used: &mut Amounts) {
    none_yet(quota, evaluator, used);
    for object in objects.iter().filter(|object| quota.is_in_scope(evaluator, object)) {
        let mut usage = evaluator.usage(object, now);
        usage.retain(|name, _| quota.wanted.contains_key(name));
        add(used, &usage);
    }
}

/// Adds `count` objects that need not be looked into; such objects are in no scope.
pub(super) fn count(quota: &Quota, evaluator: &Evaluator, count: i64, used: &mut Amounts) {
    none_yet(quota, evaluator, used);
    if !quota.is_in_scope(evaluator, &Value::Null) {
        return;
    }
    let count = Quantity::new(count, Format::DecimalSi);
    let ours = used.iter_mut().filter(|(name, _)| evaluator.counts(name));
    ours.for_each(|(_, amount)| *amount += count);
}

/// What is known to be none is said to be.
fn none_yet(quota: &Quota, evaluator: &Evaluator, used: &mut Amounts) {
    for name in quota.wanted.keys().filter(|name| evaluator.counts(name)) {
        used.entry(name.clone()).or_default();
    }
}

/// Whether the status does not say yet what is to be enforced.
pub(super) fn is_new(quota: &Quota) -> bool {
    quota.hard != quota.wanted
}

/// How a quota was found when its count was due.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// How long its status has been as it is.
    pub(super) age: Duration,
    /// How long the count has been put off.
    pub(super) waited: Duration,
}

impl Standing {
    /// How long until a count can be relied on.
    fn rest(self) -> Duration {
        SETTLED.saturating_sub(self.age).min(PATIENCE.saturating_sub(self.waited))
    }
}

/// How long to leave a quota alone before it is counted. A new one is counted at once, for until then it limits nothing.
pub(super) fn pause(quota: &Quota, standing: Standing) -> Option<Duration> {
    if is_new(quota) { None } else { Some(standing.rest()).filter(|pause| !pause.is_zero()) }
}

/// What to write as used: what was counted, but no less than what was charged a moment ago.
pub(super) fn settle(quota: &Quota, counted: &mut Amounts, standing: Standing) {
    if standing.rest().is_zero() {
        return;
    }
    for (name, amount) in counted {
        *amount = quota.used.get(name).map_or(*amount, |charged| (*charged).max(*amount));
    }
}

#[cfg(test)]
mod tests {
    use keelson_api::quota::show;
    use serde_json::json;

    use super::*;

    fn quota(hard: Value, used: Value) -> Quota {
        let status = json!({"hard": hard, "used": used});
        Quota::of(&json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": status}))
    }

    #[test]
    fn resources_come_from_names() {
        let names = json!({"requests.cpu": "1", "count/jobs.batch": "1", "secrets": "1", "count/pods": "1", "x.storageclass.storage.k8s.io/requests.storage": "1"});
        let found: Vec<_> =
            counted(&quota(names, json!({}))).into_iter().map(|c| format!("{}/{}", c.group, c.resource)).collect();
        assert_eq!(found, ["/persistentvolumeclaims", "/pods", "/secrets", "batch/jobs"]);
    }

    #[test]
    fn what_is_there_is_added_up() {
        let quota = quota(json!({"pods": "9", "requests.cpu": "9", "secrets": "9", "services": "9"}), json!({}));
        let pod = |phase: &str| json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "300m"}}}]}, "status": {"phase": phase}});
        let mut used = Amounts::new();
        let pods = [pod("Running"), pod("Running"), pod("Failed")];
        measure(&quota, &Evaluator::Pods, &pods, Timestamp::UNIX_EPOCH, &mut used);
        count(&quota, &Evaluator::of("", "secrets"), 4, &mut used);
        assert_eq!(show(used.iter()), "pods=2,requests.cpu=600m,secrets=4");
    }

    #[test]
    fn what_was_just_charged_stays_charged() {
        let amounts = |pods: &str| Amounts::from([("pods".to_owned(), pods.parse().unwrap())]);
        let old = quota(json!({"pods": "9"}), json!({"pods": "3"}));
        let aged = |age: Duration| Standing { age, waited: Duration::ZERO };
        assert_eq!(pause(&old, aged(Duration::ZERO)), Some(SETTLED));
        assert_eq!(pause(&old, aged(SETTLED)), None);
        let mut new = old.clone();
        new.wanted = amounts("10");
        assert_eq!(pause(&new, aged(Duration::ZERO)), None);
        let settled = |counted: &str, age: Duration| {
            let mut counted = amounts(counted);
            settle(&new, &mut counted, aged(age));
            show(counted.iter())
        };
        assert_eq!(settled("2", Duration::ZERO), "pods=3");
        assert_eq!(settled("4", Duration::ZERO), "pods=4");
        assert_eq!(settled("2", SETTLED), "pods=2");
    }

    #[test]
    fn a_quota_that_is_always_charged_is_counted_all_the_same() {
        let quota = quota(json!({"pods": "9"}), json!({"pods": "9"}));
        let (mut waited, step) = (Duration::ZERO, Duration::from_millis(700));
        // Each time that it is looked at, it has just been charged.
        while let Some(pause) = pause(&quota, Standing { age: Duration::ZERO, waited }) {
            assert!(pause <= SETTLED && waited < PATIENCE, "{pause:?} after {waited:?}");
            waited += pause.min(step);
        }
        assert_eq!(waited, PATIENCE);
        let mut counted = Amounts::from([("pods".to_owned(), "2".parse().unwrap())]);
        settle(&quota, &mut counted, Standing { age: Duration::ZERO, waited });
        assert_eq!(show(counted.iter()), "pods=2");
    }
}
