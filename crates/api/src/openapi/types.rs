//! The Rust types that the schemas' descriptions come from. A built-in kind needs a line here to be in the documents.

use std::borrow::Cow;

use k8s_openapi::api;
use k8s_openapi::apimachinery::pkg::{apis::meta::v1 as meta, runtime::RawExtension};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value};

/// A type's schema name, and the call that puts it and all that it refers to into a generator.
type Source = (fn() -> Cow<'static, str>, fn(&mut SchemaGenerator));

fn source<T: JsonSchema>() -> Source {
    (T::schema_name, |generator| {
        generator.subschema_for::<T>();
    })
}

macro_rules! sources {
    ($($package:path: $($name:ident),+;)+) => {
        vec![$({
            use $package as package;
            vec![$(source::<package::$name>()),+]
        }),+]
    };
}

fn sources() -> Vec<Vec<Source>> {
    let mut all = sources! {
        api::core::v1: Binding, ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node,
            PersistentVolume, PersistentVolumeClaim, Pod, PodTemplate, ReplicationController, ResourceQuota, Secret,
            Service, ServiceAccount;
        api::apps::v1: ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet;
        api::authentication::v1: SelfSubjectReview, TokenRequest, TokenReview;
        api::authorization::v1: LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview,
            SubjectAccessReview;
        api::autoscaling::v1: HorizontalPodAutoscaler, Scale;
        api::batch::v1: CronJob, Job;
        api::coordination::v1: Lease;
        api::discovery::v1: EndpointSlice;
        api::events::v1: Event;
        api::networking::v1: Ingress, IngressClass, NetworkPolicy;
        api::policy::v1: Eviction, PodDisruptionBudget;
        api::rbac::v1: ClusterRole, ClusterRoleBinding, Role, RoleBinding;
        api::scheduling::v1: PriorityClass;
        api::storage::v1: CSIDriver, CSINode, StorageClass, VolumeAttachment;
        meta: APIResourceList, DeleteOptions, ListMeta, ObjectMeta, Patch, Status;
    };
    all.push(vec![source::<meta::WatchEvent<RawExtension>>()]);
    all
}

/// The schemas of the named types and all that they refer to, as JSON Schema with references `#/$defs/…`.
pub(super) fn definitions(wanted: impl Fn(&str) -> bool) -> Map<String, Value> {
    let mut generator = SchemaGenerator::default();
    for (name, generate) in sources().into_iter().flatten() {
        if wanted(&name()) {
            generate(&mut generator);
        }
    }
    generator.take_definitions(false)
}
