//! A client and a server over an in-memory pipe, and peers that do not keep to the rules.

use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::{
    Config, Connection,
    frame::{self, Decoder, Frame},
    headers::Deflater,
};

fn pair() -> (Connection, Connection) {
    let (a, b) = duplex(4096);
    (Connection::client(a, Config::default()), Connection::server(b, Config::default()))
}

fn named(kind: &'static str) -> HeaderMap {
    HeaderMap::from_iter([("streamtype".parse().expect("a name"), HeaderValue::from_static(kind))])
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("within the deadline")
}

#[tokio::test]
async fn streams_carry_headers_and_bytes_both_ways_and_end_by_halves() {
    let (client, server) = pair();
    let echo = tokio::spawn(async move {
        while let Some(mut stream) = server.accept().await {
            tokio::spawn(async move {
                let kind = stream.header("streamtype").expect("a type").to_owned();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.expect("read to the end");
                stream.write_all(kind.as_bytes()).await.expect("write");
                stream.write_all(&all).await.expect("write");
                stream.shutdown().await.expect("end");
            });
        }
    });
    let one = |kind: &'static str, len: usize| {
        let client = client.clone();
        async move {
            let stream = client.open(&named(kind)).await.expect("opened");
            let (mut read, mut write) = tokio::io::split(stream);
            let sent = vec![kind.as_bytes()[0]; len];
            write.write_all(&sent).await.expect("write");
            write.shutdown().await.expect("end");
            let mut all = Vec::new();
            read.read_to_end(&mut all).await.expect("read to the end");
            assert_eq!(all, [kind.as_bytes(), &sent].concat());
        }
    };
    // More than any window, and at once.
    soon(async { tokio::join!(one("a", 3_000_000), one("b", 0), one("c", 700_000), one("d", 1)) }).await;
    drop(client);
    soon(echo).await.expect("the server ends when the client has hung up");
}

#[tokio::test]
async fn a_slow_stream_holds_its_sender_but_no_other_stream() {
    let (client, server) = pair();
    let mut slow = soon(client.open(&named("slow"))).await.expect("opened");
    let mut fast = soon(client.open(&named("fast"))).await.expect("opened");
    let mut slow_end = soon(server.accept()).await.expect("a stream");
    let mut fast_end = soon(server.accept()).await.expect("a stream");
    let flood = tokio::spawn(async move {
        slow.write_all(&vec![1; 1 << 20]).await.expect("write");
        slow.shutdown().await.expect("end");
        slow
    });
    for _ in 0..100 {
        soon(fast.write_all(&[2; 10_000])).await.expect("write");
        soon(fast_end.read_exact(&mut [0; 10_000])).await.expect("read");
    }
    assert!(!flood.is_finished(), "the window bounds what a stream sends ahead");
    let mut all = Vec::new();
    soon(slow_end.read_to_end(&mut all)).await.expect("read");
    assert_eq!(all.len(), 1 << 20);
    soon(flood).await.expect("no panic");
}

#[tokio::test]
async fn dropping_a_stream_resets_it_and_refusal_is_heard() {
    let (a, b) = duplex(4096);
    let client = Connection::client(a, Config::default());
    let server = Connection::server(b, Config { max_streams: 1, ..Config::default() });
    let mut first = soon(client.open(&named("x"))).await.expect("opened");
    let accepted = soon(server.accept()).await.expect("a stream");
    let refused = soon(client.open(&named("y"))).await.err().expect("refused");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    drop(accepted);
    let error = soon(first.read(&mut [0; 1])).await.expect_err("reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(first.write(&[1]).await.expect_err("reset").kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_lost_connection_ends_everything() {
    let (a, b) = duplex(4096);
    let client = Connection::client(a, Config::default());
    let server = Connection::server(b, Config { linger: Duration::ZERO, ..Config::default() });
    let mut stream = soon(client.open(&named("x"))).await.expect("opened");
    let mut accepted = soon(server.accept()).await.expect("a stream");
    accepted.write_all(b"last words").await.expect("write");
    accepted.shutdown().await.expect("end");
    drop((accepted, server));
    let mut all = Vec::new();
    soon(stream.read_to_end(&mut all)).await.expect("what was sent arrives");
    assert_eq!(all, b"last words");
    soon(client.closed()).await;
    assert!(client.open(&named("x")).await.is_err());
    assert!(client.accept().await.is_none());
    assert!(stream.write_all(b"x").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let (a, b) = duplex(4096);
    let config = Config { idle_timeout: Duration::from_secs(60), ..Config::default() };
    let (client, server) = (Connection::client(a, Config::default()), Connection::server(b, config));
    let mut stream = client.open(&named("x")).await.expect("opened");
    let mut accepted = server.accept().await.expect("a stream");
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(40)).await;
        accepted.write_all(b"x").await.expect("only sending is activity too");
        stream.read_exact(&mut [0]).await.expect("read");
    }
    let since = tokio::time::Instant::now();
    server.closed().await;
    assert_eq!(since.elapsed().as_secs(), 60);
}

