//! Following a log: what is there, then what comes, woken by inotify, over rotations, until the container is gone and its
//! last byte read, or nobody listens any more.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use keelson_client::changes::{Changes, Interest};
use tokio::sync::{mpsc, watch};

use super::read::{Options, Progress, Reader};

/// Bytes per chunk that goes to the client.
const CHUNK: usize = 32 << 10;
/// Chunks in flight to a slow client; then reading waits.
const IN_FLIGHT: usize = 4;

/// Streams a log. With `alive`, waits for more until it says the container has ended (or is closed).
pub(crate) fn stream(
    path: PathBuf,
    options: Options,
    alive: Option<watch::Receiver<bool>>,
) -> mpsc::Receiver<std::io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    tokio::spawn(async move {
        if let Err(error) = copy(path, options, alive, &sender).await {
            let _ = sender.send(Err(error)).await;
        }
    });
    receiver
}

async fn copy(
    path: PathBuf,
    options: Options,
    mut alive: Option<watch::Receiver<bool>>,
    sender: &mpsc::Sender<std::io::Result<Bytes>>,
) -> std::io::Result<()> {
    // Watched before it is read, so that nothing written in between is missed.
    let changes = match &alive {
        Some(_) => Some(Changes::of(path.parent(), Interest::Everything)?),
        None => None,
    };
    let mut inode = inode_of(&path);
    let options = Options { follow: alive.is_some(), ..options };
    let opened = path.clone();
    let mut reader = blocking(move || Reader::open(&opened, options)).await?;
    let mut last_round = false;
    loop {
        let (back, chunk, progress) = blocking(move || {
            let mut output = Vec::with_capacity(4096);
            let progress = reader.read(&mut output, CHUNK)?;
            Ok((reader, output, progress))
        })
        .await?;
        reader = back;
        if !chunk.is_empty() && sender.send(Ok(Bytes::from(chunk))).await.is_err() {
            return Ok(());
        }
        match progress {
            Progress::More => continue,
            Progress::Done => return Ok(()),
            Progress::End => {}
        }
        let (Some(changes), Some(alive)) = (&changes, &mut alive) else { return Ok(()) };
        let now = inode_of(&path);
        if now.is_some() && now != inode {
            inode = now;
            reader.switch(&path)?;
            continue;
        }
        if last_round {
            return Ok(());
        }
        let running = *alive.borrow_and_update();
        if !running {
            last_round = true;
            continue;
        }
        tokio::select! {
            changed = changes.wait() => changed?,
            ended = alive.changed() => last_round = ended.is_err(),
            () = sender.closed() => return Ok(()),
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}

fn inode_of(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Duration;

    async fn next(receiver: &mut mpsc::Receiver<std::io::Result<Bytes>>) -> Option<String> {
        let chunk = tokio::time::timeout(Duration::from_secs(10), receiver.recv()).await.expect("a chunk or the end");
        chunk.map(|chunk| String::from_utf8(chunk.unwrap().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn follows_over_rotation_until_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let append = |text: &str| {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
            writeln!(file, "2026-01-01T00:00:00.000000000Z stdout F {text}").unwrap();
        };
        append("one");
        let (running, alive) = watch::channel(true);
        let mut chunks = stream(path.clone(), Options::default(), Some(alive));
        assert_eq!(next(&mut chunks).await.as_deref(), Some("one\n"));
        append("two");
        assert_eq!(next(&mut chunks).await.as_deref(), Some("two\n"));
        std::fs::rename(&path, dir.path().join("0.log.20260101-000000")).unwrap();
        append("three");
        assert_eq!(next(&mut chunks).await.as_deref(), Some("three\n"));
        append("four");
        running.send(false).unwrap();
        let mut rest = String::new();
        while let Some(chunk) = next(&mut chunks).await {
            rest.push_str(&chunk);
        }
        assert_eq!(rest, "four\n");
    }
}
