//! Which pods make room for a critical one that does not fit. Pure; the choice is upstream's: as few as possible, best-effort
//! pods before burstable ones before guaranteed ones, each the one that comes nearest to what is missing.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::admit::{self, Lack};
use crate::eviction::is_critical;
use crate::pod::view;
use crate::resources::{QosClass, qos_class};

/// What the status of a pod that made room says, and its event.
pub(crate) const REASON: &str = "Preempting";
pub(crate) const MESSAGE: &str = "Preempted in order to admit critical pod";
/// What its DisruptionTarget condition says.
pub(crate) const CONDITION: &str = "Pod was preempted by Kubelet to accommodate a critical pod.";

/// Those of `running` (by index) that are to go so that `pod` gets what is `lacking`.
pub(crate) fn victims(pod: &Pod, running: &[Arc<Pod>], lacking: &[Lack]) -> Result<Vec<usize>, String> {
    let of = |class: QosClass| -> Vec<usize> {
        let may = |pod_there: &Pod| may_preempt(pod, pod_there) && qos_class(pod_there) == class;
        running.iter().enumerate().filter(|(_, there)| may(there)).map(|(index, _)| index).collect()
    };
    let (best_effort, burstable, guaranteed) =
        (of(QosClass::BestEffort), of(QosClass::Burstable), of(QosClass::Guaranteed));
    let without = |lacking: &[Lack], gone: &[usize]| -> Vec<Lack> {
        let freed = |name: &str| {
            gone.iter().map(|index| running.get(*index).map_or(0, |pod| admit::amount(pod, name))).sum::<i64>()
        };
        let left =
            lacking.iter().map(|lack| Lack { name: lack.name.clone(), quantity: lack.quantity - freed(&lack.name) });
        left.filter(|lack| lack.quantity > 0).collect()
    };
    let all: Vec<usize> = best_effort.iter().chain(&burstable).chain(&guaranteed).copied().collect();
    let missing = without(lacking, &all);
    if !missing.is_empty() {
        let list: String = missing.iter().map(|lack| format!("(res: {}, q: {}), ", lack.name, lack.quantity)).collect();
        return Err(format!("no set of running pods found to reclaim resources: [{list}]"));
    }
    // Of each class only those that the lesser classes cannot stand in for.
    let lesser: Vec<usize> = best_effort.iter().chain(&burstable).copied().collect();
    let mut chosen = nearest(running, guaranteed, without(lacking, &lesser), &without);
    let known: Vec<usize> = best_effort.iter().chain(&chosen).copied().collect();
    let more = nearest(running, burstable, without(lacking, &known), &without);
    chosen.extend(more);
    let more = nearest(running, best_effort, without(lacking, &chosen), &without);
    chosen.extend(more);
    Ok(chosen)
}

/// Takes one pod after the other, always the one after which the least is missing, and of equal ones the smallest.
fn nearest(
    running: &[Arc<Pod>],
    mut from: Vec<usize>,
    mut lacking: Vec<Lack>,
    without: &impl Fn(&[Lack], &[usize]) -> Vec<Lack>,
) -> Vec<usize> {
    let mut chosen = Vec::new();
    while !lacking.is_empty() {
        let pod = |index: usize| running.get(index).map(Arc::as_ref);
        let far = |index: &usize| {
            let parts = lacking.iter().map(|lack| {
                let has = pod(*index).map_or(0, |pod| admit::amount(pod, &lack.name));
                let part = (lack.quantity - has).max(0) as f64 / lack.quantity as f64;
                part * part
            });
            parts.sum::<f64>()
        };
        let size = |index: &usize| {
            let of = |name: &str| pod(*index).map_or(0, |pod| admit::amount(pod, name));
            (of("memory"), of("cpu"))
        };
        let best = from
            .iter()
            .copied()
            .enumerate()
            .min_by(|(_, one), (_, two)| far(one).total_cmp(&far(two)).then_with(|| size(one).cmp(&size(two))));
        let Some((place, index)) = best else { break };
        from.remove(place);
        chosen.push(index);
        lacking = without(&lacking, &[index]);
    }
    chosen
}

/// Whether the one is more important than the other.
fn may_preempt(pod: &Pod, other: &Pod) -> bool {
    let priority = |pod: &Pod| view::spec(pod).and_then(|spec| spec.priority);
    match (is_critical(pod), is_critical(other)) {
        (true, false) => true,
        _ => priority(pod).zip(priority(other)).is_some_and(|(own, theirs)| own > theirs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn as_few_and_as_small_as_possible() {
        let pod = |priority: i64, cpu: &str, memory: &str, guaranteed: bool| -> Arc<Pod> {
            let list = json!({"cpu": cpu, "memory": memory});
            let resources = match guaranteed {
                true => json!({"requests": list.clone(), "limits": list}),
                false => json!({"requests": list}),
            };
            let spec = json!({"priority": priority, "containers": [{"name": "c", "resources": resources}]});
            Arc::new(serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap())
        };
        let best_effort: Arc<Pod> =
            Arc::new(serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [{"name": "c"}]}})).unwrap());
        let critical = pod(2_000_001_000, "1", "1Gi", true);
        let running = [
            best_effort,
            pod(0, "2", "1Gi", false),
            pod(0, "1", "1Gi", false),
            pod(0, "1", "2Gi", false),
            pod(0, "4", "4Gi", true),
            pod(2_000_000_000, "8", "8Gi", true),
        ];
        let lack = |name: &str, quantity: i64| Lack { name: name.into(), quantity };
        for (lacking, expected) in [
            (vec![lack("cpu", 500)], Ok(vec![2])),
            (vec![lack("cpu", 1500)], Ok(vec![1])),
            (vec![lack("memory", 2 << 30), lack("cpu", 500)], Ok(vec![3])),
            (vec![lack("cpu", 3500)], Ok(vec![1, 3, 2])),
            (vec![lack("pods", 1)], Ok(vec![0])),
            // The burstable ones together are not enough.
            (vec![lack("cpu", 5000)], Ok(vec![4, 2])),
            (
                vec![lack("cpu", 9000)],
                Err("no set of running pods found to reclaim resources: [(res: cpu, q: 1000), ]"),
            ),
        ] {
            let found = victims(&critical, &running, &lacking);
            let found = found.map(|mut chosen| {
                chosen.sort_unstable();
                chosen
            });
            let expected = expected.map_err(str::to_string).map(|mut chosen: Vec<usize>| {
                chosen.sort_unstable();
                chosen
            });
            // Of the highest priority may one go that is critical, but less important.
            match expected {
                Err(_) => assert_eq!(victims(&critical, &running[..5], &lacking), expected),
                Ok(_) => assert_eq!(found, expected, "{lacking:?}"),
            }
        }
        assert!(!may_preempt(&pod(0, "1", "1", true), &running[5]));
        assert!(may_preempt(&critical, &running[5]), "by priority");
    }
}
