//! Eviction signals, the amounts at which they matter, and how `KubeletConfiguration` writes them.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use crate::config::Config;

/// Something that can run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// `memory.available`
    MemoryAvailable,
    /// `allocatableMemory.available`: of what pods may use; follows the hard threshold of `memory.available`.
    AllocatableMemoryAvailable,
    /// `nodefs.available`
    NodefsAvailable,
    /// `nodefs.inodesFree`
    NodefsInodesFree,
    /// `imagefs.available`
    ImagefsAvailable,
    /// `imagefs.inodesFree`
    ImagefsInodesFree,
    /// `pid.available`
    PidAvailable,
}

/// A node condition that signals lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pressure {
    Disk,
    Memory,
    Pid,
}

/// What is starved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    Memory,
    EphemeralStorage,
    Inodes,
    Pids,
}

const NAMES: [(Signal, &str); 7] = [
    (Signal::MemoryAvailable, "memory.available"),
    (Signal::AllocatableMemoryAvailable, "allocatableMemory.available"),
    (Signal::NodefsAvailable, "nodefs.available"),
    (Signal::NodefsInodesFree, "nodefs.inodesFree"),
    (Signal::ImagefsAvailable, "imagefs.available"),
    (Signal::ImagefsInodesFree, "imagefs.inodesFree"),
    (Signal::PidAvailable, "pid.available"),
];

impl Signal {
    /// As in configuration and metrics.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(signal, _)| *signal == self).map_or("", |(_, name)| name)
    }

    pub(crate) fn condition(self) -> Pressure {
        match self {
            Signal::MemoryAvailable | Signal::AllocatableMemoryAvailable => Pressure::Memory,
            Signal::PidAvailable => Pressure::Pid,
            _ => Pressure::Disk,
        }
    }

    pub(crate) fn resource(self) -> Resource {
        match self {
            Signal::MemoryAvailable | Signal::AllocatableMemoryAvailable => Resource::Memory,
            Signal::NodefsAvailable | Signal::ImagefsAvailable => Resource::EphemeralStorage,
            Signal::NodefsInodesFree | Signal::ImagefsInodesFree => Resource::Inodes,
            Signal::PidAvailable => Resource::Pids,
        }
    }
}

impl FromStr for Signal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(signal, name)| *name == text && *signal != Signal::AllocatableMemoryAvailable);
        found.map(|(signal, _)| *signal).ok_or_else(|| match text {
            "containerfs.available" | "containerfs.inodesFree" => {
                "follows nodefs or imagefs and has no threshold of its own".into()
            }
            _ => "unknown eviction signal".into(),
        })
    }
}

impl Pressure {
    /// The node condition's type.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Pressure::Disk => "DiskPressure",
            Pressure::Memory => "MemoryPressure",
            Pressure::Pid => "PIDPressure",
        }
    }
}

impl Resource {
    /// As in events and messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Resource::Memory => "memory",
            Resource::EphemeralStorage => "ephemeral-storage",
            Resource::Inodes => "inodes",
            Resource::Pids => "pids",
        }
    }
}

/// How much: a quantity (bytes, inodes, processes), or a share of the capacity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// So much.
    Quantity(u64),
    /// Per cent of the capacity.
    Percent(f64),
}

impl Amount {
    /// Of `capacity`.
    pub(crate) fn of(self, capacity: u64) -> u64 {
        match self {
            Amount::Quantity(amount) => amount,
            Amount::Percent(percent) => (capacity as f64 * percent / 100.0) as u64,
        }
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.parse().map_err(|_| format!("{text:?} must be a percentage"))?;
            return match percent {
                percent if (0.0..=100.0).contains(&percent) => Ok(Amount::Percent(percent)),
                _ => Err("must be within 0% and 100%".into()),
            };
        }
        let amount: keelson_api::quantity::Quantity =
            text.parse().map_err(|_| format!("{text:?} must be a quantity"))?;
        u64::try_from(amount.value()).map(Amount::Quantity).map_err(|_| "must not be negative".into())
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Amount::Quantity(amount) => {
                f.write_str(&crate::quantity::from_bytes(i64::try_from(*amount).unwrap_or(i64::MAX)).0)
            }
            Amount::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Amounts by signal.
pub type Thresholds = BTreeMap<Signal, Amount>;

/// Upstream's defaults of `evictionHard`.
pub(crate) fn default_hard() -> Thresholds {
    [
        (Signal::MemoryAvailable, Amount::Quantity(100 << 20)),
        (Signal::NodefsAvailable, Amount::Percent(10.0)),
        (Signal::NodefsInodesFree, Amount::Percent(5.0)),
        (Signal::ImagefsAvailable, Amount::Percent(15.0)),
        (Signal::ImagefsInodesFree, Amount::Percent(5.0)),
    ]
    .into()
}

/// A threshold with all that goes with it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Threshold {
    pub signal: Signal,
    pub amount: Amount,
    /// Soft: it must be met for so long.
    pub grace: Option<Duration>,
    /// Once met it stays so until this much more is there.
    pub minimum_reclaim: Option<Amount>,
}

