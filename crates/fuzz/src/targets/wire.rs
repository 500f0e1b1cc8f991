//! Frames from a peer that keeps to no rules.

use std::time::Duration;

use keelson_streaming::spdy::{Config, Connection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The peer sends `data` and hangs up; every stream that it opens is read to its end. The first byte says which side we are.
pub(super) fn spdy(data: &[u8]) {
    let Some((side, data)) = data.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without IO").block_on(async {
        let (ours, peer) = tokio::io::duplex(64 << 10);
        let connection = match side % 2 {
            0 => Connection::server(ours, Config::default()),
            _ => Connection::client(ours, Config::default()),
        };
        let (mut from_us, mut to_us) = tokio::io::split(peer);
        let drain = tokio::spawn(async move { while matches!(from_us.read(&mut [0; 4096]).await, Ok(1..)) {} });
        let send = async move {
            let _ = to_us.write_all(data).await;
            let _ = to_us.shutdown().await;
        };
        let serve = async {
            while let Some(mut stream) = connection.accept().await {
                tokio::spawn(async move {
                    let mut read = Vec::new();
                    let _ = (&mut stream).take(1 << 20).read_to_end(&mut read).await;
                });
            }
        };
        // Time stands still while anything can be done, so this ends at once, or never would.
        let both = async { tokio::join!(send, serve) };
        let _ = tokio::time::timeout(Duration::from_secs(24 * 60 * 60), both).await.expect("the connection ends");
        drop(connection);
        drain.abort();
    });
}
