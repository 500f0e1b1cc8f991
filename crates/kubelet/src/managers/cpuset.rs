//! Sets of CPUs, as the kernel writes them: `0-3,8`.

use std::collections::BTreeSet;
use std::fmt;

/// CPUs of a machine, at most; keeps a list from naming a range without end.
const MAX_CPUS: usize = 65_536;

/// A set of logical CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CpuSet(BTreeSet<usize>);

impl CpuSet {
    /// Reads `0-3,8`; nothing is the empty set.
    pub(crate) fn parse(text: &str) -> Result<CpuSet, String> {
        let mut cpus = BTreeSet::new();
        let number = |text: &str| match text.trim().parse::<usize>() {
            Ok(cpu) if cpu < MAX_CPUS => Ok(cpu),
            _ => Err(format!("{text:?} is no CPU")),
        };
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            match part.split_once('-') {
                None => drop(cpus.insert(number(part)?)),
                Some((first, last)) => {
                    let (first, last) = (number(first)?, number(last)?);
                    if first > last {
                        return Err(format!("invalid range {part:?} ({first} > {last})"));
                    }
                    cpus.extend(first..=last);
                }
            }
        }
        Ok(CpuSet(cpus))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn union(&self, other: &CpuSet) -> CpuSet {
        CpuSet(&self.0 | &other.0)
    }

    pub(crate) fn difference(&self, other: &CpuSet) -> CpuSet {
        CpuSet(&self.0 - &other.0)
    }

    pub(crate) fn intersection(&self, other: &CpuSet) -> CpuSet {
        CpuSet(&self.0 & &other.0)
    }

    pub(crate) fn is_subset(&self, other: &CpuSet) -> bool {
        self.0.is_subset(&other.0)
    }
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(cpus: I) -> CpuSet {
        CpuSet(cpus.into_iter().collect())
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut comma = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if(|next| *next == last + 1) {
                last = next;
            }
            match last > first {
                true => write!(out, "{comma}{first}-{last}")?,
                false => write!(out, "{comma}{first}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (text, shown) in [("", ""), ("0", "0"), ("3,1,2", "1-3"), ("0-1,4,6-7\n", "0-1,4,6-7"), ("5-5", "5")] {
            assert_eq!(CpuSet::parse(text).unwrap().to_string(), shown, "{text}");
        }
        for text in ["a", "1-", "3-1", "-1", "0-99999999", "1,x"] {
            assert!(CpuSet::parse(text).is_err(), "{text}");
        }
    }
}
