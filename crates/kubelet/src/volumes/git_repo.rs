//! `gitRepo`: a directory that is filled from a Git repository before the pod's containers start. Off unless the gate
//! `GitRepoVolumeDriver` is on. Whoever makes pods chooses what Git reads here, as the node's root: so Git gets nobody's
//! configuration, keys or hooks, no way to the node's own files or programs (`file`, `ssh` and `ext` are no transports
//! here; upstream leaves them to Git), no submodules, and limits of time and words. All of it is made beside the volume's
//! place and moved there in one step.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::GitRepoVolumeSource;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::ownership;
use crate::error::Error;

/// How long all of it may take.
const DEADLINE: Duration = Duration::from_secs(300);
/// How much of what Git says is kept, bytes.
const WORDS: usize = 4096;
/// Those whose server is named by the URL, and that need nothing of the node's.
const TRANSPORTS: &str = "git:http:https";
/// What Git does not do here, whatever the repository has.
const SETTINGS: [&str; 5] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "credential.helper=",
    "gc.auto=0",
    "advice.detachedHead=false",
];
/// Of the kubelet's environment: how HTTP servers are reached.
const PASSED_ON: [&str; 7] = ["PATH", "http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "no_proxy", "NO_PROXY"];

/// What is asked for, as far as it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GitRepo {
    repository: String,
    /// Empty for what the repository's own HEAD is.
    revision: String,
    /// Where in the volume; empty for a directory of the repository's name.
    directory: String,
}

impl GitRepo {
    /// What `source` asks for. The error is upstream's.
    pub(super) fn new(source: &GitRepoVolumeSource) -> Result<GitRepo, Error> {
        let repo = GitRepo {
            repository: source.repository.clone(),
            revision: source.revision.clone().unwrap_or_default(),
            directory: source.directory.clone().unwrap_or_default(),
        };
        let fields = [("repository", &repo.repository), ("revision", &repo.revision), ("directory", &repo.directory)];
        if let Some((name, value)) = fields.into_iter().find(|(_, value)| value.starts_with('-')) {
            return Err(Error::message(format!("{value:?} is an invalid value for {name}")));
        }
        let directory = Path::new(&repo.directory);
        let leads_out = |part: Component<'_>| !matches!(part, Component::Normal(_) | Component::CurDir);
        if directory.components().any(leads_out) {
            return Err(Error::message(format!(
                "{:?} is not a valid directory, it must lead into the volume",
                repo.directory
            )));
        }
        let parts = directory.components().filter(|part| *part != Component::CurDir).count();
        if !repo.revision.is_empty() && (parts > 1 || repo.directory.contains('\\')) {
            return Err(Error::message(format!(
                "{:?} is not a valid directory, it must not contain a directory separator",
                repo.directory
            )));
        }
        Ok(repo)
    }

    /// Makes the volume at `path`, unless it is there. What is under way when `cancelled` is given up.
    pub(super) async fn set_up(
        &self,
        path: &Path,
        group: Option<u32>,
        cancelled: &CancellationToken,
    ) -> Result<(), Error> {
        self.set_up_within(path, group, cancelled, DEADLINE).await
    }

