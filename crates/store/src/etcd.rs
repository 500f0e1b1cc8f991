//! The engine for several control-plane machines: etcd v3 over gRPC. We do not write a consensus protocol.
//!
//! Keys and values are those of the local engine (`/registry/…`, JSON), under a prefix that may be another one.
//!
//! # How far a watch has come
//! A reader who is owed the newest state asks etcd for its revision and waits until the watch has come so far. Revisions also
//! count what happens outside the prefix, of which a watch hears nothing. etcd has progress requests for that, but before
//! 3.4.25 and 3.5.8 their answers may overtake events (etcd issue 15220), and Debian's is 3.4.23. So progress is an event like any
//! other: a watch also watches the one key that comes right after its prefix, and [`Store::request_progress`] writes it. It
//! costs a write, but only when somebody waits and nothing else happens under the prefix.
//!
//! - [`watch`]: one watch, through reconnects
//! - [`lease`]: leases for keys that expire, shared by keys
//! - [`failure`]: etcd's errors as ours
//! - [`process`]: an etcd program of one's own, for tests and benches

mod failure;
mod lease;
pub mod process;
mod watch;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, GetOptions, Identity, KvClient, PutOptions,
    TlsOptions, Txn, TxnOp, TxnOpResponse,
};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::sync::broadcast;

use self::failure::{call, unexpected};
use crate::{Error, Expect, KeyValue, Range, Store, WatchStream};

/// Where keys start in the API server, whatever the prefix in etcd.
const ROOT: &str = "/registry";
/// Keys read at a time.
const PAGE: usize = 500;
/// A list that is compacted away between two pages is begun again so many times.
const LIST_ATTEMPTS: usize = 4;
/// Bytes that an answer may have: a page of the biggest objects.
const ANSWER_BYTES: usize = 1 << 30;
/// The key by which those who share an etcd agree on who compacts; upstream's.
const COMPACT_KEY: &str = "compact_rev_key";
/// Writes under way at once that only count revisions.
const ADVANCE: usize = 256;
/// How long a health check may take, and how old its answer may be.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
const HEALTH_AGE: Duration = Duration::from_secs(1);

/// How etcd is reached.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--etcd-servers`: `https://10.0.0.1:2379`
    pub endpoints: Vec<String>,
    /// `--etcd-cafile`, in PEM.
    pub ca: Option<Vec<u8>>,
    /// `--etcd-certfile` and `--etcd-keyfile`, in PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// `--etcd-prefix`: stands in etcd for `/registry`.
    pub prefix: String,
    /// `--lease-reuse-duration-seconds`: keys that expire within so long of each other share a lease.
    pub lease_reuse: Duration,
}

impl Options {
    /// Upstream's defaults.
    pub fn new(endpoints: Vec<String>) -> Self {
        let lease_reuse = Duration::from_secs(60);
        Self { endpoints, ca: None, identity: None, prefix: ROOT.into(), lease_reuse }
    }
}

/// A store in etcd.
pub struct EtcdStore {
    shared: Arc<Shared>,
    leases: lease::Leases,
    newest: Newest,
    /// The last answer of the health check.
    health: tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>,
    /// The version of [`COMPACT_KEY`] that was last seen.
    compact_version: tokio::sync::Mutex<i64>,
}

struct Shared {
    client: Client,
    kv: KvClient,
    /// Without a slash at the end.
    prefix: String,
    /// The newest compaction that is known of.
    compacted: AtomicU64,
    /// Keys by which open watches learn of progress, with how many watch each.
    nudges: Mutex<HashMap<Vec<u8>, usize>>,
    /// One at a time: who waits for progress is served by that of another, or asks again.
    nudging: tokio::sync::Mutex<()>,
}

