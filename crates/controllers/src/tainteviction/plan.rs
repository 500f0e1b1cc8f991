//! Whether and when a pod has to leave its node.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Taint, Toleration};
use keelson_api::placement::tolerates;

/// Until when a pod may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    Forever,
    Until(Timestamp),
    /// A taint is not tolerated at all.
    No,
}

/// Judges a pod by its tolerations. A taint that does not say since when it is there counts from `first_seen`.
pub fn stay(taints: &[Taint], tolerations: &[Toleration], first_seen: Timestamp) -> Stay {
    let mut until: Option<Timestamp> = None;
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        let matching: Vec<_> = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).collect();
        if matching.is_empty() {
            return Stay::No;
        }
        // The shortest of those that have an end, as upstream.
        if let Some(seconds) = matching.iter().filter_map(|toleration| toleration.toleration_seconds).min() {
            let since = taint.time_added.as_ref().map_or(first_seen, |time| time.0);
            let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            let end = since.checked_add(seconds).unwrap_or(Timestamp::MAX);
            until = Some(until.map_or(end, |other| other.min(end)));
        }
    }
    until.map_or(Stay::Forever, Stay::Until)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn stays() {
        let seen = Timestamp::from_second(1000).unwrap();
        let check = |tolerations: Value, expected| {
            let taints: Vec<Taint> = serde_json::from_value(json!([
                {"key": "a", "value": "1", "effect": "NoExecute"},
                {"key": "b", "effect": "NoExecute", "timeAdded": "1970-01-01T00:01:00Z"},
                {"key": "c", "effect": "NoSchedule"},
            ]))
            .unwrap();
            let tolerations: Vec<Toleration> = serde_json::from_value(tolerations).unwrap();
            assert_eq!(stay(&taints, &tolerations, seen), expected, "{tolerations:?}");
        };
        let at = |second| Stay::Until(Timestamp::from_second(second).unwrap());
        check(json!([]), Stay::No);
        check(json!([{"operator": "Exists"}]), Stay::Forever);
        check(json!([{"key": "a", "operator": "Exists"}]), Stay::No);
        check(json!([{"key": "a", "value": "1"}, {"key": "b", "operator": "Exists"}]), Stay::Forever);
        check(json!([{"key": "a", "value": "2"}, {"key": "b", "operator": "Exists"}]), Stay::No);
        check(json!([{"key": "a", "value": "1", "effect": "NoSchedule"}, {"key": "b"}]), Stay::No);
        check(json!([{"operator": "Exists", "tolerationSeconds": 300}]), at(360));
        check(
            json!([{"key": "a", "value": "1", "tolerationSeconds": 30}, {"key": "b", "operator": "Exists"}]),
            at(1030),
        );
        check(
            json!([{"operator": "Exists", "tolerationSeconds": 300}, {"operator": "Exists", "tolerationSeconds": 0}]),
            at(60),
        );
    }
}
