//! Hostile and ordinary layers. They need root, as everything about owners and devices does.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use tar::{Builder, Header};

use super::*;

struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// Adds an entry with the raw name, which `tar`'s own writer would refuse for some.
    fn add(mut self, name: &str, kind: EntryType, link: Option<&str>, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        if let Some(link) = link {
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_entry_type(kind);
        header.set_mode(0o640);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.add(name, EntryType::Regular, None, data.as_bytes())
    }

    fn unpack(self, below: &[PathBuf]) -> (tempfile::TempDir, io::Result<Unpacked>) {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("layer");
        std::fs::create_dir(&target).unwrap();
        std::fs::write(parent.path().join("outside"), "untouched").unwrap();
        let outcome = unpack(self.0.into_inner().unwrap().as_slice(), &target, below);
        (parent, outcome)
    }
}

#[test]
fn ordinary_entries() {
    let (dir, outcome) = Tar::new()
        .add("./d/", EntryType::Directory, None, b"")
        .file("d/f", "hello")
        .add("d/hard", EntryType::Link, Some("d/f"), b"")
        .add("d/soft", EntryType::Symlink, Some("/etc/passwd"), b"")
        .add("fifo", EntryType::Fifo, None, b"")
        .unpack(&[]);
    assert_eq!(outcome.unwrap().size_bytes, 5);
    let layer = dir.path().join("layer");
    let file = std::fs::metadata(layer.join("d/f")).unwrap();
    assert_eq!((file.uid(), file.gid(), file.permissions().mode() & 0o7777), (7, 8, 0o640));
    assert_eq!((file.mtime(), file.nlink()), (1_000_000_000, 2));
    assert_eq!(std::fs::metadata(layer.join("d")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(std::fs::read_link(layer.join("d/soft")).unwrap(), Path::new("/etc/passwd"));
    assert!(std::fs::metadata(layer.join("fifo")).unwrap().file_type().is_fifo());
}

#[test]
fn whiteouts_become_overlay_marks() {
    let (dir, outcome) =
        Tar::new().file("d/.wh.gone", "").file("d/.wh..wh..opq", "").file(".wh..wh.plnk", "").unpack(&[]);
    outcome.unwrap();
    let layer = dir.path().join("layer");
    let gone = std::fs::metadata(layer.join("d/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut value = [0; 1];
    rustix::fs::getxattr(layer.join("d"), "trusted.overlay.opaque", &mut value[..]).unwrap();
    assert_eq!(&value, b"y");
    assert!(!layer.join(".wh..wh.plnk").exists());
}

/// Unpacking must leave everything outside the layer as it was, whether it fails or not.
fn stays_inside(tar: Tar) {
    let (dir, _) = tar.unpack(&[]);
    assert_eq!(std::fs::read_to_string(dir.path().join("outside")).unwrap(), "untouched");
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn climbing_names_are_refused() {
    for name in ["../outside", "a/../../outside", "./../outside", "a/b/../../../outside"] {
        let (dir, outcome) = Tar::new().file(name, "evil").unpack(&[]);
        assert!(outcome.is_err(), "{name}");
        assert_eq!(std::fs::read_to_string(dir.path().join("outside")).unwrap(), "untouched");
    }
}

#[test]
fn links_do_not_lead_out() {
    stays_inside(Tar::new().add("l", EntryType::Symlink, Some(".."), b"").file("l/outside", "evil"));
    stays_inside(Tar::new().add("l", EntryType::Symlink, Some("../outside"), b"").file("l", "evil"));
    stays_inside(Tar::new().add("l", EntryType::Link, Some("../outside"), b"").file("l", "evil"));
    stays_inside(
        Tar::new()
            .add("a", EntryType::Symlink, Some("b"), b"")
            .add("b", EntryType::Symlink, Some("../.."), b"")
            .file("a/outside", "evil"),
    );
    stays_inside(Tar::new().add("l", EntryType::Symlink, Some(".."), b"").file("l/.wh.outside", ""));
    stays_inside(Tar::new().add("l", EntryType::Symlink, Some("/proc/self/cwd"), b"").file("l/evil-in-cwd", "evil"));
    assert!(!Path::new("evil-in-cwd").exists());
}

#[test]
fn whiteouts_do_not_climb() {
    for name in [".wh...", "d/.wh...", ".wh..", ".wh."] {
        let (dir, outcome) = Tar::new().file("d/f", "kept").file(name, "").unpack(&[]);
        assert!(outcome.is_err(), "{name}");
        assert_eq!(std::fs::read_to_string(dir.path().join("outside")).unwrap(), "untouched", "{name}");
        assert_eq!(std::fs::read_to_string(dir.path().join("layer/d/f")).unwrap(), "kept", "{name}");
    }
}

#[test]
fn absolute_links_resolve_inside() {
    let (dir, outcome) = Tar::new()
        .add("l", EntryType::Symlink, Some("/real"), b"")
        .add("real/", EntryType::Directory, None, b"")
        .file("l/f", "x")
        .file("/abs/f", "y")
        .unpack(&[]);
    outcome.unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("layer/real/f")).unwrap(), "x");
    assert_eq!(std::fs::read_to_string(dir.path().join("layer/abs/f")).unwrap(), "y");
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    let (dir, outcome) = Tar::new()
        .file("d/sub/f", "1")
        .add("d", EntryType::Symlink, Some("elsewhere"), b"")
        .file("f", "1")
        .file("f", "2")
        .unpack(&[]);
    outcome.unwrap();
    assert!(dir.path().join("layer/d").is_symlink());
    assert_eq!(std::fs::read_to_string(dir.path().join("layer/f")).unwrap(), "2");
}

#[test]
fn a_directory_only_mentioned_looks_like_the_one_below() {
    let below = tempfile::tempdir().unwrap();
    std::fs::create_dir(below.path().join("tmp")).unwrap();
    std::fs::set_permissions(below.path().join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    let (dir, outcome) = Tar::new().file("tmp/f", "").unpack(&[below.path().into()]);
    outcome.unwrap();
    assert_eq!(std::fs::metadata(dir.path().join("layer/tmp")).unwrap().permissions().mode() & 0o7777, 0o1777);
}

#[test]
fn a_torn_archive_is_an_error() {
    let bytes = Tar::new().file("f", &"x".repeat(2000)).0.into_inner().unwrap();
    let dir = tempfile::tempdir().unwrap();
    assert!(unpack(&bytes[..1000], dir.path(), &[]).is_err());
}

/// As `tar --sparse --format=pax` writes them: a map and pieces, under a made-up name.
#[test]
fn sparse_files_in_pax_format_are_refused() {
    let mut tar = Tar::new();
    tar.0.append_pax_extensions([("GNU.sparse.major", b"1".as_slice()), ("GNU.sparse.name", b"real")]).unwrap();
    let (_dir, outcome) = tar.file("GNUSparseFile.0/real", "1\n0\n").unpack(&[]);
    assert!(outcome.unwrap_err().to_string().contains("sparse"));
}
