//! What becomes of one object, given what its owners are.

use kube::api::PropagationPolicy;

/// What an owner reference turned out to point at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// It is there and stays.
    Solid,
    /// It is not there, or another object has its name now.
    Absent,
    /// It is being deleted and waits for its dependents.
    Waiting,
}

/// What to do with the object.
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    Keep,
    /// Take these owners (by position) off it.
    Disown(Vec<usize>),
    Delete {
        policy: PropagationPolicy,
        /// Its dependents wait for their own dependents too: first stop it from blocking its owners, or a circle would
        /// wait for itself.
        unblock: bool,
    },
}

/// What is known of the object itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Item {
    pub has_dependents: bool,
    /// One of the dependents waits for dependents of its own.
    pub dependents_wait: bool,
    pub has_orphan_finalizer: bool,
    pub has_foreground_finalizer: bool,
}

pub(super) fn decide(owners: &[Owner], item: Item) -> Decision {
    if owners.is_empty() {
        return Decision::Keep;
    }
    if owners.contains(&Owner::Solid) {
        let gone: Vec<usize> =
            owners.iter().enumerate().filter(|(_, owner)| **owner != Owner::Solid).map(|(n, _)| n).collect();
        return if gone.is_empty() { Decision::Keep } else { Decision::Disown(gone) };
    }
    if owners.contains(&Owner::Waiting) && item.has_dependents {
        return Decision::Delete { policy: PropagationPolicy::Foreground, unblock: item.dependents_wait };
    }
    let policy = if item.has_orphan_finalizer {
        PropagationPolicy::Orphan
    } else if item.has_foreground_finalizer {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    };
    Decision::Delete { policy, unblock: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Owner::{Absent, Solid, Waiting};

    #[test]
    fn decisions() {
        let delete = |policy| Decision::Delete { policy, unblock: false };
        let plain = Item::default();
        let parent = Item { has_dependents: true, ..plain };
        assert_eq!(decide(&[], plain), Decision::Keep);
        assert_eq!(decide(&[Solid], plain), Decision::Keep);
        assert_eq!(decide(&[Solid, Absent, Waiting], plain), Decision::Disown(vec![1, 2]));
        assert_eq!(decide(&[Absent], plain), delete(PropagationPolicy::Background));
        assert_eq!(decide(&[Absent], parent), delete(PropagationPolicy::Background));
        assert_eq!(decide(&[Waiting], plain), delete(PropagationPolicy::Background));
        assert_eq!(decide(&[Waiting, Absent], parent), delete(PropagationPolicy::Foreground));
        let circle = Item { dependents_wait: true, ..parent };
        let unblock = Decision::Delete { policy: PropagationPolicy::Foreground, unblock: true };
        assert_eq!(decide(&[Waiting], circle), unblock);
        let orphan = Item { has_orphan_finalizer: true, ..plain };
        assert_eq!(decide(&[Absent], orphan), delete(PropagationPolicy::Orphan));
        let foreground = Item { has_foreground_finalizer: true, ..plain };
        assert_eq!(decide(&[Absent], foreground), delete(PropagationPolicy::Foreground));
    }
}
