//! `keelson image`: images into, in and out of a local cluster, with no registry between.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Subcommand;
use keelson_cluster::layout::{Layout, Node, Runtime};
use keelson_cluster::process::Handle;
use keelson_cri::v1;

use super::{Failure, Selected};

/// How long containerd gets to show an imported image to CRI clients, and how often it is asked (it announces nothing).
const CRI_TIMEOUT: Duration = Duration::from_secs(10);
const CRI_POLL: Duration = Duration::from_millis(10);

#[derive(Subcommand)]
pub(super) enum ImageCommand {
    /// Put the images of an archive (docker save or OCI, tar or directory) on every node
    Load {
        #[command(flatten)]
        selected: Selected,
        archive: PathBuf,
    },
    /// List the images of every node
    Ls(Selected),
    /// Remove an image from every node
    Rm {
        #[command(flatten)]
        selected: Selected,
        image: String,
    },
}

impl ImageCommand {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Load { selected, archive } => {
                for node in nodes(&selected)? {
                    for image in node.load(&archive).await? {
                        println!("{image} is on {}", node.node.name);
                    }
                }
            }
            Self::Ls(selected) => {
                println!("{:20} {:60} {:>10}  ID", "NODE", "IMAGE", "SIZE");
                for node in nodes(&selected)? {
                    let images = node.cri()?.image.list_images(v1::ListImagesRequest::default()).await?.into_inner();
                    for image in images.images {
                        let id = image.id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
                        for name in image
                            .repo_tags
                            .iter()
                            .chain(image.repo_digests.iter().filter(|_| image.repo_tags.is_empty()))
                        {
                            let size = format!("{:.1} MB", image.size as f64 / 1e6);
                            println!("{:20} {name:60} {size:>10}  {id}", node.node.name);
                        }
                    }
                }
            }
            Self::Rm { selected, image } => {
                for node in nodes(&selected)? {
                    let done = if node.remove(&image).await? { "is removed from" } else { "is not on" };
                    println!("{image} {done} {}", node.node.name);
                }
            }
        }
        Ok(())
    }
}

/// A node that runs.
struct Running {
    node: Node,
    init: Handle,
    runtime: Runtime,
}

fn nodes(selected: &Selected) -> Result<Vec<Running>, Failure> {
    let data_dir = &selected.data.data_dir;
    let layout = Layout::new(data_dir, &selected.profile)?;
    let profile = layout
        .read_profile()?
        .ok_or_else(|| format!("there is no cluster named {:?} in {}", selected.profile, data_dir.display()))?;
    profile
        .nodes
        .iter()
        .map(|node| {
            let init = Handle::read(&layout.node_process(&node.name))?.ok_or_else(|| {
                format!("node {} is stopped; `keelson up --profile {}` starts it", node.name, profile.name)
            })?;
            Ok(Running { node: node.clone(), init, runtime: profile.runtime })
        })
        .collect()
}

impl Running {
    /// The runtime's socket as the host sees it: by way of the init's root.
    fn socket(&self) -> PathBuf {
        let path = match self.runtime {
            Runtime::Keelson => "run/keelson/runtime.sock",
            Runtime::Containerd => "run/containerd/containerd.sock",
        };
        PathBuf::from(format!("/proc/{}/root/{path}", self.init.pid))
    }

    fn cri(&self) -> Result<keelson_cri::Clients, Failure> {
        Ok(keelson_cri::connect(&self.socket().to_string_lossy())?)
    }

    /// Removes one name of an image, and with the last one the image. Returns whether there was such a name.
    async fn remove(&self, image: &str) -> Result<bool, Failure> {
        let spec = Some(v1::ImageSpec { image: image.into(), ..v1::ImageSpec::default() });
        let mut client = self.cri()?.image;
        let status = v1::ImageStatusRequest { image: spec.clone(), verbose: false };
        let Some(known) = client.image_status(status).await?.into_inner().image else { return Ok(false) };
        // Over CRI containerd removes an image with all its names.
        let name = full_name(&known.repo_tags, image);
        if let (Runtime::Containerd, Some(name), 2..) = (self.runtime, name, known.repo_tags.len()) {
            self.ctr(&["images", "rm", name], Stdio::null())?;
        } else {
            client.remove_image(v1::RemoveImageRequest { image: spec }).await?;
        }
        Ok(true)
    }

