//! `keelson image`: images into, in and out of a local cluster, with no registry between.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Subcommand;
use keelson_cluster::layout::{Layout, Node, Runtime};
use keelson_cluster::process::Handle;
use keelson_cri::v1;

use super::{Failure, Selected};

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
                    let spec = Some(v1::ImageSpec { image: image.clone(), ..v1::ImageSpec::default() });
                    let mut client = node.cri()?.image;
                    let status = v1::ImageStatusRequest { image: spec.clone(), verbose: false };
                    if client.image_status(status).await?.into_inner().image.is_none() {
                        println!("{image} is not on {}", node.node.name);
                        continue;
                    }
                    client.remove_image(v1::RemoveImageRequest { image: spec }).await?;
                    println!("{image} is removed from {}", node.node.name);
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

    /// Returns the images' names.
    async fn load(&self, archive: &std::path::Path) -> Result<Vec<String>, Failure> {
        match self.runtime {
            Runtime::Keelson => Ok(keelson_runtime::client::import_images(&self.socket(), archive).await?),
            Runtime::Containerd => self.load_with_ctr(archive),
        }
    }

    /// CRI cannot load images; containerd's own client can, from inside the node.
    fn load_with_ctr(&self, archive: &std::path::Path) -> Result<Vec<String>, Failure> {
        let file = std::fs::File::open(archive).map_err(|e| format!("{}: {e}", archive.display()))?;
        let output = Command::new("nsenter")
            .args(["-t", &self.init.pid.to_string(), "-m", "-n", "-p", "--"])
            .args(["ctr", "--namespace", "k8s.io", "images", "import", "-"])
            .stdin(Stdio::from(file))
            .output()
            .map_err(|e| format!("running nsenter: {e}"))?;
        if !output.status.success() {
            return Err(format!("ctr: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text
            .lines()
            .filter_map(|line| line.strip_prefix("unpacking ")?.split_whitespace().next())
            .map(Into::into)
            .collect())
    }
}
