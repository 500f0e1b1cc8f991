//! Images made to do harm, and registries that fail, by way of a registry on loopback. Whatever an image holds, the pull ends,
//! nothing outside its layers changes, and the next pull works.

mod registry;
mod world;

use std::{
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
};

use keelson_cri::v1::*;
use keelson_testbed::image::{Built, Compression, Image as TestImage, Layer, busybox};
use registry::Registry;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};
use world::World;

async fn pull(world: &mut World, name: &str) -> Result<String, tonic::Status> {
    let image = Some(ImageSpec { image: name.into(), ..Default::default() });
    let request = PullImageRequest { image, auth: None, sandbox_config: None };
    Ok(world.clients.image.pull_image(request).await?.into_inner().image_ref)
}

async fn images(world: &mut World) -> usize {
    world.clients.image.list_images(ListImagesRequest::default()).await.unwrap().into_inner().images.len()
}

/// An entry whose name and link are taken as they are.
fn raw(name: &str, kind: EntryType, link: &str, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o4755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_device_major(1).unwrap();
    header.set_device_minor(1).unwrap();
    header.set_cksum();
    header
}

fn image(layers: impl IntoIterator<Item = Layer>) -> TestImage {
    layers.into_iter().fold(busybox("x:1").unwrap(), TestImage::layer)
}

