//! `crictl`: a client of container runtimes for people, with the commands, flags, columns and JSON of the one in
//! `kubernetes-sigs/cri-tools`. It speaks CRI and nothing else, so it works on every runtime.
//!
//! What a command shows goes to a writer that the caller gives, so that tests read it. Not here: commands that make pods
//! and containers from files (`runp`, `create`, `run`), which debugging a node does not need.

#![forbid(unsafe_code)]

mod containers;
mod format;
mod images;
mod logs;
mod pods;
mod stats;
mod streams;
mod system;

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use keelson_cri::Clients;
use serde::Deserialize;

/// Where runtimes listen, tried in this order when nobody says where.
const ENDPOINTS: [&str; 3] =
    ["unix:///run/keelson/runtime.sock", "unix:///run/containerd/containerd.sock", "unix:///run/crio/crio.sock"];
/// Where the program's settings are by default.
const CONFIG: &str = "/etc/crictl.yaml";
/// Largest settings file, in bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Why a command failed, in words for the person who ran it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime refused, or cannot be reached.
    #[error("{0}: rpc error: code = {code:?} desc = {message}", code = .1.code(), message = .1.message())]
    Call(&'static str, Box<tonic::Status>),
    /// A file, socket or terminal failed.
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
    /// What was asked for makes no sense, or is not there.
    #[error("{0}")]
    Words(String),
}

impl Error {
    pub(crate) fn call(what: &'static str) -> impl FnOnce(tonic::Status) -> Self {
        move |status| Self::Call(what, Box::new(status))
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io(what, error)
    }
}

/// What a command writes to.
pub(crate) type Out<'a> = &'a mut (dyn Write + Send);

/// Talk to a container runtime over CRI
#[derive(Args, Debug)]
pub struct Crictl {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Debug)]
struct Global {
    /// Endpoint of the runtime service [default: the first of Keelson's, containerd's and CRI-O's sockets that exists]
    #[arg(long, short = 'r', env = "CONTAINER_RUNTIME_ENDPOINT", value_name = "URL")]
    runtime_endpoint: Option<String>,
    /// Endpoint of the image service [default: the runtime service's]
    #[arg(long, short = 'i', env = "IMAGE_SERVICE_ENDPOINT", value_name = "URL")]
    image_endpoint: Option<String>,
    /// How long a call may take, but for those that take as long as they take
    #[arg(long, short = 't', value_parser = format::duration, value_name = "DURATION")]
    timeout: Option<Duration>,
    /// File with settings
    #[arg(long, short = 'c', env = "CRI_CONFIG_FILE", default_value = CONFIG)]
    config: PathBuf,
    /// Say what is called
    #[arg(long, short = 'D')]
    debug: bool,
}

/// The settings file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Config {
    runtime_endpoint: Option<String>,
    image_endpoint: Option<String>,
    /// Seconds.
    timeout: Option<u64>,
    debug: Option<bool>,
    pull_image_on_create: Option<bool>,
    disable_pull_on_run: Option<bool>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Attach to a running container
    Attach(streams::Attach),
    /// Stream the events of containers
    Events(system::Events),
    /// Run a command in a running container
    Exec(streams::Exec),
    /// Return image filesystem info
    Imagefsinfo(images::FsInfo),
    /// List images
    #[command(visible_aliases = ["image", "img"])]
    Images(images::List),
    /// Display information of the container runtime
    Info(system::Info),
    /// Display the status of one or more containers
    Inspect(containers::Inspect),
    /// Return the status of one or more images
    Inspecti(images::Inspect),
    /// Display the status of one or more pods
    Inspectp(pods::Inspect),
    /// Fetch the logs of a container
    Logs(logs::Logs),
    /// Forward local ports to a pod
    #[command(name = "port-forward")]
    PortForward(streams::PortForward),
    /// List pods
    Pods(pods::List),
    /// List containers
    Ps(containers::List),
    /// Pull an image from a registry
    Pull(images::Pull),
    /// Remove one or more containers
    Rm(containers::Remove),
    /// Remove one or more images
    Rmi(images::Remove),
    /// Remove one or more pods
    Rmp(pods::Remove),
    /// Retrieve the container runtime configuration
    RuntimeConfig(system::RuntimeConfig),
    /// Start one or more created containers
    Start(containers::Start),
    /// List container(s) resource usage statistics
    Stats(stats::Containers),
    /// List pod resource usage statistics
    Statsp(stats::Pods),
    /// Stop one or more running containers
    Stop(containers::Stop),
    /// Stop one or more running pods
    Stopp(pods::Stop),
    /// Update one or more running containers
    Update(containers::Update),
    /// Display runtime version information
    Version(system::Version),
}

