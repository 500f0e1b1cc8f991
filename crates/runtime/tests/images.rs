//! Images: archives over the socket, pulls from a registry that the test itself serves on loopback, names, removal.

mod registry;
mod world;

use keelson_cri::v1::*;
use keelson_testbed::image::{Compression, Image as TestImage, Layer, busybox};
use registry::Registry;
use tokio::net::TcpListener;
use world::World;

fn app(name: &str, text: &str) -> TestImage {
    busybox(name)
        .unwrap()
        .layer(Layer::new().file("etc/app", 0o644, text).file("bin/.wh.vi", 0o644, ""))
        .env(&["APP=1", "PATH=/bin"])
}

async fn images(world: &mut World) -> Vec<Image> {
    world.clients.image.list_images(ListImagesRequest::default()).await.unwrap().into_inner().images
}

async fn pull(world: &mut World, name: &str, auth: Option<AuthConfig>) -> Result<String, tonic::Status> {
    let image = Some(ImageSpec { image: name.into(), ..Default::default() });
    let request = PullImageRequest { image, auth, sandbox_config: None };
    Ok(world.clients.image.pull_image(request).await?.into_inner().image_ref)
}

#[tokio::test]
async fn archives_are_loaded_and_removed() {
    let mut world = World::new().await;
    let socket = world.dir.path().join("runtime.sock");
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    app("a.test/layout:1", "one").write_layout(&layout).unwrap();
    let archive = dir.path().join("oci.tar");
    app("a.test/archive:1", "two").compression(Compression::None).write_archive(&archive).unwrap();
    let docker = dir.path().join("docker.tar");
    let saved = app("a.test/docker:1", "three").write_docker_archive(&docker).unwrap();
    for (source, name) in [(&layout, "a.test/layout:1"), (&archive, "a.test/archive:1"), (&docker, "a.test/docker:1")] {
        let names = keelson_runtime::client::import_images(&socket, source).await.unwrap();
        assert_eq!(names, [name]);
    }
    let error =
        keelson_runtime::client::import_images(&socket, std::path::Path::new("/bin/busybox")).await.unwrap_err();
    assert!(error.to_string().contains("not an image archive"), "{error}");
    assert!(keelson_runtime::client::import_images(&socket, &dir.path().join("none")).await.is_err());
    assert_eq!(images(&mut world).await.len(), 3);

    let pod = world.pod("app");
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "cat /etc/app; echo $APP; ls /bin/vi || echo no vi");
    config.image = Some(ImageSpec { image: "a.test/docker:1".into(), ..Default::default() });
    let id = world.run(&sandbox, &pod, config).await;
    world.ended(&id).await;
    let lines = world.container_log("main.log");
    for line in ["stdout P three", "stdout F three1", "stdout F no vi"] {
        let expected = line != "stdout P three";
        assert_eq!(lines.iter().any(|found| found == line), expected, "{lines:?}");
    }
    assert_eq!(world.status(&id).await.image_id, saved.config);

    for name in ["a.test/layout:1", "a.test/archive:1", "a.test/docker:1", "a.test/docker:1"] {
        let image = Some(ImageSpec { image: name.into(), ..Default::default() });
        world.clients.image.remove_image(RemoveImageRequest { image }).await.unwrap();
    }
    assert!(images(&mut world).await.is_empty());
    // The container still stands on its layers; only they are left.
    let store = world.dir.path().join("root/images");
    assert_eq!(std::fs::read_dir(store.join("layers")).unwrap().count(), 2);
    assert_eq!(std::fs::read_dir(store.join("blobs/sha256")).unwrap().count(), 0);
    world.finish().await;
}

fn alice() -> Option<AuthConfig> {
    Some(AuthConfig { username: "alice".into(), password: "secret".into(), ..Default::default() })
}

#[tokio::test]
async fn pulls_with_every_kind_of_authentication() {
    for auth in [None, Some("Basic"), Some("Bearer")] {
        let mut world = World::new().await;
        let (registry, host) = Registry::start(auth).await;
        let built = app("x:1", "pulled").build().unwrap();
        registry.push("1", &built);
        let name = format!("{host}/team/app:1");
        if auth.is_some() {
            let error = pull(&mut world, &name, None).await.unwrap_err();
            assert!(
                error.message().contains("authoriz") && error.message().contains("failed to resolve reference"),
                "{error}"
            );
            let wrong = Some(AuthConfig { username: "alice".into(), password: "wrong".into(), ..Default::default() });
            assert!(pull(&mut world, &name, wrong).await.is_err());
        }
        assert_eq!(pull(&mut world, &name, alice()).await.unwrap(), built.config);
        let image = images(&mut world).await.remove(0);
        assert_eq!(image.repo_tags, std::slice::from_ref(&name));
        assert_eq!(image.repo_digests, [format!("{host}/team/app@{}", built.manifest)]);
        // Again: only the manifest is asked for.
        registry.requests.lock().unwrap().clear();
        pull(&mut world, &name, alice()).await.unwrap();
        assert!(registry.requests.lock().unwrap().iter().all(|request| !request.contains("/storage/")));
        let by_digest = format!("{host}/team/app@{}", built.manifest);
        assert_eq!(pull(&mut world, &by_digest, alice()).await.unwrap(), built.config);
        world.finish().await;
    }
}

