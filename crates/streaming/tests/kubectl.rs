//! Real kubectl against a server made of nothing but this crate: exec and port-forward, over WebSocket and over SPDY,
//! directly, bridged to a SPDY backend, and proxied. kubectl is the one that `KEELSON_KUBECTL` names (`make test` sets it), else the one in `$PATH`.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use keelson_streaming::{
    portforward,
    proxy::{ProxyBody, proxy_upgrade},
    remotecommand::{self, Client, Options, Outcome, RemoteCommand, bridge},
    spdy::Config,
    upgrade::{Transport, dial},
};
use rustix::{pty::OpenptFlags, termios::Winsize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
};

/// What stands between kubectl and the one that runs the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Runs it.
    Runtime,
    /// Ends the client's protocol and speaks SPDY to a runtime.
    Kubelet,
    /// Passes the upgrade to a kubelet.
    ApiServer,
}

/// `websocket` is what the client has to speak.
async fn start(role: Role, websocket: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let backend = match role {
        Role::Runtime => None,
        Role::Kubelet => Some(Box::pin(start(Role::Runtime, false)).await),
        Role::ApiServer => Some(Box::pin(start(Role::Kubelet, websocket)).await),
    };
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let service = service_fn(move |request| async move {
                Ok::<_, std::convert::Infallible>(answer(role, websocket, backend, request).await)
            });
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(io), service).with_upgrades());
        }
    });
    address
}

/// As much of the API as kubectl looks at.
const API: [(&str, &str); 4] = [
    ("/api", r#"{"kind":"APIVersions","versions":["v1"]}"#),
    ("/apis", r#"{"kind":"APIGroupList","apiVersion":"v1","groups":[]}"#),
    (
        "/api/v1",
        r#"{"kind":"APIResourceList","groupVersion":"v1","resources":[
            {"name":"pods","singularName":"pod","namespaced":true,"kind":"Pod","verbs":["get"]}]}"#,
    ),
    (
        "/api/v1/namespaces/default/pods/p",
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"default"},
            "spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}]}]},"status":{"phase":"Running"}}"#,
    ),
];

fn body(text: &'static str) -> ProxyBody {
    Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed_unsync()
}

async fn answer(
    role: Role,
    websocket: bool,
    backend: Option<SocketAddr>,
    mut request: Request<Incoming>,
) -> Response<ProxyBody> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let uri = || -> Uri { format!("http://{}{path}?{query}", backend.expect("a backend")).parse().expect("a URI") };
    let forward = path.ends_with("/portforward");
    if !forward && !path.ends_with("/exec") {
        let found = API.iter().find(|(at, _)| *at == path).map(|(_, json)| *json);
        let mut response = Response::new(body(found.unwrap_or("{}")));
        if found.is_none() {
            *response.status_mut() = http::StatusCode::NOT_FOUND;
        }
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
        return response;
    }
    let transport = if websocket { Transport::WebSocket } else { Transport::Spdy };
    if role == Role::ApiServer {
        let io = dial(&uri()).await.expect("the kubelet listens");
        return proxy_upgrade(request, io).await.expect("the kubelet answers");
    }
    let accepted = if forward {
        let uri = backend.map(|_| uri());
        portforward::serve(&mut request).map(|(response, pending)| {
            assert_eq!(pending.transport(), transport);
            tokio::spawn(async move { forward_ports(pending, uri).await });
            response
        })
    } else {
        let options = Options::from_query(&query).expect("a query");
        let uri = backend.map(|_| uri());
        remotecommand::serve(&mut request, options, Config::default()).map(|(response, pending)| {
            assert_eq!(pending.transport(), transport);
            tokio::spawn(async move {
                let streams = pending.streams().await.expect("kubectl's streams");
                let Some(uri) = uri else { return run(&query, streams).await };
                let io = dial(&uri).await.expect("the runtime listens");
                let back = Client::connect(io, &uri, options, Config::default()).await.expect("the runtime's streams");
                // kubectl may be gone before the end.
                let _ = bridge(streams, back).await;
            });
            response
        })
    };
    match accepted {
        Ok(response) => response.map(|b| b.map_err(|never| match never {}).boxed_unsync()),
        Err(rejected) => rejected.into_response().map(|b| b.map_err(|never| match never {}).boxed_unsync()),
    }
}

