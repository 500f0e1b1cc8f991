//! Files that change all at once: each version in a directory of its own, `..data` a link to the current one, and the
//! visible names links through `..data`. A reader that keeps `..data` open sees one version whole. Nothing here follows a
//! link that a container may have planted: every step is by name below a directory only the kubelet writes to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path};

use crate::error::Error;

/// One file to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner, when not root.
    pub uid: Option<u32>,
}

/// Files by relative path.
pub(crate) type Payload = BTreeMap<String, File>;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Makes `payload` the content of `dir`, which exists. `own` sets group and modes of a new version before it is seen.
/// Gives whether anything changed.
pub(crate) fn write(
    dir: &Path,
    payload: &Payload,
    version: &str,
    own: impl Fn(&Path) -> Result<(), Error>,
) -> Result<bool, Error> {
    for path in payload.keys() {
        validate(path)?;
    }
    let data = dir.join(DATA);
    // Anything but a version's name was not written here, and is neither followed nor removed.
    let current = fs::read_link(&data).ok().filter(|current| is_version(current));
    if let Some(current) = &current
        && same(&dir.join(current), payload)
    {
        link_visible(dir, payload)?;
        return Ok(false);
    }
    let name = format!("..{version}");
    let fresh = dir.join(&name);
    remove_versions(dir, current.as_deref());
    // A version that is not whole (a full disk) must not stay.
    make_version(&fresh, payload).and_then(|()| own(&fresh)).inspect_err(|_| drop(fs::remove_dir_all(&fresh)))?;
    let new_data = dir.join(NEW_DATA);
    let _ = fs::remove_file(&new_data);
    symlink(&name, &new_data).map_err(Error::file("link", &new_data))?;
    fs::rename(&new_data, &data).map_err(Error::file("rename", &data))?;
    link_visible(dir, payload)?;
    if let Some(current) = current.filter(|current| *current != Path::new(&name)) {
        let _ = fs::remove_dir_all(dir.join(current));
    }
    Ok(true)
}

/// Takes versions away that somebody who died left behind.
fn remove_versions(dir: &Path, current: Option<&Path>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let stale = is_version(Path::new(&name)) && current != Some(Path::new(&name));
        if stale && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn make_version(fresh: &Path, payload: &Payload) -> Result<(), Error> {
    make_dir(fresh)?;
    for (path, file) in payload {
        let target = fresh.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(file.mode);
        let mut opened = options.open(&target).map_err(Error::file("create", &target))?;
        std::io::Write::write_all(&mut opened, &file.data).map_err(Error::file("write", &target))?;
        // The umask must not have a say.
        let permissions = fs::Permissions::from_mode(file.mode);
        opened.set_permissions(permissions).map_err(Error::file("chmod", &target))?;
        if let Some(uid) = file.uid {
            std::os::unix::fs::lchown(&target, Some(uid), None).map_err(Error::file("chown", &target))?;
        }
    }
    Ok(())
}

/// Whether it is one name, of those that versions have.
fn is_version(link: &Path) -> bool {
    let mut parts = link.components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) => name.as_encoded_bytes().starts_with(b".."),
        _ => false,
    }
}

