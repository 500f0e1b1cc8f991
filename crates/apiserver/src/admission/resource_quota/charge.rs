//! What requests are charged, and how the charges of all that wait are made at once, with one write per quota.

use std::collections::BTreeMap;

use keelson_api::quota::{Amounts, Quota};

use super::turns::Waiting;
use super::{Denied, write};
use crate::core::Core;

/// What a request is to be charged.
#[derive(Clone, Debug)]
pub(super) struct Charge {
    /// By quota's name. All of them fit, or none is charged.
    pub(super) by_quota: Vec<(String, Amounts)>,
    /// Whether too much is refused.
    pub(super) enforced: bool,
    pub(super) dry_run: bool,
}

/// Charges all who wait and tells them.
pub(super) async fn serve(core: &Core, namespace: &str, waiting: Vec<Waiting>) {
    let quotas = core.admission.namespaces.quotas(namespace);
    let mut running: BTreeMap<&str, Quota> =
        quotas.iter().map(|quota| (quota.name.as_str(), Quota::clone(quota))).collect();
    let mut outcomes: Vec<_> = waiting.iter().map(|one| one.charge.fit(&mut running)).collect();
    for quota in &quotas {
        let name = quota.name.as_str();
        let paying = waiting.iter().map(|one| &one.charge).zip(&mut outcomes);
        let mut paying: Vec<_> = paying.filter(|(charge, outcome)| outcome.is_ok() && charge.pays(name)).collect();
        if paying.is_empty() {
            continue;
        }
        // Somebody else may have charged the quota meanwhile, so that not all fit any more.
        let used = |mut quota: Quota| {
            paying.iter_mut().for_each(|(charge, outcome)| **outcome = charge.pay(&mut quota));
            quota.used
        };
        match write(core, namespace, name, used).await {
            Ok(true) => {}
            // A quota that is gone forbids nothing.
            Ok(false) => paying.into_iter().for_each(|(_, outcome)| *outcome = Ok(())),
            Err(status) => {
                paying.into_iter().for_each(|(_, outcome)| *outcome = Err(Denied::Failed(status.clone())));
            }
        }
    }
    waiting.into_iter().zip(outcomes).for_each(|(one, outcome)| one.end(outcome));
}

impl Charge {
    /// Whether it is to be charged to this quota.
    fn pays(&self, quota: &str) -> bool {
        !self.dry_run && self.by_quota.iter().any(|(name, _)| name == quota)
    }

    /// Whether it fits into all quotas, which are charged then, unless it is a dry run.
    fn fit(&self, running: &mut BTreeMap<&str, Quota>) -> Result<(), Denied> {
        let mut charged = Vec::new();
        for (name, _) in &self.by_quota {
            let Some(quota) = running.get(name.as_str()) else { continue };
            let mut quota = quota.clone();
            self.pay(&mut quota)?;
            charged.push((name, quota));
        }
        if !self.dry_run {
            for (name, quota) in charged {
                if let Some(place) = running.get_mut(name.as_str()) {
                    *place = quota;
                }
            }
        }
        Ok(())
    }

    fn pay(&self, quota: &mut Quota) -> Result<(), Denied> {
        let Some((_, delta)) = self.by_quota.iter().find(|(name, _)| *name == quota.name) else { return Ok(()) };
        quota.charge(delta, self.enforced).map_err(Denied::Exceeded)
    }
}
