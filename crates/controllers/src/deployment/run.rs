//! Observes Deployments, their ReplicaSets and (for `Recreate`) pods, and carries plans out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use keelson_client::{
    Change, EventRecorder, Key, SharedInformer, WorkQueue, clock, is_already_exists, is_namespace_terminating,
    is_not_found, reference, run_workers,
};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;

use super::plan::{self, Observed, Plan};
use super::{revision, rollout, status};
use crate::common::objects::{Labels, controller, is_deleting, name, namespace, uid};
use crate::common::owners::{Claim, adopt_patch, claim, controller_reference, release_patch};
use crate::common::{patch, pods};
use crate::context::{Context, objects};
use crate::replicaset::{BY_CONTROLLER, by_controller};

const COMPONENT: &str = "deployment-controller";

/// The `deployment-controller`.
pub async fn run(context: Context) {
    let deployments = context.informers.get::<Deployment>();
    let replicasets = context.informers.get::<ReplicaSet>();
    let all_pods = context.informers.get::<Pod>();
    all_pods.add_index(BY_CONTROLLER, by_controller);
    if !context.synced(&deployments).await || !context.synced(&replicasets).await || !context.synced(&all_pods).await {
        return;
    }
    let queue = WorkQueue::new();
    let this = Arc::new(Controller {
        client: context.client.clone(),
        recorder: context.recorder(COMPONENT),
        deployments: deployments.clone(),
        replicasets: replicasets.clone(),
        pods: all_pods.clone(),
    });
    let on_deployment =
        context.each(&deployments, |change| objects(&change).for_each(|object| queue.add(Key::of(&**object))));
    let on_replicaset = context.each(&replicasets, |change| {
        for set in objects(&change) {
            this.deployments_of(set).into_iter().for_each(|key| queue.add(key));
        }
    });
    let on_pod = context.each(&all_pods, |change| {
        // Only `Recreate` waits for pods, and only for the last of them to go.
        if let Change::Resync(_) = &change {
            let all = this.deployments.list();
            all.iter().filter(|one| rollout::is_recreate(one)).for_each(|one| queue.add(Key::of(&**one)));
        } else if let Change::Deleted(pod) | Change::Updated(_, pod) = &change
            && (matches!(change, Change::Deleted(_)) || pods::is_finished(pod))
            && let Some(key) = this.recreated_by(pod)
        {
            queue.add(key);
        }
    });
    let workers = context.config.concurrent_deployment_syncs;
    let work = run_workers(COMPONENT, queue.clone(), workers, context.shutdown.clone(), {
        let this = this.clone();
        move |key| {
            let this = this.clone();
            async move { this.sync(&key).await }
        }
    });
    tokio::join!(on_deployment, on_replicaset, on_pod, work);
}

struct Controller {
    client: kube::Client,
    recorder: EventRecorder,
    deployments: SharedInformer<Deployment>,
    replicasets: SharedInformer<ReplicaSet>,
    pods: SharedInformer<Pod>,
}

fn selector(deployment: &Deployment) -> Labels {
    deployment.spec.as_ref().map_or_else(|| Labels::of(&Default::default()), |spec| Labels::of(&spec.selector))
}

impl Controller {
    /// Who has to look at a ReplicaSet: its controller, or for an orphan everyone whose selector matches.
    fn deployments_of(&self, set: &ReplicaSet) -> Vec<Key> {
        let meta = &set.metadata;
        match controller(meta) {
            Some(owner) if owner.kind == "Deployment" => vec![Key::new(Some(namespace(meta)), &owner.name)],
            Some(_) => Vec::new(),
            None if is_deleting(meta) => Vec::new(),
            None => {
                let all = self.deployments.list_in(namespace(meta));
                all.iter().filter(|one| selector(one).matches(meta)).map(|one| Key::of(&**one)).collect()
            }
        }
    }

    fn recreated_by(&self, pod: &Pod) -> Option<Key> {
        let namespace = namespace(&pod.metadata);
        let set = self.replicasets.get(Some(namespace), &controller(&pod.metadata)?.name)?;
        let owner = controller(&set.metadata).filter(|owner| owner.kind == "Deployment")?;
        let deployment = self.deployments.get(Some(namespace), &owner.name)?;
        rollout::is_recreate(&deployment).then(|| Key::of(&*deployment))
    }

    async fn sync(&self, key: &Key) -> Result<Option<Duration>, kube::Error> {
        let Some(deployment) = self.deployments.get_key(key) else { return Ok(None) };
        if selector(&deployment).is_empty() {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.warning(&reference(&*deployment), "SelectingAll", message);
            let mut wanted = (*deployment).clone();
            wanted.status.get_or_insert_default().observed_generation = deployment.metadata.generation;
            patch::write(&self.api(&deployment), Some("status"), &*deployment, &wanted).await?;
            return Ok(None);
        }
        let sets = self.claim(&deployment).await?;
        let mut unfinished_pods = HashMap::new();
        if rollout::is_recreate(&deployment) {
            for set in &sets {
                let pods = self.pods.by_index(BY_CONTROLLER, uid(&set.metadata));
                let count = pods.iter().filter(|pod| !pods::is_finished(pod)).count();
                unfinished_pods.insert(uid(&set.metadata).to_owned(), count);
            }
        }
        let replicasets: Vec<&ReplicaSet> = sets.iter().map(|set| &**set).collect();
        let now = clock::now();
        let observed =
            Observed { deployment: &deployment, replicasets: &replicasets, unfinished_pods: &unfinished_pods, now };
        let plan = plan::plan(&observed);
        self.carry_out(&deployment, &replicasets, plan).await
    }