/// Everything below the runtime's directory but images, containers and logs.
fn outside(world: &World) -> Vec<(std::path::PathBuf, u64, i64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(world.dir.path()).unwrap().flatten() {
        let metadata = entry.metadata().unwrap();
        if metadata.is_file() && entry.file_name() != "log" {
            found.push((entry.path(), metadata.len(), metadata.mtime()));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn what_leaves_the_layer_is_refused_or_stays_inside() {
    let mut world = World::new().await;
    let (registry, host) = Registry::start(None).await;
    let victim = world.dir.path().join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    let before = outside(&world);
    let up = "../../../../../../../..";
    let absolute = victim.to_str().unwrap();
    let climbing = format!("{up}{absolute}");
    let evil = |name: &str| Layer::new().raw(raw(name, EntryType::Regular, "", 4), "evil");
    let link = |target: &str, then: &str| {
        Layer::new().raw(raw("l", EntryType::Symlink, target, 0), "").raw(raw(then, EntryType::Regular, "", 4), "evil")
    };
    let cases: Vec<(&str, Layer, Option<&str>)> = vec![
        ("climbs", evil(&climbing), Some("leaves the layer")),
        ("climbs-late", evil("a/../../../x"), Some("leaves the layer")),
        ("absolute", evil(absolute), None),
        ("through-link", link(world.dir.path().to_str().unwrap(), "l/victim"), None),
        ("through-climbing-link", link(up, "l/victim"), None),
        ("dangling", link("/no/such/place", "l/victim"), None),
        ("loop", link("l", "l/victim"), Some("")),
        ("over-link", link(absolute, "l"), None),
        ("hard-link", Layer::new().raw(raw("h", EntryType::Link, &climbing, 0), ""), Some("leaves the layer")),
        ("hard-link-out", Layer::new().raw(raw("h", EntryType::Link, absolute, 0), ""), Some("")),
        ("whiteout", Layer::new().raw(raw(".wh...", EntryType::Regular, "", 0), ""), Some("whiteout")),
        ("whiteout-through-link", link(world.dir.path().to_str().unwrap(), "l/.wh.victim"), None),
        ("opaque-through-link", link(world.dir.path().to_str().unwrap(), "l/.wh..wh..opq"), None),
        (
            "root-is-a-file",
            Layer::new().raw(raw("./", EntryType::Regular, "", 0), ""),
            Some("the root is not a directory"),
        ),
        ("no-such-kind", Layer::new().raw(raw("x", EntryType::new(b'Q'), "", 0), ""), Some("")),
    ];
    for (tag, layer, refused) in cases {
        registry.push(tag, &image([layer]).build().unwrap());
        let outcome = pull(&mut world, &format!("{host}/team/app:{tag}")).await;
        match (outcome, refused) {
            (Ok(_), None) => {}
            (Err(status), Some(words)) => assert!(status.message().contains(words), "{tag}: {status}"),
            (outcome, _) => panic!("{tag}: {outcome:?}"),
        }
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched", "{tag}");
        assert_eq!(outside(&world), before, "{tag}");
    }
    world.finish().await;
}

#[tokio::test]
async fn devices_and_set_id_bits_gain_nothing() {
    let mut world = World::new().await;
    let (registry, host) = Registry::start(None).await;
    let layer = Layer::new()
        .raw(raw("dev-mem", EntryType::Char, "", 0), "")
        .raw(raw("dev-ram", EntryType::Block, "", 0), "")
        .raw(raw("fifo", EntryType::Fifo, "", 0), "")
        .file("bin/id-of-root", 0o4755, "");
    registry.push("1", &image([layer]).build().unwrap());
    let name = format!("{host}/team/app:1");
    pull(&mut world, &name).await.unwrap();
    let pod = world.pod("devices");
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "sleep 1000");
    config.image.as_mut().unwrap().image = name;
    config.linux.as_mut().unwrap().security_context = Some(LinuxContainerSecurityContext {
        run_as_user: Some(Int64Value { value: 1000 }),
        no_new_privs: true,
        ..Default::default()
    });
    let id = world.run(&sandbox, &pod, config).await;
    for device in ["/dev-mem", "/dev-ram"] {
        let path = format!("/proc/{}/root{device}", pid(&mut world, &id).await);
        assert!(std::fs::metadata(path).unwrap().file_type().is_char_device() == (device == "/dev-mem"));
        let refused = world.exec(&id, &["dd", &format!("if={device}"), "bs=1", "count=1"]).await.unwrap();
        let words = String::from_utf8_lossy(&refused.stderr);
        assert!(words.contains("Operation not permitted"), "{device}: {words}");
    }
    let file = format!("/proc/{}/root/bin/id-of-root", pid(&mut world, &id).await);
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o4755);
    assert_eq!(world.sh(&id, "grep NoNewPrivs: /proc/self/status").await, "NoNewPrivs:\t1");
    world.finish().await;
}

async fn pid(world: &mut World, id: &str) -> i64 {
    let request = ContainerStatusRequest { container_id: id.into(), verbose: true };
    let info = world.clients.runtime.container_status(request).await.unwrap().into_inner().info;
    serde_json::from_str::<serde_json::Value>(&info["info"]).unwrap()["pid"].as_i64().unwrap()
}

#[tokio::test]
async fn opaque_directories_and_whiteouts_hide_and_no_more() {
    let mut world = World::new().await;
    let (registry, host) = Registry::start(None).await;
    let below = Layer::new().file("d/old", 0o644, "old").file("e/old", 0o644, "old").file("f", 0o644, "f");
    let above = Layer::new()
        .file("d/new", 0o644, "new")
        .file("d/.wh..wh..opq", 0o644, "")
        .file("e/.wh.old", 0o644, "")
        .file(".wh.f", 0o644, "")
        .file("f/now-a-directory", 0o644, "")
        .file("g/.wh.never-there", 0o644, "");
    registry.push("1", &image([below, above]).build().unwrap());
    let name = format!("{host}/team/app:1");
    pull(&mut world, &name).await.unwrap();
    let pod = world.pod("hidden");
    let sandbox = world.run_pod(&pod).await;
    let mut config = world.shell("main", "ls -a /d /e /f | grep -v '^[.]*$'; cat /g/never-there || echo absent");
    config.image.as_mut().unwrap().image = name;
    let id = world.run(&sandbox, &pod, config).await;
    world.ended(&id).await;
    let log = world.container_log("main.log");
    let lines: Vec<_> = log.iter().filter_map(|line| line.strip_prefix("stdout F ")).collect();
    assert_eq!(lines, ["/d:", "new", "/e:", "/f:", "now-a-directory", "absent"]);
    world.finish().await;
}

/// A layer that is a stream of bytes, whatever they are.
fn crafted(plain: &[u8]) -> Built {
    let digest = |bytes: &[u8]| {
        let hash = Sha256::digest(bytes);
        format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    let layer = zstd::encode_all(plain, 1).unwrap();
    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(plain)]}})
    .to_string();
    let descriptor = |bytes: &[u8]| serde_json::json!({"digest": digest(bytes), "size": bytes.len()});
    let manifest = serde_json::json!({"schemaVersion": 2, "config": descriptor(config.as_bytes()), "layers": [descriptor(&layer)]});
    let manifest = manifest.to_string().into_bytes();
    let mut built = busybox("x:1").unwrap().build().unwrap();
    (built.manifest, built.config) = (digest(&manifest), digest(config.as_bytes()));
    built.blobs =
        [(digest(&manifest), manifest), (digest(config.as_bytes()), config.into_bytes()), (digest(&layer), layer)]
            .into();
    built
}

