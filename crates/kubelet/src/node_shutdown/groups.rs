//! Who ends when: pods by their priority. Pure.

use std::time::Duration;

use crate::config::{Config, ShutdownGracePeriodByPodPriority, go_duration};

/// Pods of critical priority and above are the last that `shutdownGracePeriodCriticalPods` is about.
const CRITICAL: i32 = 2_000_000_000;

/// Pods that end together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// The least priority of its pods, but for the lowest group, which has all below, too.
    pub priority: i32,
    /// What they have to end, and how long the next group waits for them.
    pub period: Duration,
}

/// Whether the settings go together. The error begins with the field's name.
pub(crate) fn check(config: &Config) -> Result<(), String> {
    let (whole, critical) = (config.shutdown_grace_period, config.shutdown_grace_period_critical_pods);
    let is_given = !whole.is_zero() || !critical.is_zero();
    for (field, period) in [("shutdownGracePeriod", whole), ("shutdownGracePeriodCriticalPods", critical)] {
        if !period.is_zero() && period < Duration::from_secs(1) {
            return Err(format!("{field}: {} must be either zero or otherwise >= 1 sec", go_duration(period)));
        }
        if !period.is_zero() && !config.enabled("GracefulNodeShutdown") {
            return Err(format!("{field}: requires feature gate GracefulNodeShutdown"));
        }
    }
    if critical > whole {
        return Err(format!(
            "shutdownGracePeriodCriticalPods: {} must be <= shutdownGracePeriod {}",
            go_duration(critical),
            go_duration(whole)
        ));
    }
    let by_priority = &config.shutdown_grace_period_by_pod_priority;
    if by_priority.is_empty() {
        return Ok(());
    }
    let field = "shutdownGracePeriodByPodPriority";
    for gate in ["GracefulNodeShutdown", "GracefulNodeShutdownBasedOnPodPriority"] {
        if !config.enabled(gate) {
            return Err(format!("{field}: requires feature gate {gate}"));
        }
    }
    if is_given {
        return Err(format!("{field}: cannot be specified at the same time as shutdownGracePeriod"));
    }
    match by_priority.iter().find(|entry| entry.shutdown_grace_period_seconds < 0) {
        Some(entry) => Err(format!("{field}: the period of priority {} must not be negative", entry.priority)),
        None => Ok(()),
    }
}

/// The groups in the order in which they end; none when nobody asked for any.
pub(super) fn groups(config: &Config) -> Vec<Group> {
    let (whole, critical) = (config.shutdown_grace_period, config.shutdown_grace_period_critical_pods);
    let seconds = |duration: Duration| Duration::from_secs(duration.as_secs());
    let by_priority = &config.shutdown_grace_period_by_pod_priority;
    let mut groups: Vec<Group> = if !by_priority.is_empty() {
        by_priority.iter().map(group).collect()
    } else if whole.is_zero() {
        Vec::new()
    } else {
        let others = seconds(whole.saturating_sub(critical));
        vec![Group { priority: 0, period: others }, Group { priority: CRITICAL, period: seconds(critical) }]
    };
    groups.sort_by_key(|group| group.priority);
    groups
}

fn group(entry: &ShutdownGracePeriodByPodPriority) -> Group {
    let seconds = u64::try_from(entry.shutdown_grace_period_seconds).unwrap_or(0);
    Group { priority: entry.priority, period: Duration::from_secs(seconds) }
}

/// The indexes of the pods with these priorities, by group.
pub(super) fn split(groups: &[Group], priorities: &[i32]) -> Vec<Vec<usize>> {
    let mut members = vec![Vec::new(); groups.len()];
    for (index, priority) in priorities.iter().enumerate() {
        let at = groups.partition_point(|group| group.priority < *priority);
        // Of several groups of one priority, upstream's search finds the first.
        let exact = groups.get(at).is_some_and(|group| group.priority == *priority);
        let at = if exact { at } else { at.saturating_sub(1) };
        if let Some(group) = members.get_mut(at) {
            group.push(index);
        }
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new("n", "127.0.0.1".parse().unwrap())
    }

    fn entry(priority: i32, seconds: i64) -> ShutdownGracePeriodByPodPriority {
        ShutdownGracePeriodByPodPriority { priority, shutdown_grace_period_seconds: seconds }
    }

    #[test]
    fn periods_of_either_kind() {
        let mut config = config();
        assert_eq!(groups(&config), []);
        config.shutdown_grace_period = Duration::from_secs(30);
        config.shutdown_grace_period_critical_pods = Duration::from_secs(10);
        let of = |priority, seconds| Group { priority, period: Duration::from_secs(seconds) };
        assert_eq!(groups(&config), [of(0, 20), of(CRITICAL, 10)]);
        let mut config = self::config();
        config.shutdown_grace_period_by_pod_priority = vec![entry(1000, 2), entry(0, 3), entry(-5, 1)];
        assert_eq!(groups(&config), [of(-5, 1), of(0, 3), of(1000, 2)]);
    }

    #[test]
    fn a_pod_ends_with_the_next_group_below() {
        let mut config = config();
        config.shutdown_grace_period_by_pod_priority = vec![entry(0, 1), entry(1000, 1), entry(CRITICAL, 1)];
        for (priority, group) in
            [(i32::MIN, 0), (-1, 0), (0, 0), (999, 0), (1000, 1), (1001, 1), (CRITICAL, 2), (i32::MAX, 2)]
        {
            let found = split(&groups(&config), &[priority]).iter().position(|members| *members == [0]);
            assert_eq!(found, Some(group), "{priority}");
        }
    }

    #[test]
    fn settings_that_do_not_go_together() {
        for (whole, critical, by_priority, off, complaint) in [
            (30, 10, vec![], "", ""),
            (0, 0, vec![entry(0, 0)], "", ""),
            (0, 10, vec![], "", "shutdownGracePeriodCriticalPods: 10s must be <= shutdownGracePeriod 0s"),
            (10, 0, vec![entry(0, 5)], "", "shutdownGracePeriodByPodPriority: cannot be specified at the same time"),
            (0, 0, vec![entry(0, -5)], "", "shutdownGracePeriodByPodPriority: the period of priority 0"),
            (10, 0, vec![], "GracefulNodeShutdown", "shutdownGracePeriod: requires feature gate GracefulNodeShutdown"),
            (
                0,
                0,
                vec![entry(0, 5)],
                "GracefulNodeShutdownBasedOnPodPriority",
                "shutdownGracePeriodByPodPriority: requires feature gate GracefulNodeShutdownBasedOnPodPriority",
            ),
        ] {
            let mut config = config();
            config.shutdown_grace_period = Duration::from_secs(whole);
            config.shutdown_grace_period_critical_pods = Duration::from_secs(critical);
            config.shutdown_grace_period_by_pod_priority = by_priority;
            config.feature_gates.insert(off.into(), false);
            let why = check(&config).err().unwrap_or_default();
            assert!(why.starts_with(complaint) && why.is_empty() == complaint.is_empty(), "{why}");
        }
        let mut config = config();
        config.shutdown_grace_period = Duration::from_millis(500);
        assert!(check(&config).unwrap_err().starts_with("shutdownGracePeriod: 500ms must be either zero or"));
    }
}
