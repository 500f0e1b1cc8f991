//! PodDisruptionBudget

use serde_json::{Value, json};

use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::int_or_percent;
use crate::kinds::mutate::set_status;
use crate::kinds::print::{age, count};
use crate::status::FieldError;
use crate::validation::{View, conditions, labels, non_negative, one_of};

pub mod disrupt;
#[cfg(test)]
mod tests;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", &PodDisruptionBudget)
        .short("pdb")
        .with_status()
        .columns(vec![
            Column::string("Min Available", "Fewest pods that must stay.", |object, _| {
                int_or_percent::text(&object["spec"]["minAvailable"], "N/A").into()
            }),
            Column::string("Max Unavailable", "Most pods that may be gone.", |object, _| {
                int_or_percent::text(&object["spec"]["maxUnavailable"], "N/A").into()
            }),
            Column::integer("Allowed Disruptions", "Pods that may be evicted now.", |object, _| {
                count(&object["status"]["disruptionsAllowed"])
            }),
            age(),
        ])
}

#[derive(Debug)]
struct PodDisruptionBudget;

impl Strategy for PodDisruptionBudget {
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        crate::kinds::prepare(object, write);
        if write == Write::Create {
            let zero = json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
            set_status(object, zero);
        }
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        if let Write::Subresource(..) = write {
            let status = root.get("status");
            conditions::validate(status.get("conditions"), &mut errors);
            for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
                non_negative(status.get(field), &mut errors);
            }
            return errors;
        }
        let spec = root.get("spec");
        let (min, max) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
        let policy = spec.get("unhealthyPodEvictionPolicy");
        if min.is_set() && max.is_set() {
            let shown = format!(
                r#"{{"MinAvailable":{},"Selector":{},"MaxUnavailable":{},"UnhealthyPodEvictionPolicy":{}}}"#,
                min.value,
                spec.get("selector").value,
                max.value,
                policy.value
            );
            let detail = "minAvailable and maxUnavailable cannot be both set";
            errors.push(FieldError::of_struct("FieldValueInvalid", spec.path(), &shown, detail));
        }
        for amount in [min, max] {
            if amount.is_set() {
                int_or_percent::validate(amount, &mut errors);
                int_or_percent::at_most_all(amount, &mut errors);
            }
        }
        labels::validate_selector(spec.get("selector"), &mut errors);
        if policy.is_set() {
            one_of(policy, &["AlwaysAllow", "IfHealthyBudget"], &mut errors);
        }
        errors
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}