/// The runtime, and how long its ordinary calls may take.
pub(crate) struct Runtime {
    pub clients: Clients,
    pub timeout: Option<Duration>,
}

impl Runtime {
    /// A request with this program's time limit. The limit travels with it, so that the runtime gives up as well.
    pub(crate) fn ask<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(timeout) = self.timeout {
            request.set_timeout(timeout);
        }
        request
    }
}

impl Crictl {
    /// Runs the command; what it shows goes to `out`. The exit code is a command's own for `exec`, else 0.
    pub async fn run(self, out: &mut (dyn Write + Send)) -> Result<u8, Error> {
        let runtime = self.global.connect()?;
        match self.command {
            Command::Attach(command) => command.run(runtime, out).await,
            Command::Exec(command) => command.run(runtime, out).await,
            command => command.run(runtime, out).await.map(|()| 0),
        }
    }
}

impl Command {
    async fn run(self, runtime: Runtime, out: Out<'_>) -> Result<(), Error> {
        match self {
            // Those with exit codes of their own are run by the caller.
            Self::Attach(_) | Self::Exec(_) => Ok(()),
            Self::Events(command) => command.run(runtime, out).await,
            Self::Imagefsinfo(command) => command.run(runtime, out).await,
            Self::Images(command) => command.run(runtime, out).await,
            Self::Info(command) => command.run(runtime, out).await,
            Self::Inspect(command) => command.run(runtime, out).await,
            Self::Inspecti(command) => command.run(runtime, out).await,
            Self::Inspectp(command) => command.run(runtime, out).await,
            Self::Logs(command) => command.run(runtime, out).await,
            Self::PortForward(command) => command.run(runtime, out).await,
            Self::Pods(command) => command.run(runtime, out).await,
            Self::Ps(command) => command.run(runtime, out).await,
            Self::Pull(command) => command.run(runtime, out).await,
            Self::Rm(command) => command.run(runtime, out).await,
            Self::Rmi(command) => command.run(runtime, out).await,
            Self::Rmp(command) => command.run(runtime, out).await,
            Self::RuntimeConfig(command) => command.run(runtime, out).await,
            Self::Start(command) => command.run(runtime, out).await,
            Self::Stats(command) => command.run(runtime, out).await,
            Self::Statsp(command) => command.run(runtime, out).await,
            Self::Stop(command) => command.run(runtime, out).await,
            Self::Stopp(command) => command.run(runtime, out).await,
            Self::Update(command) => command.run(runtime, out).await,
            Self::Version(command) => command.run(runtime, out).await,
        }
    }
}

impl Global {
    fn connect(self) -> Result<Runtime, Error> {
        let config = read_config(&self.config)?;
        let exists = |endpoint: &&str| Path::new(endpoint.trim_start_matches("unix://")).exists();
        let found = ENDPOINTS.iter().copied().find(exists).or(ENDPOINTS.first().copied()).map(String::from);
        let endpoint = self.runtime_endpoint.or(config.runtime_endpoint).filter(|endpoint| !endpoint.is_empty());
        let endpoint = endpoint.or(found).unwrap_or_default();
        let images = self.image_endpoint.or(config.image_endpoint).filter(|endpoint| !endpoint.is_empty());
        let connect = |endpoint: &str| keelson_cri::connect(endpoint).map_err(|error| Error::Words(error.to_string()));
        let mut clients = connect(&endpoint)?;
        if let Some(images) = images.filter(|images| *images != endpoint) {
            clients.image = connect(&images)?.image;
        }
        if self.debug || config.debug == Some(true) {
            eprintln!("DEBU the runtime is at {endpoint}");
        }
        let configured = config.timeout.filter(|seconds| *seconds > 0).map(Duration::from_secs);
        // Like upstream, a limit of zero is none.
        let timeout = self.timeout.or(configured).unwrap_or(Duration::from_secs(2));
        Ok(Runtime { clients, timeout: (!timeout.is_zero()).then_some(timeout) })
    }
}

fn read_config(path: &Path) -> Result<Config, Error> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_CONFIG_BYTES).read_to_string(&mut text));
    match read {
        Ok(_) if text.trim().is_empty() => Ok(Config::default()),
        Ok(_) => serde_saphyr::from_str(&text).map_err(|error| Error::Words(format!("{}: {error}", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && path == Path::new(CONFIG) => {
            Ok(Config::default())
        }
        Err(error) => Err(Error::Io(format!("read {}", path.display()), error)),
    }
}
