//! An image of many layers, pulled and unpacked from a registry on loopback: by our runtime and by containerd.

use std::convert::Infallible;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use keelson_cri::v1 as cri;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::super::scratch::Scratch;
use super::super::{Figure, NO_BUDGET, Row, Size, millis};
use crate::cli::Failure;

const LAYERS: usize = 50;
/// Of 64 KiB each, in a layer: 500 MiB in all.
const FILES: usize = 160;
const FILE_BYTES: usize = 64 << 10;
const START: Duration = Duration::from_secs(30);

/// Prints a row for each runtime that is installed.
pub(in super::super) async fn beside_containerd(size: Size, print: impl Fn(Row)) -> Result<(), Failure> {
    let scratch = Scratch::new()?;
    let root = scratch.path().to_owned();
    let files = size.of(FILES);
    let image = {
        let root = root.clone();
        Arc::new(tokio::task::spawn_blocking(move || Image::make(&root, files)).await??)
    };
    let mib = (LAYERS * files * FILE_BYTES) >> 20;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let name = format!("{}/bench/layers:1", listener.local_addr()?);
    let serving = tokio::spawn(serve(listener, image));
    let row = |who: &str, took: f64| {
        print(Row::new(
            format!("pull and unpack {mib} MiB in {LAYERS} layers: {who}"),
            Figure::Millis(NO_BUDGET),
            took,
        ));
    };
    row("keelson", ours(&root, &name).await?);
    if Command::new("containerd").arg("--version").output().is_ok_and(|output| output.status.success()) {
        row("containerd", theirs(&root, &name).await?);
    }
    serving.abort();
    Ok(())
}

/// What the registry has: documents in memory, layers in files.
struct Image {
    manifest: Vec<u8>,
    config: Vec<u8>,
    blobs: PathBuf,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Image {
    /// Layers of `files` files each, of which half is noise and half compresses well.
    fn make(root: &Path, files: usize) -> Result<Image, Failure> {
        let blobs = root.join("blobs");
        std::fs::create_dir_all(&blobs)?;
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
        for layer in 0..LAYERS {
            let mut tar = tar::Builder::new(Vec::new());
            for file in 0..files {
                let mut content = vec![b'k'; FILE_BYTES];
                for chunk in content.iter_mut().take(FILE_BYTES / 2) {
                    // Xorshift: cheap, and nothing that gzip could find.
                    noise ^= noise << 13;
                    noise ^= noise >> 7;
                    noise ^= noise << 17;
                    *chunk = noise.to_le_bytes()[0];
                }
                let mut header = tar::Header::new_gnu();
                header.set_size(FILE_BYTES as u64);
                header.set_mode(0o644);
                tar.append_data(&mut header, format!("layer{layer}/dir{}/file{file}", file % 8), content.as_slice())?;
            }
            let plain = tar.into_inner()?;
            diff_ids.push(format!("sha256:{}", hex(&Sha256::digest(&plain))));
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(&plain)?;
            let packed = gzip.finish()?;
            let digest = hex(&Sha256::digest(&packed));
            std::fs::write(blobs.join(&digest), &packed)?;
            layers.push(
                json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": format!("sha256:{digest}"),
                "size": packed.len()}),
            );
        }
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config =
            serde_json::to_vec(&json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["/none"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}}))?;
        let described = json!({"mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": format!("sha256:{}", hex(&Sha256::digest(&config))), "size": config.len()});
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": described, "layers": layers});
        Ok(Image { manifest: serde_json::to_vec(&manifest)?, config, blobs })
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let digest = |bytes: &[u8]| format!("sha256:{}", hex(&Sha256::digest(bytes)));
        let found = if path == "/v2/" {
            Some(("application/json", b"{}".to_vec()))
        } else if path.starts_with("/v2/bench/layers/manifests/") {
            Some((MANIFEST_TYPE, self.manifest.clone()))
        } else {
            let wanted = path.strip_prefix("/v2/bench/layers/blobs/sha256:").filter(|hex| !hex.contains('/'));
            wanted.and_then(|hex| {
                let is_config = digest(&self.config).ends_with(hex);
                let bytes =
                    if is_config { Some(self.config.clone()) } else { std::fs::read(self.blobs.join(hex)).ok() };
                bytes.map(|bytes| ("application/octet-stream", bytes))
            })
        };
        let mut response = Response::new(Full::default());
        let Some((kind, bytes)) = found else {
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
        headers.insert(header::CONTENT_LENGTH, bytes.len().into());
        if kind == MANIFEST_TYPE
            && let Ok(value) = digest(&bytes).parse()
        {
            headers.insert("docker-content-digest", value);
        }
        if request.method() != Method::HEAD {
            *response.body_mut() = Full::new(bytes.into());
        }
        response
    }
}

