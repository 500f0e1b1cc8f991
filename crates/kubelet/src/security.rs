//! What the kernel must have for a pod's security context, and pods refused where it has not.

use k8s_openapi::api::core::v1::Pod;
use keelson_cri::v1 as cri;

use crate::pod::status::Ended;
use crate::pod::view;

/// Older clients put AppArmor profiles into annotations of this name with the container's after it.
const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The kernel's and the runtime's abilities.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Abilities {
    pub apparmor: bool,
    pub selinux: bool,
    /// Of the runtime: `supplementalGroupsPolicy: Strict`.
    pub strict_groups: bool,
    /// Major and minor number of the kernel.
    pub kernel: (u32, u32),
    /// Of the runtime: what each handler can do; none named for the default one.
    pub handlers: Vec<cri::RuntimeHandler>,
}

impl Abilities {
    /// Looks at the running kernel.
    pub(crate) fn of_kernel() -> Abilities {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let release = read("/proc/sys/kernel/osrelease");
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
        Abilities {
            apparmor: read("/sys/module/apparmor/parameters/enabled").trim() == "Y",
            selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists(),
            strict_groups: false,
            kernel: (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)),
            handlers: Vec::new(),
        }
    }

    /// The kernel's, and what the runtime says of itself.
    pub(crate) fn new(runtime: &cri::StatusResponse) -> Abilities {
        Abilities {
            strict_groups: runtime.features.is_some_and(|features| features.supplemental_groups_policy),
            handlers: runtime.runtime_handlers.clone(),
            ..Abilities::of_kernel()
        }
    }

    /// What a runtime handler can do; nothing when the runtime does not say.
    pub(crate) fn handler(&self, name: &str) -> cri::RuntimeHandlerFeatures {
        self.handlers
            .iter()
            .find(|handler| handler.name == name)
            .and_then(|handler| handler.features)
            .unwrap_or_default()
    }
}

/// Why the pod cannot have the protection that it asks for.
pub(crate) fn refuse(pod: &Pod, abilities: &Abilities) -> Option<Ended> {
    let ended = |reason: &str, message: &str| Some(Ended::rejection(reason, message));
    if !abilities.apparmor && wants_apparmor(pod) {
        return ended("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host");
    }
    if !abilities.selinux && wants_selinux(pod) {
        return ended(
            "SELinux",
            "Cannot enforce SELinux: seLinuxOptions are set, but SELinux is not enabled on the host",
        );
    }
    let policy = view::spec(pod)?.security_context.as_ref()?.supplemental_groups_policy.as_deref();
    if policy == Some("Strict") && !abilities.strict_groups {
        return ended(
            "SupplementalGroupsPolicyNotSupported",
            "SupplementalGroupsPolicy=Strict is not supported in this node",
        );
    }
    None
}

fn wants_apparmor(pod: &Pod) -> bool {
    let confined = |kind: &str| kind != "Unconfined";
    let pod_wide = view::spec(pod).and_then(|spec| spec.security_context.as_ref());
    let by_annotation = pod.metadata.annotations.iter().flatten();
    pod_wide.and_then(|context| context.app_armor_profile.as_ref()).is_some_and(|profile| confined(&profile.type_))
        || view::all_containers(pod).any(|container| {
            let own = container.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
            own.is_some_and(|profile| confined(&profile.type_))
        })
        || by_annotation
            .into_iter()
            .any(|(name, value)| name.starts_with(APPARMOR_ANNOTATION) && !value.is_empty() && value != "unconfined")
}

fn wants_selinux(pod: &Pod) -> bool {
    let pod_wide = view::spec(pod).and_then(|spec| spec.security_context.as_ref());
    pod_wide.is_some_and(|context| context.se_linux_options.is_some())
        || view::all_containers(pod).any(|container| {
            container.security_context.as_ref().is_some_and(|context| context.se_linux_options.is_some())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_kernel_has_not_is_refused() {
        let none = Abilities::default();
        let all =
            Abilities { apparmor: true, selinux: true, strict_groups: true, kernel: (6, 1), handlers: Vec::new() };
        for (annotations, spec, reason) in [
            (json!({}), json!({"containers": []}), None),
            (
                json!({}),
                json!({"containers": [], "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}),
                Some("AppArmor"),
            ),
            (
                json!({}),
                json!({"containers": [], "securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
                None,
            ),
            (
                json!({}),
                json!({"containers": [{"name": "c", "securityContext": {"appArmorProfile":
                    {"type": "Localhost", "localhostProfile": "x"}}}]}),
                Some("AppArmor"),
            ),
            (
                json!({"container.apparmor.security.beta.kubernetes.io/c": "runtime/default"}),
                json!({"containers": []}),
                Some("AppArmor"),
            ),
            (
                json!({"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}),
                json!({"containers": []}),
                None,
            ),
            (
                json!({}),
                json!({"containers": [], "securityContext": {"seLinuxOptions": {"level": "s0"}}}),
                Some("SELinux"),
            ),
            (
                json!({}),
                json!({"containers": [], "initContainers": [{"name": "i", "securityContext": {"seLinuxOptions": {"type": "t"}}}]}),
                Some("SELinux"),
            ),
            (
                json!({}),
                json!({"containers": [], "securityContext": {"supplementalGroupsPolicy": "Strict"}}),
                Some("SupplementalGroupsPolicyNotSupported"),
            ),
            (json!({}), json!({"containers": [], "securityContext": {"supplementalGroupsPolicy": "Merge"}}), None),
        ] {
            let pod: Pod =
                serde_json::from_value(json!({"metadata": {"annotations": annotations}, "spec": spec})).unwrap();
            assert_eq!(refuse(&pod, &none).map(|refused| refused.reason).as_deref(), reason, "{spec}");
            assert_eq!(refuse(&pod, &all).map(|refused| refused.reason), None, "{spec}");
        }
        assert!(Abilities::of_kernel().kernel > (2, 6));
    }
}
