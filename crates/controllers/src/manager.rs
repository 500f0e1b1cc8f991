//! Takes the lease and runs every controller that is enabled.

use std::pin::Pin;
use std::sync::Arc;

use keelson_client::leader::Config as LeaseConfig;
use keelson_client::{EventRecorder, InformerFactory, LeaderElector};
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::common::slim;
use crate::context::Context;
use crate::{
    Config, bootstraptokens, certificates, deployment, endpoints, endpointslice, garbagecollector, namespace, nodeipam,
    nodelifecycle, podgc, replicaset, resourcequota, rootca, serviceaccount, serviceaccounttoken, tainteviction,
    volumeprotection,
};

/// Why the controller manager ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `--controllers` names one that does not exist.
    #[error("unknown controller {0:?}; known are: {known}", known = CONTROLLERS.map(|(name, _)| name).join(", "))]
    UnknownController(String),
    /// Another may be acting now; start again to take part in the next election.
    #[error("lost the lease {0}")]
    LeaseLost(String),
    /// A controller panicked: a bug.
    #[error("controller {0} failed")]
    Failed(&'static str),
}

type Start = fn(Context) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Upstream's names, and what they start.
pub const CONTROLLERS: [(&str, Start); 23] = [
    ("bootstrap-signer-controller", |context| Box::pin(bootstraptokens::run_signer(context))),
    ("certificatesigningrequest-approving-controller", |context| Box::pin(certificates::run_approving(context))),
    ("certificatesigningrequest-cleaner-controller", |context| Box::pin(certificates::run_cleaning(context))),
    ("certificatesigningrequest-signing-controller", |context| Box::pin(certificates::run_signing(context))),
    ("deployment-controller", |context| Box::pin(deployment::run(context))),
    ("endpoints-controller", |context| Box::pin(endpoints::run(context))),
    ("endpointslice-controller", |context| Box::pin(endpointslice::run(context))),
    ("garbage-collector-controller", |context| Box::pin(garbagecollector::run(context))),
    ("namespace-controller", |context| Box::pin(namespace::run(context))),
    ("node-ipam-controller", |context| Box::pin(nodeipam::run(context))),
    ("node-lifecycle-controller", |context| Box::pin(nodelifecycle::run(context))),
    ("persistentvolume-protection-controller", |context| Box::pin(volumeprotection::run_volumes(context))),
    ("persistentvolumeclaim-protection-controller", |context| Box::pin(volumeprotection::run_claims(context))),
    ("pod-garbage-collector-controller", |context| Box::pin(podgc::run(context))),
    ("replicaset-controller", |context| Box::pin(replicaset::run_replicasets(context))),
    ("replicationcontroller-controller", |context| Box::pin(replicaset::run_replicationcontrollers(context))),
    ("resourcequota-controller", |context| Box::pin(resourcequota::run(context))),
    ("root-ca-certificate-publisher-controller", |context| Box::pin(rootca::run(context))),
    ("serviceaccount-controller", |context| Box::pin(serviceaccount::run(context))),
    ("serviceaccount-token-controller", |context| Box::pin(serviceaccounttoken::run(context))),
    ("taint-eviction-controller", |context| Box::pin(tainteviction::run(context))),
    ("token-cleaner-controller", |context| Box::pin(bootstraptokens::run_cleaner(context))),
    ("volumeattributesclass-protection-controller", |context| {
        Box::pin(volumeprotection::run_attributes_classes(context))
    }),
];

/// Runs the enabled controllers until `shutdown`, while holding the lease if so configured. Returns when all have ended
/// and the lease is released; with an error when the lease was lost, after which the caller must not assume to be the
/// only one.
pub async fn run(client: Client, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    for entry in &config.controllers {
        let name = entry.strip_prefix('-').unwrap_or(entry);
        if name != "*" && !CONTROLLERS.iter().any(|(known, _)| *known == name) {
            return Err(Error::UnknownController(name.into()));
        }
    }
    if !config.leader_elect {
        return run_controllers(client, config, shutdown).await;
    }
    let election = &config.leader_election;
    let lease = LeaseConfig {
        namespace: election.resource_namespace.clone(),
        name: election.resource_name.clone(),
        identity: config.identity.clone(),
        lease_duration: election.lease_duration,
        renew_deadline: election.renew_deadline,
        retry_period: election.retry_period,
    };
    let recorder = EventRecorder::new(client.clone(), "kube-controller-manager", None);
    let elector = LeaderElector::new(client.clone(), lease, Some(recorder));
    let Some(leadership) = elector.acquire(&shutdown).await else { return Ok(()) };
    let stop = shutdown.child_token();
    let _guard = stop.clone().drop_guard();
    let name = election.resource_name.clone();
    let controllers = run_controllers(client, config, stop);
    tokio::select! {
        result = controllers => {
            leadership.release().await;
            result
        }
        () = leadership.lost.cancelled() => Err(Error::LeaseLost(name)),
    }
}

async fn run_controllers(client: Client, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let informers = InformerFactory::new(client.clone());
    slim::install(&informers);
    let stop = shutdown.child_token();
    let context = Context { client, informers, config: Arc::new(config), shutdown: stop.clone() };
    let mut tasks = JoinSet::new();
    for (name, start) in CONTROLLERS {
        if context.config.is_enabled(name) {
            let run = tokio::spawn(start(context.clone()));
            tasks.spawn(async move { run.await.map_err(|_| Error::Failed(name)) });
        }
    }
    let mut outcome = Ok(());
    shutdown_or_failure(&mut tasks, &shutdown, &mut outcome).await;
    stop.cancel();
    while let Some(result) = tasks.join_next().await {
        if let (Ok(Err(error)), Ok(())) = (result, &outcome) {
            outcome = Err(error);
        }
    }
    outcome
}

/// Waits until told to stop or until a controller fails. A controller that has nothing to do may end early.
async fn shutdown_or_failure(
    tasks: &mut JoinSet<Result<(), Error>>,
    shutdown: &CancellationToken,
    outcome: &mut Result<(), Error>,
) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(result) = tasks.join_next() => {
                if let Ok(Err(error)) = result {
                    *outcome = Err(error);
                    return;
                }
            }
        }
    }
}
