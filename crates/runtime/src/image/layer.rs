//! Unpacks a layer into a directory that overlayfs can stack. The archive is hostile until proven otherwise: no name in it
//! reaches outside the directory, whatever links it made before.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Read, Seek, SeekFrom, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
        chmodat, chownat, fsetxattr, linkat, lsetxattr, makedev, mkdirat, mknodat, open, openat, openat2,
        renameat_with, statat, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};
use tar::{Archive, Entry, EntryType};

use super::limits::Guard;

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_WHITEOUT: &[u8] = b".wh..wh..opq";
/// Largest sum of file sizes in one layer, in bytes, and most entries: a bomb ends here, not at a full disk.
const MAX_LAYER_BYTES: u64 = 32 << 30;
const MAX_ENTRIES: u64 = 2_000_000;
/// Longest decompressed layer, in bytes: the files, and an archive's words around them.
pub(crate) const MAX_STREAM_BYTES: u64 = MAX_LAYER_BYTES + (4 << 30);
/// Longest path of an entry, in bytes, as the kernel's, and most directories in it.
const MAX_PATH_BYTES: usize = 4096;
const MAX_PATH_DEPTH: usize = 256;
/// Most zeros in a row that are written rather than left out, in bytes.
const HOLE_BYTES: usize = 64 << 10;

/// What was unpacked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Sum of file sizes, in bytes.
    pub size_bytes: u64,
}

/// Unpacks the tar stream `archive` into the existing directory `target`. `below` are the directories of the layers under
/// it, topmost first: a directory that the archive only mentions in paths looks like theirs.
pub(crate) fn unpack(archive: impl Read, target: &Path, below: &[PathBuf]) -> io::Result<Unpacked> {
    let root = open(target, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut layer = Layer { root, below, owner: 0, directories: Vec::new(), unpacked: Unpacked::default() };
    let mut archive = Archive::new(Guard::new(archive));
    for (count, entry) in archive.entries()?.enumerate() {
        if count as u64 >= MAX_ENTRIES {
            return Err(invalid("the layer has too many entries"));
        }
        layer.entry(entry?)?;
    }
    layer.finish()
}

struct Layer<'a> {
    root: OwnedFd,
    below: &'a [PathBuf],
    /// Owner of directories that no entry describes.
    owner: u32,
    /// Times are set at the end: every file made in a directory changes them.
    directories: Vec<(PathBuf, Timestamps)>,
    unpacked: Unpacked,
}

