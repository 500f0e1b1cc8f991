//! A Git server on the machine's loopback: Debian's `git daemon`, one process for each connection, and repositories that are
//! made with the real program.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Serves until it is dropped.
pub struct GitServer {
    dir: PathBuf,
    address: SocketAddr,
    _serving: DropGuard,
}

impl GitServer {
    /// Serves the repositories in `dir`.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(dir: &Path) -> std::io::Result<GitServer> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let (until, base) = (stop.clone(), dir.to_path_buf());
        tokio::spawn(until.run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = stream.into_std() else { continue };
                let (Ok(()), Ok(twin)) = (stream.set_nonblocking(false), stream.try_clone()) else { continue };
                let mut daemon = tokio::process::Command::new("git");
                daemon
                    .args(["daemon", "--inetd", "--export-all"])
                    .arg(format!("--base-path={}", base.display()))
                    .arg(&base);
                daemon.stdin(std::os::fd::OwnedFd::from(stream)).stdout(std::os::fd::OwnedFd::from(twin));
                daemon.stderr(Stdio::null()).kill_on_drop(true);
                tokio::spawn(async move { daemon.status().await });
            }
        }));
        Ok(GitServer { dir: dir.into(), address, _serving: stop.drop_guard() })
    }

    /// The URL of the repository `name`.
    pub fn url(&self, name: &str) -> String {
        format!("git://{}/{name}", self.address)
    }

    /// Makes the repository `name`, or goes on with it: a commit on `branch` with these files (path, text).
    ///
    /// # Panics
    /// When Git refuses.
    pub fn commit(&self, name: &str, branch: &str, files: &[(&str, &str)]) {
        let tree = self.dir.join(name);
        if !tree.exists() {
            git(&self.dir, &["init", "--quiet", "--initial-branch", branch, name]);
        } else if git(&tree, &["branch", "--show-current"]).trim() != branch {
            git(&tree, &["checkout", "--quiet", "-b", branch]);
        }
        for (path, text) in files {
            let path = tree.join(path);
            std::fs::create_dir_all(path.parent().expect("a file's directory")).expect("a directory");
            std::fs::write(path, text).expect("writing a file");
        }
        git(&tree, &["add", "--all"]);
        git(&tree, &["commit", "--quiet", "--message", "files"]);
    }

    /// Runs Git in the repository `name`; gives what it says.
    ///
    /// # Panics
    /// When Git refuses.
    pub fn git(&self, name: &str, arguments: &[&str]) -> String {
        git(&self.dir.join(name), arguments)
    }
}

fn git(dir: &Path, arguments: &[&str]) -> String {
    let mut git = Command::new("git");
    git.args(["-c", "user.name=t", "-c", "user.email=t@keelson.invalid", "-c", "core.protectNTFS=false"]);
    git.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").current_dir(dir);
    let output = git.args(arguments).stdin(Stdio::null()).output().expect("git: apt-get install git");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
