//! What a watch sends.

use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::Value;

use super::Api;

/// A watch's events, one JSON object each.
pub struct Events {
    body: keelson_apiserver::Body,
    ready: Vec<u8>,
}

impl Events {
    pub async fn of(api: &Api, path: &str) -> Self {
        let response = api.send(&format!("GET {path}"), String::new()).await;
        assert_eq!(response.status(), 200);
        Self { body: response.into_body(), ready: Vec::new() }
    }

    /// The next event; `None` at the end of the watch. It may come late: some tests have the clock run ahead.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.ready.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.ready.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(Duration::from_secs(600), self.body.frame()).await.unwrap()?;
            self.ready.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
    }

    /// The next event must be this: `ADDED a`.
    pub async fn expect(&mut self, expected: &str) -> Value {
        let event = self.next().await.unwrap();
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
        assert_eq!(format!("{} {name}", event["type"].as_str().unwrap()).trim(), expected);
        event
    }
}
