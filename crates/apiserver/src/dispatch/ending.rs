//! What happens once a response is there, and once its body is over: the audit log's last events, and what is measured.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, Uri};
use keelson_api::codec::Encoding;
use keelson_api::status::Status;
use keelson_client::clock;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use super::Call;
use super::detached::{self, Begun};
use crate::UserInfo;
use crate::audit::{Audit, Incoming, Level, Record, Stage};
use crate::executor::Flow;
use crate::flow::Classification;
use crate::http::body::{Body, Witness};
use crate::http::path::RequestInfo;
use crate::limits::StreamPermit;
use crate::metrics::Measured;
use crate::registry::body::{decode_any, media_type};
use crate::relay::{AUDIT_ID, Origin};

/// Bytes of a list that are kept for the audit log; longer ones are left out of their event.
const MAX_CAPTURED_BYTES: usize = 10 << 20;
/// Answers beyond this are no `Status`.
const MAX_STATUS_BYTES: usize = 16 << 10;

/// What is to be done at a request's end.
pub(super) struct Ending {
    /// The client's, or one of our own.
    id: HeaderValue,
    pub(super) begin: Instant,
    /// The client's.
    pub(super) address: Option<IpAddr>,
    audited: Option<Audited>,
    /// What the request belongs to.
    pub(super) class: Option<Classification>,
    pub(super) measured: Option<Measured>,
    /// Of what changes something.
    pub(super) begun: Begun,
    /// Whose the request is.
    pub(super) flow: Flow,
}

/// A request that is written down.
struct Audited {
    audit: Arc<Audit>,
    record: Arc<Record>,
    long_running: bool,
    /// The first event was the last one.
    refused: bool,
    captured: Option<Arc<Mutex<Captured>>>,
}

/// A body that is put together for its event.
#[derive(Default)]
struct Captured {
    bytes: BytesMut,
    media_type: String,
    too_long: bool,
}

impl Ending {
    pub(super) fn new(headers: &HeaderMap, begun: Begun, flow: Flow) -> Self {
        let own = || HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).ok();
        let id = headers.get(AUDIT_ID).filter(|id| !id.is_empty()).cloned().or_else(own);
        let id = id.unwrap_or_else(|| HeaderValue::from_static(""));
        Self { id, begin: Instant::now(), address: None, audited: None, class: None, measured: None, begun, flow }
    }

    /// Begins to write the request down, if the policy wants it. Without a user, authentication has failed.
    pub(super) async fn audit(
        &mut self,
        audit: &Arc<Audit>,
        (uri, headers): (&Uri, &HeaderMap),
        info: &RequestInfo,
        address: Option<IpAddr>,
        user: Option<&Arc<UserInfo>>,
    ) -> Result<(), Status> {
        let id = String::from_utf8_lossy(self.id.as_bytes());
        let incoming = Incoming { id: &id, uri, headers, info, address, received: clock::now() - self.begin.elapsed() };
        let Some(record) = audit.begin(&incoming, user) else { return Ok(()) };
        // As upstream, who is nobody only leaves the answer.
        let refused = user.is_none();
        if !refused {
            audit.write(&record, Stage::RequestReceived).await?;
        }
        let audit = audit.clone();
        self.audited = Some(Audited { audit, record, long_running: info.is_long_running(), refused, captured: None });
        Ok(())
    }

    /// What another server that the request is passed on to is to know.
    pub(super) fn origin(&self) -> Origin {
        Origin { address: self.address, audit_id: self.id.clone() }
    }

    /// The request's record, when it is audited.
    pub(super) fn record(&self) -> Option<&Arc<Record>> {
        self.audited.as_ref().map(|audited| &audited.record)
    }

    /// Notes the answer, as it is before it is compressed or indented.
    pub(super) fn answered(&mut self, response: Response<Body>, failure: Option<&Status>) -> Response<Body> {
        match &mut self.audited {
            Some(audited) => audited.answered(response, failure),
            None => response,
        }
    }

    /// Sends what is to be sent now, and leaves the rest to the body's end.
    pub(super) async fn finish(mut self, mut response: Response<Body>) -> Response<Body> {
        response.headers_mut().insert(AUDIT_ID, self.id.clone());
        if let Some(class) = self.class.take() {
            class.tell(response.headers_mut());
        }
        let stream = response.extensions_mut().remove::<StreamPermit>();
        let mut measured = self.measured.take();
        if let Some(measured) = &mut measured {
            measured.answered(response.status().as_u16());
        }
        let whole = matches!(response.body(), Body::Full(_));
        let Some(audited) = self.audited.take() else {
            return match measured {
                None => response,
                Some(measured) => {
                    closed_by(response, stream, whole, Closing { audited: None, measured: Some(measured) })
                }
            };
        };
        if audited.long_running || audited.refused {
            // Errors have been counted and said; the answer is there already.
            let _ = audited.audit.write(&audited.record, Stage::ResponseStarted).await;
        }
        if audited.refused {
            return response;
        }
        if whole && stream.is_none() {
            let _ = audited.audit.write(&audited.record, Stage::ResponseComplete).await;
            return closed_by(response, stream, whole, Closing { audited: None, measured });
        }
        closed_by(response, stream, whole, Closing { audited: Some(audited), measured })
    }
}

