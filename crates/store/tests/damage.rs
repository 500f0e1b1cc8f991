//! Damage to the files: every flipped byte is either refused with its place or beyond the last acknowledged write; every
//! way in which a crash can tear the last write is undone; missing and cut files are refused.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use keelson_store::{Error, Expect, LocalStore, Options, Store};

const SECTOR: usize = 512;

/// A directory in memory where there is one: these tests are about bytes, not about how long a disk takes.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

fn options() -> Options {
    Options { segment_bytes: 8 << 10, preallocate_bytes: 4096, snapshot_log_bytes: 0, ..Options::default() }
}

fn open(dir: &Path) -> Result<LocalStore, Error> {
    LocalStore::open(dir, options())
}

/// Writes values of these lengths, one batch each. With `zeros` the values are zeros.
async fn fill(dir: &Path, lengths: &[usize], zeros: bool) {
    let store = open(dir).expect("the store opens");
    for (n, len) in lengths.iter().enumerate() {
        let byte = if zeros { 0 } else { b'a' + n as u8 % 26 };
        store.put(&format!("/key/{n}"), Bytes::from(vec![byte; *len]), Expect::Any).await.expect("put");
    }
}

async fn keys(store: &LocalStore) -> usize {
    store.range("/", "", None, 0).await.expect("range").count
}

fn segment(dir: &Path, n: u64) -> PathBuf {
    dir.join(format!("{n:016}.log"))
}

/// Copies the files, so that a case may change them.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in from.read_dir().expect("a listing").map(|e| e.expect("an entry")).filter(|e| e.path().is_file()) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

fn end_of_log(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|b| *b != 0).expect("something is there") + 1
}

#[tokio::test]
async fn every_flipped_byte_is_refused_or_beyond_the_last_write() {
    for zeros in [false, true] {
        let dir = scratch();
        fill(dir.path(), &[10, 700, 3, 1200, 40], zeros).await;
        let path = segment(dir.path(), 1);
        let good = std::fs::read(&path).expect("read");
        let end = end_of_log(&good);
        for at in 0..good.len() {
            // Far beyond the end a few places say as much as all.
            if at > end + 2 * SECTOR && at % 97 != 0 {
                continue;
            }
            for flip in [0x01u8, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                std::fs::write(&path, &bad).expect("write");
                match open(dir.path()) {
                    Err(Error::Corrupt { file, offset, .. }) => {
                        assert_eq!(file, path.display().to_string());
                        assert!(offset as usize <= at.next_multiple_of(SECTOR), "byte {at}: says {offset}");
                        assert_eq!(std::fs::read(&path).expect("read"), bad, "byte {at}: the file was changed");
                    }
                    Err(error) => panic!("byte {at}: {error}"),
                    Ok(store) => {
                        assert!(at >= end.next_multiple_of(SECTOR), "byte {at} of {end} was changed unnoticed");
                        assert_eq!(keys(&store).await, 5, "byte {at}: an acknowledged write is gone");
                        drop(store);
                        assert_eq!(std::fs::read(&path).expect("read"), good, "byte {at}: not undone");
                    }
                }
            }
        }
    }
}

/// A crash may leave any of the last batch's sectors unwritten. With one missing it is undone; all others stay.
#[tokio::test]
async fn every_torn_last_write_is_undone() {
    let dir = scratch();
    fill(dir.path(), &[100, 300], false).await;
    let path = segment(dir.path(), 1);
    let before = std::fs::read(&path).expect("read");
    let start = end_of_log(&before);
    let store = open(dir.path()).expect("the store opens");
    store.put("/torn", Bytes::from(vec![b't'; 3000]), Expect::Any).await.expect("put");
    drop(store);
    let after = std::fs::read(&path).expect("read");
    let first = start / SECTOR;
    let last = (end_of_log(&after) - 1) / SECTOR;
    let sectors = last - first + 1;
    assert!(sectors >= 6, "the batch has {sectors} sectors");
    for written in 0..1u32 << sectors {
        let mut torn = before.clone();
        torn.resize(after.len(), 0);
        for n in (0..sectors).filter(|n| written & (1 << n) != 0) {
            let range = (first + n) * SECTOR..(first + n + 1) * SECTOR;
            torn[range.clone()].copy_from_slice(&after[range]);
        }
        std::fs::write(&path, &torn).expect("write");
        let store = open(dir.path()).unwrap_or_else(|e| panic!("{written:b} of {sectors} sectors: {e}"));
        let whole = written == (1 << sectors) - 1;
        assert_eq!(keys(&store).await, if whole { 3 } else { 2 }, "{written:b}");
        let next = store.put("/next", Bytes::new(), Expect::Any).await.expect("it goes on");
        assert_eq!(next, if whole { 4 } else { 3 });
        drop(store);
        drop(open(dir.path()).expect("and opens again"));
    }
}