/// A peer on bare frames that, as moby/spdystream does, sends no SETTINGS and no WINDOW_UPDATE.
struct Bare {
    io: DuplexStream,
    decoder: Decoder,
    buffer: BytesMut,
    deflater: Deflater,
}

impl Bare {
    fn new(io: DuplexStream) -> Bare {
        Bare { io, decoder: Decoder::default(), buffer: BytesMut::new(), deflater: Deflater::new().expect("zlib") }
    }

    async fn send(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        let mut out = BytesMut::new();
        encode(&mut out);
        soon(self.io.write_all(&out)).await.expect("write");
    }

    async fn syn(&mut self, id: u32) {
        let block = self.deflater.encode(&named("x")).expect("encodes");
        self.send(|out| frame::syn_stream(out, id, &block)).await;
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next(&mut self.buffer).expect("well formed") {
                return Some(frame);
            }
            if soon(self.io.read_buf(&mut self.buffer)).await.expect("read") == 0 {
                return None;
            }
        }
    }
}

#[tokio::test]
async fn a_peer_without_windows_gets_and_gives_any_amount() {
    let (a, b) = duplex(4096);
    let mut peer = Bare::new(a);
    let server = Connection::server(b, Config::default());
    peer.syn(1).await;
    let stream = soon(server.accept()).await.expect("a stream");
    assert!(matches!(peer.next().await, Some(Frame::Settings(_))));
    assert!(matches!(peer.next().await, Some(Frame::SynReply { id: 1, .. })));
    peer.send(|out| frame::ping(out, 1)).await;
    assert_eq!(peer.next().await, Some(Frame::Ping(1)));
    let (mut read, mut write) = tokio::io::split(stream);
    let writing = tokio::spawn(async move {
        write.write_all(&vec![7; 1 << 20]).await.expect("write");
        write.shutdown().await.expect("end");
    });
    let mut got = 0;
    loop {
        match peer.next().await {
            Some(Frame::Data { id: 1, fin, payload }) => {
                got += payload.len();
                if fin {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, 1 << 20);
    soon(writing).await.expect("no panic");
    // One frame of a megabyte: more than the buffer, read bit by bit; no WINDOW_UPDATE is sent to such a peer.
    let sending = peer.send(|out| frame::data(out, 1, true, &vec![8; 1 << 20]));
    let mut all = Vec::new();
    let (_, read) = soon(async { tokio::join!(sending, read.read_to_end(&mut all)) }).await;
    assert_eq!(read.expect("read"), 1 << 20);
    peer.send(|out| frame::ping(out, 3)).await;
    assert_eq!(peer.next().await, Some(Frame::Ping(3)));
}

#[tokio::test]
async fn nonsense_ends_the_connection_with_go_away() {
    let bad_block = |out: &mut BytesMut| frame::syn_stream(out, 1, b"not zlib");
    let bad_version = |out: &mut BytesMut| out.extend_from_slice(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]);
    let cases: [&dyn Fn(&mut BytesMut); 2] = [&bad_block, &bad_version];
    for case in cases {
        let (a, b) = duplex(4096);
        let mut peer = Bare::new(a);
        let server = Connection::server(b, Config { linger: Duration::ZERO, ..Config::default() });
        peer.send(case).await;
        assert!(matches!(peer.next().await, Some(Frame::Settings(_))));
        assert!(matches!(peer.next().await, Some(Frame::GoAway { .. })));
        assert_eq!(peer.next().await, None);
        assert!(soon(server.accept()).await.is_none());
    }
    // A stream's number may not come again.
    let (a, b) = duplex(4096);
    let mut peer = Bare::new(a);
    let server = Connection::server(b, Config { linger: Duration::ZERO, ..Config::default() });
    peer.syn(3).await;
    let _first = soon(server.accept()).await.expect("a stream");
    peer.syn(3).await;
    soon(server.closed()).await;
}
