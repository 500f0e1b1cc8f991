//! Watch frames in every encoding: events, bookmarks, errors, tables, metadata.

use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use keelson_api::codec::{Encoding, cbor, json, protobuf};
use keelson_apiserver::Body;
use serde_json::{Value, json};

use super::support::{Api, TestServer};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A watch, read event by event.
struct Watch {
    body: Body,
    encoding: Encoding,
    read: Vec<u8>,
}

impl Watch {
    async fn start(api: &Api, path: &str, encoding: Encoding, parameters: &str) -> Self {
        let accept = format!("{}{parameters}", encoding.media_type());
        let response = api.send_with(&format!("GET {path}"), "", &[("accept", &accept)]).await;
        let content_type = match encoding {
            Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            Encoding::Cbor => "application/cbor-seq",
            other => other.media_type(),
        };
        assert_eq!(
            (response.status().as_u16(), response.headers()[CONTENT_TYPE].to_str().unwrap()),
            (200, content_type)
        );
        Self { body: response.into_body(), encoding, read: Vec::new() }
    }

    /// The next event: its type and object.
    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some((event, length)) = self.take() {
                self.read.drain(..length);
                return event;
            }
            let deadline = std::time::Duration::from_secs(20);
            let frame = tokio::time::timeout(deadline, self.body.frame()).await.expect("an event in time");
            self.read.extend_from_slice(frame.expect("the watch goes on").unwrap().data_ref().unwrap());
        }
    }

    /// An event that has arrived as a whole, and its length in bytes.
    fn take(&self) -> Option<((String, Value), usize)> {
        match self.encoding {
            Encoding::Json | Encoding::Yaml => {
                let end = self.read.iter().position(|byte| *byte == b'\n')? + 1;
                Some((of_value(json::decode(&self.read[..end]).unwrap().value), end))
            }
            Encoding::Protobuf => {
                let length = u32::from_be_bytes(*self.read.first_chunk()?) as usize + 4;
                Some((of_message(self.read.get(4..length)?), length))
            }
            Encoding::Cbor => {
                // Whole events come in one piece or several, never half of one.
                let values = cbor::decode_sequence(&self.read).ok().filter(|values| !values.is_empty())?;
                let first = values.into_iter().next()?.value;
                let length = (1..=self.read.len()).find(|n| cbor::decode(&self.read[..*n]).is_ok())?;
                assert!(self.read.starts_with(&cbor::MAGIC));
                Some((of_value(first), length))
            }
        }
    }
}

fn of_value(mut event: Value) -> (String, Value) {
    (event["type"].as_str().unwrap().to_owned(), event["object"].take())
}

/// `WatchEvent{type, object{raw}}`, by hand.
fn of_message(mut message: &[u8]) -> (String, Value) {
    let mut field = |tag: u8| {
        let (head, rest) = message.split_first().unwrap();
        assert_eq!(*head, tag << 3 | 2);
        let (mut length, mut rest, mut shift) = (0_usize, rest, 0);
        loop {
            let (byte, tail) = rest.split_first().unwrap();
            (length, rest, shift) = (length | usize::from(byte & 0x7f) << shift, tail, shift + 7);
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (bytes, tail) = rest.split_at(length);
        message = tail;
        bytes
    };
    let event = String::from_utf8(field(1).to_vec()).unwrap();
    let object = field(2);
    assert!(message.is_empty());
    // `RawExtension{raw}` holds the whole envelope.
    let start = object.windows(4).position(|window| window == protobuf::MAGIC).unwrap();
    (event, protobuf::decode_any(&object[start..]).unwrap())
}

#[tokio::test]
async fn events_in_every_encoding() {
    let test = TestServer::start().await;
    let api = test.admin();
    let first = api.ok(&format!("POST {MAPS}"), json!({"metadata": {"name": "a"}, "binaryData": {"k": "AAE="}})).await;
    let path = format!(
        "{MAPS}?watch=1&resourceVersion=0&allowWatchBookmarks=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    );
    let partial = ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let mut watches = Vec::new();
    for encoding in [Encoding::Json, Encoding::Protobuf, Encoding::Cbor] {
        for parameters in ["", ";stream=watch", partial] {
            // Two of each: the second is sent what was made for the first.
            for _ in 0..2 {
                watches.push((Watch::start(&api, &path, encoding, parameters).await, parameters == partial));
            }
        }
    }
    let whole = |object: &Value, partial: bool| match partial {
        true => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
        }
        false => object.clone(),
    };
    for (watch, partial) in &mut watches {
        loop {
            let (event, object) = watch.next().await;
            if event == "BOOKMARK" {
                let kind = if *partial { "PartialObjectMetadata" } else { "ConfigMap" };
                assert_eq!(object["kind"], kind);
                assert_eq!(object["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
                break;
            }
            assert_eq!(event, "ADDED");
            if object["metadata"]["name"] == "a" {
                assert_eq!(object, whole(&first, *partial));
            }
        }
    }
    let second = api.ok(&format!("PATCH+merge {MAPS}/a"), json!({"metadata": {"labels": {"x": "y"}}})).await;
    let gone = api.ok(&format!("DELETE {MAPS}/a"), json!(null)).await;
    assert_eq!(gone["status"], "Success");
    let mut last = None;
    for (watch, partial) in &mut watches {
        assert_eq!(watch.next().await, ("MODIFIED".into(), whole(&second, *partial)));
        let (event, object) = watch.next().await;
        assert_eq!(event, "DELETED");
        // The deletion's own revision, the same for all.
        let revision = object["metadata"]["resourceVersion"].clone();
        assert_ne!(revision, second["metadata"]["resourceVersion"]);
        assert_eq!(last.get_or_insert(revision.clone()), &revision);
        let mut expected = second.clone();
        expected["metadata"]["resourceVersion"] = revision;
        assert_eq!(object, whole(&expected, *partial));
    }
}

#[tokio::test]
async fn tables_say_their_columns_once() {
    let test = TestServer::start().await;
    let api = test.admin();
    let path = format!("{MAPS}?watch=1&includeObject=Object&fieldSelector=metadata.name%3Da");
    let mut watch = Watch::start(&api, &path, Encoding::Json, ";as=Table;g=meta.k8s.io;v=v1").await;
    let first = api.ok(&format!("POST {MAPS}"), json!({"metadata": {"name": "a"}})).await;
    let second = api.ok(&format!("PATCH+merge {MAPS}/a"), json!({"data": {"x": "y"}})).await;
    let (event, table) = watch.next().await;
    assert_eq!((event.as_str(), &table["kind"], &table["rows"][0]["object"]), ("ADDED", &json!("Table"), &first));
    assert_eq!(
        table["columnDefinitions"].as_array().unwrap().len(),
        table["rows"][0]["cells"].as_array().unwrap().len()
    );
    let (event, table) = watch.next().await;
    assert_eq!((event.as_str(), &table["rows"][0]["object"]), ("MODIFIED", &second));
    assert_eq!(table["columnDefinitions"], json!(null));
}

#[tokio::test]
async fn the_error_that_ends_a_watch_is_a_status() {
    let test = TestServer::start().await;
    let api = test.admin();
    let path =
        format!("{MAPS}?watch=1&resourceVersion=999999999&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
    let ends = [Encoding::Json, Encoding::Protobuf, Encoding::Cbor].map(async |encoding| {
        let (event, status) = Watch::start(&api, &path, encoding, "").await.next().await;
        assert_eq!(
            (event.as_str(), &status["kind"], &status["code"]),
            ("ERROR", &json!("Status"), &json!(504)),
            "{status}"
        );
    });
    futures::future::join_all(ends).await;
}
