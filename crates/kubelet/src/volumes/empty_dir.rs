//! `emptyDir`: a directory on the node's disk, in memory, or in huge pages. Each is made in one step: a kubelet that dies
//! in between leaves nothing that a later one would take for a finished volume.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};

use super::{mounts, ownership};
use crate::error::Error;
use crate::quantity::{self, ResourceList};
use crate::resources;

/// What holds the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Medium {
    Disk,
    /// At most this many bytes.
    Memory(Option<i64>),
    /// Of this size, bytes.
    HugePages(i64),
}

/// What `source` asks for. Memory is bounded by the volume's limit, the pod's and what pods may use of the node, whichever is
/// least.
pub(super) fn medium(source: &EmptyDirVolumeSource, pod: &Pod, allocatable: &ResourceList) -> Result<Medium, Error> {
    match source.medium.as_deref().unwrap_or_default() {
        "" => Ok(Medium::Disk),
        "Memory" => {
            let own = source.size_limit.as_ref().map(quantity::value);
            let pods = resources::pod_cgroup(pod, true).memory_limit_bytes;
            let nodes = quantity::value_of(Some(allocatable), "memory");
            Ok(Medium::Memory([own, pods, nodes].into_iter().flatten().filter(|size| *size > 0).min()))
        }
        "HugePages" => match page_sizes(pod).as_slice() {
            [one] => Ok(Medium::HugePages(*one)),
            [] => Err(Error::message("medium HugePages: the pod has no huge pages")),
            _ => Err(Error::message(
                "medium HugePages: the pod has huge pages of several sizes, so the medium must name one",
            )),
        },
        other => {
            let size =
                other.strip_prefix("HugePages-").and_then(|size| size.parse::<keelson_api::quantity::Quantity>().ok());
            match size.map(|size| size.value()) {
                Some(size) if page_sizes(pod).contains(&size) => Ok(Medium::HugePages(size)),
                Some(_) => Err(Error::message(format!("medium {other:?}: the pod requests no such huge pages"))),
                None => Err(Error::message(format!("unknown storage medium {other:?}"))),
            }
        }
    }
}

/// Sizes of the huge pages that a pod's containers request, bytes.
fn page_sizes(pod: &Pod) -> Vec<i64> {
    let mut sizes: Vec<i64> = crate::pod::view::all_containers(pod)
        .filter_map(|container| container.resources.as_ref())
        .flat_map(|resources| [&resources.limits, &resources.requests])
        .flatten()
        .flat_map(ResourceList::keys)
        .filter_map(|name| name.strip_prefix("hugepages-")?.parse::<keelson_api::quantity::Quantity>().ok())
        .map(|size| size.value())
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// Makes the volume at `path`, unless it is there. `once` is `fsGroupChangePolicy: OnRootMismatch`.
pub(super) fn set_up(path: &Path, medium: Medium, group: Option<u32>, once: bool) -> Result<(), Error> {
    let (filesystem, options) = match medium {
        Medium::Disk => return on_disk(path, group, once),
        Medium::Memory(Some(size)) => ("tmpfs", format!("size={size}")),
        Medium::Memory(None) => ("tmpfs", String::new()),
        Medium::HugePages(size) => ("hugetlbfs", format!("pagesize={size}")),
    };
    fs::create_dir_all(path).map_err(Error::file("create", path))?;
    let root = match group {
        Some(group) => format!("mode=2777,gid={group}"),
        None => "mode=0777".to_string(),
    };
    mounts::memory(
        path,
        filesystem,
        &[root, options].into_iter().filter(|o| !o.is_empty()).collect::<Vec<_>>().join(","),
    )
}

fn on_disk(path: &Path, group: Option<u32>, once: bool) -> Result<(), Error> {
    if path.exists() {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!("..new-{name}"));
    let _ = fs::remove_dir_all(&new);
    fs::create_dir_all(&new).map_err(Error::file("create", &new))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o777)).map_err(Error::file("chmod", &new))?;
    if let Some(group) = group {
        ownership::give_to_group(&new, group, false, once)?;
    }
    fs::rename(&new, path).map_err(Error::file("rename", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::json;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn media() {
        let allocatable: ResourceList = [("memory".to_string(), Quantity("1Gi".into()))].into();
        let pod = |limits: serde_json::Value| -> Pod {
            let container = json!({"name": "c", "resources": {"limits": limits}});
            serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [container]}})).unwrap()
        };
        let huge = json!({"hugepages-2Mi": "4Mi", "memory": "64Mi", "cpu": "1"});
        for (source, limits, expected) in [
            (json!({}), json!({}), Ok(Medium::Disk)),
            (json!({"medium": "Memory"}), json!({}), Ok(Medium::Memory(Some(1 << 30)))),
            (json!({"medium": "Memory"}), json!({"memory": "64Mi"}), Ok(Medium::Memory(Some(64 << 20)))),
            (
                json!({"medium": "Memory", "sizeLimit": "8Mi"}),
                json!({"memory": "64Mi"}),
                Ok(Medium::Memory(Some(8 << 20))),
            ),
            (
                json!({"medium": "Memory", "sizeLimit": "8Gi"}),
                json!({"memory": "64Mi"}),
                Ok(Medium::Memory(Some(64 << 20))),
            ),
            (json!({"medium": "HugePages"}), huge.clone(), Ok(Medium::HugePages(2 << 20))),
            (json!({"medium": "HugePages-2Mi"}), huge.clone(), Ok(Medium::HugePages(2 << 20))),
            (json!({"medium": "HugePages-1Gi"}), huge, Err(())),
            (json!({"medium": "HugePages"}), json!({}), Err(())),
            (json!({"medium": "Tape"}), json!({}), Err(())),
        ] {
            let parsed = serde_json::from_value(source.clone()).unwrap();
            assert_eq!(medium(&parsed, &pod(limits), &allocatable).map_err(drop), expected, "{source}");
        }
    }

    #[test]
    fn made_in_one_step_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, memory) = (dir.path().join("v/disk"), dir.path().join("v/memory"));
        // What a kubelet that died left behind.
        fs::create_dir_all(dir.path().join("v/..new-disk/junk")).unwrap();
        for _ in 0..2 {
            set_up(&disk, Medium::Disk, Some(77), false).unwrap();
            set_up(&memory, Medium::Memory(Some(1 << 20)), Some(77), false).unwrap();
            for path in [&disk, &memory] {
                let metadata = fs::metadata(path).unwrap();
                assert_eq!((metadata.mode() & 0o7777, metadata.gid()), (0o2777, 77), "{}", path.display());
                fs::write(path.join("kept"), "x").unwrap();
            }
        }
        assert!(!disk.join("junk").exists() && disk.join("kept").exists() && memory.join("kept").exists());
        let full = fs::write(memory.join("big"), vec![0; 2 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        mounts::remove_tree(&dir.path().join("v")).unwrap();
        assert!(mounts::below(dir.path()).unwrap().is_empty());
    }
}
