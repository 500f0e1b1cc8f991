//! Observes pods and their owners, and creates and deletes pods.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_client::{
    EventRecorder, Key, SharedInformer, WorkQueue, clock, is_namespace_terminating, is_not_found, reference,
    run_workers,
};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};

use super::owner::Owner;
use super::plan::{self, Action, Candidate};
use crate::common::expectations::Expectations;
use crate::common::objects::{controller, is_deleting, name, namespace, uid};
use crate::common::owners::{Claim, adopt_patch, claim, controller_reference, release_patch};
use crate::common::{patch, pods};
use crate::context::{Context, objects};

/// Index of pods by their controller's uid; those without one are under [`orphans_of`] their namespace.
pub(crate) const BY_CONTROLLER: &str = "controller";

/// The index value of a pod.
pub(crate) fn by_controller(pod: &Pod) -> Option<String> {
    let meta = &pod.metadata;
    Some(controller(meta).map_or_else(|| orphans_of(namespace(meta)), |owner| owner.uid.clone()))
}

/// Where pods of a namespace are that nobody controls. No uid has a slash.
fn orphans_of(namespace: &str) -> String {
    format!("{namespace}/")
}

/// The `replicaset-controller`.
pub async fn run_replicasets(context: Context) {
    let workers = context.config.concurrent_replicaset_syncs;
    run::<ReplicaSet>(context, workers).await;
}

/// The `replicationcontroller-controller`.
pub async fn run_replicationcontrollers(context: Context) {
    let workers = context.config.concurrent_rc_syncs;
    run::<ReplicationController>(context, workers).await;
}

async fn run<O: Owner>(context: Context, workers: usize) {
    let (owners, all_pods) = (context.informers.get::<O>(), context.informers.get::<Pod>());
    all_pods.add_index(BY_CONTROLLER, by_controller);
    if !context.synced(&owners).await || !context.synced(&all_pods).await {
        return;
    }
    let queue = WorkQueue::new();
    let this = Arc::new(Controller {
        client: context.client.clone(),
        recorder: context.recorder(O::COMPONENT),
        owners: owners.clone(),
        pods: all_pods.clone(),
        expectations: Expectations::default(),
    });
    let on_owner = context.each(&owners, |change| objects(&change).for_each(|owner| queue.add(Key::of(&**owner))));
    let on_pod = context.each(&all_pods, |change| {
        for pod in objects(&change) {
            this.owners_of(pod).into_iter().for_each(|owner| queue.add(owner));
        }
    });
    let work = run_workers(O::COMPONENT, queue.clone(), workers, context.shutdown.clone(), {
        let this = this.clone();
        move |key| {
            let this = this.clone();
            async move { this.sync(&key).await }
        }
    });
    tokio::join!(on_owner, on_pod, work);
}

struct Controller<O: Owner> {
    client: kube::Client,
    recorder: EventRecorder,
    owners: SharedInformer<O>,
    pods: SharedInformer<Pod>,
    expectations: Expectations,
}

impl<O: Owner> Controller<O> {
    /// Who has to look at a pod: its controller, or for an orphan everyone whose selector matches.
    fn owners_of(&self, pod: &Pod) -> Vec<Key> {
        let meta = &pod.metadata;
        match controller(meta) {
            Some(owner) if owner.kind == O::kind(&()) && owner.api_version == O::api_version(&()) => {
                vec![Key::new(Some(namespace(meta)), &owner.name)]
            }
            Some(_) => Vec::new(),
            None if is_deleting(meta) => Vec::new(),
            None => {
                let owners = self.owners.list_in(namespace(meta));
                owners.iter().filter(|owner| owner.selector().matches(meta)).map(|owner| Key::of(&**owner)).collect()
            }
        }
    }