#[tokio::test]
async fn failed_pulls_say_what_the_registry_said() {
    let mut world = World::new().await;
    let (registry, host) = Registry::start(None).await;
    let name = format!("{host}/team/app:none");
    let error = pull(&mut world, &name, None).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::NotFound);
    assert_eq!(
        error.message(),
        format!(
            "failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": {name}: not found: \
             manifest unknown to this registry"
        )
    );
    // A blob that is not what its digest says.
    let built = app("x:1", "corrupt").build().unwrap();
    registry.push("1", &built);
    let layer =
        built.blobs.keys().find(|digest| **digest != built.manifest && **digest != built.config).unwrap().clone();
    registry.blobs.lock().unwrap().get_mut(&layer).unwrap()[20] ^= 1;
    let error = pull(&mut world, &format!("{host}/team/app:1"), None).await.unwrap_err();
    assert!(error.message().contains("unexpected content"), "{error}");
    assert!(images(&mut world).await.is_empty());
    // Nobody listens.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = pull(&mut world, &format!("{free}/a:1"), None).await.unwrap_err();
    assert!(error.message().contains("failed to do request") && error.message().contains("refused"), "{error}");
    for (name, code) in [
        ("UPPER", tonic::Code::InvalidArgument),
        ("short", tonic::Code::NotFound),
        ("keelson.local/nope", tonic::Code::NotFound),
    ] {
        assert_eq!(pull(&mut world, name, None).await.unwrap_err().code(), code, "{name}");
    }
    world.finish().await;
}

#[tokio::test]
async fn hello_is_always_there() {
    let mut world = World::new().await;
    let image = Some(ImageSpec { image: "keelson.local/hello:2.0".into(), ..Default::default() });
    let request = ImageStatusRequest { image: image.clone(), verbose: true };
    let status = world.clients.image.image_status(request).await.unwrap().into_inner();
    assert!(status.info["info"].contains("VERSION=2.0") && status.info["info"].contains("hello"), "{:?}", status.info);
    let id = status.image.unwrap().id;
    assert_eq!(pull(&mut world, "keelson.local/hello:2.0", None).await.unwrap(), id);
    assert_ne!(pull(&mut world, "keelson.local/hello", None).await.unwrap(), id);
    // Its binary is this runtime's own, and it starts: without a command it only knows how to be used.
    let pod = world.pod("hello");
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "");
    (config.image, config.command) = (image, Vec::new());
    let container = world.run(&sandbox, &pod, config).await;
    assert_eq!(world.ended(&container).await.exit_code, 2);
    world.logged("main.log", "stderr F usage: keelson-runtime serve DIR").await;
    world.finish().await;
}

#[tokio::test]
async fn images_survive_a_restart() {
    let mut world = World::new().await;
    let before = pull(&mut world, world::BUSYBOX, None).await.unwrap();
    world.kill_server();
    std::fs::write(world.dir.path().join("root/images/tmp/half"), "rubbish").unwrap();
    world.start().await;
    assert_eq!(images(&mut world).await[0].id, before);
    assert!(!world.dir.path().join("root/images/tmp/half").exists());
    let usage = world.clients.image.image_fs_info(ImageFsInfoRequest {}).await.unwrap().into_inner();
    assert!(usage.image_filesystems[0].used_bytes.unwrap().value > 1 << 20);
    world.finish().await;
}

#[tokio::test]
async fn pinned_images_are_told() {
    let mut world = World::new().await;
    let pinned = async |world: &mut World| {
        let image = Some(ImageSpec { image: "keelson.local/hello".into(), ..Default::default() });
        let request = ImageStatusRequest { image, verbose: false };
        let status = world.clients.image.image_status(request).await.unwrap().into_inner();
        let listed = images(world).await;
        let hello = listed.iter().find(|image| image.repo_tags.iter().any(|tag| tag.contains("/hello"))).unwrap();
        assert_eq!(status.image.unwrap().pinned, hello.pinned);
        hello.pinned
    };
    assert!(!pinned(&mut world).await);
    std::fs::write(world.dir.path().join("runtime.toml"), "pinned_images = ['keelson.local/h*']\n").unwrap();
    world.kill_server();
    world.start().await;
    assert!(pinned(&mut world).await);
    world.finish().await;
}
