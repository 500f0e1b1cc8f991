//! What is known of sandboxes and containers, in memory and on disk. A record is a protobuf message, so that CRI's own
//! messages can be fields of it. Records are replaced whole. Of a pod the first one is synced, for its network outlives the
//! machine's power; the others are not, for what they describe does not.

use std::{
    io,
    path::{Path, PathBuf},
};

use keelson_cri::v1::{ContainerConfig, LinuxContainerUser, PodSandboxConfig};
use prost::Message;

use crate::{Error, shim::write_synced};

/// File name of a record in its object's directory.
const FILE: &str = "record.pb";

/// A pod sandbox.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SandboxRecord {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub config: Option<PodSandboxConfig>,
    /// Nanoseconds since the epoch.
    #[prost(int64, tag = "3")]
    pub created_at: i64,
    #[prost(enumeration = "SandboxPhase", tag = "4")]
    pub phase: i32,
    #[prost(string, repeated, tag = "5")]
    pub ips: Vec<String>,
    #[prost(string, tag = "6")]
    pub runtime_handler: String,
}

/// How far a sandbox got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum SandboxPhase {
    /// Being made; found at start-up, it is cleaned away.
    Creating = 0,
    Ready = 1,
    NotReady = 2,
    /// Being stopped; found at start-up, that is finished.
    Stopping = 3,
}

/// A container.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ContainerRecord {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub sandbox_id: String,
    /// Without what only the specification needs: command, arguments, environment.
    #[prost(message, optional, tag = "3")]
    pub config: Option<ContainerConfig>,
    #[prost(string, tag = "4")]
    pub image_ref: String,
    #[prost(string, tag = "5")]
    pub image_id: String,
    /// Layers its file system stands on; they outlive the image.
    #[prost(string, repeated, tag = "6")]
    pub layers: Vec<String>,
    #[prost(int64, tag = "7")]
    pub created_at: i64,
    #[prost(int64, tag = "8")]
    pub started_at: i64,
    #[prost(int64, tag = "9")]
    pub finished_at: i64,
    #[prost(int32, tag = "10")]
    pub exit_code: i32,
    #[prost(string, tag = "11")]
    pub reason: String,
    #[prost(string, tag = "12")]
    pub message: String,
    #[prost(enumeration = "ContainerPhase", tag = "13")]
    pub phase: i32,
    #[prost(string, tag = "14")]
    pub stop_signal: String,
    #[prost(message, optional, tag = "15")]
    pub user: Option<LinuxContainerUser>,
    /// Below each hierarchy's root.
    #[prost(string, tag = "16")]
    pub cgroup: String,
    #[prost(string, tag = "17")]
    pub log_path: String,
}

/// How far a container got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum ContainerPhase {
    /// Being made; found at start-up, it is cleaned away.
    Creating = 0,
    Created = 1,
    /// The shim has been asked to start it.
    Starting = 2,
    Running = 3,
    Exited = 4,
}

/// Writes `record` to its object's directory.
pub(crate) fn save(dir: &Path, record: &impl Message) -> Result<(), Error> {
    let path = dir.join(FILE);
    let temporary = dir.join("record.tmp");
    let write = || {
        std::fs::write(&temporary, record.encode_to_vec())?;
        std::fs::rename(&temporary, &path)
    };
    write().map_err(Error::io("write", &path))
}

/// [`save`] for what has to be known after a power cut.
pub(crate) fn save_synced(dir: &Path, record: &impl Message) -> Result<(), Error> {
    let path = dir.join(FILE);
    write_synced(&path, &record.encode_to_vec()).map_err(Error::io("write", &path))
}

/// A record that knows whose it is.
pub(crate) trait Identified {
    fn id(&self) -> &str;
}

impl Identified for SandboxRecord {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Identified for ContainerRecord {
    fn id(&self) -> &str {
        &self.id
    }
}

/// What an object's directory says about it.
pub(crate) enum Found<T> {
    Record(T),
    /// There is no record: whoever was to write it was killed.
    Nothing,
    /// There is one that cannot be true, as after a power cut (an empty message is a valid one).
    Damaged(String),
}

/// Reads the record in `dir`, whose name is its object's ID.
pub(crate) fn load<T: Message + Default + Identified>(dir: &Path) -> Found<T> {
    let bytes = match std::fs::read(dir.join(FILE)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Nothing,
        Err(error) => return Found::Damaged(error.to_string()),
    };
    match T::decode(bytes.as_slice()) {
        Ok(record) if dir.file_name().is_some_and(|name| name == record.id()) => Found::Record(record),
        Ok(record) => Found::Damaged(format!("it is the record of {:?}", record.id())),
        Err(error) => Found::Damaged(error.to_string()),
    }
}

/// Directories directly below `dir`.
pub(crate) fn list_dirs(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    match std::fs::read_dir(dir) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("list", dir)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_believed_if_they_are_their_directorys() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("a1");
        std::fs::create_dir(&own).unwrap();
        assert!(matches!(load::<SandboxRecord>(&own), Found::Nothing));
        for (bytes, good) in [
            (SandboxRecord { id: "a1".into(), ..Default::default() }.encode_to_vec(), true),
            (SandboxRecord { id: "a2".into(), ..Default::default() }.encode_to_vec(), false),
            (Vec::new(), false),
            (vec![0xff; 9], false),
        ] {
            std::fs::write(own.join(FILE), &bytes).unwrap();
            let found = load::<SandboxRecord>(&own);
            assert!(
                if good { matches!(found, Found::Record(_)) } else { matches!(found, Found::Damaged(_)) },
                "{bytes:?}"
            );
        }
    }
}
