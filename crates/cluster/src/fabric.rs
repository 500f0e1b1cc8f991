//! The wire between nodes: a bridge in a network namespace of its own. It is alive as long as a node's init (or the `up`
//! that makes it) holds it open, so nothing has to be cleaned up after a crash.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};

use nlink::netlink::addr::Ipv4Address;
use nlink::netlink::link::{BridgeLink, VethLink};
use nlink::netlink::route::Ipv4Route;
use nlink::{Connection, Route};

use crate::layout::{NODE_NETWORK, Node};
use crate::process::Handle;
use crate::{Context as _, Error, Result};

/// The bridge's name, in a namespace where there is nothing else.
const BRIDGE: &str = "kl-fabric";
/// A node's interface.
const INTERFACE: &str = "eth0";

/// The fabric's network namespace.
#[derive(Debug)]
pub struct Fabric {
    netns: File,
}

impl Fabric {
    /// Makes the namespace and the bridge in it.
    pub async fn create() -> Result<Self> {
        let netns = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        })
        .join()
        .unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()))
        .context(|| "creating the fabric's network namespace".into())?;
        let fabric = Self { netns };
        let make = async {
            let links = fabric.connect()?;
            links.set_link_up("lo").await?;
            links.add_link(BridgeLink::new(BRIDGE)).await?;
            links.set_link_up(BRIDGE).await
        };
        make.await.map_err(|e| Error::Network { node: "(fabric)".into(), why: e.to_string() })?;
        Ok(fabric)
    }

    /// The fabric that a running node's init holds as its stdout (see [`crate::init`]).
    pub fn of(init: &Handle) -> Result<Self> {
        let path = format!("/proc/{}/fd/1", init.pid);
        Ok(Self { netns: File::open(&path).context(|| format!("opening the fabric at {path}"))? })
    }

    /// A path by which a child of this process can open the namespace.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd()).into()
    }

    /// Gives the network namespace of process `pid` an interface on the bridge, with the node's address and a route for
    /// the services' addresses (which packet rules turn into pods' before anything leaves).
    pub async fn attach(&self, node: &Node, pid: u32, service_network: (Ipv4Addr, u8)) -> Result<()> {
        let attach = async {
            let port = format!("kl{}", node.ip.octets()[3]);
            let links = self.connect()?;
            // The port of an earlier life of this node, if the kernel has not taken it away yet.
            let _ = links.del_link(port.as_str()).await;
            links.add_link(VethLink::new(port.as_str(), INTERFACE).peer_netns_pid(pid)).await?;
            links.set_link_master(port.as_str(), BRIDGE).await?;
            links.set_link_up(port.as_str()).await?;
            let links: Connection<Route> = Connection::new_in(Path::new(&format!("/proc/{pid}/ns/net")))?;
            links.set_link_up("lo").await?;
            links.add_address(Ipv4Address::new(INTERFACE, node.ip, NODE_NETWORK.1)).await?;
            links.set_link_up(INTERFACE).await?;
            links.add_route(Ipv4Route::from_addr(service_network.0, service_network.1).dev(INTERFACE)).await
        };
        attach.await.map_err(|e: nlink::Error| Error::Network { node: node.name.clone(), why: e.to_string() })
    }

    fn connect(&self) -> nlink::Result<Connection<Route>> {
        Connection::new_in(self.netns.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_nodes_on_a_fabric_reach_each_other_and_nothing_else() {
        let fabric = Fabric::create().await.unwrap();
        let mut children = Vec::new();
        let nodes = crate::layout::plan_nodes("t", 2);
        for node in &nodes {
            let child = std::process::Command::new("unshare").args(["--net", "sleep", "60"]).spawn().unwrap();
            let own = || std::fs::read_link("/proc/self/ns/net").ok();
            let path = format!("/proc/{}/ns/net", child.id());
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while std::fs::read_link(&path).ok() == own() {
                assert!(std::time::Instant::now() < deadline, "unshare did not enter its namespace");
                std::thread::yield_now();
            }
            fabric.attach(node, child.id(), (Ipv4Addr::new(10, 96, 0, 0), 12)).await.unwrap();
            children.push(child);
        }
        let inside = |pid: u32, f: fn() -> std::io::Result<()>| {
            std::thread::spawn(move || {
                let netns = File::open(format!("/proc/{pid}/ns/net"))?;
                nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET)?;
                f()
            })
            .join()
            .unwrap()
        };
        // Connection refused comes from the other node's kernel: there is a way there and back.
        let other = inside(children[0].id(), || std::net::TcpStream::connect("10.89.0.2:9").map(drop));
        let outside = inside(children[0].id(), || std::net::TcpStream::connect("192.0.2.1:9").map(drop));
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(other.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(outside.unwrap_err().kind(), std::io::ErrorKind::NetworkUnreachable);
    }
}
