//! What a ReplicaSet and a ReplicationController have in common, as plain values.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::plan::{Failure, Status};
use crate::common::objects::Labels;

/// A kind that keeps a number of pods.
pub(super) trait Owner:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Who its events come from.
    const COMPONENT: &'static str;

    fn replicas(&self) -> i32;
    fn min_ready_seconds(&self) -> i32;
    fn selector(&self) -> Labels;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn status(&self) -> Status;
    fn set_status(&mut self, status: Status);
}

const FAILURE: &str = "ReplicaFailure";

impl Owner for ReplicaSet {
    const COMPONENT: &'static str = "replicaset-controller";

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    fn selector(&self) -> Labels {
        self.spec.as_ref().map_or_else(|| Labels::of(&Default::default()), |spec| Labels::of(&spec.selector))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> Status {
        let status = self.status.clone().unwrap_or_default();
        let failure = status.conditions.into_iter().flatten().find(|condition| condition.type_ == FAILURE);
        Status {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: status.terminating_replicas,
            observed_generation: status.observed_generation,
            failure: failure.map(|condition| Failure {
                reason: condition.reason.unwrap_or_default(),
                message: condition.message.unwrap_or_default(),
                since: condition.last_transition_time,
            }),
        }
    }

    fn set_status(&mut self, status: Status) {
        let mut conditions = self.status.take().and_then(|status| status.conditions).unwrap_or_default();
        conditions.retain(|condition| condition.type_ != FAILURE);
        conditions.extend(status.failure.map(|failure| ReplicaSetCondition {
            type_: FAILURE.into(),
            status: "True".into(),
            reason: Some(failure.reason),
            message: Some(failure.message),
            last_transition_time: failure.since,
        }));
        self.status = Some(ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: positive(status.fully_labeled),
            ready_replicas: positive(status.ready),
            available_replicas: positive(status.available),
            terminating_replicas: status.terminating,
            observed_generation: status.observed_generation,
            conditions: Some(conditions).filter(|conditions| !conditions.is_empty()),
        });
    }
}

impl Owner for ReplicationController {
    const COMPONENT: &'static str = "replication-controller";

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    fn selector(&self) -> Labels {
        let none = Default::default();
        Labels::of_map(self.spec.as_ref().and_then(|spec| spec.selector.as_ref()).unwrap_or(&none))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> Status {
        let status = self.status.clone().unwrap_or_default();
        let failure = status.conditions.into_iter().flatten().find(|condition| condition.type_ == FAILURE);
        Status {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: None,
            observed_generation: status.observed_generation,
            failure: failure.map(|condition| Failure {
                reason: condition.reason.unwrap_or_default(),
                message: condition.message.unwrap_or_default(),
                since: condition.last_transition_time,
            }),
        }
    }

    fn set_status(&mut self, status: Status) {
        let mut conditions = self.status.take().and_then(|status| status.conditions).unwrap_or_default();
        conditions.retain(|condition| condition.type_ != FAILURE);
        conditions.extend(status.failure.map(|failure| ReplicationControllerCondition {
            type_: FAILURE.into(),
            status: "True".into(),
            reason: Some(failure.reason),
            message: Some(failure.message),
            last_transition_time: failure.since,
        }));
        self.status = Some(ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: positive(status.fully_labeled),
            ready_replicas: positive(status.ready),
            available_replicas: positive(status.available),
            observed_generation: status.observed_generation,
            conditions: Some(conditions).filter(|conditions| !conditions.is_empty()),
        });
    }
}

/// Upstream leaves these out when they are zero.
fn positive(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}