impl EtcdStore {
    /// Makes a store over servers that may not be there yet.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        let mut connect = ConnectOptions::new()
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
            .with_keep_alive_while_idle(true)
            .with_connect_timeout(Duration::from_secs(2))
            .with_require_leader(true);
        let invalid = |what: String| Error::Invalid { what };
        if let Some(ca) = &options.ca {
            let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(ca));
            if let Some((certificate, key)) = &options.identity {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            connect = connect.with_tls(tls);
        } else if options.identity.is_some() || options.endpoints.iter().any(|e| e.starts_with("https:")) {
            return Err(invalid("etcd over TLS needs --etcd-cafile".into()));
        }
        let prefix = options.prefix.trim_end_matches('/').to_owned();
        if prefix.is_empty() || !prefix.starts_with('/') {
            return Err(invalid(format!("--etcd-prefix {prefix:?} does not start with a slash and a name")));
        }
        let client = Client::connect(&options.endpoints, Some(connect)).await;
        let client = client.map_err(|error| invalid(format!("etcd servers {:?}: {error}", options.endpoints)))?;
        let kv = client.kv_client().max_decoding_message_size(ANSWER_BYTES);
        let (compacted, nudges, nudging) = Default::default();
        let leases = lease::Leases::new(client.lease_client(), options.lease_reuse);
        let shared = Arc::new(Shared { client, kv, prefix, compacted, nudges, nudging });
        let (health, compact_version) = Default::default();
        Ok(Self { newest: Newest::default(), leases, shared, health, compact_version })
    }

    /// Makes revisions pass until at least `revision`, by writes beside the prefix.
    pub async fn advance(&self, revision: u64) -> Result<(), Error> {
        let key = after(&self.shared.key(&format!("{ROOT}/"))?);
        loop {
            let missing = revision.saturating_sub(self.shared.revision().await?);
            if missing == 0 {
                return Ok(());
            }
            let writes = (0..missing).map(|_| {
                let (mut kv, key) = (self.shared.kv.clone(), key.clone());
                async move { call("put", kv.put(key, Vec::new(), None)).await.map(|_| ()) }
            });
            futures::stream::iter(writes).buffer_unordered(ADVANCE).try_collect::<()>().await?;
        }
    }

    async fn put_leased(&self, key: &str, value: Bytes, expect: Expect, lease: i64) -> Result<u64, Error> {
        let shared = &self.shared;
        let etcd_key = shared.key(key)?;
        let options = PutOptions::new().with_lease(lease);
        let condition = match expect {
            Expect::Any => {
                let answer = call("put", shared.kv.clone().put(etcd_key, value, Some(options))).await?;
                return Ok(revision_of(answer.header()));
            }
            Expect::Absent => Compare::mod_revision(etcd_key.as_str(), CompareOp::Equal, 0),
            Expect::Revision(revision) => {
                Compare::mod_revision(etcd_key.as_str(), CompareOp::Equal, revision.cast_signed())
            }
        };
        let txn = Txn::new()
            .when([condition])
            .and_then([TxnOp::put(etcd_key.as_str(), value, Some(options))])
            .or_else([TxnOp::get(etcd_key.as_str(), None)]);
        let answer = call("put", shared.kv.clone().txn(txn)).await?;
        match answer.op_responses().pop() {
            Some(TxnOpResponse::Put(put)) if answer.succeeded() => {
                // A transaction's parts have no revision of their own when they come from old servers.
                Ok(revision_of(put.header().or(answer.header())))
            }
            Some(TxnOpResponse::Get(mut there)) => {
                Err(Error::Conflict { current: there.take_kvs().pop().map(|kv| shared.kv(kv)) })
            }
            _ => Err(unexpected("put")),
        }
    }
}

fn revision_of(header: Option<&etcd_client::ResponseHeader>) -> u64 {
    header.map_or(0, |header| header.revision().cast_unsigned())
}

/// The first key after all that start with `prefix`.
fn after(prefix: &str) -> Vec<u8> {
    let mut bytes = prefix.as_bytes().to_vec();
    // No byte of UTF-8 is 255.
    if let Some(last) = bytes.last_mut() {
        *last += 1;
    }
    bytes
}

impl Shared {
    /// A key as it is in etcd.
    fn key(&self, key: &str) -> Result<String, Error> {
        let rest = key.strip_prefix(ROOT).filter(|rest| rest.starts_with('/'));
        let rest = rest.ok_or_else(|| Error::Invalid { what: format!("the key {key:?} is not under {ROOT}/") })?;
        Ok(format!("{}{rest}", self.prefix))
    }

    /// A version as the API server knows it.
    fn kv(&self, kv: etcd_client::KeyValue) -> KeyValue {
        let (create_revision, mod_revision) = (kv.create_revision().cast_unsigned(), kv.mod_revision().cast_unsigned());
        let (key, value) = kv.into_key_value();
        KeyValue { key: self.name(&key), value: value.into(), create_revision, mod_revision }
    }

    fn name(&self, key: &[u8]) -> Arc<str> {
        let key = String::from_utf8_lossy(key);
        match key.strip_prefix(&*self.prefix) {
            Some(rest) if self.prefix != ROOT => format!("{ROOT}{rest}").into(),
            _ => key.into(),
        }
    }

    /// A revision at the least as new as everything that was acknowledged before.
    async fn revision(&self) -> Result<u64, Error> {
        let options = GetOptions::new().with_count_only();
        let answer = call("read", self.kv.clone().get(self.prefix.as_str(), Some(options))).await?;
        Ok(revision_of(answer.header()))
    }

