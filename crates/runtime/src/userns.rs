//! The helper that makes a pod's user namespace, with network, IPC and UTS namespaces that belong to it: the runtime's side.
//! The other one is `shim userns`.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{Error, idmap::Ids};

/// A process in new namespaces; it goes with this value, the namespaces with it unless somebody holds on to them.
pub(crate) struct Helper {
    child: Child,
    namespaces: PathBuf,
}

impl Helper {
    /// Starts the helper and gives it `ids`. Blocks until it is in its namespaces.
    pub(crate) fn start(exe: &Path, ids: Ids) -> Result<Self, Error> {
        let mut command = Command::new(exe);
        command
            .args(["shim", "userns"])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().map_err(Error::io("start the shim", exe))?;
        let namespaces = PathBuf::from(format!("/proc/{}/ns", child.id()));
        let mut helper = Self { child, namespaces };
        helper.hear()?;
        for file in ["uid_map", "gid_map"] {
            let path = PathBuf::from(format!("/proc/{}/{file}", helper.child.id()));
            std::fs::write(&path, format!("0 {} {}", ids.first, ids.length)).map_err(Error::io("write", path))?;
        }
        if let Some(stdin) = &mut helper.child.stdin {
            stdin.write_all(b"\n").map_err(|error| Error::Other(format!("make a user namespace: {error}")))?;
        }
        helper.hear()?;
        Ok(helper)
    }

    /// Directory of the files that stand for its namespaces.
    pub(crate) fn namespaces(&self) -> &Path {
        &self.namespaces
    }

    /// Waits for the byte that says that it went on, or for its words when it did not.
    fn hear(&mut self) -> Result<(), Error> {
        let mut byte = [0];
        let read = self.child.stdout.as_mut().map(|stdout| stdout.read_exact(&mut byte));
        if matches!(read, Some(Ok(()))) {
            return Ok(());
        }
        let mut words = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            let _ = stderr.take(4096).read_to_string(&mut words);
        }
        Err(Error::Other(format!("make a user namespace: {}", words.trim())))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It ends with its standard input.
        self.child.stdin.take();
        let _ = self.child.wait();
    }
}