    async fn set_up_within(
        &self,
        path: &Path,
        group: Option<u32>,
        cancelled: &CancellationToken,
        deadline: Duration,
    ) -> Result<(), Error> {
        if path.exists() {
            return Ok(());
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let new = path.with_file_name(format!("..new-{name}"));
        let empty = new.clone();
        blocking(move || make_empty(&empty)).await?;
        tokio::select! {
            filled = tokio::time::timeout(deadline, self.fill(&new)) => match filled {
                Ok(filled) => filled?,
                Err(_) => {
                    return Err(Error::message(format!("failed to clone {:?}: it took longer than {deadline:?}", self.repository)));
                }
            },
            () = cancelled.cancelled() => return Err(Error::message("the pod ends")),
        }
        let path = path.to_path_buf();
        blocking(move || {
            if let Some(group) = group {
                ownership::give_to_group(&new, group, false, false)?;
            }
            fs::rename(&new, &path).map_err(Error::file("rename", &path))
        })
        .await
    }

    async fn fill(&self, volume: &Path) -> Result<(), Error> {
        let mut clone = vec!["clone", "--", &self.repository];
        if !self.directory.is_empty() {
            clone.push(&self.directory);
        }
        let said = format!("git {}", clone.join(" "));
        // No template: its hooks would be the node's.
        clone.splice(1..1, ["--template=", "--no-recurse-submodules"]);
        run(git(volume).args(clone), &said).await?;
        if self.revision.is_empty() {
            return Ok(());
        }
        let tree = match self.directory.as_str() {
            "" => the_only_directory(volume)?,
            directory => volume.join(directory),
        };
        // Named, so that Git looks for no other: what the repository brings along may look like one.
        let own = [format!("--git-dir={}", tree.join(".git").display()), format!("--work-tree={}", tree.display())];
        let checkout = format!("git checkout {}", self.revision);
        run(git(&tree).args(&own).args(["checkout", &self.revision, "--"]), &checkout).await?;
        run(git(&tree).args(&own).args(["reset", "--hard"]), "git reset --hard").await
    }
}

async fn blocking(work: impl FnOnce() -> Result<(), Error> + Send + 'static) -> Result<(), Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::message(error.to_string()))?
}

fn make_empty(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::file("remove", path)(error)),
        _ => {}
    }
    fs::create_dir_all(path).map_err(Error::file("create", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).map_err(Error::file("chmod", path))
}

fn the_only_directory(volume: &Path) -> Result<PathBuf, Error> {
    let entries = fs::read_dir(volume).map_err(Error::file("read", volume))?;
    let found: Vec<_> = entries.flatten().collect();
    match found.as_slice() {
        [one] if one.file_type().is_ok_and(|kind| kind.is_dir()) => Ok(one.path()),
        _ => Err(Error::message(format!("unexpected directory contents: {} entries", found.len()))),
    }
}

/// Git in `directory`, with nothing of the node's but its certificates and proxies.
fn git(directory: &Path) -> Command {
    let mut git = Command::new("git");
    git.env_clear().envs(PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    for (name, value) in [
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_ALLOW_PROTOCOL", TRANSPORTS),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("LC_ALL", "C"),
    ] {
        git.env(name, value);
    }
    for setting in SETTINGS {
        git.args(["-c", setting]);
    }
    git.current_dir(directory);
    git
}

/// Runs the program, called `said` in errors, to its end; given up, it and all that it started are killed.
async fn run(command: &mut Command, said: &str) -> Result<(), Error> {
    let failed = |words: &str, why: &str| Error::message(format!("failed to exec '{said}': {words}: {why}"));
    let (reader, writer) = std::io::pipe().map_err(|error| failed("", &error.to_string()))?;
    let twin = writer.try_clone().map_err(|error| failed("", &error.to_string()))?;
    command.stdin(Stdio::null()).stdout(twin).stderr(writer).process_group(0);
    let child = command.spawn();
    // The other ends of the pipe, or it never ends.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => failed("", "exec: \"git\": executable file not found in $PATH"),
        _ => failed("", &error.to_string()),
    })?;
    let _group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw));
    let reader = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into());
    let mut reader = reader.map_err(|error| failed("", &error.to_string()))?;
    let mut words = Vec::new();
    let mut buffer = [0; 1024];
    let read = async {
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            // What comes first says what went wrong; the rest is read so that nobody waits.
            let room = WORDS.saturating_sub(words.len()).min(count);
            words.extend_from_slice(&buffer[..room]);
        }
    };
    let (status, ()) = tokio::join!(child.wait(), read);
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let why = status.code().map_or_else(|| status.to_string(), |code| format!("exit status {code}"));
            Err(failed(&String::from_utf8_lossy(&words), &why))
        }
        Err(error) => Err(failed("", &error.to_string())),
    }
}

/// A group of processes that does not outlive this.
struct Group(Option<rustix::process::Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Gone already, as a rule.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests;