    async fn sync(&self, key: &Key) -> Result<Option<Duration>, kube::Error> {
        let Some(owner) = self.owners.get_key(key) else {
            self.expectations.forget(key);
            return Ok(None);
        };
        let settled = self.expectations.fulfilled(key, &self.pods);
        let claimed = self.claim(&owner).await?;
        let active: Vec<&Pod> = claimed.iter().map(|pod| &**pod).filter(|pod| pods::is_active(pod)).collect();
        let terminating = claimed.iter().filter(|pod| pods::is_terminating(pod)).count();
        let outcome = if settled && !is_deleting(owner.meta()) { self.act(key, &owner, &active).await } else { Ok(()) };
        let none = Default::default();
        let template = owner.template().and_then(|template| template.metadata.as_ref());
        let observed = plan::Observed {
            replicas: owner.replicas(),
            min_ready_seconds: owner.min_ready_seconds(),
            generation: owner.meta().generation,
            status: &owner.status(),
            template_labels: template.and_then(|meta| meta.labels.as_ref()).unwrap_or(&none),
            active: &active,
            terminating,
            error: outcome.as_ref().err().map(message),
        };
        let (status, again) = plan::status(&observed, clock::now());
        let mut wanted = (*owner).clone();
        wanted.set_status(status);
        let api = Api::<O>::namespaced(self.client.clone(), namespace(owner.meta()));
        patch::write(&api, Some("status"), &*owner, &wanted).await?;
        outcome?;
        // The informer shows our own writes through events of the pods; no need to come back for them.
        Ok(again)
    }

