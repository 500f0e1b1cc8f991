//! The conversion webhook: this very test program, run in a pod to do the one test below, which does not end. HTTPS with
//! the certificate in `/tls`, one request per connection. `v1` has `spec.at: "x,y"`, `v2` has `spec.x` and `spec.y`, the
//! rest is the same.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the test program is told to do in the pod.
pub(super) const ARGUMENTS: &[&str] = &["--exact", "e2e::custom::webhook::serve", "--ignored", "--nocapture"];

#[test]
#[ignore = "is no test but the webhook, for the pod to run"]
fn serve() -> Result<(), Failure> {
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
                .and_then(|tls| answer(StreamOwned::new(tls, stream)));
            if let Err(error) = answered {
                println!("{error}");
            }
        });
    }
    Ok(())
}

fn answer(stream: impl Read + Write) -> Result<(), Failure> {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    let mut line = String::new();
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
    let review: Value = serde_json::from_slice(&body)?;
    let request = &review["request"];
    let wanted = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let objects: Vec<Value> =
        request["objects"].as_array().into_iter().flatten().map(|object| convert(object, wanted)).collect();
    println!("converted {} to {wanted}", objects.len());
    let answer = json!({"kind": review["kind"], "apiVersion": review["apiVersion"],
        "response": {"uid": request["uid"], "convertedObjects": objects, "result": {"status": "Success"}}});
    let answer = answer.to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length:";
    let stream = stream.get_mut();
    write!(stream, "{head} {}\r\n\r\n{answer}", answer.len())?;
    stream.flush()?;
    Ok(())
}

fn convert(object: &Value, wanted: &str) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = wanted.into();
    let Some(spec) = object["spec"].as_object_mut() else { return object };
    if wanted.ends_with("/v2") {
        let at = spec.remove("at").unwrap_or_default();
        let (x, y) = at.as_str().and_then(|at| at.split_once(',')).unwrap_or(("0", "0"));
        for (name, number) in [("x", x), ("y", y)] {
            spec.insert(name.into(), number.parse::<i64>().unwrap_or(0).into());
        }
    } else {
        let mut take = |name: &str| spec.remove(name).and_then(|n| n.as_i64()).unwrap_or(0);
        let at = format!("{},{}", take("x"), take("y"));
        spec.insert("at".into(), at.into());
    }
    object
}