    /// An error's numbers, which etcd does not tell.
    async fn numbered(&self, error: Error, asked: u64) -> Error {
        match error {
            Error::Compacted { .. } => {
                Error::Compacted { requested: asked, oldest: self.compacted.load(Ordering::Relaxed) }
            }
            Error::Future { .. } => match self.revision().await {
                Ok(newest) => Error::Future { requested: asked, newest },
                Err(error) => error,
            },
            error => error,
        }
    }

    fn note_compacted(&self, revision: u64) {
        self.compacted.fetch_max(revision, Ordering::Relaxed);
    }

    /// One page.
    async fn page(&self, from: &str, end: &[u8], revision: Option<u64>, limit: usize) -> Result<Range, Error> {
        let options = GetOptions::new()
            .with_range(end)
            .with_limit(limit as i64)
            .with_revision(revision.map_or(0, u64::cast_signed));
        let mut answer = call("list", self.kv.clone().get(from, Some(options))).await?;
        let newest = revision_of(answer.header());
        let (more, count) = (answer.more(), answer.count() as usize);
        let kvs = answer.take_kvs().into_iter().map(|kv| self.kv(kv)).collect();
        Ok(Range { kvs, revision: revision.unwrap_or(newest), more, count })
    }
}

/// Shares one question for the newest revision among all who ask while the one before is under way.
#[derive(Default)]
struct Newest {
    state: Arc<Mutex<Asked>>,
}

type Answer = Result<u64, String>;

#[derive(Default)]
struct Asked {
    /// The answer to the next question.
    next: Option<broadcast::Sender<Answer>>,
    running: bool,
}

