//! Network namespaces for tests. They have no name and no mount: an open descriptor is all that keeps one alive, so the
//! kernel removes it whatever way the test ends, and nothing in it can reach the host's network.
#![allow(dead_code, unreachable_pub)]

use std::{
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::Duration,
};

use nix::sched::{CloneFlags, setns, unshare};
use nlink::netlink::{Connection, Route};

/// A network namespace of this test's own, with `lo` up.
pub struct Netns(File);

impl Netns {
    pub fn new() -> Self {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("tests of the network run as root");
            File::open("/proc/thread-self/ns/net").expect("open own namespace")
        });
        let ns = Self(made.join().expect("namespace thread"));
        ns.run_async(async || Connection::<Route>::new().unwrap().set_link_up("lo").await.expect("lo up"));
        ns
    }

    /// A path that other threads of this process can open it by.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs `f` on a thread inside the namespace. Sockets made there stay there.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).expect("enter namespace");
            f()
        };
        std::thread::scope(|scope| scope.spawn(inside).join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
    }

    /// Runs a future on a single-threaded runtime inside the namespace.
    pub fn run_async<T: Send>(&self, f: impl AsyncFnOnce() -> T + Send) -> T {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(f())
        })
    }

    /// Serves TCP: every connection gets `answer` followed by the client's address, and is closed.
    pub fn serve_tcp(&self, address: Ipv4Addr, port: u16, answer: &'static str) {
        let listener = self.run(|| TcpListener::bind((address, port)).expect("listen"));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let peer = stream.peer_addr().expect("peer").ip();
                let _ = stream.write_all(format!("{answer} {peer}").as_bytes());
            }
        });
    }

    /// Serves UDP: every datagram is answered with `answer` followed by the client's address.
    pub fn serve_udp(&self, address: Ipv4Addr, port: u16, answer: &'static str) {
        let socket = self.run(|| UdpSocket::bind((address, port)).expect("bind"));
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(format!("{answer} {}", peer.ip()).as_bytes(), peer);
            }
        });
    }

    /// Connects over TCP and reads the answer.
    pub fn ask_tcp(&self, address: Ipv4Addr, port: u16) -> std::io::Result<String> {
        self.ask_tcp_within(Duration::from_secs(3), address, port)
    }

    /// [`ask_tcp`](Self::ask_tcp), giving up on the connection after `limit`.
    pub fn ask_tcp_within(&self, limit: Duration, address: Ipv4Addr, port: u16) -> std::io::Result<String> {
        self.run(|| {
            let to = SocketAddrV4::new(address, port).into();
            let mut stream = TcpStream::connect_timeout(&to, limit)?;
            stream.set_read_timeout(Some(Duration::from_secs(3)))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
    }

    /// Sends one datagram from a socket of its own and reads the answer.
    pub fn ask_udp(&self, address: Ipv4Addr, port: u16) -> std::io::Result<String> {
        let socket = self.udp();
        socket.connect((address, port))?;
        exchange(&socket)
    }

    /// An unconnected UDP socket inside the namespace.
    pub fn udp(&self) -> UdpSocket {
        let socket = self.run(|| UdpSocket::bind("0.0.0.0:0").expect("bind"));
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
        socket
    }
}

/// Sends one datagram on a connected socket and reads the answer.
pub fn exchange(socket: &UdpSocket) -> std::io::Result<String> {
    socket.send(b"hello")?;
    let mut buffer = [0; 64];
    let n = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