fn peak_memory_kib(world: &World) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.server_pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

#[tokio::test]
async fn bombs_cost_little() {
    let mut world = World::new().await;
    let (registry, host) = Registry::start(None).await;
    // A small layer first: what a pull takes anyway.
    registry.push("small", &image([]).build().unwrap());
    pull(&mut world, &format!("{host}/team/app:small")).await.unwrap();
    let memory = peak_memory_kib(&world);
    const BOMB: usize = 48 << 20;
    let long = |kind: EntryType| {
        let mut bytes = raw("././@LongLink", kind, "", BOMB as u64).as_bytes().to_vec();
        bytes.resize(512 + BOMB, b'a');
        bytes.extend_from_slice(raw("x", EntryType::Regular, "", 0).as_bytes());
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    };
    for (tag, kind) in [
        ("long-name", EntryType::GNULongName),
        ("long-link", EntryType::GNULongLink),
        ("pax", EntryType::XHeader),
        ("pax-global", EntryType::XGlobalHeader),
    ] {
        registry.push(tag, &crafted(&long(kind)));
        let error = pull(&mut world, &format!("{host}/team/app:{tag}")).await.unwrap_err();
        assert!(error.message().contains("an entry's name or records have"), "{tag}: {error}");
    }
    // Nothing, and much of it, is a hole.
    let mut zeros = raw("zeros", EntryType::Regular, "", BOMB as u64).as_bytes().to_vec();
    zeros.resize(512 + BOMB + 1024, 0);
    registry.push("zeros", &crafted(&zeros));
    pull(&mut world, &format!("{host}/team/app:zeros")).await.unwrap();
    let found = find(&world.dir.path().join("root/images/layers"), "zeros").expect("the file is unpacked");
    let metadata = std::fs::metadata(&found).unwrap();
    assert!(metadata.len() == BOMB as u64 && metadata.blocks() * 512 < 1 << 20, "{metadata:?}");
    // More than a layer may have, by its own word, before a byte of it is there.
    let mut huge = raw("huge", EntryType::Regular, "", 1 << 40).as_bytes().to_vec();
    huge.resize(64 << 10, 0);
    registry.push("huge", &crafted(&huge));
    let error = pull(&mut world, &format!("{host}/team/app:huge")).await.unwrap_err();
    assert!(error.message().contains("the layer is too large"), "{error}");
    // Names as deep as they may be, deeper by a link, and gone again.
    let deep = "d/".repeat(48);
    let mut layer = Layer::new();
    for level in 0..20 {
        let prefix = if level == 0 { String::new() } else { format!("l{}/", level - 1) };
        let target = format!("/{prefix}{deep}");
        layer = layer
            .dir(&format!("{prefix}{deep}"), 0o755)
            .raw(raw(&format!("l{level}"), EntryType::Symlink, &target[..target.len() - 1], 0), "");
    }
    registry.push("deep", &image([layer]).build().unwrap());
    let name = format!("{host}/team/app:deep");
    pull(&mut world, &name).await.unwrap();
    let spec = Some(ImageSpec { image: name, ..Default::default() });
    world.clients.image.remove_image(RemoveImageRequest { image: spec }).await.unwrap();
    let layers = std::fs::read_dir(world.dir.path().join("root/images/layers")).unwrap().count();
    assert_eq!(layers, 2, "the deep layer is gone; busybox's and the zeros' stay");
    let grown = peak_memory_kib(&world).saturating_sub(memory);
    assert!(grown < 24 << 10, "the bombs took {grown} KiB");
    world.finish().await;
}

fn find(dir: &Path, name: &str) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    entries.map(|entry| entry.path().join(name)).find(|path| path.exists())
}