#[tokio::test]
async fn missing_and_cut_files_are_refused() {
    let dir = scratch();
    let good = dir.path().join("good");
    fill(&good, &[3000; 12], false).await;
    let count = good.read_dir().expect("a listing").count() as u64 - 1;
    assert!(count >= 4, "{count} segments");
    let case = |n: &str, damage: &dyn Fn(&Path)| {
        let dir = dir.path().join(n);
        copy(&good, &dir);
        damage(&dir);
        match open(&dir) {
            Err(Error::Corrupt { file, .. }) => file.rsplit('/').next().unwrap_or_default().to_owned(),
            Err(error) => panic!("{n}: {error}"),
            Ok(_) => panic!("{n}: opened"),
        }
    };
    for n in 1..=count {
        let named = case(&format!("without {n}"), &|d| std::fs::remove_file(segment(d, n)).expect("removed"));
        assert_eq!(named, format!("{n:016}.log"));
    }
    for n in 1..=count {
        let end = end_of_log(&std::fs::read(segment(&good, n)).expect("read"));
        for cut in [0, 100, SECTOR, end - 100] {
            let named = case(&format!("{n} cut to {cut}"), &|d| {
                let file = std::fs::OpenOptions::new().write(true).open(segment(d, n)).expect("open");
                file.set_len(cut as u64).expect("cut");
            });
            assert_eq!(named, format!("{n:016}.log"));
        }
    }
    case("swapped", &|d| {
        std::fs::rename(segment(d, 1), d.join("x")).expect("moved");
        std::fs::rename(segment(d, 2), segment(d, 1)).expect("moved");
        std::fs::rename(d.join("x"), segment(d, 2)).expect("moved");
    });
    let other = dir.path().join("other");
    fill(&other, &[3000; 12], false).await;
    case("another store's", &|d| {
        std::fs::copy(segment(&other, 2), segment(d, 2)).expect("copied");
    });
}

#[tokio::test]
async fn damage_to_a_snapshot_is_refused() {
    let dir = scratch();
    fill(dir.path(), &[3000; 12], false).await;
    let store = open(dir.path()).expect("the store opens");
    store.compact(11).await.expect("compact");
    drop(store);
    let path = dir.path().join(format!("{:020}.snap", 11));
    assert!(!segment(dir.path(), 1).exists(), "the snapshot has replaced the first segment");
    let good = std::fs::read(&path).expect("the snapshot");
    for at in (0..good.len()).step_by(61).chain(good.len() - 30..good.len()).chain(0..60) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, &bad).expect("write");
        let result = open(dir.path()).map(|_| ());
        assert!(
            matches!(&result, Err(Error::Corrupt { file, .. }) if file.ends_with(".snap")),
            "byte {at}: {result:?}"
        );
    }
    std::fs::remove_file(&path).expect("removed");
    assert!(matches!(open(dir.path()), Err(Error::Corrupt { .. })), "the log alone is not the store");
    std::fs::write(&path, &good).expect("write");
    assert_eq!(keys(&open(dir.path()).expect("the store opens")).await, 12);
}

/// A crash between making a segment and sealing the one before leaves the new one empty; anything else is damage.
#[tokio::test]
async fn an_interrupted_change_of_segments_is_finished() {
    /// A batch with nothing but a seal: header, record, trailer, in multiples of 16.
    const SEAL: usize = 80;
    let dir = scratch();
    fill(dir.path(), &[3000; 8], false).await;
    let last = dir.path().read_dir().expect("a listing").count() as u64 - 1;
    let (before, after) = (segment(dir.path(), last - 1), segment(dir.path(), last));
    let good = std::fs::read(&before).expect("read");
    let mut unsealed = good.clone();
    let end = end_of_log(&good);
    unsealed[end - SEAL..end].fill(0);
    std::fs::write(&before, unsealed).expect("write");
    let damaged = open(dir.path()).map(|_| ());
    assert!(
        matches!(&damaged, Err(Error::Corrupt { file, .. }) if *file == before.display().to_string()),
        "{damaged:?}"
    );

    let mut empty = std::fs::read(&after).expect("read");
    empty[SECTOR..].fill(0);
    std::fs::write(&after, empty).expect("write");
    let store = open(dir.path()).expect("the store opens");
    let there = keys(&store).await;
    assert_eq!(std::fs::read(&before).expect("read"), good, "sealed again, to the same bytes");
    store.put("/next", Bytes::new(), Expect::Any).await.expect("it goes on");
    drop(store);
    assert_eq!(keys(&open(dir.path()).expect("and opens again")).await, there + 1);
}

/// A crash between a snapshot and the removal of what it replaces leaves nothing that needs a hand.
#[tokio::test]
async fn an_interrupted_compaction_is_finished() {
    let dir = scratch();
    fill(dir.path(), &[3000; 12], false).await;
    let old = dir.path().join("old");
    copy(dir.path(), &old);
    let store = open(dir.path()).expect("the store opens");
    store.compact(12).await.expect("compact");
    drop(store);
    for entry in old.read_dir().expect("a listing") {
        let entry = entry.expect("an entry");
        let to = dir.path().join(entry.file_name());
        if !to.exists() {
            std::fs::rename(entry.path(), to).expect("back again");
        }
    }
    std::fs::write(dir.path().join(format!("{:020}.tmp", 13)), b"half a snapshot").expect("write");
    assert!(segment(dir.path(), 1).exists());
    let store = open(dir.path()).expect("the store opens");
    assert_eq!(keys(&store).await, 12);
    assert!(!segment(dir.path(), 1).exists(), "left-overs are removed");
    assert!(!dir.path().join(format!("{:020}.tmp", 13)).exists());
}
