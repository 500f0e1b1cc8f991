//! The local provider: a port of a Service becomes a TCP port on the machine's loopback, and every connection to it is
//! carried to the Service's cluster IP, where the packet rules choose a pod.
//!
//! The listening sockets belong to the machine's network namespace, the outgoing ones to the cluster's: that is how a
//! cluster without a route to the machine is reached from it. The first Service gets 127.0.0.1; one whose ports are taken
//! there gets the next loopback address on which they are free, so that two clusters can both have a port 80.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1 as core;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::provider::{Balanced, LoadBalancers, ProviderError};

/// Connections per published port; more wait in the socket's backlog.
const MAX_CONNECTIONS: usize = 4096;
/// Loopback addresses tried, from 127.0.0.1 on.
const ADDRESSES: u8 = 32;
/// How often a connection to a pod is tried while it is refused, and the first wait in between, which doubles.
const DIALS: u32 = 5;
const FIRST_RETRY: std::time::Duration = std::time::Duration::from_millis(20);
/// A connection to a pod that takes longer than this to open is given up.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Publishes on loopback.
#[derive(Debug)]
pub struct Local {
    /// The network namespace to publish in; `None` for this process's own.
    publish_netns: Option<PathBuf>,
    published: Mutex<HashMap<String, Published>>,
}

#[derive(Debug)]
struct Published {
    service: Balanced,
    address: Ipv4Addr,
    ports: Vec<AbortOnDropHandle<()>>,
}

impl Local {
    /// `publish_netns` is a network namespace's file; `None` publishes in this process's own.
    pub fn new(publish_netns: Option<PathBuf>) -> Self {
        Self { publish_netns, published: Mutex::default() }
    }

    /// Returns when the sockets are closed, so that their ports are free.
    async fn take_back(&self, key: &str) {
        let published = self.published.lock().remove(key);
        for port in published.into_iter().flat_map(|p| p.ports) {
            port.abort();
            let _ = port.await;
        }
    }

    /// Binds all ports on the first address that has them free.
    async fn bind(&self, service: &Balanced) -> Result<(Ipv4Addr, Vec<StdListener>), ProviderError> {
        let (netns, ports) = (self.publish_netns.clone(), service.ports.iter().map(|p| p.port).collect::<Vec<_>>());
        let wanted = match service.wanted_ip {
            Some(IpAddr::V4(ip)) if ip.is_loopback() => Some(ip),
            Some(ip) => {
                return Err(ProviderError(format!("spec.loadBalancerIP: {ip} is not an IPv4 loopback address")));
            }
            None => None,
        };
        // A thread of its own: it moves to another network namespace and ends there.
        let (send, receive) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let result = enter(netns.as_deref()).and_then(|()| bind_all(wanted, &ports));
            let _ = send.send(result);
        });
        receive.await.map_err(|_| ProviderError("the thread that binds ports ended".into()))?
    }
}

#[async_trait]
impl LoadBalancers for Local {
    async fn ensure(&self, service: &Balanced) -> Result<core::LoadBalancerStatus, ProviderError> {
        if let Some(port) = service.ports.iter().find(|p| p.protocol != "TCP") {
            let why = format!("port {}/{}: only TCP can be published on loopback", port.port, port.protocol);
            return Err(ProviderError(why));
        }
        let known = self.published.lock().get(&service.key).map(|p| (p.service == *service, p.address));
        let address = match known {
            Some((true, address)) => address,
            _ => {
                // What was published before goes first: its ports may be among the new ones.
                self.take_back(&service.key).await;
                let (address, listeners) = self.bind(service).await?;
                let mut ports = Vec::with_capacity(listeners.len());
                for (listener, port) in listeners.into_iter().zip(&service.ports) {
                    let to = SocketAddr::new(service.cluster_ip, port.port);
                    let listener = TcpListener::from_std(listener).map_err(|e| ProviderError(e.to_string()))?;
                    ports.push(AbortOnDropHandle::new(tokio::spawn(serve(listener, to))));
                }
                let published = Published { service: service.clone(), address, ports };
                self.published.lock().insert(service.key.clone(), published);
                address
            }
        };
        let ingress = core::LoadBalancerIngress {
            ip: Some(address.to_string()),
            // The nodes must not take traffic to this address for the Service's: it is the machine's loopback, not theirs.
            ip_mode: Some("Proxy".into()),
            ..core::LoadBalancerIngress::default()
        };
        Ok(core::LoadBalancerStatus { ingress: Some(vec![ingress]) })
    }

    async fn ensure_deleted(&self, key: &str) -> Result<(), ProviderError> {
        self.take_back(key).await;
        Ok(())
    }
}

