//! The server on real sockets on 127.0.0.1. The upstream server of the tests is one of our own, for another domain.

use std::net::Ipv4Addr;

use hickory_proto::rr::RData;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
};

use super::*;

struct Running {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn start(domain: &str, upstreams: Vec<SocketAddr>) -> Running {
    let mut config = Config::new("n1", Ipv4Addr::LOCALHOST);
    (config.cluster_domain, config.upstreams) = (domain.to_owned(), upstreams);
    let shared = Shared::new(&config).unwrap();
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        // The same port may be taken for TCP.
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let (address, stop) = (udp.local_addr().unwrap(), CancellationToken::new());
    let running = Running { address, shared: shared.clone(), stop: stop.clone() };
    tokio::spawn(async move { serve_on(&shared, &config, udp, tcp, stop).await });
    running
}

impl Running {
    fn service(&self, name: &str, spec: serde_json::Value) {
        let service = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
        self.shared.index.write().set_service(Arc::new(serde_json::from_value(service).unwrap()));
    }

    /// A headless service with so many endpoints.
    fn headless(&self, name: &str, endpoints: u8) {
        self.service(name, json!({"clusterIP": "None"}));
        let endpoints: Vec<_> = (0..endpoints).map(|n| json!({"addresses": [format!("10.244.0.{n}")]})).collect();
        let slice = json!({
            "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [],
        });
        self.shared.index.write().set_slice(Arc::new(serde_json::from_value(slice).unwrap()));
    }

    async fn udp(&self, question: &Message) -> Message {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.send_to(&question.to_vec().unwrap(), self.address).await.unwrap();
        let mut buffer = [0; 4096];
        let n = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await.unwrap().unwrap();
        Message::from_vec(&buffer[..n]).unwrap()
    }

    async fn tcp(&self, question: &Message) -> Message {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let bytes = question.to_vec().unwrap();
        stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut answer).await.unwrap();
        Message::from_vec(&answer).unwrap()
    }
}

fn question(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    message
}

fn addresses(message: &Message) -> Vec<Ipv4Addr> {
    message.answers.iter().filter_map(|r| if let RData::A(a) = &r.data { Some(a.0) } else { None }).collect()
}

