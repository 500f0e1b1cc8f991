//! Webhooks in the cluster: this very test program, run in a pod to do a test that does not end. HTTPS with the certificate in
//! `/tls`, one request per connection. What is answered is the caller's.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use base64::Engine as _;
use keelson_testbed::cluster::Cluster;
use keelson_testbed::image;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Makes what a review at a path is answered with.
pub(crate) type Answer = fn(&str, &Value) -> Value;

/// Loads an image in which this program does the ignored test `test`.
pub(crate) fn load(cluster: &Cluster, name: &str, test: &str) {
    let archive = cluster.path("webhook.tar");
    let program = std::env::current_exe().expect("own path");
    image::binary(name, &program, &["--exact", test, "--ignored", "--nocapture"])
        .and_then(|image| image.compression(image::Compression::None).write_archive(&archive))
        .expect("an archive");
    cluster.keelson_ok("image load", &[archive.to_str().expect("UTF-8")]);
}

/// A certificate for a Service of the namespace `default` by itself, and its key, in base64.
pub(crate) fn certificate(service: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec![format!("{service}.default.svc")]).expect("a name");
    let encode = |text: String| base64::prelude::BASE64_STANDARD.encode(text);
    (encode(params.self_signed(&key).expect("a certificate").pem()), encode(key.serialize_pem()))
}

/// A webhook's Secret, pod and Service, all of one name. What the test does in the pod listens on port 8443.
pub(crate) fn manifest(name: &str, image: &str, certificate: &str, key: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Secret
metadata: {{name: {name}}}
type: kubernetes.io/tls
data: {{tls.crt: {certificate}, tls.key: {key}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  containers:
  - name: webhook
    image: {image}
    imagePullPolicy: Never
    readinessProbe: {{tcpSocket: {{port: 8443}}, periodSeconds: 1}}
    volumeMounts: [{{name: tls, mountPath: /tls}}]
  volumes: [{{name: tls, secret: {{secretName: {name}}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 443, targetPort: 8443}}]}}
---
"#
    )
}

/// Answers until the pod ends.
pub(crate) fn serve(answer: Answer) -> Result<(), Failure> {
    let chain = CertificateDer::pem_file_iter("/tls/tls.crt")?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file("/tls/tls.key")?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let config = Arc::new(config);
    let listener = TcpListener::bind("0.0.0.0:8443")?;
    println!("ready");
    for stream in listener.incoming() {
        let (stream, config) = (stream?, config.clone());
        std::thread::spawn(move || {
            let answered = ServerConnection::new(config)
                .map_err(Failure::from)
                .and_then(|tls| exchange(StreamOwned::new(tls, stream), answer));
            if let Err(error) = answered {
                println!("{error}");
            }
        });
    }
    Ok(())
}

fn exchange(stream: impl Read + Write, answer: Answer) -> Result<(), Failure> {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err("the request ended early".into());
        }
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let answer = answer(path.split('?').next().unwrap_or_default(), &serde_json::from_slice(&body)?).to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length:";
    let stream = stream.get_mut();
    write!(stream, "{head} {}\r\n\r\n{answer}", answer.len())?;
    stream.flush()?;
    Ok(())
}