fn make_dir(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().mode(0o755).create(path).map_err(Error::file("create", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(Error::file("chmod", path))
}

/// Relative, without `..`, and no name that this scheme keeps for itself.
fn validate(path: &str) -> Result<(), Error> {
    let bad = |why: &str| Err(Error::message(format!("invalid path {path:?}: {why}")));
    if path.is_empty() || path.len() > 4096 {
        return bad("must not be empty or too long");
    }
    for (index, component) in Path::new(path).components().enumerate() {
        match component {
            Component::Normal(name) if index == 0 && name.as_encoded_bytes().starts_with(b"..") => {
                return bad("must not start with '..'");
            }
            Component::Normal(_) => {}
            _ => return bad("must be relative and without '..'"),
        }
    }
    Ok(())
}

/// Whether the version in `dir` holds exactly the payload.
fn same(dir: &Path, payload: &Payload) -> bool {
    let mut found = BTreeSet::new();
    if collect(dir, dir, &mut found).is_err() || found.len() != payload.len() {
        return false;
    }
    payload
        .iter()
        .all(|(path, file)| found.contains(path) && fs::read(dir.join(path)).is_ok_and(|data| data == file.data))
}

fn collect(root: &Path, dir: &Path, found: &mut BTreeSet<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(root, &entry.path(), found)?;
        } else if let Ok(relative) = entry.path().strip_prefix(root) {
            found.insert(relative.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// Makes the visible links and removes those of files that are gone.
fn link_visible(dir: &Path, payload: &Payload) -> Result<(), Error> {
    let wanted: BTreeSet<&str> =
        payload.keys().filter_map(|path| path.split('/').find(|part| !part.is_empty())).collect();
    for name in &wanted {
        let link = dir.join(name);
        let target = Path::new(DATA).join(name);
        if fs::read_link(&link).is_ok_and(|found| found == target) {
            continue;
        }
        let _ = fs::remove_file(&link);
        symlink(&target, &link).map_err(Error::file("link", &link))?;
    }
    for entry in fs::read_dir(dir).map_err(Error::file("read", dir))?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(name.as_ref()) {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |data: &str| File { data: data.into(), mode: 0o640, uid: None };
        files.iter().map(|(path, data)| (path.to_string(), file(data))).collect()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn versions_replace_each_other_whole() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let own = |_: &Path| Ok(());
        assert!(write(dir, &payload(&[("a", "1"), ("d/b", "2")]), "v1", own).unwrap());
        assert_eq!(names(dir), ["..data", "..v1", "a", "d"]);
        assert_eq!(fs::read_to_string(dir.join("d/b")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o7777, 0o640);
        assert!(
            !write(dir, &payload(&[("a", "1"), ("d/b", "2")]), "v2", own).unwrap(),
            "same content, nothing written"
        );
        assert!(write(dir, &payload(&[("a", "3")]), "v3", own).unwrap());
        assert_eq!(names(dir), ["..data", "..v3", "a"]);
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "3");
        assert!(write(dir, &Payload::new(), "v4", own).unwrap());
        assert_eq!(names(dir), ["..data", "..v4"]);
    }

    #[test]
    fn planted_links_are_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("a"), "1").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let own = |_: &Path| Ok(());
        write(dir, &payload(&[("a", "1")]), "v1", own).unwrap();
        let name = outside.path().file_name().unwrap();
        for target in [outside.path().to_path_buf(), Path::new("..").join(name), "..".into(), ".".into()] {
            fs::remove_file(dir.join(DATA)).unwrap();
            symlink(&target, dir.join(DATA)).unwrap();
            assert!(write(dir, &payload(&[("a", "1")]), "v2", own).unwrap(), "{target:?}");
            assert_eq!(fs::read_link(dir.join(DATA)).unwrap(), Path::new("..v2"));
            assert!(outside.path().join("a").exists() && dir.join("a").exists(), "{target:?}");
        }
    }

    #[test]
    fn bad_paths_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["", "/abs", "../up", "a/../../b", "..data", "..x"] {
            assert!(write(dir.path(), &payload(&[(path, "x")]), "v", |_| Ok(())).is_err(), "{path}");
        }
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }

    #[test]
    fn a_full_disk_leaves_the_last_version() {
        let dir = tempfile::tempdir().unwrap();
        let small = dir.path().join("small");
        fs::create_dir(&small).unwrap();
        super::super::mounts::memory(&small, "tmpfs", "size=64k,mode=0777").unwrap();
        fs::create_dir(small.join("..2020_dead")).unwrap();
        let written = (|| {
            write(&small, &payload(&[("a", "old")]), "1", |_| Ok(()))?;
            let large = "x".repeat(256 << 10);
            let full = write(&small, &payload(&[("a", &large)]), "2", |_| Ok(())).map(drop);
            Ok::<_, Error>((full, fs::read_to_string(small.join("a")), names(&small)))
        })();
        let again = write(&small, &payload(&[("a", "new")]), "3", |_| Ok(()));
        let last = fs::read_to_string(small.join("a"));
        super::super::mounts::remove_tree(&small).unwrap();
        let (full, kept, left) = written.unwrap();
        assert!(full.unwrap_err().to_string().contains("No space left on device"));
        assert_eq!((kept.unwrap().as_str(), left), ("old", vec!["..1".to_string(), "..data".into(), "a".into()]));
        assert_eq!((again.unwrap(), last.unwrap().as_str()), (true, "new"), "when there is room again");
    }
}