#[tokio::test]
async fn answers_over_udp_and_tcp() {
    let dns = start("cluster.local", Vec::new()).await;
    dns.service("web", json!({"clusterIP": "10.96.0.5"}));
    let asked = question("WEB.default.svc.cluster.local.", RecordType::A);
    for answer in [dns.udp(&asked).await, dns.tcp(&asked).await] {
        assert_eq!(answer.metadata.id, 4711);
        assert!(answer.metadata.authoritative && !answer.metadata.recursion_available);
        assert!(answer.metadata.recursion_desired && !answer.metadata.truncation);
        assert_eq!(addresses(&answer), [Ipv4Addr::new(10, 96, 0, 5)]);
        assert_eq!(answer.queries[0].name().to_ascii(), "WEB.default.svc.cluster.local.");
        assert_eq!(answer.answers[0].name.to_ascii(), "WEB.default.svc.cluster.local.");
    }
    let denied = dns.udp(&question("nope.default.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(denied.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(denied.authorities[0].record_type(), RecordType::SOA);
    let empty = dns.udp(&question("web.default.svc.cluster.local.", RecordType::AAAA)).await;
    assert_eq!((empty.metadata.response_code, empty.answers.len()), (ResponseCode::NoError, 0));
}

#[tokio::test]
async fn large_answers_are_cut_for_udp_only() {
    let dns = start("cluster.local", Vec::new()).await;
    dns.headless("many", 200);
    let asked = question("many.default.svc.cluster.local.", RecordType::A);
    let cut = dns.udp(&asked).await;
    assert!(cut.metadata.truncation && cut.to_vec().unwrap().len() <= 512);
    let whole = dns.tcp(&asked).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(addresses(&whole).len(), 200);
    // With EDNS a client can take more: 60 addresses of 16 bytes.
    dns.headless("some", 60);
    let mut asked = question("some.default.svc.cluster.local.", RecordType::A);
    assert!(dns.udp(&asked).await.metadata.truncation);
    let mut large = Edns::new();
    large.set_max_payload(1232);
    asked.set_edns(large);
    let answer = dns.udp(&asked).await;
    assert!(!answer.metadata.truncation && answer.edns.is_some());
    assert_eq!(addresses(&answer).len(), 60);
}

#[tokio::test]
async fn the_order_of_addresses_turns() {
    let dns = start("cluster.local", Vec::new()).await;
    dns.headless("db", 3);
    let asked = question("db.default.svc.cluster.local.", RecordType::A);
    let mut first = std::collections::BTreeSet::new();
    for _ in 0..3 {
        first.insert(addresses(&dns.udp(&asked).await)[0]);
    }
    assert_eq!(first.len(), 3);
}

#[tokio::test]
async fn foreign_names_are_refused_without_upstream() {
    let dns = start("cluster.local", Vec::new()).await;
    dns.service("out", json!({"type": "ExternalName", "externalName": "www.example.com"}));
    let refused = dns.udp(&question("www.example.com.", RecordType::A)).await;
    assert_eq!(refused.metadata.response_code, ResponseCode::Refused);
    let alias = dns.udp(&question("out.default.svc.cluster.local.", RecordType::A)).await;
    assert_eq!((alias.metadata.response_code, alias.answers.len()), (ResponseCode::NoError, 1));
    let mut update = question("web.default.svc.cluster.local.", RecordType::A);
    update.metadata.op_code = OpCode::Notify;
    assert_eq!(dns.udp(&update).await.metadata.response_code, ResponseCode::NotImp);
}

#[tokio::test]
async fn foreign_names_are_asked_of_the_upstream() {
    let upstream = start("example.com", Vec::new()).await;
    upstream.service("www", json!({"clusterIP": "192.0.2.80"}));
    upstream.headless("many", 100);
    // The first server does not exist; the second is asked then.
    let gone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let dns = start("cluster.local", vec![gone, upstream.address]).await;
    dns.service("out", json!({"type": "ExternalName", "externalName": "www.default.svc.example.com"}));
    let answer = dns.udp(&question("www.default.svc.example.com.", RecordType::A)).await;
    assert_eq!(addresses(&answer), [Ipv4Addr::new(192, 0, 2, 80)]);
    assert!(answer.metadata.recursion_available && !answer.metadata.authoritative);
    assert_eq!(answer.metadata.id, 4711);
    let alias = dns.udp(&question("out.default.svc.cluster.local.", RecordType::A)).await;
    assert_eq!((alias.answers.len(), addresses(&alias)), (2, vec![Ipv4Addr::new(192, 0, 2, 80)]));
    let denied = dns.udp(&question("nope.default.svc.example.com.", RecordType::A)).await;
    assert_eq!(denied.metadata.response_code, ResponseCode::NXDomain);
    let large = question("many.default.svc.example.com.", RecordType::A);
    assert!(dns.udp(&large).await.metadata.truncation);
    assert_eq!(addresses(&dns.tcp(&large).await).len(), 100);
    drop(upstream);
    let reverse = dns.udp(&question("1.2.0.192.in-addr.arpa.", RecordType::PTR)).await;
    assert_eq!(reverse.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut config = Config::new("n1", Ipv4Addr::LOCALHOST);
    config.port = taken.local_addr().unwrap().port();
    let shared = Shared::new(&config).unwrap();
    let error = serve(&shared, &config, CancellationToken::new()).await.unwrap_err().to_string();
    assert!(error.contains(&format!("cannot listen on 127.0.0.1:{}", config.port)), "{error}");
    config.cluster_domain = "a..b".to_owned();
    assert!(Shared::new(&config).is_err());
}
