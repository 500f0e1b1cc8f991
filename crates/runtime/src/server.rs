//! Composition of the runtime: recovers what a previous process left, then serves CRI on the socket.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use keelson_cri::{
    MAX_MESSAGE_SIZE_BYTES,
    v1::{image_service_server::ImageServiceServer, runtime_service_server::RuntimeServiceServer},
};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;

use crate::{Config, Error, core::Core, image::Store, mounts, recovery, service};

/// Serves CRI v1 on `config.socket` until `shutdown`. Containers go on running afterwards, under their shims.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    for dir in ["sandboxes", "containers", "images"].map(|dir| config.root.join(dir)) {
        std::fs::create_dir_all(&dir).map_err(Error::io("make", &dir))?;
    }
    let sandboxes = config.state.join("sandboxes");
    std::fs::create_dir_all(&sandboxes).map_err(Error::io("make", &sandboxes))?;
    protect(&config.root, 0o700)?;
    // What is in there is root's too, but containers of user namespaces are to find their own way in, by names that
    // nobody can guess.
    for dir in [&config.state, &sandboxes] {
        protect(dir, 0o711)?;
    }
    let listener = listen(&config.socket).await?;
    let images = Arc::new(Store::open(&config.root.join("images"), config.default_registry.clone())?);
    let shim_exe = protected_exe(&config);
    let core = Arc::new(Core::new(config, images, shim_exe, shutdown.clone()));
    recovery::recover(&core).await?;
    crate::streaming::start(&core).await?;
    core.images.reclaim(|| core.layers_in_use(), false);
    let runtime = RuntimeServiceServer::new(service::runtime::Service(core.clone()))
        .max_decoding_message_size(MAX_MESSAGE_SIZE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_SIZE_BYTES);
    let image = ImageServiceServer::new(service::image::Service(core.clone()))
        .max_decoding_message_size(MAX_MESSAGE_SIZE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_SIZE_BYTES);
    tonic::transport::Server::builder()
        .add_service(runtime)
        .add_service(image)
        .add_service(service::loading::Service(core))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown.cancelled_owned())
        .await
        .map_err(|error| Error::Other(format!("serve CRI: {error}")))
}

fn protect(dir: &Path, mode: u32) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).map_err(Error::io("protect", dir))
}

/// The shim's binary on a read-only mount of its own, so that a container that gets hold of the file (through `/proc` of a
/// process just being started in it) cannot write to it (CVE-2019-5736). Without the mount, the binary itself.
fn protected_exe(config: &Config) -> PathBuf {
    use rustix::mount::{MountFlags, mount_bind, mount_remount};
    let target = config.state.join("keelson");
    let protect = || {
        mounts::unmount_all(&target);
        std::fs::File::create(&target)?;
        mount_bind(&config.exe, &target)?;
        std::io::Result::Ok(mount_remount(&target, MountFlags::BIND | MountFlags::RDONLY, c"")?)
    };
    match protect() {
        Ok(()) => target,
        Err(error) => {
            tracing::warn!(%error, target = %target.display(), "the shim's binary could not be mounted read-only");
            mounts::unmount_all(&target);
            config.exe.clone()
        }
    }
}

/// Binds the socket, in place of one that nobody serves any more.
async fn listen(socket: &Path) -> Result<UnixListener, Error> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(parent) = socket.parent() {
        std::fs::create_dir_all(parent).map_err(Error::io("make", parent))?;
    }
    if UnixStream::connect(socket).await.is_ok() {
        return Err(Error::Precondition(format!("another runtime serves {} already", socket.display())));
    }
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).map_err(Error::io("listen on", socket))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).map_err(Error::io("protect", socket))?;
    Ok(listener)
}