#[tokio::test]
async fn wrong_sizes_and_digests_are_noticed() {
    let mut world = World::new().await;
    let (registry, host) = Registry::start(None).await;
    let built = image([]).build().unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&built.blobs[&built.manifest]).unwrap();
    for (tag, size, words) in [("short", -1i64, "is longer than its"), ("long", 1, "failed size validation")] {
        let mut manifest = manifest.clone();
        let own = manifest["layers"][0]["size"].as_i64().unwrap();
        manifest["layers"][0]["size"] = (own + size).into();
        let bytes = manifest.to_string().into_bytes();
        let digest =
            format!("sha256:{}", Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect::<String>());
        registry.push(tag, &built);
        registry.blobs.lock().unwrap().insert(digest.clone(), bytes);
        registry.tags.lock().unwrap().insert(tag.into(), digest);
        let error = pull(&mut world, &format!("{host}/team/app:{tag}")).await.unwrap_err();
        assert!(error.message().contains(words), "{tag}: {error}");
    }
    assert_eq!(images(&mut world).await, 0);
    registry.push("right", &built);
    pull(&mut world, &format!("{host}/team/app:right")).await.unwrap();
    world.finish().await;
}

#[tokio::test]
async fn broken_downloads_go_on_where_they_broke() {
    let mut world = World::new().await;
    let (registry, host) = Registry::start(None).await;
    let built = image([]).build().unwrap();
    registry.push("1", &built);
    let name = format!("{host}/team/app:1");
    // The first blob to be fetched may be the small one, which does not break so late.
    *registry.breaks.lock().unwrap() = vec![100_000, 100_000, 100_000];
    pull(&mut world, &name).await.unwrap();
    let resumed = registry.seen("bytes=");
    assert!(!resumed.is_empty() && resumed.iter().all(|request| request.contains("bytes=")), "{resumed:?}");
    assert!(std::fs::read_dir(world.dir.path().join("root/images/partial")).unwrap().next().is_none());
    world.finish().await;
}

#[tokio::test]
async fn one_layer_is_fetched_once_by_many_pulls() {
    let mut world = World::new().await;
    let (registry, host) = Registry::start(None).await;
    let mut pulls = Vec::new();
    for index in 0..6 {
        let own = Layer::new().file("own", 0o644, index.to_string());
        registry.push(&index.to_string(), &image([own]).build().unwrap());
    }
    for index in 0..6 {
        let (mut client, name) = (world.clients.image.clone(), format!("{host}/team/app:{index}"));
        pulls.push(tokio::spawn(async move {
            let image = Some(ImageSpec { image: name, ..Default::default() });
            client.pull_image(PullImageRequest { image, auth: None, sandbox_config: None }).await
        }));
    }
    for pull in pulls {
        pull.await.unwrap().unwrap();
    }
    assert_eq!(images(&mut world).await, 6);
    let mut fetched = registry.seen("/storage/");
    let all = fetched.len();
    fetched.sort();
    fetched.dedup();
    assert_eq!((fetched.len(), all), (1 + 6 * 2, 1 + 6 * 2), "busybox's layer, six layers, six configurations");
    world.finish().await;
}

#[tokio::test]
async fn mirrors_are_tried_in_order() {
    let mut world = World::new().await;
    let (own, registry) = Registry::start(None).await;
    let (down, first) = Registry::start(None).await;
    let (mirror, second) = Registry::start(None).await;
    *down.down.lock().unwrap() = Some(http::StatusCode::BAD_GATEWAY);
    let built = image([]).build().unwrap();
    mirror.push("1", &built);
    own.push("2", &built);
    let dir = world.dir.path().join("certs.d").join(registry.replace(':', "_") + "_");
    std::fs::create_dir_all(&dir).unwrap();
    let hosts = format!(
        "[host.'http://{first}']\n[host.'http://{second}']\ncapabilities = ['pull', 'resolve']\n[host.'http://{second}'.header]\nx-test = 'yes'\n"
    );
    std::fs::write(dir.join("hosts.toml"), hosts).unwrap();
    let name = format!("{registry}/team/app:1");
    pull(&mut world, &name).await.unwrap();
    assert!(!down.seen("manifests/1").is_empty() && own.seen("").is_empty());
    assert!(
        mirror.seen("manifests/1")[0].contains(&format!("ns={}", registry.replace(':', "%3A"))),
        "{:?}",
        mirror.seen("")
    );
    let list = world.clients.image.list_images(ListImagesRequest::default()).await.unwrap().into_inner().images;
    assert_eq!(list[0].repo_tags, [name]);
    // What no mirror has comes from the registry itself.
    pull(&mut world, &format!("{registry}/team/app:2")).await.unwrap();
    assert!(!own.seen("manifests/2").is_empty());
    std::fs::write(dir.join("hosts.toml"), "[host.'http://x.test']\nspeed = 'high'\n").unwrap();
    let error = pull(&mut world, &format!("{registry}/team/app:3")).await.unwrap_err();
    assert!(error.message().contains("hosts.toml") && error.message().contains("speed"), "{error}");
    world.finish().await;
}

