//! Images: list, pull, inspect, remove, and the file systems they are on.

use std::{collections::BTreeSet, time::Duration};

use clap::Args;
use keelson_cri::v1::*;
use serde_json::json;

use crate::{Error, Out, Runtime, format};

const NONE: &str = "<none>";

/// `crictl images`
#[derive(Args, Debug)]
pub(crate) struct List {
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
    /// Show verbose info for images
    #[arg(long, short)]
    verbose: bool,
    /// Only show image IDs
    #[arg(long, short)]
    quiet: bool,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    output: format::Output,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Show output without truncating the ID
    #[arg(long)]
    no_trunc: bool,
    /// Show whether the image is pinned or not
    #[arg(long)]
    pinned: bool,
}

impl List {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        let images = list(&mut runtime, self.name.as_deref()).await?;
        if self.output != format::Output::Table {
            let images: Vec<_> = images.iter().map(format::message).collect();
            return format::document(out, &json!({"images": images}), self.output);
        }
        let mut columns = vec!["IMAGE", "TAG"];
        columns.extend(self.digests.then_some("DIGEST"));
        columns.extend(["IMAGE ID", "SIZE"]);
        columns.extend(self.pinned.then_some("PINNED"));
        let mut table = format::Table::new(&columns);
        for image in &images {
            if self.quiet {
                format::line(out, &image.id)?;
                continue;
            }
            if self.verbose {
                let mut text = format!("ID: {}\n", image.id);
                text.extend(image.repo_tags.iter().map(|tag| format!("RepoTags: {tag}\n")));
                text.extend(image.repo_digests.iter().map(|digest| format!("RepoDigests: {digest}\n")));
                if image.size != 0 {
                    text += &format!("Size: {}\n", image.size);
                }
                if let Some(uid) = &image.uid {
                    text += &format!("Uid: {}\n", uid.value);
                }
                if !image.username.is_empty() {
                    text += &format!("Username: {}\n", image.username);
                }
                if image.pinned {
                    text += "Pinned: true\n";
                }
                format::line(out, &text)?;
                continue;
            }
            let (name, digest) =
                image.repo_digests.first().and_then(|digest| digest.split_once('@')).unwrap_or((NONE, NONE));
            let tagged = image.repo_tags.iter().filter_map(|tag| tag.rsplit_once(':'));
            let mut pairs: Vec<_> = tagged.collect();
            if pairs.is_empty() {
                pairs.push((name, NONE));
            }
            for (name, tag) in pairs {
                let mut row = vec![name.to_owned(), tag.to_owned()];
                row.extend(self.digests.then(|| format::short_unless(self.no_trunc, digest)));
                row.push(format::short_unless(self.no_trunc, &image.id));
                row.push(format::human_size(image.size, 3));
                row.extend(self.pinned.then(|| image.pinned.to_string()));
                table.row(row);
            }
        }
        if self.quiet || self.verbose { Ok(()) } else { table.print(out) }
    }
}

async fn list(runtime: &mut Runtime, name: Option<&str>) -> Result<Vec<Image>, Error> {
    let image = name.map(|name| ImageSpec { image: name.into(), ..Default::default() });
    let request = runtime.ask(ListImagesRequest { filter: image.map(|image| ImageFilter { image: Some(image) }) });
    let answer = runtime.clients.image.list_images(request).await.map_err(Error::call("listing images"))?;
    let mut images = answer.into_inner().images;
    images.sort_by_cached_key(|image| {
        let name = image.repo_tags.first().or(image.repo_digests.first());
        name.unwrap_or(&image.id).clone()
    });
    Ok(images)
}

async fn status(runtime: &mut Runtime, name: &str, verbose: bool) -> Result<ImageStatusResponse, Error> {
    let image = Some(ImageSpec { image: name.into(), ..Default::default() });
    let request = runtime.ask(ImageStatusRequest { image, verbose });
    let answer = runtime.clients.image.image_status(request).await;
    Ok(answer.map_err(Error::call("image status request"))?.into_inner())
}

/// `crictl inspecti`
#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// Images; none for all
    #[arg(value_name = "IMAGE-ID")]
    ids: Vec<String>,
    /// Output format
    #[arg(long, short, value_parser = ["json", "yaml"], default_value = "json")]
    output: String,
    /// Do not show verbose information
    #[arg(long, short)]
    quiet: bool,
}