    /// containerd's own client, inside the node. Returns its output.
    fn ctr(&self, args: &[&str], input: Stdio) -> Result<String, Failure> {
        let output = Command::new("nsenter")
            .args(["-t", &self.init.pid.to_string(), "-m", "-n", "-p", "--", "ctr", "--namespace", "k8s.io"])
            .args(args)
            .stdin(input)
            .output()
            .map_err(|e| format!("running nsenter: {e}"))?;
        if !output.status.success() {
            return Err(format!("ctr: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Returns the images' names.
    async fn load(&self, archive: &Path) -> Result<Vec<String>, Failure> {
        match self.runtime {
            Runtime::Keelson => Ok(keelson_runtime::client::import_images(&self.socket(), archive).await?),
            Runtime::Containerd => {
                let names = self.load_with_ctr(archive)?;
                self.known_to_cri(&names).await?;
                Ok(names)
            }
        }
    }

    /// CRI cannot load images; containerd's own client can, from inside the node.
    fn load_with_ctr(&self, archive: &Path) -> Result<Vec<String>, Failure> {
        let opened = |error| format!("{}: {error}", archive.display());
        let mut packer = None;
        let input = if archive.is_dir() {
            let mut tar = Command::new("tar")
                .arg("-C")
                .arg(archive)
                .args(["-cf", "-", "."])
                .stdout(Stdio::piped())
                .spawn()
                .map_err(|error| format!("running tar: {error}"))?;
            let packed = tar.stdout.take().ok_or("tar has no output")?;
            packer = Some(tar);
            Stdio::from(packed)
        } else {
            Stdio::from(std::fs::File::open(archive).map_err(opened)?)
        };
        let imported = self.ctr(&["images", "import", "-"], input);
        if let Some(status) = packer.map(|mut tar| tar.wait()).transpose()?.filter(|status| !status.success()) {
            return Err(format!("tar of {}: {status}", archive.display()).into());
        }
        let names: Vec<String> = imported?
            .lines()
            .filter_map(|line| line.strip_prefix("unpacking ")?.split_whitespace().next())
            .map(Into::into)
            .collect();
        // Made up by ctr for an image without a name; the kubelet's side of containerd trips over such names.
        if let Some(made_up) = names.iter().find(|name| name.starts_with("import-") && !name.contains('/')) {
            self.ctr(&["images", "rm", made_up], Stdio::null())?;
            return Err(format!("{} does not say its image's name", archive.display()).into());
        }
        if names.is_empty() {
            return Err(format!("{} holds no image for this machine", archive.display()).into());
        }
        Ok(names)
    }

    /// The kubelet's side of containerd learns of an import a moment after it: waits for that.
    async fn known_to_cri(&self, names: &[String]) -> Result<(), Failure> {
        let mut client = self.cri()?.image;
        let deadline = tokio::time::Instant::now() + CRI_TIMEOUT;
        for name in names {
            let spec = v1::ImageSpec { image: name.clone(), ..v1::ImageSpec::default() };
            let status = v1::ImageStatusRequest { image: Some(spec), verbose: false };
            while client.image_status(status.clone()).await?.into_inner().image.is_none() {
                if tokio::time::Instant::now() > deadline {
                    return Err(format!("{name} is imported, but containerd does not show it to the kubelet").into());
                }
                tokio::time::sleep(CRI_POLL).await;
            }
        }
        Ok(())
    }
}

/// Which of an image's names in full is what a user calls `name`: containerd puts a default registry, and for names of one
/// word `library`, before names that carry none.
fn full_name<'a>(tags: &'a [String], name: &str) -> Option<&'a String> {
    let last = name.rsplit('/').next().unwrap_or(name);
    let tagged = if last.contains(':') { name.to_owned() } else { format!("{name}:latest") };
    let end = if tagged.contains('/') { format!("/{tagged}") } else { format!("/library/{tagged}") };
    tags.iter().find(|tag| **tag == tagged).or_else(|| tags.iter().find(|tag| tag.ends_with(&end)))
}

#[cfg(test)]
mod tests {
    use super::full_name;

    #[test]
    fn names_in_short() {
        let tags = ["default.test/library/app:latest", "default.test/user/app:1", "r.test:5000/app:1", "r.test/app:1"];
        let tags = tags.map(String::from);
        for (name, full) in [
            ("app", Some(0)),
            ("app:1", None),
            ("user/app:1", Some(1)),
            ("r.test:5000/app:1", Some(2)),
            ("r.test/app", None),
            ("r.test/app:1", Some(3)),
        ] {
            assert_eq!(full_name(&tags, name), full.map(|i: usize| &tags[i]), "{name}");
        }
    }
}
