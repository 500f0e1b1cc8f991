//! Keeps pods with scheduling gates out of the queue.

use crate::framework::{Event, Plugin};
use crate::pod::PodInfo;

/// `SchedulingGates`
#[derive(Debug)]
pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn pre_enqueue(&self, pod: &PodInfo) -> bool {
        !pod.has_scheduling_gates
    }

    fn wakes(&self, _: Event, _: &PodInfo) -> bool {
        false
    }
}