fn enter(netns: Option<&Path>) -> Result<(), ProviderError> {
    let Some(path) = netns else { return Ok(()) };
    let failed = |e: std::io::Error| ProviderError(format!("entering the network namespace {}: {e}", path.display()));
    let file = std::fs::File::open(path).map_err(failed)?;
    let network = Some(rustix::thread::LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), network).map_err(|e| failed(e.into()))
}

fn bind_all(wanted: Option<Ipv4Addr>, ports: &[u16]) -> Result<(Ipv4Addr, Vec<StdListener>), ProviderError> {
    let candidates = match wanted {
        Some(ip) => vec![ip],
        None => (1..=ADDRESSES).map(|n| Ipv4Addr::new(127, 0, 0, n)).collect(),
    };
    let mut first_error = None;
    for address in candidates {
        let listeners: Result<Vec<_>, _> = ports.iter().map(|port| listen(address, *port)).collect();
        match listeners {
            Ok(listeners) => return Ok((address, listeners)),
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| ProviderError("no loopback address to publish on".into())))
}

fn listen(address: Ipv4Addr, port: u16) -> Result<StdListener, ProviderError> {
    let listener = StdListener::bind((address, port));
    let listener = listener.and_then(|l| l.set_nonblocking(true).map(|()| l));
    listener.map_err(|e| ProviderError(format!("listening on {address}:{port}: {e}")))
}

/// Carries connections until it is aborted; those that are open then end with it.
async fn serve(listener: TcpListener, to: SocketAddr) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((client, _)) => drop(connections.spawn(async move {
                carry(client, to).await;
                drop(slot);
            })),
            Err(error) => {
                // Out of descriptors, mostly: others must be closed first.
                tracing::warn!(%error, %to, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn carry(mut client: TcpStream, to: SocketAddr) {
    let mut backend = match tokio::time::timeout(CONNECT_TIMEOUT, dial(to)).await {
        Ok(Ok(backend)) => backend,
        Ok(Err(error)) => return tracing::debug!(%error, %to, "cannot reach the service"),
        Err(_) => return tracing::debug!(%to, "the service does not answer"),
    };
    let (_, _) = (client.set_nodelay(true), backend.set_nodelay(true));
    let _ = tokio::io::copy_bidirectional(&mut client, &mut backend).await;
}

/// Connects to the Service. A refusal is tried again, for another pod may get it: the one that refused has just started, or
/// just ended.
async fn dial(to: SocketAddr) -> std::io::Result<TcpStream> {
    let mut wait = FIRST_RETRY;
    for _ in 1..DIALS {
        match TcpStream::connect(to).await {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => tokio::time::sleep(wait).await,
            done => return done,
        }
        wait *= 2;
    }
    TcpStream::connect(to).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Port;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn balanced(key: &str, port: u16, protocol: &str) -> Balanced {
        Balanced {
            key: key.into(),
            cluster_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            wanted_ip: Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77))),
            ports: vec![Port { name: String::new(), protocol: protocol.into(), port }],
        }
    }

    #[tokio::test]
    async fn connections_are_carried_until_the_service_goes() {
        let backend = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = backend.local_addr().unwrap().port();
        let echo = tokio::spawn(async move {
            let (mut stream, _) = backend.accept().await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            stream.write_all(text.to_uppercase().as_bytes()).await.unwrap();
        });
        let provider = Local::new(None);
        let service = balanced("n/a", port, "TCP");
        let status = provider.ensure(&service).await.unwrap();
        assert_eq!(provider.ensure(&service).await.unwrap(), status, "asking twice is asking once");
        let ip: Ipv4Addr = status.ingress.unwrap()[0].ip.clone().unwrap().parse().unwrap();

        let mut client = TcpStream::connect((ip, port)).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "HELLO", "half-closed streams are carried too");
        echo.await.unwrap();

        let taken = provider.ensure(&balanced("n/b", port, "TCP")).await.unwrap_err();
        assert!(taken.0.contains("in use"), "{taken}");
        provider.ensure_deleted("n/a").await.unwrap();
        provider.ensure(&balanced("n/b", port, "TCP")).await.unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_published_says_why() {
        let provider = Local::new(None);
        let udp = provider.ensure(&balanced("n/a", 1, "UDP")).await.unwrap_err();
        assert_eq!(udp.0, "port 1/UDP: only TCP can be published on loopback");
        let elsewhere = Balanced { wanted_ip: Some([192, 0, 2, 1].into()), ..balanced("n/a", 1, "TCP") };
        assert!(provider.ensure(&elsewhere).await.unwrap_err().0.starts_with("spec.loadBalancerIP"));
        let nowhere = Local::new(Some("/nowhere".into()));
        assert!(nowhere.ensure(&balanced("n/a", 1, "TCP")).await.unwrap_err().0.contains("/nowhere"));
    }
}
