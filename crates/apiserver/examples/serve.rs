//! An API server on 127.0.0.1:PORT with a throw-away PKI, over a store in DIR, and a kubeconfig for its admin:
//! `cargo run --example serve -- PORT DIR`. For trying clients against; `keelson apiserver` is the real thing.

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;

use keelson_apiserver::{ApiServer, Config, Pem, ServiceAccountKeys};
use keelson_store::{LocalStore, Options};

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let mut args = std::env::args().skip(1);
    let port: u16 = args.next().and_then(|p| p.parse().ok()).expect("usage: serve PORT DIR");
    let dir = std::path::PathBuf::from(args.next().expect("usage: serve PORT DIR"));
    let pki = support::Pki::new();
    let signing = rcgen::KeyPair::generate().unwrap();
    let config = Config {
        serving: Some(pki.identity("kube-apiserver")),
        client_ca: Some(Pem::Inline(pki.ca_pem.clone().into_bytes())),
        service_account: Some(ServiceAccountKeys::new(
            signing.serialize_pem().into(),
            vec![signing.public_key_pem().into()],
            "https://kubernetes.default.svc.cluster.local",
        )),
        ..Config::default()
    };
    let begin = std::time::Instant::now();
    let store = Arc::new(LocalStore::open(&dir.join("store"), Options::default()).unwrap());
    let server = ApiServer::new(config, store).await.unwrap();
    println!("ready after {:?}", begin.elapsed());
    let (certificate, key) = pki.issue("kubernetes-admin", &["kubeadm:cluster-admins", "system:masters"]);
    for (name, text) in [("ca.crt", &pki.ca_pem), ("admin.crt", &certificate), ("admin.key", &key)] {
        std::fs::write(dir.join(name), text).unwrap();
    }
    let d = dir.display();
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: t\ncontexts: [{{name: t, context: {{cluster: t, user: t}}}}]\n\
         clusters: [{{name: t, cluster: {{server: 'https://127.0.0.1:{port}', certificate-authority: '{d}/ca.crt'}}}}]\n\
         users: [{{name: t, user: {{client-certificate: '{d}/admin.crt', client-key: '{d}/admin.key'}}}}]\n"
    );
    std::fs::write(dir.join("kubeconfig"), kubeconfig).unwrap();
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        stop.cancel();
    });
    server.serve(listener, shutdown).await.unwrap();
}
