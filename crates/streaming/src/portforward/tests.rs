//! A server that says which port it is, reached over SPDY, through the WebSocket tunnel, and through a tunnel whose bytes
//! go to a SPDY backend.

use std::{collections::BTreeMap, time::Duration};

use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Uri};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use tokio_tungstenite::tungstenite::{Message, protocol::Role};

use super::*;
use crate::{upgrade::request_websocket, websocket};

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("within the deadline")
}

/// Serves one HTTP connection; with `pass_on`, another one behind it does the work.
fn serve_on(pass_on: bool) -> DuplexStream {
    let (client, io) = duplex(4096);
    let service = service_fn(move |mut request: Request<Incoming>| async move {
        let (response, pending) = serve(&mut request).expect("an upgrade");
        tokio::spawn(async move {
            if pass_on {
                let uri = Uri::from_static("http://runtime/portforward/token");
                let mut back = super::request(serve_on(false), &uri).await.expect("the backend switches");
                let mut front = pending.bytes().await.expect("the client switches");
                let _ = tokio::io::copy_bidirectional(&mut front, &mut back).await;
                return;
            }
            let mut server = pending.forwards(Config::default()).await.expect("the client switches");
            while let Some(Forward { port, mut data, error }) = server.accept().await {
                tokio::spawn(async move {
                    if port == 1 {
                        return error.send("connection refused").await.expect("sent");
                    }
                    let mut all = Vec::new();
                    if port == 2 {
                        // Its client need not end what it says, and may be gone before.
                        if (&mut data).take(5).read_to_end(&mut all).await.is_err() {
                            return;
                        }
                        data.write_all(b"2:").await.expect("write");
                        data.write_all(&all).await.expect("write");
                        data.shutdown().await.expect("end");
                        // As a copy in both directions does: no end of the error stream before both have ended.
                        data.read_to_end(&mut all).await.expect("read");
                        return;
                    }
                    data.read_to_end(&mut all).await.expect("read");
                    data.write_all(format!("{port}:").as_bytes()).await.expect("write");
                    data.write_all(&all).await.expect("write");
                    data.shutdown().await.expect("end");
                });
            }
        });
        Ok::<_, std::convert::Infallible>(response)
    });
    let http = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service).with_upgrades();
    tokio::spawn(http);
    client
}

async fn check(mut client: Client) {
    for n in [0usize, 1, 400_000] {
        let port = 8000 + (n % 7) as u16;
        let (mut data, mut error) = soon(client.open(port)).await.expect("opened");
        let all = soon(async {
            data.write_all(&vec![b'x'; n]).await.expect("write");
            data.shutdown().await.expect("end");
            let mut all = Vec::new();
            data.read_to_end(&mut all).await.expect("read");
            all
        });
        assert!(all.await == [format!("{port}:").as_bytes(), &vec![b'x'; n]].concat(), "{n} bytes come back");
        let mut failure = String::new();
        soon(error.read_to_string(&mut failure)).await.expect("read");
        assert_eq!(failure, "");
    }
    let (_data, mut error) = soon(client.open(1)).await.expect("opened");
    let mut failure = String::new();
    soon(error.read_to_string(&mut failure)).await.expect("read");
    assert_eq!(failure, "connection refused");
}

#[tokio::test]
async fn ports_are_forwarded_over_spdy_and_through_the_tunnel() {
    let uri = Uri::from_static("http://x/portforward");
    for pass_on in [false, true] {
        let io = soon(super::request(serve_on(pass_on), &uri)).await.expect("upgraded");
        check(Client::new(Connection::client(io, Config::default()))).await;

        let (io, _) = soon(request_websocket(serve_on(pass_on), &uri, &[TUNNEL_PROTOCOL])).await.expect("upgraded");
        check(Client::new(Connection::client(Tunnel::client(io).await, Config::default()))).await;
    }
}

/// By channels, the end of one connection is the end of all; a refused one says why before.
#[tokio::test]
async fn ports_are_forwarded_by_channels() {
    type Messages = &'static [(u8, &'static [u8])];
    let cases: [(&'static [u16], Messages); 2] = [
        (&[2], &[(0, b"\x02\x002:hello"), (1, b"\x02\x00")]),
        (&[2, 1], &[(0, b"\x02\x00"), (1, b"\x02\x00"), (2, b"\x01\x00"), (3, b"\x01\x00connection refused")]),
    ];
    for (ports, expected) in cases {
        let (client, io) = duplex(4096);
        let service = service_fn(move |mut request: Request<Incoming>| async move {
            let (response, pending) = serve(&mut request).expect("an upgrade");
            assert!(pending.is_channels());
            tokio::spawn(async move {
                let back =
                    super::request(serve_on(false), &Uri::from_static("http://runtime/x")).await.expect("upgraded");
                let back = Client::new(Connection::client(back, Config::default()));
                pending.channels(ports, back, Config::default()).await.expect("forwarded");
            });
            Ok::<_, std::convert::Infallible>(response)
        });
        let http = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service);
        tokio::spawn(http.with_upgrades());
        let uri = Uri::from_static("http://x/portforward");
        let (io, protocol) = soon(request_websocket(client, &uri, &[CHANNEL_PROTOCOL])).await.expect("upgraded");
        assert_eq!(protocol, CHANNEL_PROTOCOL);
        let mut socket = websocket::on(io, Role::Client).await;
        if ports == [2] {
            socket.send(Message::Binary(b"\x00hello".to_vec().into())).await.expect("sent");
        }
        let mut said: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        let until_closed = async {
            while let Some(Ok(Message::Binary(message))) = socket.next().await {
                said.entry(message[0]).or_default().extend_from_slice(&message[1..]);
            }
        };
        soon(until_closed).await;
        let expected: BTreeMap<_, _> = expected.iter().map(|(channel, bytes)| (*channel, bytes.to_vec())).collect();
        assert_eq!(said, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_make_no_sense_or_stay_alone_are_reset() {
    let (near, far) = duplex(4096);
    let client = Connection::client(near, Config::default());
    let mut server = Server::new(Connection::server(far, Config::default()));
    let accepting = tokio::spawn(async move { server.accept().await });
    let open = async |fields: &[(&'static str, &'static str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        client.open(&headers).await.expect("opened")
    };
    let bad: [&[(&str, &str)]; 5] = [
        &[],
        &[("streamtype", "data"), ("requestid", "1")],
        &[("streamtype", "data"), ("requestid", "1"), ("port", "65536")],
        &[("streamtype", "data"), ("requestid", "1"), ("port", "0")],
        &[("streamtype", "x"), ("requestid", "1"), ("port", "80")],
    ];
    for fields in bad {
        assert!(open(fields).await.read_u8().await.is_err(), "{fields:?}");
    }
    let since = Instant::now();
    let mut alone = open(&[("streamtype", "error"), ("requestid", "2"), ("port", "80")]).await;
    assert!(alone.read_u8().await.is_err());
    assert_eq!(since.elapsed().as_secs(), PAIR_WITHIN.as_secs());
    // Without requestID: the error stream, then its data stream.
    let _error = open(&[("streamtype", "error"), ("port", "81")]).await;
    let _data = open(&[("streamtype", "data"), ("port", "81")]).await;
    let forward = accepting.await.expect("no panic").expect("a forward");
    assert_eq!(forward.port, 81);
}
