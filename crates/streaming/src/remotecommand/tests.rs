//! Servers behind real HTTP over an in-memory pipe, with SPDY and WebSocket clients, direct and bridged.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::tungstenite::{Message, protocol::Role};

use super::*;
use crate::{
    Error,
    idle::Idle,
    proxy,
    spdy::Config,
    upgrade::{self, request_websocket},
    websocket,
};

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("within the deadline")
}

/// What the server does with a client's streams.
#[derive(Clone, Copy)]
enum Server {
    /// Echoes stdin to stdout with its length on stderr, then exits with 3. With a terminal: says the size first.
    Echo,
    /// Writes without end.
    Flood,
    /// Passes everything to another echo server over SPDY, as the kubelet does.
    Bridge,
    /// Passes the upgrade to another echo server, as the API server does.
    Proxy,
    /// Echoes; a connection that is still for a minute is closed.
    Impatient,
    /// Passes the upgrade to another echo server for as long as it is not still for a minute, as the kubelet does.
    ImpatientProxy,
}

/// Serves one HTTP connection; returns the client's end.
fn serve_on(server: Server) -> DuplexStream {
    let (client, io) = duplex(4096);
    let service = service_fn(move |mut request: Request<Incoming>| async move {
        if let Server::Proxy = server {
            let answer = proxy::proxy_upgrade(request, serve_on(Server::Echo)).await.expect("the backend answers");
            return Ok::<_, std::convert::Infallible>(answer);
        }
        if let Server::ImpatientProxy = server {
            let backend = Idle::new(serve_on(Server::Echo), MINUTE);
            return Ok(proxy::proxy_upgrade(request, backend).await.expect("the backend answers"));
        }
        let options = Options::from_query(request.uri().query().unwrap_or_default()).expect("a query");
        let mut config = Config::default();
        if let Server::Impatient = server {
            config.idle_timeout = MINUTE;
        }
        let answer = match serve(&mut request, options, config) {
            Ok((response, pending)) => {
                tokio::spawn(async move { run(server, options, pending.streams().await.expect("streams")).await });
                response.map(|b| b.map_err(|never| match never {}).boxed_unsync())
            }
            Err(rejected) => rejected.into_response().map(|b| b.map_err(|never| match never {}).boxed_unsync()),
        };
        Ok(answer)
    });
    let http = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service).with_upgrades();
    tokio::spawn(http);
    client
}