    /// The owner's pods, adopting and releasing on the way.
    async fn claim(&self, owner: &O) -> Result<Vec<Arc<Pod>>, kube::Error> {
        let (meta, selector) = (owner.meta(), owner.selector());
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace(meta));
        let mut claimed = Vec::new();
        let mut confirmed = false;
        let mut candidates = self.pods.by_index(BY_CONTROLLER, uid(meta));
        candidates.extend(self.pods.by_index(BY_CONTROLLER, &orphans_of(namespace(meta))));
        for pod in candidates {
            match claim(meta, &selector, &pod.metadata) {
                Claim::Owned => claimed.push(pod),
                Claim::Ignore => {}
                Claim::Adopt if pods::is_finished(&pod) => {}
                Claim::Adopt => {
                    if !confirmed {
                        if !self.is_still_there(meta).await? {
                            return Ok(claimed);
                        }
                        confirmed = true;
                    }
                    let reference = controller_reference(&O::api_version(&()), &O::kind(&()), meta);
                    let patch = Patch::Strategic(adopt_patch(&reference, &pod.metadata));
                    match api.patch(name(&pod.metadata), &PatchParams::default(), &patch).await {
                        Ok(_) => claimed.push(pod),
                        Err(error) if is_not_found(&error) => {}
                        Err(error) => return Err(error),
                    }
                }
                Claim::Release => {
                    let patch = Patch::Strategic(release_patch(meta, &pod.metadata));
                    match api.patch(name(&pod.metadata), &PatchParams::default(), &patch).await {
                        Ok(_) => {}
                        // Gone, or another pod of that name by now.
                        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(claimed)
    }

    /// Asks the server, as the informer may be behind: adopting for a deleted owner would hand its pods to the garbage
    /// collector.
    async fn is_still_there(&self, meta: &ObjectMeta) -> Result<bool, kube::Error> {
        let api = Api::<O>::namespaced(self.client.clone(), namespace(meta));
        let live = api.get_metadata_opt(name(meta)).await?;
        Ok(live.is_some_and(|live| uid(&live.metadata) == uid(meta) && !is_deleting(&live.metadata)))
    }

    async fn act(&self, key: &Key, owner: &O, active: &[&Pod]) -> Result<(), kube::Error> {
        let surplus = active.len() > usize::try_from(owner.replicas()).unwrap_or(0);
        let colocated = if surplus { self.colocated(owner) } else { HashMap::new() };
        let candidates: Vec<_> = active
            .iter()
            .map(|pod| {
                let colocated = pods::node(pod).and_then(|node| colocated.get(node)).copied().unwrap_or(0);
                Candidate { pod, colocated }
            })
            .collect();
        match plan::plan(owner.replicas(), &candidates, clock::now()) {
            Action::None => Ok(()),
            Action::Create(count) => self.create(key, owner, count).await,
            Action::Delete(order) => {
                let victims: Vec<&Pod> = order.iter().filter_map(|index| active.get(*index).copied()).collect();
                self.delete(key, owner, &victims).await
            }
        }
    }

    /// Active pods per node of this owner and of all with the same controller (the ReplicaSets of one Deployment).
    fn colocated(&self, owner: &O) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        let parent = controller(owner.meta()).map(|parent| parent.uid.clone());
        for other in self.owners.list_in(namespace(owner.meta())) {
            let related = uid(other.meta()) == uid(owner.meta())
                || parent.is_some() && controller(other.meta()).map(|parent| &parent.uid) == parent.as_ref();
            if !related {
                continue;
            }
            for pod in self.pods.by_index(BY_CONTROLLER, uid(other.meta())) {
                if let Some(node) = pods::node(&pod).filter(|_| pods::is_active(&pod)) {
                    *counts.entry(node.to_owned()).or_insert(0) += 1;
                }
            }
        }
        counts
    }

    /// In batches of 1, 2, 4, …, so that a quota or a broken admission hook is hit once and not five hundred times.
    async fn create(&self, key: &Key, owner: &O, count: usize) -> Result<(), kube::Error> {
        let Some(pod) = new_pod(owner) else { return Ok(()) };
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace(owner.meta()));
        let about = reference(owner);
        let (mut left, mut batch) = (count, 1);
        while left > 0 {
            let size = batch.min(left);
            let params = PostParams::default();
            let mut calls: FuturesUnordered<_> = (0..size).map(|_| api.create(&params, &pod)).collect();
            let mut failure = None;
            while let Some(result) = calls.next().await {
                match result {
                    Ok(made) => {
                        self.expectations.created(key, made.metadata.resource_version.as_deref());
                        let message = format!("Created pod: {}", name(&made.metadata));
                        self.recorder.normal(&about, "SuccessfulCreate", message);
                    }
                    // No pod can be made there any more, and that is as it should be.
                    Err(error) if is_namespace_terminating(&error) => return Ok(()),
                    Err(error) => {
                        self.recorder.warning(&about, "FailedCreate", format!("Error creating: {}", message(&error)));
                        failure = Some(error);
                    }
                }
            }
            if let Some(error) = failure {
                return Err(error);
            }
            left -= size;
            batch *= 2;
        }
        Ok(())
    }

    async fn delete(&self, key: &Key, owner: &O, victims: &[&Pod]) -> Result<(), kube::Error> {
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace(owner.meta()));
        let about = reference(owner);
        let mut failure = None;
        let mut calls: FuturesUnordered<_> = victims
            .iter()
            .map(|pod| {
                let uid = Some(uid(&pod.metadata).to_owned());
                let params = DeleteParams::default().preconditions(Preconditions { uid, resource_version: None });
                let api = &api;
                async move { (*pod, api.delete(name(&pod.metadata), &params).await) }
            })
            .collect();
        while let Some((pod, result)) = calls.next().await {
            match result {
                Ok(_) => {
                    self.expectations.deleted(key, Key::of(pod), uid(&pod.metadata));
                    let message = format!("Deleted pod: {}", name(&pod.metadata));
                    self.recorder.normal(&about, "SuccessfulDelete", message);
                }
                Err(error) if is_not_found(&error) => {}
                Err(error) => {
                    self.recorder.warning(&about, "FailedDelete", format!("Error deleting: {}", message(&error)));
                    failure = Some(error);
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

/// A pod as the template says, owned; the server completes its name.
fn new_pod<O: Owner>(owner: &O) -> Option<Pod> {
    let template = owner.template()?;
    let meta = template.metadata.clone().unwrap_or_default();
    let reference = controller_reference(&O::api_version(&()), &O::kind(&()), owner.meta());
    let metadata = ObjectMeta {
        generate_name: Some(format!("{}-", name(owner.meta()))),
        namespace: owner.meta().namespace.clone(),
        labels: meta.labels,
        annotations: meta.annotations,
        finalizers: meta.finalizers,
        owner_references: Some(vec![reference]),
        ..ObjectMeta::default()
    };
    Some(Pod { metadata, spec: template.spec.clone(), status: None })
}

/// What the server said, without our own framing.
fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