/// Runs the command of the query.
async fn run(query: &str, streams: RemoteCommand) {
    let words: Vec<&str> = query.split('&').filter_map(|p| p.strip_prefix("command=")).collect();
    let RemoteCommand { stdin, stdout, stderr, status, resize, .. } = streams;
    let outcome = match words.as_slice() {
        ["cat"] => {
            let (mut stdin, mut stdout) = (stdin.expect("stdin"), stdout.expect("stdout"));
            tokio::io::copy(&mut stdin, &mut stdout).await.expect("copied");
            Outcome::Success
        }
        ["fail"] => {
            stdout.expect("stdout").write_all(b"some output\n").await.expect("written");
            stderr.expect("stderr").write_all(b"some complaint\n").await.expect("written");
            Outcome::ExitCode(42)
        }
        ["flood"] => {
            let mut stdout = stdout.expect("stdout");
            for _ in 0..1000 {
                stdout.write_all(&[b'y'; 10_000]).await.expect("written");
            }
            Outcome::Success
        }
        ["size"] => {
            let size = resize.expect("a terminal").next().await.expect("a size");
            let text = format!("{} by {}\r\n", size.width, size.height);
            stdout.expect("stdout").write_all(text.as_bytes()).await.expect("written");
            Outcome::Success
        }
        other => Outcome::Failure(format!("there is no command {other:?}")),
    };
    // kubectl may be gone before the end.
    let _ = status.send(&outcome).await;
}

async fn forward_ports(pending: portforward::Pending, backend: Option<Uri>) {
    if let Some(uri) = backend {
        let mut back =
            portforward::request(dial(&uri).await.expect("the runtime listens"), &uri).await.expect("switched");
        let mut front = pending.bytes().await.expect("switched");
        // Either side may hang up.
        let _ = tokio::io::copy_bidirectional(&mut front, &mut back).await;
        return;
    }
    let mut server = pending.forwards(Config::default()).await.expect("switched");
    while let Some(portforward::Forward { port, mut data, error }) = server.accept().await {
        tokio::spawn(async move {
            if port == 81 {
                return error.send("nobody listens").await.expect("sent");
            }
            let mut word = [0; 5];
            data.read_exact(&mut word).await.expect("a word");
            data.write_all(&word).await.expect("written");
            data.write_all(&vec![b'z'; 1 << 20]).await.expect("written");
            data.shutdown().await.expect("ended");
        });
    }
}

fn kubectl(server: SocketAddr, websocket: bool) -> Command {
    let program = std::env::var("KEELSON_KUBECTL").unwrap_or_else(|_| "kubectl".into());
    let mut command = Command::new(program);
    command
        .args(["--kubeconfig=/dev/null", &format!("--server=http://{server}"), "--namespace=default"])
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websocket.to_string())
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websocket.to_string())
        .env("KUBECACHEDIR", "/dev/null")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("within the deadline")
}