async fn run(server: Server, options: Options, mut streams: RemoteCommand) {
    match server {
        Server::Echo | Server::Impatient => {
            let mut stdout = streams.stdout.expect("stdout");
            if let Some(mut resize) = streams.resize.take() {
                let size = resize.next().await.expect("a size");
                stdout.write_all(format!("{}x{} ", size.width, size.height).as_bytes()).await.expect("write");
            }
            let mut n = 0;
            if let Some(mut stdin) = streams.stdin {
                let mut buffer = [0; 1000];
                loop {
                    match stdin.read(&mut buffer).await.expect("read") {
                        0 => break,
                        m => {
                            stdout.write_all(&buffer[..m]).await.expect("write");
                            n += m;
                        }
                    }
                }
            }
            if let Some(mut stderr) = streams.stderr {
                stderr.write_all(n.to_string().as_bytes()).await.expect("write");
            }
            drop(stdout);
            streams.status.send(&Outcome::ExitCode(3)).await.expect("status");
        }
        Server::Flood => {
            let mut stdout = streams.stdout.expect("stdout");
            while stdout.write_all(&[b'y'; 1000]).await.is_ok() {}
            streams.closed.cancelled().await;
        }
        Server::Bridge => {
            let tty = u8::from(options.tty);
            let uri = format!("http://runtime/exec/token?input=1&output=1&error=1&tty={tty}").parse().expect("a URI");
            let back = Client::connect(serve_on(Server::Echo), &uri, options, Config::default()).await;
            bridge(streams, back.expect("the runtime's streams")).await.expect("bridged");
        }
        Server::Proxy | Server::ImpatientProxy => unreachable!("passed on before"),
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const ALL: &str = "http://x/exec?stdin=true&stdout=true&stderr=true";

async fn read_all(reader: Option<Reader>) -> Vec<u8> {
    let mut all = Vec::new();
    reader.expect("the stream").read_to_end(&mut all).await.expect("read to the end");
    all
}

#[tokio::test]
async fn spdy_clients_get_all_streams_directly_bridged_and_proxied() {
    for server in [Server::Echo, Server::Bridge, Server::Proxy] {
        let uri = Uri::from_static(ALL);
        let options = Options::from_query(uri.query().expect("a query")).expect("valid");
        let client =
            soon(Client::connect(serve_on(server), &uri, options, Config::default())).await.expect("connected");
        let Client { stdin, stdout, stderr, status, resize } = client;
        assert!(resize.is_none());
        let input = async {
            let mut stdin = stdin.expect("stdin");
            for _ in 0..100 {
                stdin.write_all(&[b'i'; 5000]).await.expect("write");
            }
        };
        let all = soon(async { tokio::join!(input, read_all(stdout), read_all(stderr), status.outcome()) }).await;
        let ((), stdout, stderr, outcome) = all;
        assert_eq!((stdout.len(), stderr), (500_000, b"500000".to_vec()));
        assert_eq!(outcome.expect("a status"), Outcome::ExitCode(3));
    }
}

/// Talks for longer than a connection may be still, then is still. A WebSocket client that says no more than that it is
/// there is still, too, for a server that looks inside.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_still_for_too_long_is_closed() {
    let closed = |since: tokio::time::Instant, limit: u64| {
        let took = since.elapsed().as_secs();
        assert!((limit..limit + 10).contains(&took), "closed after {took} s");
    };
    for server in [Server::Impatient, Server::ImpatientProxy] {
        let uri = Uri::from_static(ALL);
        let options = Options::from_query(uri.query().expect("a query")).expect("valid");
        let client = Client::connect(serve_on(server), &uri, options, Config::default()).await.expect("connected");
        let (mut stdin, mut stdout) = (client.stdin.expect("stdin"), client.stdout.expect("stdout"));
        for _ in 0..3 {
            tokio::time::sleep(MINUTE / 3 * 2).await;
            stdin.write_all(b"x").await.expect("write");
            stdout.read_exact(&mut [0]).await.expect("read");
        }
        let since = tokio::time::Instant::now();
        assert_eq!(stdout.read(&mut [0]).await.unwrap_or(0), 0);
        closed(since, 60);

        let (io, _) = request_websocket(serve_on(server), &uri, &[V5]).await.expect("upgraded");
        let (mut sink, mut stream) = websocket::on(io, Role::Client).await.split();
        stream.next().await.expect("the start").expect("read");
        for _ in 0..3 {
            tokio::time::sleep(MINUTE / 3 * 2).await;
            sink.send(Message::Binary(vec![0, b'x'].into())).await.expect("sent");
            let echo = stream.next().await.expect("an echo").expect("read");
            assert_eq!(echo.into_data().as_ref(), [1, b'x']);
        }
        let since = tokio::time::Instant::now();
        for _ in 0..2 {
            tokio::time::sleep(MINUTE / 3).await;
            sink.send(Message::Ping(Bytes::new())).await.expect("sent");
        }
        let mut told = false;
        while let Some(Ok(message)) = stream.next().await {
            assert!(matches!(message, Message::Pong(_) | Message::Close(_)), "{message:?}");
            told |= matches!(message, Message::Close(_));
        }
        let looks_inside = matches!(server, Server::Impatient);
        assert_eq!(told, looks_inside, "only who speaks WebSocket can say that it closes");
        closed(since, if looks_inside { 60 } else { 100 });
    }
}

/// A WebSocket client's messages until the server closes, by channel.
async fn converse(server: Server, query: &str, protocol: &'static str, send: Vec<Vec<u8>>) -> [Vec<u8>; 4] {
    let uri: Uri = format!("http://x/exec?{query}").parse().expect("a URI");
    let (io, chosen) = soon(request_websocket(serve_on(server), &uri, &["other", protocol])).await.expect("upgraded");
    assert_eq!(chosen, protocol);
    let (mut sink, mut stream) = websocket::on(io, Role::Client).await.split();
    let sending = async {
        for message in send {
            sink.send(Message::Binary(message.into())).await.expect("sent");
        }
    };
    let mut channels: [Vec<u8>; 4] = Default::default();
    let receiving = async {
        let mut first = true;
        loop {
            match stream.next().await.expect("a close message comes first") {
                Ok(Message::Binary(message)) => {
                    assert_eq!(first, message.len() == 1, "one empty message at the start and no other");
                    first = false;
                    channels[usize::from(message[0])].extend_from_slice(&message[1..]);
                }
                Ok(Message::Close(frame)) => break assert_eq!(u16::from(frame.expect("a reason").code), 1000),
                other => panic!("{other:?}"),
            }
        }
    };
    soon(async { tokio::join!(sending, receiving) }).await;
    channels
}

#[tokio::test]
async fn websocket_clients_get_all_streams_directly_bridged_and_proxied() {
    for server in [Server::Echo, Server::Bridge, Server::Proxy] {
        let mut send = vec![[vec![0], vec![b'i'; 5000]].concat(); 100];
        send.extend([vec![], vec![0], vec![255, 9], vec![255], vec![77, 1], vec![255, 0], vec![0, 1, 2]]);
        let [_, stdout, stderr, status] = converse(server, "stdin=1&stdout=1&stderr=1", V5, send).await;
        assert_eq!((stdout.len(), stderr), (500_000, b"500000".to_vec()));
        assert_eq!(Outcome::from_bytes(&status), Outcome::ExitCode(3));
    }
}

#[tokio::test]
async fn terminals_have_sizes_and_no_stderr() {
    for server in [Server::Echo, Server::Bridge] {
        let resize = [&[4u8][..], br#"{"Width":120,"Height":40}"#].concat();
        let send = vec![resize, vec![0, b'x'], vec![255, 0]];
        let [_, stdout, stderr, _] = converse(server, "input=1&output=1&error=1&tty=1", V5, send).await;
        assert_eq!((stdout, stderr), (b"120x40 x".to_vec(), vec![]));
    }
    // v4 has no way to end stdin; without stdin there is none to end.
    let [_, stdout, stderr, _] = converse(Server::Echo, "stdout=1&stderr=1", V4, vec![]).await;
    assert_eq!((stdout, stderr), (vec![], b"0".to_vec()));

    let options = Options::from_query("stdin=1&stdout=1&tty=1").expect("valid");
    let uri = Uri::from_static("http://x/exec?stdin=1&stdout=1&tty=1");
    let client = soon(Client::connect(serve_on(Server::Bridge), &uri, options, Config::default())).await;
    let Client { stdin, stdout, resize, .. } = client.expect("connected");
    resize.expect("a resize stream").send(TerminalSize { width: 1, height: 2 }).await.expect("sent");
    drop(stdin);
    assert_eq!(soon(read_all(stdout)).await, b"1x2 ");
}

#[tokio::test]
async fn a_client_that_hangs_up_is_noticed() {
    let options = Options { stdout: true, ..Options::default() };
    for spdy in [true, false] {
        let (near, far) = duplex(4096);
        let mut streams = if spdy {
            let (client, server) = tokio::join!(
                Client::on(near, options, Config::default()),
                server::spdy(far, options, Config::default())
            );
            let mut client = client.expect("streams");
            let mut stdout = client.stdout.take().expect("stdout");
            let server = server.expect("streams");
            stdout.read_u8().now_or_never_is_none();
            drop((client, stdout));
            server
        } else {
            drop(near);
            ws::streams(far, options, Config::default(), true).await
        };
        soon(streams.closed.cancelled()).await;
        let mut stdout = streams.stdout.take().expect("stdout");
        soon(async { while stdout.write_all(&[0; 1000]).await.is_ok() {} }).await;
    }
}

trait NowOrNever: Future + Sized {
    fn now_or_never_is_none(self) {
        assert!(futures::FutureExt::now_or_never(self).is_none());
    }
}

impl<F: Future> NowOrNever for F {}

#[tokio::test]
async fn output_waits_for_a_slow_client() {
    for server in [Server::Flood] {
        let uri = Uri::from_static("http://x/exec?stdout=1");
        let options = Options { stdout: true, ..Options::default() };
        let client =
            soon(Client::connect(serve_on(server), &uri, options, Config::default())).await.expect("connected");
        let mut stdout = client.stdout.expect("stdout");
        let mut chunk = vec![0; 1 << 20];
        soon(stdout.read_exact(&mut chunk)).await.expect("read");
    }
}

#[tokio::test]
async fn what_cannot_be_upgraded_is_told_why() {
    type Case = (&'static [(&'static str, &'static str)], StatusCode, &'static str);
    let cases: [Case; 5] = [
        (&[], StatusCode::BAD_REQUEST, "missing upgrade headers"),
        (&[("connection", "Upgrade"), ("upgrade", "h2c")], StatusCode::BAD_REQUEST, "missing upgrade headers"),
        (
            &[("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v9.channel.k8s.io")],
            StatusCode::FORBIDDEN,
            "unable to negotiate protocol: client supports [\"v9.channel.k8s.io\"], server accepts [\"v4.channel.k8s.io\"]",
        ),
        (&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")], StatusCode::FORBIDDEN, "unable to negotiate"),
        (
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-protocol", "x, v5.channel.k8s.io")],
            StatusCode::BAD_REQUEST,
            "not a WebSocket version 13 request",
        ),
    ];
    for (headers, status, message) in cases {
        let mut request = Request::get("/exec?stdout=1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.header("host", "x").body(Full::<Bytes>::default()).expect("a request");
        let (mut sender, http) =
            hyper::client::conn::http1::handshake(TokioIo::new(serve_on(Server::Proxy))).await.expect("http");
        tokio::spawn(http);
        let response = soon(sender.send_request(request)).await.expect("an answer");
        assert_eq!(response.status(), status, "{headers:?}");
        let accepted = response.headers().contains_key("x-accepted-stream-protocol-versions");
        assert_eq!(accepted, status == StatusCode::FORBIDDEN);
        let body = soon(response.into_body().collect()).await.expect("a body").to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        assert!(body.contains(message), "{body}");
    }
    let uri = Uri::from_static(ALL);
    let refused = soon(upgrade::request_spdy(serve_on(Server::Echo), &uri, &["v9.channel.k8s.io"])).await.err();
    assert!(matches!(refused, Some(Error::NotUpgraded { status: StatusCode::FORBIDDEN, .. })));
}

#[test]
fn queries_are_read_in_both_dialects() {
    let check = |query: &str, expected: Result<(bool, bool, bool, bool), ()>| {
        let got = Options::from_query(query).map(|o| (o.stdin, o.stdout, o.stderr, o.tty)).map_err(|_| ());
        assert_eq!(got, expected, "{query}");
    };
    check("command=ls&stdin=true&stdout=true&tty=true", Ok((true, true, false, true)));
    check("input=1&output=1&error=1&tty=1&command=a&command=b", Ok((true, true, false, true)));
    check("stdout=true&stderr=true&tty=false", Ok((false, true, true, false)));
    check("stdout=false&command=stdin", Err(()));
    check("", Err(()));
}

#[test]
fn outcomes_survive_the_wire() {
    for outcome in [Outcome::Success, Outcome::ExitCode(137), Outcome::Failure("no such container".into())] {
        assert_eq!(Outcome::from_bytes(outcome.to_json().to_string().as_bytes()), outcome);
    }
    assert_eq!(Outcome::from_bytes(b""), Outcome::Success);
    assert_eq!(Outcome::from_bytes(b"plain words"), Outcome::Failure("plain words".into()));
    assert_eq!(Outcome::ExitCode(0).to_json(), Outcome::Success.to_json());
}

#[test]
fn sizes_are_found_however_they_are_cut() {
    let text = br#"{"Width":1,"Height":2}{"Width":70000}  {"Width":3,"Height":4}"#;
    for cut in 0..text.len() {
        let mut parser = SizeParser::default();
        let first = parser.feed(&text[..cut]);
        let last = parser.feed(&text[cut..]).or(first);
        assert_eq!(last, Some(TerminalSize { width: 3, height: 4 }), "cut at {cut}");
    }
    let mut parser = SizeParser::default();
    assert_eq!(parser.feed(&vec![b' '; 1 << 20]), None);
    assert!(parser.0.len() <= MAX_SIZE_JSON);
}
