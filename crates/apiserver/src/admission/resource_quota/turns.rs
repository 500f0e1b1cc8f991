//! Charging in turns. A request puts its charge into its namespace's line and waits for the turn; whoever gets it finds the
//! charges of all who wait, and most find theirs done when they get it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use keelson_api::quota::{Amounts, Quota};
use keelson_api::status::Status;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::write;
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

/// Why a charge was not made.
#[derive(Clone, Debug)]
pub(in crate::admission) enum Denied {
    /// In upstream's words.
    Exceeded(String),
    /// The quota could not be written.
    Failed(Status),
}

struct Waiting {
    charge: Charge,
    outcome: Result<(), Denied>,
    done: oneshot::Sender<Result<(), Denied>>,
}

/// A namespace's.
#[derive(Default)]
struct Line {
    waiting: Mutex<Vec<Waiting>>,
    turn: tokio::sync::Mutex<()>,
}

/// The lines of all namespaces where somebody waits.
#[derive(Default)]
pub(in crate::admission) struct Turns {
    lines: Mutex<HashMap<String, Arc<Line>>>,
}

impl std::fmt::Debug for Turns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turns").finish_non_exhaustive()
    }
}

impl Turns {
    /// Charges, together with whoever else wants to be charged in the namespace.
    pub(super) async fn charge(&self, core: &Core, namespace: &str, charge: Charge) -> Result<(), Denied> {
        let line = self.lines.lock().entry(namespace.to_owned()).or_default().clone();
        let outcome = loop {
            let (done, mut outcome) = oneshot::channel();
            line.waiting.lock().push(Waiting { charge: charge.clone(), outcome: Ok(()), done });
            let turn = line.turn.lock().await;
            match outcome.try_recv() {
                Ok(outcome) => break outcome,
                Err(oneshot::error::TryRecvError::Empty) => {
                    let waiting = std::mem::take(&mut *line.waiting.lock());
                    serve(core, namespace, waiting).await;
                    if let Ok(outcome) = outcome.try_recv() {
                        break outcome;
                    }
                }
                // Who had the turn went away in the midst of it.
                Err(oneshot::error::TryRecvError::Closed) => {}
            }
            drop(turn);
        };
        let mut lines = self.lines.lock();
        drop(line);
        if lines.get(namespace).is_some_and(|line| Arc::strong_count(line) == 1) {
            lines.remove(namespace);
        }
        outcome
    }
}

/// Charges all who wait and tells them.
async fn serve(core: &Core, namespace: &str, mut waiting: Vec<Waiting>) {
    // Those who went away are not charged.
    waiting.retain(|one| !one.done.is_closed());
    let quotas = core.admission.namespaces.quotas(namespace);
    let mut running: BTreeMap<&str, Quota> =
        quotas.iter().map(|quota| (quota.name.as_str(), Quota::clone(quota))).collect();
    for one in &mut waiting {
        one.outcome = one.charge.fit(&mut running);
    }
    for quota in &quotas {
        let name = quota.name.as_str();
        if !waiting.iter().any(|one| one.pays(name)) {
            continue;
        }
        // Somebody else may have charged the quota meanwhile, so that not all fit any more.
        let mut outcomes = Vec::new();
        let used = |mut quota: Quota| {
            outcomes = waiting.iter().filter(|one| one.pays(name)).map(|one| one.charge.pay(&mut quota)).collect();
            quota.used
        };
        let written = write(core, namespace, name, used).await;
        let payers = waiting.iter_mut().filter(|one| one.pays(name));
        match written {
            Ok(true) => payers.zip(outcomes).for_each(|(one, outcome)| one.outcome = outcome),
            Ok(false) => {}
            Err(status) => payers.for_each(|one| one.outcome = Err(Denied::Failed(status.clone()))),
        }
    }
    for Waiting { outcome, done, .. } in waiting {
        // Who asked may have gone.
        let _ = done.send(outcome);
    }
}

impl Waiting {
    /// Whether it is to be charged to this quota.
    fn pays(&self, quota: &str) -> bool {
        !self.charge.dry_run && self.outcome.is_ok() && self.charge.by_quota.iter().any(|(name, _)| name == quota)
    }
}

impl Charge {
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