const MANIFEST_TYPE: &str = keelson_runtime::MANIFEST_TYPE;

async fn serve(listener: TcpListener, image: Arc<Image>) {
    while let Ok((stream, _)) = listener.accept().await {
        let image = image.clone();
        let service = hyper::service::service_fn(move |request| {
            let answer = image.answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// Pulls `name` once the runtime at `socket` answers. Milliseconds of the pull alone.
async fn pull(socket: &Path, name: &str) -> Result<f64, Failure> {
    let mut clients = keelson_cri::connect(&socket.to_string_lossy())?;
    let begin = Instant::now();
    while let Err(error) = clients.runtime.version(cri::VersionRequest::default()).await {
        if begin.elapsed() > START {
            return Err(format!("{} does not answer: {error}", socket.display()).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let image = Some(cri::ImageSpec { image: name.into(), ..Default::default() });
    let begin = Instant::now();
    clients.image.pull_image(cri::PullImageRequest { image, ..Default::default() }).await?;
    Ok(millis(begin.elapsed()))
}

async fn ours(root: &Path, name: &str) -> Result<f64, Failure> {
    let dir = root.join("ours");
    let mut config = keelson_runtime::Config::new(std::env::current_exe()?);
    config.root = dir.join("root");
    config.state = dir.join("state");
    config.socket = dir.join("sock");
    config.cni_conf_dir = dir.join("net.d");
    std::fs::create_dir_all(&dir)?;
    let (socket, stop) = (config.socket.clone(), CancellationToken::new());
    let running = tokio::spawn(keelson_runtime::run(config, stop.clone()));
    let took = pull(&socket, name).await;
    stop.cancel();
    running.await??;
    unmount_below(&dir)?;
    took
}

/// What the runtime leaves mounted for shims, of which there are none here.
fn unmount_below(dir: &Path) -> Result<(), Failure> {
    let table = std::fs::read_to_string("/proc/self/mounts")?;
    let points =
        table.lines().filter_map(|line| line.split(' ').nth(1)).filter(|point| Path::new(point).starts_with(dir));
    for point in points.collect::<Vec<_>>().into_iter().rev() {
        nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

/// Ends containerd with the bench.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}

async fn theirs(root: &Path, name: &str) -> Result<f64, Failure> {
    let dir = root.join("containerd");
    std::fs::create_dir_all(&dir)?;
    let (config, socket) = (dir.join("config.toml"), dir.join("sock"));
    let text = format!(
        "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.internal.v1.opt\"]\n[grpc]\n  address = {:?}\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\n  restrict_oom_score_adj = true\n  disable_apparmor = true\n\
         \x20 stream_server_address = \"127.0.0.1\"\n  stream_server_port = \"0\"\n",
        dir.join("root"),
        dir.join("state"),
        socket,
    );
    std::fs::write(&config, text)?;
    let log = std::fs::File::create(dir.join("log"))?;
    let mut containerd = Command::new("containerd");
    containerd.arg("--config").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let _ended = Ended(containerd.spawn()?);
    pull(&socket, name).await
}
