//! Limits of huge pages. `libcontainer` sets those of new containers where the controller is in a hierarchy of its own or in the
//! unified one; here are changes of them, and machines whose v1 hierarchies leave the controller to the unified one beside them.

use std::{
    io,
    path::{Path, PathBuf},
};

use keelson_cri::v1::{HugepageLimit, LinuxContainerResources};

use crate::{Error, cgroup};

/// Annotation of a specification with limits for the hierarchy beside v1's: `2MB=4194304,1GB=0`.
pub(crate) const ANNOTATION: &str = "keelson.huge-pages";
/// The hierarchy beside v1's.
const BESIDE: &str = "/sys/fs/cgroup/unified";

/// Whether only the unified hierarchy beside v1's has the controller.
pub(crate) fn is_beside() -> bool {
    let controllers = std::fs::read_to_string(Path::new(BESIDE).join("cgroup.controllers")).unwrap_or_default();
    !cgroup::is_unified() && controllers.split_whitespace().any(|controller| controller == "hugetlb")
}

/// The value of [`ANNOTATION`] for these limits; nothing when there is nothing to limit.
pub(crate) fn annotation(limits: &[HugepageLimit]) -> Option<String> {
    // Kubelets send a limit of nothing for every size. Without pages it says nothing, and groups are not free.
    let needed = limits.iter().any(|page| page.limit > 0) || (!limits.is_empty() && machine_has_pages());
    let words = limits.iter().map(|page| format!("{}={}", page.page_size, page.limit));
    needed.then(|| words.collect::<Vec<_>>().join(","))
}

fn machine_has_pages() -> bool {
    let has = |path: PathBuf| std::fs::read_to_string(path).is_ok_and(|count| count.trim() != "0");
    let sizes = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    sizes
        .map(|size| size.path())
        .any(|size| has(size.join("nr_hugepages")) || has(size.join("nr_overcommit_hugepages")))
}

/// Makes the group of the hierarchy beside v1's, with the limits of `annotation`, for the process `pid`.
pub(crate) fn confine(group: &Path, annotation: &str, pid: i32) -> Result<(), String> {
    let mut dir = PathBuf::from(BESIDE);
    let say = |dir: &Path, error: io::Error| format!("limit huge pages in {}: {error}", dir.display());
    for part in group.strip_prefix("/").unwrap_or(group) {
        std::fs::write(dir.join("cgroup.subtree_control"), "+hugetlb").map_err(|error| say(&dir, error))?;
        dir.push(part);
        match std::fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(say(&dir, error)),
            _ => {}
        }
    }
    for word in annotation.split(',') {
        let (size, limit) = word.split_once('=').ok_or_else(|| format!("{ANNOTATION}: {word:?} is no limit"))?;
        for file in files(size, true)? {
            write_if_there(&dir.join(file), limit).map_err(|error| say(&dir, error))?;
        }
    }
    std::fs::write(dir.join("cgroup.procs"), pid.to_string()).map_err(|error| say(&dir, error))
}

/// Brings this process into the group of the hierarchy beside v1's, if there is one.
pub(crate) fn join(group: &Path) -> Result<(), String> {
    let procs = Path::new(BESIDE).join(group.strip_prefix("/").unwrap_or(group)).join("cgroup.procs");
    match std::fs::write(&procs, std::process::id().to_string()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!("write {}: {error}", procs.display())),
        _ => Ok(()),
    }
}

/// Removes what [`confine`] made around the group, as far as nothing else is in it.
pub(crate) fn remove_parents(group: &Path) {
    if cgroup::is_unified() {
        return;
    }
    let own = Path::new(BESIDE).join(group.strip_prefix("/").unwrap_or(group));
    for dir in own.ancestors().skip(1).take_while(|dir| *dir != Path::new(BESIDE)) {
        if std::fs::remove_dir(dir).is_err() {
            return;
        }
    }
}

/// Changes the limits of a running container.
pub(crate) fn update(group: &Path, resources: &LinuxContainerResources) -> Result<(), Error> {
    let limits = &resources.hugepage_limits;
    let (dir, unified) = if is_beside() {
        (Path::new(BESIDE).join(group.strip_prefix("/").unwrap_or(group)), true)
    } else {
        (cgroup::dir("hugetlb", group), cgroup::is_unified())
    };
    for page in limits {
        let field = |why: String| Error::Invalid(format!("linux.hugepage_limits: {why}"));
        for file in files(&page.page_size, unified).map_err(field)? {
            let path = dir.join(file);
            write_if_there(&path, &page.limit.to_string()).map_err(Error::io("write", path))?;
        }
    }
    Ok(())
}

/// Names of a page size's files: of pages in use, and of those that are reserved.
fn files(size: &str, unified: bool) -> Result<[String; 2], String> {
    let number = size.strip_suffix("KB").or(size.strip_suffix("MB")).or(size.strip_suffix("GB"));
    if !number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())) {
        return Err(format!("{size:?} is no size of huge pages"));
    }
    let name = if unified { "max" } else { "limit_in_bytes" };
    Ok([format!("hugetlb.{size}.{name}"), format!("hugetlb.{size}.rsvd.{name}")])
}

/// Kernels and groups differ in which of the files they have.
fn write_if_there(path: &Path, value: &str) -> io::Result<()> {
    if path.exists() { std::fs::write(path, value) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_name_files() {
        assert_eq!(files("2MB", true).unwrap(), ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"]);
        assert_eq!(files("1GB", false).unwrap()[0], "hugetlb.1GB.limit_in_bytes");
        for bad in ["", "MB", "2", "2mb", "../2MB", "2.MB", "-1GB"] {
            assert!(files(bad, true).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn limits_of_nothing_need_pages() {
        let limit = |limit| HugepageLimit { page_size: "2MB".into(), limit };
        assert_eq!(annotation(&[]), None);
        assert_eq!(annotation(&[limit(4 << 20), limit(0)]).as_deref(), Some("2MB=4194304,2MB=0"));
        assert_eq!(annotation(&[limit(0)]).is_some(), machine_has_pages());
    }
}
