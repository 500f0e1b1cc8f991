//! The DNS server: messages in and out. What to say comes from [`crate::zone`].

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, Record, RecordType},
};
use hickory_server::{
    Server,
    net::{runtime::Time, xfer::Protocol},
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Error,
    forward::{Forwarder, bind_tcp, bind_udp},
    index::Index,
    zone::{Outcome, Zone},
};

/// How long a TCP client may be silent.
const TCP_IDLE: Duration = Duration::from_secs(10);

/// Answers waiting for a slow TCP client.
const TCP_QUEUE: usize = 64;

/// The largest UDP answer, by agreement of DNS vendors (DNS flag day 2020): it is never fragmented.
const MAX_UDP_BYTES: u16 = 1232;

/// What server and informers share.
pub struct Shared {
    /// The cluster as last seen.
    pub index: RwLock<Index>,
    zone: Zone,
    synced: tokio::sync::watch::Sender<bool>,
}

impl Shared {
    /// An empty index. Errors when the cluster domain is no domain name.
    pub fn new(config: &Config) -> Result<Arc<Self>, Error> {
        let zone = Zone::new(&config.cluster_domain, config.ttl, config.pods, config.service_ip);
        let zone = zone.map_err(|_| Error::Domain(config.cluster_domain.clone()))?;
        Ok(Arc::new(Self { index: RwLock::default(), zone, synced: tokio::sync::watch::Sender::new(false) }))
    }

    /// Says that the index is complete.
    pub fn set_synced(&self) {
        self.synced.send_replace(true);
    }

    /// Waits until the index is complete.
    pub async fn synced(&self) {
        // The sender lives as long as `self`.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }
}

/// Serves UDP and TCP until `shutdown`.
pub async fn serve(shared: &Arc<Shared>, config: &Config, shutdown: CancellationToken) -> Result<(), Error> {
    let address = SocketAddr::new(config.node_ip.into(), config.port);
    let failed = |address| move |e| Error::Listen(address, e);
    let netns = config.netns.as_deref();
    let udp = bind_udp(address, netns).map_err(failed(address))?;
    let address = udp.local_addr().map_err(failed(address))?;
    let tcp = bind_tcp(address, netns).map_err(failed(address))?;
    serve_on(shared, config, udp, tcp, shutdown).await
}

/// [`serve`] on sockets that exist already.
async fn serve_on(
    shared: &Arc<Shared>,
    config: &Config,
    udp: tokio::net::UdpSocket,
    tcp: tokio::net::TcpListener,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let forwarder = Forwarder::new(config.upstreams.clone(), config.netns.clone());
    let mut server = Server::new(Handler { shared: shared.clone(), forwarder, turn: AtomicUsize::new(0) });
    server.register_socket(udp);
    server.register_listener(tcp, TCP_IDLE, TCP_QUEUE);
    tokio::select! {
        done = server.block_until_done() => return done.map_err(|e| Error::Server(e.to_string())),
        () = shutdown.cancelled() => {}
    }
    server.shutdown_gracefully().await.map_err(|e| Error::Server(e.to_string()))
}

struct Handler {
    shared: Arc<Shared>,
    forwarder: Forwarder,
    /// Turns the order of answers, so that clients that take the first address are spread.
    turn: AtomicUsize,
}

/// A response to be.
#[derive(Default)]
struct Response {
    code: ResponseCode,
    authoritative: bool,
    truncated: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additional: Vec<Record>,
}

impl Response {
    fn error(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }
}

impl Handler {
    async fn respond(&self, request: &Request) -> Response {
        if request.metadata.op_code != OpCode::Query {
            return Response::error(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else { return Response::error(ResponseCode::FormErr) };
        let question = info.query.original();
        if question.query_class() != DNSClass::IN {
            return Response::error(ResponseCode::Refused);
        }
        let (name, record_type) = (question.name(), question.query_type());
        let outcome = {
            let index = self.shared.index.read();
            self.shared.zone.answer(&index, name, record_type, self.forwarder.is_enabled())
        };
        match outcome {
            Outcome::Elsewhere => self.forward(request, name, record_type).await,
            Outcome::Answer(answer) => {
                let mut response = Response {
                    code: if answer.exists { ResponseCode::NoError } else { ResponseCode::NXDomain },
                    authoritative: true,
                    answers: answer.records,
                    authorities: answer.soa.into_iter().collect(),
                    additional: answer.additional,
                    ..Response::default()
                };
                if let Some(target) = answer.elsewhere {
                    // An alias out of the cluster: with nobody to ask, the client gets the alias and may ask itself.
                    if self.forwarder.is_enabled() {
                        let found = self.forward(request, &target, record_type).await;
                        response.answers.extend(found.answers);
                    }
                } else if response.answers.iter().all(|r| r.record_type() == RecordType::A) {
                    let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                    let middle = turn % response.answers.len().max(1);
                    response.answers.rotate_left(middle);
                }
                response
            }
        }
    }

    async fn forward(&self, request: &Request, name: &Name, record_type: RecordType) -> Response {
        if !self.forwarder.is_enabled() {
            return Response::error(ResponseCode::Refused);
        }
        let mut question = Message::new(rand_id(), MessageType::Query, OpCode::Query);
        question.metadata.recursion_desired = request.metadata.recursion_desired;
        question.add_query(Query::query(name.clone(), record_type));
        question.set_edns(edns());
        let over_tcp = request.protocol() != Protocol::Udp;
        match self.forwarder.ask(&question, over_tcp).await {
            Some(answer) => Response {
                code: answer.metadata.response_code,
                authoritative: false,
                truncated: answer.metadata.truncation,
                answers: answer.answers,
                authorities: answer.authorities,
                additional: answer.additionals,
            },
            None => Response::error(ResponseCode::ServFail),
        }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut out: R) -> ResponseInfo {
        let mut response = self.respond(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = response.authoritative;
        metadata.truncation = response.truncated;
        metadata.recursion_available = self.forwarder.is_enabled();
        // Only an answer with EDNS may be larger than 512 bytes, and no larger than the client says.
        let mut own = edns();
        if let Some(theirs) = &request.edns {
            own.set_max_payload(theirs.max_payload().clamp(512, MAX_UDP_BYTES));
            if theirs.version() > 0 {
                response = Response::error(ResponseCode::BADVERS);
                own.set_rcode_high(1);
            }
        }
        metadata.response_code = response.code;
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if request.edns.is_some() {
            builder.edns(&own);
        }
        let soa = std::iter::empty();
        let message = builder.build(metadata, &response.answers, &response.authorities, soa, &response.additional);
        match out.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "answer not sent");
                metadata.response_code = ResponseCode::ServFail;
                hickory_proto::op::Header { metadata, counts: Default::default() }.into()
            }
        }
    }
}

fn edns() -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_UDP_BYTES);
    edns
}

/// An identifier nobody can foresee.
fn rand_id() -> u16 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    // Each `RandomState` has keys of its own, from the system's random numbers.
    u16::try_from(RandomState::new().build_hasher().finish() & 0xffff).unwrap_or_default()
}

#[cfg(test)]
mod tests;
