//! A pod's volumes: made before its containers, kept up to date while it runs, taken away after it. All below
//! `<root>/pods/<uid>/volumes/kubernetes.io~<kind>/<name>`, upstream's layout.

pub(crate) mod atomic;
mod empty_dir;
mod git_repo;
mod host_path;
pub(crate) mod mounts;
mod ownership;
mod payload;
pub(crate) mod subpath;
mod token;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::downward::Addresses;
use crate::error::Error;
use crate::objects::Objects;
use crate::pod::view;
use crate::quantity::ResourceList;
use payload::{Gather, Gathered};

/// A pod's volumes by name, and when the first of them must be looked at again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mounted {
    pub paths: BTreeMap<String, PathBuf>,
    pub refresh_at: Option<Timestamp>,
}

/// A volume that could not be made.
#[derive(Debug)]
pub(crate) struct Failed {
    pub volume: String,
    pub error: Error,
}

/// Makes volumes.
pub(crate) struct Volumes {
    root: PathBuf,
    objects: Arc<Objects>,
    tokens: token::Tokens,
    /// The gate `GitRepoVolumeDriver`.
    git_repos: bool,
}

impl Volumes {
    /// Volumes below `root` (the kubelet's root directory); with `git_repos`, also those of that kind.
    pub(crate) fn new(root: &Path, client: &kube::Client, objects: Arc<Objects>, git_repos: bool) -> Self {
        Volumes { root: root.to_path_buf(), objects, tokens: token::Tokens::new(client.clone()), git_repos }
    }