impl Newest {
    async fn ask(&self, shared: &Arc<Shared>) -> Answer {
        let (mut answer, run) = {
            let mut state = self.state.lock();
            let answer = state.next.get_or_insert_with(|| broadcast::channel(1).0).subscribe();
            (answer, !std::mem::replace(&mut state.running, true))
        };
        if run {
            let (state, shared) = (self.state.clone(), shared.clone());
            tokio::spawn(async move {
                loop {
                    let next = {
                        let mut state = state.lock();
                        state.running = state.next.is_some();
                        state.next.take()
                    };
                    let Some(next) = next else { return };
                    // Nobody may be left to hear it.
                    let _ = next.send(shared.revision().await.map_err(|error| error.to_string()));
                }
            });
        }
        answer.recv().await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn put(&self, key: &str, value: Bytes, expect: Expect) -> Result<u64, Error> {
        self.put_leased(key, value, expect, 0).await
    }

    async fn put_expiring(&self, key: &str, value: Bytes, expect: Expect, ttl: Duration) -> Result<u64, Error> {
        let lease = self.leases.get(ttl).await?;
        match self.put_leased(key, value.clone(), expect, lease).await {
            Err(error) if failure::is_lease_lost(&error) => {
                self.leases.forget(lease);
                self.put_leased(key, value, expect, self.leases.get(ttl).await?).await
            }
            outcome => outcome,
        }
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<(u64, KeyValue), Error> {
        let shared = &self.shared;
        let etcd_key = shared.key(key)?;
        let options = DeleteOptions::new().with_prev_key();
        let condition = match expect {
            Expect::Any => Compare::mod_revision(etcd_key.as_str(), CompareOp::Greater, 0),
            // An absent key is never deleted, so this never holds: the answer is what is there.
            Expect::Absent => Compare::mod_revision(etcd_key.as_str(), CompareOp::Less, 0),
            Expect::Revision(revision) => {
                Compare::mod_revision(etcd_key.as_str(), CompareOp::Equal, revision.cast_signed())
            }
        };
        let txn = Txn::new()
            .when([condition])
            .and_then([TxnOp::delete(etcd_key.as_str(), Some(options))])
            .or_else([TxnOp::get(etcd_key.as_str(), None)]);
        let answer = call("delete", shared.kv.clone().txn(txn)).await?;
        match answer.op_responses().pop() {
            Some(TxnOpResponse::Delete(mut deleted)) => match deleted.take_prev_kvs().pop() {
                Some(kv) => Ok((revision_of(answer.header()), shared.kv(kv))),
                None => Err(Error::Conflict { current: None }),
            },
            Some(TxnOpResponse::Get(mut there)) => {
                Err(Error::Conflict { current: there.take_kvs().pop().map(|kv| shared.kv(kv)) })
            }
            _ => Err(unexpected("delete")),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<KeyValue>, Error> {
        let mut answer = call("get", self.shared.kv.clone().get(self.shared.key(key)?, None)).await?;
        Ok(answer.take_kvs().pop().map(|kv| self.shared.kv(kv)))
    }

    async fn range(&self, prefix: &str, start: &str, revision: Option<u64>, limit: usize) -> Result<Range, Error> {
        let shared = &self.shared;
        let first = if start > prefix { shared.key(start)? } else { shared.key(prefix)? };
        let end = after(&shared.key(prefix)?);
        for attempt in 1.. {
            let (mut from, mut at, mut out) = (first.clone(), revision, Range::default());
            let outcome = loop {
                let left = if limit == 0 { PAGE } else { (limit - out.kvs.len()).min(PAGE) };
                let page = match shared.page(&from, &end, at, left).await {
                    Ok(page) => page,
                    Err(error) => break Err(shared.numbered(error, at.unwrap_or(0)).await),
                };
                if at.is_none() || out.kvs.is_empty() {
                    (out.count, out.revision) = (page.count, page.revision);
                }
                at = Some(page.revision);
                out.more = page.more;
                out.kvs.extend(page.kvs);
                let last = out.kvs.last().filter(|_| out.more && (limit == 0 || out.kvs.len() < limit));
                match last {
                    Some(last) => from = format!("{}\0", shared.key(&last.key)?),
                    None => break Ok(out),
                }
            };
            match outcome {
                // It was too slow, not the one who asked too late.
                Err(Error::Compacted { .. }) if revision.is_none() && attempt < LIST_ATTEMPTS => {}
                outcome => return outcome,
            }
        }
        Err(unexpected("list"))
    }

    async fn watch(&self, prefix: &str, revision: u64) -> Result<WatchStream, Error> {
        watch::open(&self.shared, prefix, revision).await
    }

    async fn revision(&self) -> Result<u64, Error> {
        self.newest.ask(&self.shared).await.map_err(|what| Error::Unreachable { what })
    }

    async fn request_progress(&self) -> Result<(), Error> {
        let Ok(_alone) = self.shared.nudging.try_lock() else { return Ok(()) };
        let keys: Vec<_> = self.shared.nudges.lock().keys().cloned().collect();
        for key in keys {
            call("progress", self.shared.kv.clone().put(key, Vec::new(), None)).await?;
        }
        Ok(())
    }

    async fn compact(&self, revision: u64) -> Result<(), Error> {
        let outcome = call("compact", self.shared.kv.clone().compact(revision.cast_signed(), None)).await;
        match outcome {
            Ok(_) => self.shared.note_compacted(revision),
            Err(error) => return Err(self.shared.numbered(error, revision).await),
        }
        Ok(())
    }

    /// Upstream's protocol: the key's version counts the rounds. Who sees the version that he knew has the round; who does not
    /// has been forestalled and knows the new one.
    async fn compact_in_turn(&self, revision: u64) -> Result<(), Error> {
        let mut known = self.compact_version.lock().await;
        let txn = Txn::new()
            .when([Compare::version(COMPACT_KEY, CompareOp::Equal, *known)])
            .and_then([TxnOp::put(COMPACT_KEY, revision.to_string(), None)])
            .or_else([TxnOp::get(COMPACT_KEY, None)]);
        let answer = call("compact", self.shared.kv.clone().txn(txn)).await?;
        if let Some(TxnOpResponse::Get(there)) = answer.op_responses().first() {
            if let Some(kv) = there.kvs().first() {
                *known = kv.version();
                if let Some(at) = std::str::from_utf8(kv.value()).ok().and_then(|at| at.parse().ok()) {
                    self.shared.note_compacted(at);
                }
            }
            return Ok(());
        }
        *known += 1;
        self.compact(revision).await
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn health(&self) -> Result<(), Error> {
        let mut last = self.health.lock().await;
        let outcome = match &*last {
            Some((at, outcome)) if at.elapsed() < HEALTH_AGE => outcome.clone(),
            _ => {
                let outcome = tokio::time::timeout(HEALTH_TIMEOUT, check(&self.shared)).await;
                let outcome = outcome.unwrap_or_else(|_| Err("etcd does not answer in time".to_owned()));
                *last = Some((Instant::now(), outcome.clone()));
                outcome
            }
        };
        outcome.map_err(|what| Error::Unreachable { what })
    }
}

/// Whether etcd has a leader and takes writes.
async fn check(shared: &Shared) -> Result<(), String> {
    shared.revision().await.map_err(|error| error.to_string())?;
    let status = shared.client.maintenance_client().status().await.map_err(|error| error.to_string())?;
    match status.errors() {
        [] => Ok(()),
        errors => Err(errors.join("; ")),
    }
}