/// A request that ends before it is answered, because its client went away, is written down all the same: something may have
/// been done for it.
impl Drop for Ending {
    fn drop(&mut self) {
        let Some(Audited { audit, record, refused, .. }) = self.audited.take() else { return };
        let status = detached::client_gone();
        record.answered(status.code, Some(status.to_value()));
        audit.write_later(&record, if refused { Stage::ResponseStarted } else { Stage::ResponseComplete });
    }
}

/// Lets go of what is to be let go when the response is over.
fn closed_by(
    response: Response<Body>,
    stream: Option<StreamPermit>,
    whole: bool,
    mut closing: Closing,
) -> Response<Body> {
    if let Some(stream) = stream {
        stream.keep(closing);
        return response;
    }
    if !whole {
        return response.map(|body| body.witnessed(closing));
    }
    if let Some(measured) = &mut closing.measured {
        measured.sized(http_body::Body::size_hint(response.body()).exact().unwrap_or_default());
    }
    response
}

impl Audited {
    fn answered(&mut self, response: Response<Body>, failure: Option<&Status>) -> Response<Body> {
        let code = response.status().as_u16();
        let media_type = media_type(response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()));
        let record = &self.record;
        record.answered(code, failure.map(Status::to_value).or_else(|| status_of(&media_type, response.body())));
        if record.level() < Level::RequestResponse {
            return response;
        }
        let (head, body) = response.into_parts();
        let body = match body {
            Body::Full(Some(bytes)) => {
                if let Some(json) = as_json(&media_type, &bytes) {
                    record.response_object(&json);
                }
                Body::Full(Some(bytes))
            }
            Body::Chunks(chunks) => {
                let captured = Arc::new(Mutex::new(Captured { media_type, ..Captured::default() }));
                self.captured = Some(captured.clone());
                let tee = move |chunk: &Result<Bytes, _>| {
                    if let Ok(bytes) = chunk {
                        captured.lock().push(bytes);
                    }
                };
                Body::Chunks(Box::new(chunks.inspect(tee)))
            }
            other => other,
        };
        Response::from_parts(head, body)
    }
}

impl Captured {
    fn push(&mut self, bytes: &Bytes) {
        if self.bytes.len() + bytes.len() > MAX_CAPTURED_BYTES {
            self.too_long = true;
            self.bytes = BytesMut::new();
        }
        if !self.too_long {
            self.bytes.extend_from_slice(bytes);
        }
    }
}

/// Dropped at the end of a body or stream.
struct Closing {
    audited: Option<Audited>,
    measured: Option<Measured>,
}

impl Witness for Closing {
    fn sent(&mut self, bytes: &Bytes) {
        if let Some(measured) = &mut self.measured {
            measured.sent(bytes.len());
        }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let Some(Audited { audit, record, captured, .. }) = self.audited.take() else { return };
        if let Some(captured) = captured {
            let captured = std::mem::take(&mut *captured.lock());
            if captured.too_long {
                record.annotate("audit.k8s.io/truncated", "true");
            } else if let Some(json) = as_json(&captured.media_type, &captured.bytes.freeze()) {
                record.response_object(&json);
            }
        }
        audit.write_later(&record, Stage::ResponseComplete);
    }
}

/// Notes the body of a request.
pub(super) fn note_request(call: &Call, body: &Bytes) {
    let Some(record) = call.audit.as_ref().filter(|_| !body.is_empty()) else { return };
    let media_type = call.media_type();
    let patch = call.verb == "patch";
    if let Some(json) = as_json(&media_type, body) {
        record.request_object(&json, patch);
    }
}

/// A document as JSON.
fn as_json(media_type: &str, bytes: &Bytes) -> Option<Bytes> {
    let json = media_type.is_empty() || media_type == "application/json" || media_type.ends_with("-patch+json");
    if json {
        return Some(bytes.clone());
    }
    let media_type = match media_type {
        "application/apply-patch+yaml" => Encoding::Yaml.media_type(),
        "application/apply-patch+cbor" => Encoding::Cbor.media_type(),
        other => other,
    };
    let decoded = decode_any(media_type, bytes).ok()?;
    serde_json::to_vec(&decoded.value).ok().map(Bytes::from)
}

/// The body, if it is a `Status`: the answer to a deletion.
fn status_of(media_type: &str, body: &Body) -> Option<Value> {
    let Body::Full(Some(bytes)) = body else { return None };
    if bytes.len() > MAX_STATUS_BYTES || !bytes.windows(8).any(|part| part == b"\"Status\"") {
        return None;
    }
    let value: Value = serde_json::from_slice(&as_json(media_type, bytes)?).ok()?;
    (value.get("kind")? == "Status").then_some(value)
}
