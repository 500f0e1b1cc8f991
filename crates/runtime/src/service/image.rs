//! CRI's ImageService.

use std::sync::Arc;

use keelson_cri::v1::{Image as CriImage, image_service_server::ImageService, *};
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status};

use super::detached;
use crate::{
    Error, LOCAL_IMAGE_DOMAIN,
    core::{Core, now_ns},
    disk::disk_usage,
    handlers,
    image::{Image, builtin, registry},
};

type Answer<T> = Result<Response<T>, Status>;

pub(crate) struct Service(pub(crate) Arc<Core>);

impl Service {
    /// The image called `name`, made if it is one of the runtime's own.
    async fn find(&self, name: &str) -> Option<Arc<Image>> {
        if let Some(image) = self.0.images.find(name) {
            return Some(image);
        }
        let reference = self.0.images.reference(name).ok().filter(|name| name.registry == LOCAL_IMAGE_DOMAIN)?;
        let core = self.0.clone();
        spawn_blocking(move || builtin::provide(&core.images, &core.config, &reference)).await.ok()?.ok()
    }

    fn describe(&self, image: &Image) -> CriImage {
        let (user, uid) = match image.config.user.split(':').next().unwrap_or_default() {
            "" => (String::new(), None),
            user => match user.parse() {
                Ok(value) => (String::new(), Some(Int64Value { value })),
                Err(_) => (user.to_owned(), None),
            },
        };
        CriImage {
            id: image.id.clone(),
            repo_tags: image.names.iter().cloned().collect(),
            repo_digests: image.digests.iter().cloned().collect(),
            size: image.size_bytes,
            uid,
            username: user,
            spec: None,
            pinned: handlers::is_pinned(&self.0.config.pinned_images, image.names.iter().chain(&image.digests)),
        }
    }
}

#[tonic::async_trait]
impl ImageService for Service {
    async fn list_images(&self, request: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        let name = request.into_inner().filter.and_then(|filter| filter.image).map(|image| image.image);
        let images = match name.filter(|name| !name.is_empty()) {
            Some(name) => self.find(&name).await.into_iter().collect(),
            None => self.0.images.list(),
        };
        Ok(Response::new(ListImagesResponse { images: images.iter().map(|image| self.describe(image)).collect() }))
    }

    async fn image_status(&self, request: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        let request = request.into_inner();
        let name = request.image.map(|image| image.image).unwrap_or_default();
        let image = self.find(&name).await;
        let mut info = std::collections::HashMap::new();
        if let Some(image) = image.as_ref().filter(|_| request.verbose) {
            info.insert("info".into(), serde_json::to_string(image.as_ref()).unwrap_or_default());
        }
        Ok(Response::new(ImageStatusResponse { image: image.as_deref().map(|image| self.describe(image)), info }))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let request = request.into_inner();
        let name = request.image.map(|image| image.image).unwrap_or_default();
        let core = self.0.clone();
        let image = detached(async move {
            let reference = core.images.reference(&name)?;
            if reference.registry == LOCAL_IMAGE_DOMAIN {
                let provide = move || builtin::provide(&core.images, &core.config, &reference);
                return spawn_blocking(provide).await.map_err(|error| Error::Other(error.to_string()))?;
            }
            registry::pull(&core, &reference, request.auth.unwrap_or_default()).await
        })
        .await?;
        Ok(Response::new(PullImageResponse { image_ref: image.id.clone() }))
    }

    async fn remove_image(&self, request: Request<RemoveImageRequest>) -> Answer<RemoveImageResponse> {
        let name = request.into_inner().image.map(|image| image.image).unwrap_or_default();
        let core = self.0.clone();
        detached(async move {
            let remove = spawn_blocking(move || core.images.remove(&name, || core.layers_in_use()));
            remove.await.map_err(|error| Error::Other(error.to_string()))?
        })
        .await?;
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Answer<ImageFsInfoResponse> {
        let (images, containers) = (self.0.images.root().to_owned(), self.0.config.root.join("containers"));
        let usage = spawn_blocking(move || (usage(&images), usage(&containers)));
        let (images, containers) = usage.await.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![images],
            container_filesystems: vec![containers],
        }))
    }
}

/// Space and inodes used below `dir`.
fn usage(dir: &std::path::Path) -> FilesystemUsage {
    let (bytes, inodes) = disk_usage(dir);
    FilesystemUsage {
        timestamp: now_ns(),
        fs_id: Some(FilesystemIdentifier { mountpoint: dir.to_string_lossy().into_owned() }),
        used_bytes: Some(UInt64Value { value: bytes }),
        inodes_used: Some(UInt64Value { value: inodes }),
    }
}