/// All thresholds of a configuration, the most urgent first: memory cannot wait. Those of nothing are none.
pub(crate) fn thresholds(config: &Config) -> Vec<Threshold> {
    let minimum_reclaim = |signal| config.eviction_minimum_reclaim.get(&signal).copied();
    let mut all: Vec<Threshold> = config
        .eviction_hard
        .iter()
        .map(|(signal, amount)| (*signal, *amount, None))
        .chain(config.eviction_soft.iter().map(|(signal, amount)| {
            (*signal, *amount, Some(config.eviction_soft_grace_period.get(signal).copied().unwrap_or_default()))
        }))
        .map(|(signal, amount, grace)| Threshold { signal, amount, grace, minimum_reclaim: minimum_reclaim(signal) })
        .collect();
    let hard_memory = config.eviction_hard.get(&Signal::MemoryAvailable);
    if let Some(amount) = hard_memory.filter(|_| config.cgroups_per_qos) {
        all.push(Threshold {
            signal: Signal::AllocatableMemoryAvailable,
            amount: *amount,
            grace: None,
            minimum_reclaim: minimum_reclaim(Signal::MemoryAvailable),
        });
    }
    all.retain(|threshold| {
        !matches!(threshold.amount, Amount::Quantity(0)) && threshold.amount != Amount::Percent(0.0)
    });
    all.sort_by_key(|threshold| (threshold.signal.condition() != Pressure::Memory, threshold.grace.is_some()));
    all
}

/// What is left and what there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observation {
    pub available: u64,
    pub capacity: u64,
}

/// By signal; what cannot be seen is absent.
pub(crate) type Observations = BTreeMap<Signal, Observation>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (text, expected) in [
            ("100Mi", Ok(Amount::Quantity(100 << 20))),
            ("10%", Ok(Amount::Percent(10.0))),
            ("12.5%", Ok(Amount::Percent(12.5))),
            ("101%", Err(())),
            ("-1", Err(())),
            ("many", Err(())),
        ] {
            assert_eq!(text.parse::<Amount>().map_err(drop), expected, "{text}");
        }
        assert_eq!(Amount::Percent(10.0).of(1000), 100);
        assert!(
            "allocatableMemory.available".parse::<Signal>().is_err()
                && "pid.available".parse() == Ok(Signal::PidAvailable)
        );
    }

    #[test]
    fn memory_comes_first_and_nothing_is_no_threshold() {
        let mut config = Config::new("n", "127.0.0.1".parse().unwrap());
        config.eviction_hard.insert(Signal::NodefsAvailable, Amount::Percent(0.0));
        config.eviction_soft.insert(Signal::MemoryAvailable, Amount::Quantity(1 << 30));
        config.eviction_soft_grace_period.insert(Signal::MemoryAvailable, Duration::from_secs(60));
        let all: Vec<_> = thresholds(&config).into_iter().map(|found| (found.signal, found.grace.is_some())).collect();
        let expected = [
            (Signal::MemoryAvailable, false),
            (Signal::AllocatableMemoryAvailable, false),
            (Signal::MemoryAvailable, true),
            (Signal::NodefsInodesFree, false),
            (Signal::ImagefsAvailable, false),
            (Signal::ImagefsInodesFree, false),
        ];
        assert_eq!(all, expected);
    }
}
