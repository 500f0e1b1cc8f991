//! HTTP through the API server: `pods/proxy` and `services/proxy`, with kubectl in between. What answers is this very test
//! program, run in a pod: it says what it was asked, and sends WebSocket messages back.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};
use tokio_tungstenite::tungstenite::{self, Message};

use super::{mentions, up, webhook};

const IMAGE: &str = "registry.test/echo:1";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";

struct Request {
    line: String,
    key: Option<String>,
    body: Vec<u8>,
}

/// The head of a request and its body.
fn read(stream: &TcpStream) -> Result<Request, webhook::Failure> {
    let mut reader = BufReader::new(stream);
    let mut request = Request { line: String::new(), key: None, body: Vec::new() };
    reader.read_line(&mut request.line)?;
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 0 && !line.trim().is_empty() {
        let (name, value) = line.split_once(':').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse()?,
            "sec-websocket-key" => request.key = Some(value.trim().to_owned()),
            _ => {}
        }
        line.clear();
    }
    request.body = vec![0; length];
    reader.read_exact(&mut request.body)?;
    Ok(request)
}

fn answer(mut stream: TcpStream) -> Result<(), webhook::Failure> {
    let request = read(&stream)?;
    if let Some(key) = &request.key {
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept:";
        write!(stream, "{head} {}\r\n\r\n", derive_accept_key(key.as_bytes()))?;
        let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
        loop {
            match socket.read() {
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message)?,
                Ok(_) => {}
                Err(tungstenite::Error::ConnectionClosed) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
    let code = if request.line.contains("/missing") { "404 Not Found" } else { "200 OK" };
    let said = json!({"line": request.line.trim(), "body": String::from_utf8_lossy(&request.body)}).to_string();
    let head = "Content-Type: application/json\r\nConnection: close\r\nContent-Length:";
    write!(stream, "HTTP/1.1 {code}\r\n{head} {}\r\n\r\n{said}", said.len())?;
    Ok(())
}

#[test]
#[ignore = "is no test but the server, for the pod to run"]
fn serve() -> Result<(), webhook::Failure> {
    let listener = TcpListener::bind("0.0.0.0:8080")?;
    println!("ready");
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || answer(stream).unwrap_or_else(|error| println!("{error}")));
    }
    Ok(())
}

/// A request to kubectl's proxy; status and body.
fn ask(port: u16, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("kubectl proxy");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let head = format!("Host: localhost\r\nConnection: close\r\nContent-Length: {}", body.len());
    write!(stream, "{method} {path} HTTP/1.1\r\n{head}\r\n\r\n{body}").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
    (code, serde_json::from_str(body).unwrap_or_else(|_| Value::String(text.clone())))
}

#[test]
fn pods_and_services_are_proxied_to() {
    let cluster = up();
    webhook::load(&cluster, IMAGE, "e2e::proxies::serve");
    cluster.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: echo, labels: {{app: echo}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: echo
    image: {IMAGE}
    imagePullPolicy: Never
    ports: [{{name: web, containerPort: 8080}}]
    readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec: {{selector: {{app: echo}}, ports: [{{name: http, port: 80, targetPort: web}}]}}
"#
    ));
    cluster.kubectl("wait --for=condition=Ready pod/echo --timeout=60s");
    cluster.wait_for("get endpointslices -l kubernetes.io/service-name=echo", |table| table.contains("8080"));
    mentions(
        &cluster,
        &format!("kubectl get --raw {SERVICES}/echo:http/proxy/by/kubectl"),
        &["\"line\":\"GET /by/kubectl HTTP/1.1\""],
    );
    let proxy = cluster.background("kubectl proxy --port=0");
    let said = proxy.wait_for(|said| said.contains("Starting to serve on 127.0.0.1:"));
    let port = said.trim_end().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");

    for place in [
        format!("{PODS}/echo"),
        format!("{PODS}/echo:8080"),
        format!("{PODS}/http:echo:8080"),
        format!("{SERVICES}/echo:http"),
        format!("{SERVICES}/echo:80"),
        format!("{SERVICES}/http:echo:http"),
    ] {
        let (code, said) = ask(port, "GET", &format!("{place}/proxy/a/b?c=d&e=%20f"), "");
        assert_eq!((code, &said["line"]), (200, &json!("GET /a/b?c=d&e=%20f HTTP/1.1")), "{place}");
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let (code, said) = ask(port, method, &format!("{place}/proxy/x"), "a body");
            assert_eq!(code, 200, "{place} {method}");
            assert_eq!(said, json!({"line": format!("{method} /x HTTP/1.1"), "body": "a body"}), "{place}");
        }
        let (code, said) = ask(port, "GET", &format!("{place}/proxy/missing"), "");
        assert_eq!((code, &said["line"]), (404, &json!("GET /missing HTTP/1.1")), "the pod's own answer: {place}");

        let stream = TcpStream::connect(("127.0.0.1", port)).expect("kubectl proxy");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        let url = format!("ws://localhost:{port}{place}/proxy/socket");
        let (mut socket, response) =
            tungstenite::client(url, stream).unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(response.status(), 101);
        let large = vec![7; 300_000];
        for message in [Message::text("hello"), Message::binary(large), Message::text("again")] {
            socket.send(message.clone()).expect("sent");
            assert_eq!(socket.read().expect("an answer"), message, "{place}");
        }
        socket.close(None).expect("closed");
        let ended = loop {
            match socket.read() {
                Ok(Message::Close(_)) => {}
                Ok(other) => panic!("{other:?} after the end"),
                Err(error) => break error,
            }
        };
        assert!(matches!(ended, tungstenite::Error::ConnectionClosed), "{place}: {ended}");
    }
    let (code, status) = ask(port, "GET", &format!("{SERVICES}/echo:nope/proxy/"), "");
    let why = "no endpoints available for service \"echo:nope\"";
    assert_eq!((code, &status["reason"], &status["message"]), (503, &json!("ServiceUnavailable"), &json!(why)));
}