    /// The pod's own directory.
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }

    /// Makes the pod's volumes, or brings them up to date. `changed` is told when an object behind them changes;
    /// `cancelled` gives up what waits for a server elsewhere.
    pub(crate) async fn set_up(
        &self,
        pod: &Pod,
        addresses: &Addresses,
        allocatable: &ResourceList,
        changed: &Arc<Notify>,
        cancelled: &CancellationToken,
    ) -> Result<Mounted, Failed> {
        let gather = Gather { pod, objects: &self.objects, tokens: &self.tokens, addresses, allocatable, changed };
        let mut mounted = Mounted::default();
        let volumes = view::spec(pod).and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
        // One that waits for something holds up no other.
        let mut made = FuturesOrdered::new();
        for volume in volumes {
            // The runtime mounts images into each container.
            if volume.image.is_none() {
                made.push_back(self.one(&gather, volume, cancelled));
            }
        }
        let made: Vec<_> = made.collect().await;
        for one in made {
            let (name, path, refresh_at) = one?;
            mounted.paths.insert(name, path);
            mounted.refresh_at = match (mounted.refresh_at, refresh_at) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        Ok(mounted)
    }

    /// Makes one volume; gives its name, where it is, and when it must be looked at again.
    async fn one(
        &self,
        gather: &Gather<'_>,
        volume: &Volume,
        cancelled: &CancellationToken,
    ) -> Result<(String, PathBuf, Option<Timestamp>), Failed> {
        let failed = |error| Failed { volume: volume.name.clone(), error };
        let gathered = gather.volume(volume).await.map_err(failed)?;
        let refresh_at = gathered.as_ref().and_then(|gathered| gathered.refresh_at);
        let path = self.make(gather.pod, volume, gathered, gather.allocatable, cancelled).await.map_err(failed)?;
        Ok((volume.name.clone(), path, refresh_at))
    }

    async fn make(
        &self,
        pod: &Pod,
        volume: &Volume,
        gathered: Option<Gathered>,
        allocatable: &ResourceList,
        cancelled: &CancellationToken,
    ) -> Result<PathBuf, Error> {
        let kind = kind_of(pod, volume, allocatable, self.git_repos)?;
        if let Kind::Host { path, kind } = &kind {
            // A file system that does not answer holds this volume and nothing else.
            let (place, kind) = (path.clone(), kind.clone());
            let check = tokio::task::spawn_blocking(move || host_path::check(&place, &kind));
            check.await.map_err(|error| Error::message(error.to_string()))??;
            return Ok(path.clone());
        }
        let path = self
            .pod_dir(view::uid(pod))
            .join("volumes")
            .join(format!("kubernetes.io~{}", kind.plugin()))
            .join(&volume.name);
        let context = view::spec(pod).and_then(|spec| spec.security_context.as_ref());
        let group = context.and_then(|context| context.fs_group).and_then(|group| u32::try_from(group).ok());
        if let Kind::Git(repo) = &kind {
            repo.set_up(&path, group, cancelled).await?;
            return Ok(path);
        }
        let once = context.and_then(|c| c.fs_group_change_policy.as_deref()) == Some("OnRootMismatch");
        let now = keelson_client::clock::now();
        let version = format!("{}.{:09}", now.strftime("%Y_%m_%d_%H_%M_%S"), now.subsec_nanosecond());
        let made = path.clone();
        let work = move || fill(&made, &kind, gathered.unwrap_or_default(), group, once, &version);
        tokio::task::spawn_blocking(work).await.map_err(|error| Error::message(error.to_string()))??;
        Ok(path)
    }

    /// Takes a pod's volumes and its directory away.
    pub(crate) async fn tear_down(&self, uid: &str) -> Result<(), Error> {
        self.release(uid);
        let dir = self.pod_dir(uid);
        tokio::task::spawn_blocking(move || mounts::remove_tree(&dir))
            .await
            .map_err(|error| Error::message(error.to_string()))?
    }

    /// Takes the volumes of a pod that is over away, but leaves what is no volume.
    pub(crate) async fn unmount(&self, uid: &str) -> Result<(), Error> {
        self.release(uid);
        let dir = self.pod_dir(uid);
        tokio::task::spawn_blocking(move || {
            mounts::remove_tree(&dir.join("volume-subpaths"))?;
            mounts::remove_tree(&dir.join("volumes"))
        })
        .await
        .map_err(|error| Error::message(error.to_string()))?
    }

    fn release(&self, uid: &str) {
        self.objects.release(uid);
        self.tokens.release(uid);
    }

    /// Uids of all pods that have a directory here.
    pub(crate) fn pods_on_disk(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.join("pods")) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

/// What makes a volume. A new sort of volume (CSI, generic ephemeral) is one variant here, one line in [`kind_of`] and one in
/// [`fill`]; taking down needs nothing, for whatever is mounted below the pod's directory is unmounted.
enum Kind {
    Files { plugin: &'static str, in_memory: bool },
    Empty(empty_dir::Medium),
    Git(git_repo::GitRepo),
    Host { path: PathBuf, kind: String },
}

impl Kind {
    fn plugin(&self) -> &'static str {
        match self {
            Kind::Files { plugin, .. } => plugin,
            Kind::Empty(_) => "empty-dir",
            Kind::Git(_) => "git-repo",
            Kind::Host { .. } => "host-path",
        }
    }
}

fn kind_of(pod: &Pod, volume: &Volume, allocatable: &ResourceList, git_repos: bool) -> Result<Kind, Error> {
    let files = |plugin, in_memory| Ok(Kind::Files { plugin, in_memory });
    if let Some(source) = &volume.host_path {
        return Ok(Kind::Host { path: source.path.clone().into(), kind: source.type_.clone().unwrap_or_default() });
    }
    if let Some(source) = &volume.empty_dir {
        return empty_dir::medium(source, pod, allocatable).map(Kind::Empty);
    }
    if volume.config_map.is_some() {
        return files("configmap", false);
    }
    if volume.secret.is_some() {
        return files("secret", true);
    }
    if volume.projected.is_some() {
        return files("projected", true);
    }
    if volume.downward_api.is_some() {
        return files("downward-api", true);
    }
    if let Some(source) = &volume.git_repo {
        if !git_repos {
            return Err(Error::message(
                "git-repo volume plugin has been disabled; if necessary, it may be re-enabled by enabling the feature-gate \
                 `GitRepoVolumeDriver`",
            ));
        }
        return git_repo::GitRepo::new(source).map(Kind::Git);
    }
    Err(Error::message(
        "no volume plugin matched: this node has emptyDir, hostPath, configMap, secret, projected, downwardAPI, image and \
         gitRepo",
    ))
}

fn fill(
    path: &Path,
    kind: &Kind,
    gathered: Gathered,
    group: Option<u32>,
    once: bool,
    version: &str,
) -> Result<(), Error> {
    match kind {
        Kind::Host { .. } | Kind::Git(_) => Ok(()),
        Kind::Empty(medium) => empty_dir::set_up(path, *medium, group, once),
        Kind::Files { in_memory, .. } => {
            fs::create_dir_all(path).map_err(Error::file("create", path))?;
            if *in_memory {
                mounts::tmpfs(path)?;
            }
            let open_to_all = fs::Permissions::from_mode(0o777);
            fs::set_permissions(path, open_to_all).map_err(Error::file("chmod", path))?;
            let own = |version: &Path| match group {
                Some(group) => ownership::give_to_group(version, group, true, false),
                None => Ok(()),
            };
            atomic::write(path, &gathered.payload, version, own).map(drop)
        }
    }
}