impl Layer<'_> {
    fn entry(&mut self, mut entry: Entry<'_, impl Read>) -> io::Result<()> {
        // As GNU tar writes sparse files into PAX archives: without these words, what follows is a map and not the file.
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            if extension?.key_bytes().starts_with(b"GNU.sparse.") {
                return Err(invalid("sparse files in PAX format are not supported"));
            }
        }
        let path = clean(&entry.path()?)?;
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let Some(name) = path.file_name().map(OsString::from) else {
            // The root itself: only its attributes.
            return if kind.is_dir() {
                self.attributes_of_root(&mut entry)
            } else {
                Err(invalid("the root is not a directory"))
            };
        };
        let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
        let bytes = name.as_bytes();
        if bytes == OPAQUE_WHITEOUT {
            return Ok(fsetxattr_path(&parent)?);
        }
        if let Some(hidden) = bytes.strip_prefix(WHITEOUT_PREFIX) {
            if hidden.starts_with(WHITEOUT_PREFIX) {
                // Bookkeeping of other union file systems.
                return Ok(());
            }
            // `.wh...` would hide, which is to remove, what lies above the layer.
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(invalid("a whiteout hides no name"));
            }
            let hidden = OsStr::from_bytes(hidden);
            remove(&parent, hidden)?;
            return Ok(mknodat(&parent, hidden, FileType::CharacterDevice, Mode::empty(), makedev(0, 0))?);
        }
        self.create(&mut entry, &parent, &name, &path, kind)
    }

    fn create(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        parent: &OwnedFd,
        name: &OsStr,
        path: &Path,
        kind: EntryType,
    ) -> io::Result<()> {
        let header = entry.header();
        // Sloppy writers leave these fields blank, which other readers take for zero.
        let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
        let (uid, gid) = (id(header.uid().unwrap_or(0))?, id(header.gid().unwrap_or(0))?);
        let times = times(header.mtime().unwrap_or(0));
        let is_directory = |parent: &OwnedFd| {
            statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
        };
        let hides = kind.is_dir() && is_whiteout(parent, name);
        if !(kind.is_dir() && is_directory(parent)) {
            remove(parent, name)?;
        }
        match kind {
            EntryType::Directory => {
                match mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                if hides {
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    fsetxattr_path(&openat(parent, name, flags, Mode::empty())?)?;
                }
                self.directories.push((path.into(), times.clone()));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.unpacked.size_bytes += entry.size();
                if self.unpacked.size_bytes > MAX_LAYER_BYTES {
                    return Err(invalid("the layer is too large"));
                }
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = std::fs::File::from(openat(parent, name, flags, Mode::from_raw_mode(0o600))?);
                copy_with_holes(entry, &mut file)?;
            }
            EntryType::Link => {
                let target = entry.link_name()?.ok_or_else(|| invalid("a hard link has no target"))?;
                let target = clean(&target)?;
                let target_name = target.file_name().ok_or_else(|| invalid("a hard link's target is the root"))?;
                let target_parent = self.existing(target.parent().unwrap_or(Path::new("")))?;
                linkat(&target_parent, target_name, parent, name, AtFlags::empty())?;
                // Its attributes are those of its target.
                return Ok(());
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or_else(|| invalid("a symbolic link has no target"))?;
                symlinkat(OsStr::from_bytes(&target), parent, name)?;
            }
            EntryType::Char | EntryType::Block => {
                let device = makedev(header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0));
                let kind = if kind == EntryType::Char { FileType::CharacterDevice } else { FileType::BlockDevice };
                mknodat(parent, name, kind, mode, device)?;
            }
            EntryType::Fifo => mknodat(parent, name, FileType::Fifo, mode, 0)?,
            other => return Err(invalid(&format!("unsupported entry type {other:?}"))),
        }
        chownat(parent, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)?;
        if kind != EntryType::Symlink {
            // After the change of owner, which clears the set-id bits. The name is ours: nothing replaced it meanwhile.
            chmodat(parent, name, mode, AtFlags::empty())?;
        }
        extended_attributes(entry, parent, name)?;
        if !kind.is_dir() {
            utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    fn attributes_of_root(&mut self, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
        let header = entry.header();
        let (uid, gid) = (id(header.uid().unwrap_or(0))?, id(header.gid().unwrap_or(0))?);
        let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
        let times = times(header.mtime().unwrap_or(0));
        chownat(&self.root, ".", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::empty())?;
        chmodat(&self.root, ".", mode, AtFlags::empty())?;
        self.directories.push((PathBuf::from("."), times));
        Ok(())
    }

    /// The directory `path` inside the layer, resolved as if the layer were `/`.
    fn existing(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// Like [`Self::existing`], making what is missing.
    fn directory(&mut self, path: &Path) -> io::Result<OwnedFd> {
        match self.existing(path) {
            // What is no directory is replaced by one.
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            other => return Ok(other?),
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::NOENT.into()) };
        let parent = self.directory(parent)?;
        match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => self.look_like_below(&parent, name, path)?,
            // A dangling link, a file or a whiteout, where the archive wants a directory.
            Err(Errno::EXIST) => {
                let hides = is_whiteout(&parent, name);
                remove(&parent, name)?;
                mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                if hides {
                    fsetxattr_path(&self.existing(path)?)?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(self.existing(path)?)
    }

    fn look_like_below(&self, parent: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<()> {
        for layer in self.below {
            let Ok(root) = open(layer, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else {
                continue;
            };
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let Ok(same) = openat2(&root, path, flags, Mode::empty(), resolve) else { continue };
            let stat = rustix::fs::fstat(&same)?;
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            return Ok(chmodat(parent, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?);
        }
        let (uid, gid) = (Uid::from_raw(self.owner), Gid::from_raw(self.owner));
        Ok(chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn finish(self) -> io::Result<Unpacked> {
        for (path, times) in self.directories.iter().rev() {
            // A later entry may have replaced it.
            if let Ok(directory) = self.existing(path) {
                utimensat(&directory, ".", times, AtFlags::empty())?;
            }
        }
        Ok(self.unpacked)
    }
}

/// `path` relative and without `.`; a name that climbs is an attack, not a spelling.
fn clean(path: &Path) -> io::Result<PathBuf> {
    if path.as_os_str().len() > MAX_PATH_BYTES || path.components().count() > MAX_PATH_DEPTH {
        return Err(invalid("a path is too long"));
    }
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(invalid(&format!("the path {} leaves the layer", path.display())));
            }
        }
    }
    Ok(cleaned)
}

/// Removes `name`, with everything below it, without following links. Directories are moved up before they are emptied: with
/// that, how deep a tree is costs neither descriptors nor stack.
fn remove(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let mut doomed = vec![name.to_owned()];
    let mut moved = 0u64;
    while let Some(name) = doomed.last().cloned() {
        match unlinkat(parent, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {
                doomed.pop();
                continue;
            }
            Err(Errno::ISDIR) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(parent, &name, flags, Mode::empty())?;
        let mut below = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory)? {
            let entry = entry?;
            let child = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
            if child == "." || child == ".." {
                continue;
            }
            match unlinkat(&directory, &child, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => match unlinkat(&directory, &child, AtFlags::REMOVEDIR) {
                    Ok(()) => {}
                    Err(Errno::NOTEMPTY | Errno::EXIST) => below.push(child),
                    Err(error) => return Err(error.into()),
                },
                Err(error) => return Err(error.into()),
            }
        }
        for child in below {
            loop {
                moved += 1;
                let new = OsString::from(format!(".keelson-removed-{moved}"));
                match renameat_with(&directory, &child, parent, &new, RenameFlags::NOREPLACE) {
                    Ok(()) => {
                        doomed.insert(0, new);
                        break;
                    }
                    // The image has thought of that name, too.
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        unlinkat(parent, &name, AtFlags::REMOVEDIR)?;
        doomed.pop();
    }
    Ok(())
}

/// Copies a file's content; long runs of zeros become holes, so that a file costs no more than what is in it.
fn copy_with_holes(source: &mut impl Read, file: &mut std::fs::File) -> io::Result<()> {
    let mut buffer = vec![0; HOLE_BYTES];
    let mut length = 0;
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match source.read(buffer.get_mut(filled..).unwrap_or_default()) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let piece = buffer.get(..filled).unwrap_or_default();
        length += filled as u64;
        if filled == buffer.len() && piece.iter().all(|byte| *byte == 0) {
            file.seek(SeekFrom::Current(filled as i64))?;
        } else {
            file.write_all(piece)?;
        }
        if filled < buffer.len() {
            return file.set_len(length);
        }
    }
}

/// Sets what PAX headers carry as `SCHILY.xattr.<name>`.
fn extended_attributes(entry: &mut Entry<'_, impl Read>, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(()) };
    for extension in extensions {
        let extension = extension?;
        let Some(attribute) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") else { continue };
        // Overlayfs keeps its own truth in `trusted.overlay.*`; an image must not forge it.
        if attribute.starts_with(b"trusted.") {
            continue;
        }
        let path = fd_path(parent).join(name);
        match lsetxattr(&path, OsStr::from_bytes(attribute), extension.value_bytes(), XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether `name` hides what lower layers have under it: a directory in its place must hide that, too.
fn is_whiteout(parent: &OwnedFd, name: &OsStr) -> bool {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(0, 0)
    })
}

/// Marks a directory as hiding what lower layers have there.
fn fsetxattr_path(directory: &OwnedFd) -> rustix::io::Result<()> {
    let directory = openat(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    fsetxattr(&directory, "trusted.overlay.opaque", b"y", XattrFlags::empty())
}

fn fd_path(fd: &OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

fn id(value: u64) -> io::Result<u32> {
    u32::try_from(value).map_err(|_| invalid("an owner does not fit in 32 bits"))
}

fn times(mtime: u64) -> Timestamps {
    let time = Timespec { tv_sec: i64::try_from(mtime).unwrap_or(0), tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Makes the directory `path` inside `root`, following links only as if `root` were `/`. What is missing will be `owner`'s.
pub(crate) fn make_directory_in(root: &Path, path: &Path, owner: u32) -> io::Result<()> {
    let root = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut layer = Layer { root, below: &[], owner, directories: Vec::new(), unpacked: Unpacked::default() };
    match layer.existing(&clean(path)?) {
        Ok(_) => Ok(()),
        Err(Errno::NOENT) => layer.directory(&clean(path)?).map(drop),
        Err(error) => Err(error.into()),
    }
}

/// Reads the regular file `path` inside `root` (at most `limit` bytes), following links only as if `root` were `/`.
pub(crate) fn read_file_in(root: &Path, path: &str, limit: u64) -> io::Result<Vec<u8>> {
    let root = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // Non-blocking, so that a FIFO in the image's place does not hang.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = std::fs::File::from(openat2(&root, path, flags, Mode::empty(), resolve)?);
    if !file.metadata()?.is_file() {
        return Err(invalid("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file of the node's own, of at most `limit` bytes.
pub(crate) fn read_small(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(invalid("the file is too large"));
    }
    Ok(bytes)
}

/// Removes the directory tree `path` without following links; absent is fine.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    match openat(CWD, parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(parent) => remove(&parent, name),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