impl Inspect {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        let mut ids = self.ids;
        if ids.is_empty() {
            ids = list(&mut runtime, None).await?.into_iter().map(|image| image.id).collect();
        }
        let mut statuses = Vec::new();
        for id in ids {
            let answer = status(&mut runtime, &id, !self.quiet).await?;
            let image = answer.image.ok_or_else(|| Error::Words(format!("no such image {id:?} present")))?;
            statuses.push(format::status(format::message(&image), answer.info));
        }
        format::statuses(out, statuses, if self.output == "yaml" { format::Output::Yaml } else { format::Output::Json })
    }
}

/// `crictl pull`
#[derive(Args, Debug)]
pub(crate) struct Pull {
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,
    /// Use USERNAME[:PASSWORD] for accessing the registry
    #[arg(long, env = "CRICTL_CREDS", hide_env_values = true, conflicts_with = "auth")]
    creds: Option<String>,
    /// Use a base64 encoded USERNAME[:PASSWORD] for accessing the registry
    #[arg(long, env = "CRICTL_AUTH", hide_env_values = true)]
    auth: Option<String>,
    /// Annotation (key=value) to be set on the pulled image
    #[arg(long, short)]
    annotation: Vec<String>,
    /// Maximum time to be used for pulling the image, disabled if set to 0s
    #[arg(long, env = "CRICTL_PULL_TIMEOUT", value_parser = format::duration, default_value = "0s")]
    pull_timeout: Duration,
}

impl Pull {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        let creds = self.creds.map(|creds| {
            let (username, password) = creds.split_once(':').unwrap_or((&creds, ""));
            AuthConfig { username: username.into(), password: password.into(), ..Default::default() }
        });
        let auth = creds.or_else(|| self.auth.map(|auth| AuthConfig { auth, ..Default::default() }));
        let annotations = format::labels(&self.annotation)?;
        let image = Some(ImageSpec { image: self.name, annotations, ..Default::default() });
        let mut request = tonic::Request::new(PullImageRequest { image, auth, sandbox_config: None });
        if !self.pull_timeout.is_zero() {
            request.set_timeout(self.pull_timeout);
        }
        let answer = runtime.clients.image.pull_image(request).await.map_err(Error::call("pulling image"))?;
        format::line(out, &format!("Image is up to date for {}", answer.into_inner().image_ref))
    }
}

/// `crictl rmi`
#[derive(Args, Debug)]
pub(crate) struct Remove {
    #[arg(value_name = "IMAGE-ID", required_unless_present_any = ["all", "prune"])]
    ids: Vec<String>,
    /// Remove all images
    #[arg(long, short)]
    all: bool,
    /// Remove all unused images
    #[arg(long, short = 'q')]
    prune: bool,
}

impl Remove {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        let mut ids: BTreeSet<String> = self.ids.into_iter().collect();
        if self.all || self.prune {
            let images = list(&mut runtime, None).await?;
            ids.extend(images.into_iter().filter(|image| !(self.prune && image.pinned)).map(|image| image.id));
        }
        if self.prune {
            let request = runtime.ask(ListContainersRequest::default());
            let answer =
                runtime.clients.runtime.list_containers(request).await.map_err(Error::call("list containers"))?;
            for container in answer.into_inner().containers {
                let name = container.image.map(|image| image.image).unwrap_or_default();
                if let Some(image) = status(&mut runtime, &name, false).await?.image {
                    ids.remove(&image.id);
                }
            }
        }
        if ids.is_empty() {
            eprintln!("No images to remove");
        }
        for id in ids {
            let image = status(&mut runtime, &id, false).await?.image;
            let image = image.ok_or_else(|| Error::Words(format!("no such image {id}")))?;
            let request = RemoveImageRequest { image: Some(ImageSpec { image: id, ..Default::default() }) };
            match runtime.clients.image.remove_image(request).await.map_err(Error::call("removing image")) {
                // Somebody began to use it.
                Err(_) if self.prune => continue,
                removed => removed?,
            };
            let names = if image.repo_tags.is_empty() { image.repo_digests } else { image.repo_tags };
            for name in names {
                format::line(out, &format!("Deleted: {name}"))?;
            }
        }
        Ok(())
    }
}

/// `crictl imagefsinfo`
#[derive(Args, Debug)]
pub(crate) struct FsInfo {
    /// Output format
    #[arg(long, short, value_parser = ["json", "yaml"], default_value = "json")]
    output: String,
}

impl FsInfo {
    pub(crate) async fn run(self, mut runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        let request = runtime.ask(ImageFsInfoRequest {});
        let answer = runtime.clients.image.image_fs_info(request).await;
        let answer = answer.map_err(Error::call("image filesystem info request"))?.into_inner();
        let status = format::status(format::message(&answer), Default::default());
        format::document(out, &status, if self.output == "yaml" { format::Output::Yaml } else { format::Output::Json })
    }
}
