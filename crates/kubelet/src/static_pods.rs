//! Static pods: those that the node runs because a file says so (`staticPodPath`), with or without an API server. Each has
//! a mirror there, by which clients see it.

mod file;
pub(crate) mod mirror;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use keelson_client::changes::{Changes, Interest};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::pod::view;

/// Files of one directory that are read; more are left alone.
const MAX_FILES: usize = 512;
/// A writer gets this long to write the rest.
const SETTLE: Duration = Duration::from_millis(50);
/// How often all is read again: upstream's `fileCheckFrequency`, which also mends a watch that broke.
const CHECK: Duration = Duration::from_secs(20);

/// The pods that the files describe, by uid.
pub(crate) type Set = BTreeMap<String, Arc<Pod>>;

/// Reads the files of `path`, which is a directory or one file.
pub(crate) fn read(path: &Path, node: &str) -> Set {
    let mut set = Set::new();
    for file in files(path) {
        match file::read(&file, node) {
            Ok(pod) => {
                let name = view::format(&pod);
                if set.values().any(|known| view::name(known) == view::name(&pod) && same_namespace(known, &pod)) {
                    tracing::error!(file = %file.display(), pod = name, "another file has a static pod of this name");
                    continue;
                }
                set.insert(view::uid(&pod).to_string(), Arc::new(pod));
            }
            Err(error) => tracing::error!(file = %file.display(), %error, "cannot process the manifest file"),
        }
    }
    set
}

fn same_namespace(one: &Pod, two: &Pod) -> bool {
    view::namespace(one) == view::namespace(two)
}

fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_path_buf()];
    }
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cannot read the static pods");
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    if files.len() > MAX_FILES {
        tracing::error!(path = %path.display(), found = files.len(), limit = MAX_FILES, "too many static pods");
        files.truncate(MAX_FILES);
    }
    files
}

/// Keeps `pods` as the files are, until `shutdown`.
pub(crate) async fn follow(path: PathBuf, node: String, pods: watch::Sender<Set>, shutdown: CancellationToken) {
    let directory = if path.is_file() { path.parent().map(Path::to_path_buf) } else { None };
    let directory = directory.unwrap_or_else(|| path.clone());
    let mut changes = Changes::of([&*directory], Interest::Everything);
    loop {
        let (from, name) = (path.clone(), node.clone());
        if let Ok(found) = tokio::task::spawn_blocking(move || read(&from, &name)).await {
            pods.send_if_modified(|known| {
                let differs = known.len() != found.len()
                    || known.iter().zip(&found).any(|(one, two)| one.0 != two.0 || one.1.spec != two.1.spec);
                if differs {
                    *known = found;
                }
                differs
            });
        }
        let changed = async {
            match &changes {
                Ok(changes) => {
                    let happened = changes.wait().await;
                    tokio::time::sleep(SETTLE).await;
                    happened
                }
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            happened = changed => if happened.is_err() {
                changes = Changes::of([&*directory], Interest::Everything);
            },
            () = tokio::time::sleep(CHECK) => if changes.is_err() {
                changes = Changes::of([&*directory], Interest::Everything);
            },
            () = shutdown.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_come_change_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let pod =
            |image: &str| format!("{{metadata: {{name: web}}, spec: {{containers: [{{name: c, image: {image}}}]}}}}");
        let manifest = |image: &str| {
            format!("apiVersion: v1\nkind: Pod\n{}", &pod(image)[1..pod(image).len() - 1].replace(", spec", "\nspec"))
        };
        write(".hidden.yaml", &manifest("x"));
        write("broken.yaml", "kind: Pod\nmetadata: {");
        let sender = watch::Sender::new(Set::new());
        let mut pods = sender.subscribe();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(follow(dir.path().to_path_buf(), "node".into(), sender, shutdown.clone()));
        let mut seen = async |wanted: &[&str]| {
            let images = |set: &Set| -> Vec<String> {
                set.values().filter_map(|pod| view::containers(pod).first()?.image.clone()).collect()
            };
            let waiting = pods.wait_for(|set| images(set) == wanted);
            tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("the files' pods").unwrap().clone()
        };
        write("web.yaml", &manifest("a"));
        let first = seen(&["a"]).await;
        write("new", &manifest("b"));
        std::fs::rename(dir.path().join("new"), dir.path().join("web.yaml")).unwrap();
        let second = seen(&["b"]).await;
        assert_ne!(first.keys().next(), second.keys().next(), "another pod");
        std::fs::remove_file(dir.path().join("web.yaml")).unwrap();
        seen(&[]).await;
        shutdown.cancel();
        task.await.unwrap();
    }
}