#[tokio::test]
async fn a_full_disk_is_told_and_gets_over() {
    let mut world = World::new().await;
    let (registry, host) = Registry::start(None).await;
    // The store on a file system of its own, with room for busybox and not for the other.
    world.kill_server();
    let store = world.dir.path().join("root/images");
    mount("store", &store, "tmpfs", MountFlags::empty(), c"size=16m").unwrap();
    world.start().await;
    registry.push("small", &image([]).build().unwrap());
    let noise: Vec<u8> = (0..24u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    registry.push(
        "large",
        &image([Layer::new().file("noise", 0o644, noise)]).compression(Compression::None).build().unwrap(),
    );
    let free = || rustix::fs::statvfs(&store).unwrap().f_bavail;
    pull(&mut world, &format!("{host}/team/app:small")).await.unwrap();
    let before = free();
    let error = pull(&mut world, &format!("{host}/team/app:large")).await.unwrap_err();
    assert!(error.message().contains("No space left on device"), "{error}");
    assert_eq!(images(&mut world).await, 1);
    assert!(free() + 64 >= before, "{} of {before} blocks are free again", free());
    // With room, the same pull works, with nobody's help.
    rustix::mount::mount_remount(&store, MountFlags::empty(), c"size=96m").unwrap();
    pull(&mut world, &format!("{host}/team/app:large")).await.unwrap();
    let pods = world.clients.runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await.unwrap().into_inner();
    assert_eq!(pods.items, []);
    world.kill_server();
    unmount(&store, UnmountFlags::DETACH).unwrap();
}

#[tokio::test]
async fn an_index_of_indexes_yields_this_machine() {
    let mut world = World::new().await;
    let (registry, host) = Registry::start(None).await;
    let built = image([]).build().unwrap();
    registry.push("plain", &built);
    let put = |document: serde_json::Value| {
        let bytes = document.to_string().into_bytes();
        let digest =
            format!("sha256:{}", Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect::<String>());
        let size = bytes.len();
        registry.blobs.lock().unwrap().insert(digest.clone(), bytes);
        (digest, size)
    };
    let entry = |digest: &str, size: usize, architecture: &str| {
        serde_json::json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
            "platform": {"os": "linux", "architecture": architecture}})
    };
    let own = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let manifest = built.blobs[&built.manifest].len();
    let none = format!("sha256:{}", "0".repeat(64));
    let inner = serde_json::json!({"schemaVersion": 2, "manifests": [entry(&none, 1, "s390x"), entry(&built.manifest, manifest, own)]});
    let (inner, size) = put(inner);
    let (outer, _) = put(serde_json::json!({"schemaVersion": 2, "manifests": [{"digest": inner, "size": size}]}));
    registry.tags.lock().unwrap().insert("index".into(), outer.clone());
    assert_eq!(pull(&mut world, &format!("{host}/team/app:index")).await.unwrap(), built.config);
    let list = world.clients.image.list_images(ListImagesRequest::default()).await.unwrap().into_inner().images;
    assert_eq!(list[0].repo_digests, [format!("{host}/team/app@{outer}")]);
    let (foreign, _) = put(serde_json::json!({"schemaVersion": 2, "manifests": [entry(&none, 1, "s390x")]}));
    registry.tags.lock().unwrap().insert("foreign".into(), foreign);
    let error = pull(&mut world, &format!("{host}/team/app:foreign")).await.unwrap_err();
    assert!(error.message().contains("no match for platform"), "{error}");
    // One that contains itself by way of another cannot be made; one that nests too deeply is not followed for ever.
    let mut digest = inner;
    for _ in 0..8 {
        digest = put(serde_json::json!({"schemaVersion": 2, "manifests": [{"digest": digest, "size": 1}]})).0;
    }
    registry.tags.lock().unwrap().insert("deep".into(), digest);
    assert!(pull(&mut world, &format!("{host}/team/app:deep")).await.is_err());
    world.finish().await;
}
