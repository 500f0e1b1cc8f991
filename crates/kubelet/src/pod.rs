//! Pods: one task each. `plan` decides and `status` tells, both purely; `observed` asks the runtime; `worker` is the task.

pub(crate) mod backoff;
pub(crate) mod container;
pub(crate) mod end;
pub(crate) mod events;
pub(crate) mod hooks;
pub(crate) mod observed;
pub(crate) mod plan;
pub(crate) mod resize;
pub(crate) mod sandbox;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod userns;
pub(crate) mod view;
pub(crate) mod worker;
