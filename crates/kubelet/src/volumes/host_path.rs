//! `hostPath` and what its `type` demands of the path.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use crate::error::Error;

/// Checks `path` against `kind`, making it where the kind says so.
pub(super) fn check(path: &Path, kind: &str) -> Result<(), Error> {
    let shown = path.display();
    let failed = |what: &str| Err(Error::message(format!("hostPath type check failed: {shown} is not {what}")));
    let found = fs::metadata(path).ok().map(|metadata| metadata.file_type());
    match (kind, found) {
        ("", _) => Ok(()),
        ("DirectoryOrCreate", None) => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(Error::file("create", path))
        }
        ("FileOrCreate", None) => {
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true).mode(0o644);
            options.open(path).map(drop).map_err(Error::file("create", path))
        }
        ("Directory" | "DirectoryOrCreate", found) if found.is_some_and(|found| found.is_dir()) => Ok(()),
        ("File" | "FileOrCreate", found) if found.is_some_and(|found| found.is_file()) => Ok(()),
        ("Socket", found) if found.is_some_and(|found| found.is_socket()) => Ok(()),
        ("CharDevice", found) if found.is_some_and(|found| found.is_char_device()) => Ok(()),
        ("BlockDevice", found) if found.is_some_and(|found| found.is_block_device()) => Ok(()),
        ("Directory" | "DirectoryOrCreate", _) => failed("a directory"),
        ("File" | "FileOrCreate", _) => failed("a file"),
        ("Socket", _) => failed("a socket file"),
        ("CharDevice", _) => failed("a character device"),
        ("BlockDevice", _) => failed("a block device"),
        (other, _) => Err(Error::message(format!("{other} is an invalid volume type"))),
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn types() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("file"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        for (name, kind, good) in [
            ("none", "", true),
            ("none", "Directory", false),
            ("none", "File", false),
            ("made/deep", "DirectoryOrCreate", true),
            ("made/deep", "Directory", true),
            ("made/file", "FileOrCreate", true),
            ("no/parent", "FileOrCreate", false),
            ("file", "File", true),
            ("file", "DirectoryOrCreate", false),
            ("socket", "Socket", true),
            ("file", "Socket", false),
            ("file", "BlockDevice", false),
        ] {
            assert_eq!(check(&path(name), kind).is_ok(), good, "{name} {kind}");
        }
        assert!(check("/dev/null".as_ref(), "CharDevice").is_ok());
    }
}
