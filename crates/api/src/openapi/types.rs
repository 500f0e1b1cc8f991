//! The Rust types that the schemas' descriptions come from: all that `k8s-openapi` has of v1.35's kinds, so that a new kind
//! needs no line here.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::{apis::meta::v1 as meta, runtime::RawExtension, version};
use k8s_openapi::{api, apiextensions_apiserver, kube_aggregator};
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
        api::admissionregistration::v1: MutatingWebhookConfiguration, ValidatingAdmissionPolicy,
            ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration;
        api::admissionregistration::v1beta1: MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding;
        apiextensions_apiserver::pkg::apis::apiextensions::v1: CustomResourceDefinition;
        kube_aggregator::pkg::apis::apiregistration::v1: APIService;
        api::apps::v1: ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet;
        api::authentication::v1: SelfSubjectReview, TokenRequest, TokenReview;
        api::authorization::v1: LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview,
            SubjectAccessReview;
        api::autoscaling::v1: HorizontalPodAutoscaler, Scale;
        api::autoscaling::v2: HorizontalPodAutoscaler;
        api::batch::v1: CronJob, Job;
        api::certificates::v1: CertificateSigningRequest;
        api::certificates::v1beta1: ClusterTrustBundle, PodCertificateRequest;
        api::coordination::v1: Lease;
        api::coordination::v1beta1: LeaseCandidate;
        api::discovery::v1: EndpointSlice;
        api::events::v1: Event;
        api::flowcontrol::v1: FlowSchema, PriorityLevelConfiguration;
        api::networking::v1: IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR;
        api::networking::v1beta1: IPAddress, ServiceCIDR;
        api::node::v1: RuntimeClass;
        api::policy::v1: Eviction, PodDisruptionBudget;
        api::rbac::v1: ClusterRole, ClusterRoleBinding, Role, RoleBinding;
        api::resource::v1: DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice;
        api::resource::v1beta1: DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice;
        api::resource::v1beta2: DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice;
        api::scheduling::v1: PriorityClass;
        api::storage::v1: CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment,
            VolumeAttributesClass;
        api::storage::v1beta1: VolumeAttributesClass;
        api::storagemigration::v1beta1: StorageVersionMigration;
        meta: APIGroup, APIGroupList, APIResourceList, APIVersions, DeleteOptions, ListMeta, ObjectMeta, Patch, Status;
        version: Info;
    };
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    all.push(vec![source::<meta::WatchEvent<RawExtension>>(), source::<CustomResourceDefinition>()]);
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