    fn api(&self, deployment: &Deployment) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), namespace(&deployment.metadata))
    }

    /// The Deployment's ReplicaSets, adopting and releasing on the way.
    async fn claim(&self, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, kube::Error> {
        let (meta, selector) = (&deployment.metadata, selector(deployment));
        let api = Api::<ReplicaSet>::namespaced(self.client.clone(), namespace(meta));
        let mut claimed = Vec::new();
        for set in self.replicasets.list_in(namespace(meta)) {
            match claim(meta, &selector, &set.metadata) {
                Claim::Owned => claimed.push(set),
                Claim::Ignore => {}
                Claim::Adopt => {
                    let live = self.api(deployment).get_metadata_opt(name(meta)).await?;
                    if !live.is_some_and(|live| uid(&live.metadata) == uid(meta) && !is_deleting(&live.metadata)) {
                        return Ok(claimed);
                    }
                    let reference = controller_reference("apps/v1", "Deployment", meta);
                    let patch = Patch::Strategic(adopt_patch(&reference, &set.metadata));
                    match api.patch(name(&set.metadata), &PatchParams::default(), &patch).await {
                        Ok(adopted) => claimed.push(Arc::new(adopted)),
                        Err(error) if is_not_found(&error) => {}
                        Err(error) => return Err(error),
                    }
                }
                Claim::Release => {
                    let patch = Patch::Strategic(release_patch(meta, &set.metadata));
                    match api.patch(name(&set.metadata), &PatchParams::default(), &patch).await {
                        Ok(_) => {}
                        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(claimed)
    }

    async fn carry_out(
        &self,
        deployment: &Deployment,
        observed: &[&ReplicaSet],
        plan: Plan,
    ) -> Result<Option<Duration>, kube::Error> {
        let about = reference(deployment);
        let api = Api::<ReplicaSet>::namespaced(self.client.clone(), namespace(&deployment.metadata));
        let tell = |set: &ReplicaSet| {
            for (_, message) in plan.scaled.iter().filter(|(scaled, _)| scaled == name(&set.metadata)) {
                self.recorder.normal(&about, "ScalingReplicaSet", message.clone());
            }
        };
        if let Some(set) = &plan.create {
            match api.create(&PostParams::default(), set).await {
                Ok(_) => tell(set),
                Err(error) if is_already_exists(&error) => self.settle_collision(deployment, set).await?,
                Err(error) if is_namespace_terminating(&error) => return Ok(None),
                Err(error) => {
                    let message = format!("Failed to create new replica set {:?}: {error}", name(&set.metadata));
                    let mut wanted = deployment.status.clone().unwrap_or_default();
                    status::note_create_failed(deployment, &mut wanted, &message, clock::now());
                    self.recorder.warning(&about, "ReplicaSetCreateError", message);
                    self.write_status(deployment, wanted).await?;
                    return Err(error);
                }
            }
        }
        for wanted in &plan.update {
            let Some(before) = observed.iter().find(|set| set.metadata.uid == wanted.metadata.uid) else { continue };
            if patch::write(&api, None, *before, wanted).await?.is_some() {
                tell(wanted);
            }
        }
        for set in &plan.delete {
            let uid = Some(uid(&set.metadata).to_owned());
            let version = set.metadata.resource_version.clone();
            let params = DeleteParams::background().preconditions(Preconditions { uid, resource_version: version });
            match api.delete(name(&set.metadata), &params).await {
                Ok(_) => {}
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(revision) = &plan.revision {
            // With a status, as upstream: an annotation that is written with the spec counts as a new generation.
            let patch = json!({"metadata": {
                "uid": uid(&deployment.metadata), "annotations": {revision::REVISION: revision},
            }});
            // Through the status subresource, as upstream: the main resource would count it as a new generation.
            self.api(deployment)
                .patch_status(name(&deployment.metadata), &PatchParams::default(), &Patch::Merge(&patch))
                .await?;
        }
        self.write_status(deployment, plan.status).await?;
        Ok(plan.again)
    }

    /// The name of the new ReplicaSet is taken: by itself (the informer is behind), or by another, in which case the next
    /// try is to hash to another name.
    async fn settle_collision(&self, deployment: &Deployment, set: &ReplicaSet) -> Result<(), kube::Error> {
        let api = Api::<ReplicaSet>::namespaced(self.client.clone(), namespace(&deployment.metadata));
        let live = api.get(name(&set.metadata)).await?;
        let ours = controller(&live.metadata).is_some_and(|owner| owner.uid == uid(&deployment.metadata));
        let template = deployment.spec.as_ref().map(|spec| &spec.template);
        let live_template = live.spec.as_ref().and_then(|spec| spec.template.as_ref());
        if ours && template.is_some_and(|template| revision::same_template(live_template, template)) {
            return Ok(());
        }
        let mut wanted = deployment.status.clone().unwrap_or_default();
        wanted.collision_count = Some(wanted.collision_count.unwrap_or(0).saturating_add(1));
        self.write_status(deployment, wanted).await?;
        Ok(())
    }

    /// The status is bound to the Deployment's identity, not to its version: it is computed from the generation that it
    /// names, and a concurrent change of the spec brings the Deployment back here anyway.
    async fn write_status(&self, deployment: &Deployment, status: DeploymentStatus) -> Result<(), kube::Error> {
        let empty = DeploymentStatus::default();
        let before = deployment.status.as_ref().unwrap_or(&empty);
        let Some(difference) = patch::difference(before, &status).map_err(kube::Error::SerdeError)? else {
            return Ok(());
        };
        let mut body = json!({ "status": difference });
        patch::bind(&mut body, None, deployment.metadata.uid.as_deref());
        self.api(deployment)
            .patch_status(name(&deployment.metadata), &PatchParams::default(), &Patch::Merge(&body))
            .await?;
        Ok(())
    }
}
