//! Files that are read again when they change, however they are changed: in place, by a rename over them, or by the swap of a
//! link to their directory, as mounted Secrets are.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use keelson_client::changes::{Changes, Interest};

/// Begins to watch the directories that hold `files`; a change there may be none of theirs.
pub(crate) fn changes<'a>(files: impl IntoIterator<Item = &'a Path>) -> io::Result<Changes> {
    let directories: BTreeSet<&Path> = files.into_iter().map(directory).collect();
    Changes::of(directories, Interest::Written)
}

fn directory(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