/// Runs `kubectl exec` with this input. Its exit code, stdout and stderr.
async fn exec(server: SocketAddr, websocket: bool, arguments: &[&str], input: Vec<u8>) -> (i32, Vec<u8>, String) {
    let mut child = kubectl(server, websocket)
        .arg("exec")
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .expect("kubectl runs: run `make test`");
    let mut stdin = child.stdin.take().expect("a pipe");
    let write = tokio::spawn(async move { stdin.write_all(&input).await });
    let output = soon(child.wait_with_output()).await.expect("kubectl's output");
    // Without -i kubectl does not read it.
    let _ = write.await.expect("no panic");
    (output.status.code().unwrap_or(-1), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
}

const WAYS: [(Role, bool); 6] = [
    (Role::Runtime, true),
    (Role::Runtime, false),
    (Role::Kubelet, true),
    (Role::Kubelet, false),
    (Role::ApiServer, true),
    (Role::ApiServer, false),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_exec() {
    for (role, websocket) in WAYS {
        let server = start(role, websocket).await;
        let way = format!("{role:?}, websocket {websocket}");
        let input: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
        let (code, stdout, stderr) = exec(server, websocket, &["-i", "p", "--", "cat"], input.clone()).await;
        assert_eq!((code, stdout.len()), (0, input.len()), "{way}: {stderr}");
        assert!(stdout == input, "{way}: other bytes");
        let (code, stdout, stderr) = exec(server, websocket, &["p", "--", "fail"], vec![]).await;
        assert_eq!((code, stdout.as_slice()), (42, &b"some output\n"[..]), "{way}: {stderr}");
        assert!(stderr.starts_with("some complaint\n") && stderr.contains("exit code 42"), "{way}: {stderr}");
        let (code, stdout, stderr) = exec(server, websocket, &["p", "--", "flood"], vec![]).await;
        assert_eq!((code, stdout.len()), (0, 10_000_000), "{way}: {stderr}");
        let (code, _, stderr) = exec(server, websocket, &["p", "--", "nothing"], vec![]).await;
        assert_eq!(code, 1, "{way}: {stderr}");
        assert!(stderr.contains("there is no command"), "{way}: {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_exec_with_a_terminal() {
    for (role, websocket) in WAYS {
        let server = start(role, websocket).await;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let terminal = rustix::pty::openpt(flags).expect("a terminal");
        rustix::pty::unlockpt(&terminal).expect("unlocked");
        let size = Winsize { ws_row: 33, ws_col: 111, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&terminal, size).expect("a size");
        let other = rustix::pty::ioctl_tiocgptpeer(&terminal, flags).expect("its other end");
        // kubectl asks the terminal on its stdout for the size.
        let child = kubectl(server, websocket)
            .args(["exec", "-it", "p", "--", "size"])
            .stdin(other.try_clone().expect("twice"))
            .stdout(other)
            .spawn();
        let output = soon(child.expect("kubectl runs").wait_with_output()).await.expect("kubectl's output");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let mut seen = [0; 100];
        let n = rustix::io::read(&terminal, &mut seen).unwrap_or_default();
        let seen = String::from_utf8_lossy(&seen[..n]).into_owned();
        assert!(seen.contains("111 by 33"), "{role:?}, websocket {websocket}: {seen:?} {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_port_forward() {
    for (role, websocket) in WAYS {
        let server = start(role, websocket).await;
        let mut child = kubectl(server, websocket)
            .args(["port-forward", "p", "--address=127.0.0.1", ":80", ":81"])
            .spawn()
            .expect("kubectl runs: run `make test`");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut errors = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let mut local = [0u16; 2];
        for (port, at) in [(" -> 80", 0), (" -> 81", 1)] {
            let line = soon(lines.next_line()).await.expect("a line").expect("kubectl says where it listens");
            let address = line.strip_suffix(port).and_then(|l| l.strip_prefix("Forwarding from 127.0.0.1:"));
            local[at] = address.unwrap_or_else(|| panic!("{line}")).parse().expect("a port");
        }
        let talk = async || {
            let mut io = TcpStream::connect(("127.0.0.1", local[0])).await.expect("connected");
            io.write_all(b"hello").await.expect("written");
            let mut all = Vec::new();
            io.read_to_end(&mut all).await.expect("read");
            assert_eq!((all.len(), &all[..5]), (5 + (1 << 20), &b"hello"[..]), "{role:?}, websocket {websocket}");
        };
        soon(async { tokio::join!(talk(), talk(), talk()) }).await;
        let mut io = TcpStream::connect(("127.0.0.1", local[1])).await.expect("connected");
        let mut all = Vec::new();
        // kubectl cuts the connection off.
        let _ = soon(io.read_to_end(&mut all)).await;
        let error = soon(async {
            loop {
                let line = errors.next_line().await.expect("a line").expect("kubectl says what went wrong");
                if line.contains("nobody listens") {
                    return line;
                }
            }
        });
        error.await;
        child.kill().await.expect("killed");
    }
}
