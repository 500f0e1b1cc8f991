//! From a request to its handler: classify, authenticate, audit, impersonate, wait for a seat, authorize, route. All errors become `Status`
//! objects here.

mod detached;
mod ending;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use keelson_api::kind::{Scope, Verb};
use keelson_api::status::Status;
use keelson_api::time::parse_duration;
use tokio::sync::{SemaphorePermit, oneshot};

use self::detached::Begun;
use self::ending::Ending;
use crate::UserInfo;
use crate::admission::Notes;
use crate::audit::Record;
use crate::authn::x509::Peer;
use crate::authz::Attributes;
use crate::core::Core;
use crate::executor::Flow;
use crate::flow::{self, Entered, Seats};
use crate::http::body::{Body, RequestBody};
use crate::http::negotiate::{Accepted, Offers, accept};
use crate::http::path::{RequestInfo, Target};
use crate::http::present::Presentation;
use crate::http::query::Query;
use crate::http::reply::{self, Reply};
use crate::limits::Limits;
use crate::metrics::Measured;
use crate::registry::{Resource, render};
use crate::{aggregator, authn, discovery, registry, subresource};

/// Largest body of a request that is not proxied.
const MAX_BODY_BYTES: usize = 3 << 20;
/// Longest wait for more of a body.
const BODY_PAUSE: Duration = Duration::from_secs(10);

/// A request about a resource, ready for its handler.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) core: Arc<Core>,
    pub(crate) user: Arc<UserInfo>,
    pub(crate) verb: String,
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) resource: Resource,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    /// What admission says beside yes or no.
    pub(crate) notes: Arc<Notes>,
    /// When the request is audited.
    pub(crate) audit: Option<Arc<Record>>,
    /// Of a watch: dropped when its beginning is sent.
    pub(crate) initializing: Option<Arc<oneshot::Sender<()>>>,
}

impl Call {
    /// What the client accepts.
    pub(crate) fn accepted(&self) -> Result<Accepted, Status> {
        let kind = &self.resource.kind;
        let body = kind.subresource(&self.target.subresource).and_then(|subresource| subresource.body.as_ref());
        let offers = match body {
            // Such bodies are built-in kinds, whatever the object is.
            Some(_) => Offers::Objects { protobuf: true },
            None => render::offers(kind, self.verb == "watch"),
        };
        accept(self.header(ACCEPT.as_str()), offers)
    }

    /// A header, when it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body's media type.
    pub(crate) fn media_type(&self) -> String {
        registry::body::media_type(self.header(CONTENT_TYPE.as_str()))
    }
}

/// Who is at the other end, before authentication.
pub(crate) enum Caller {
    /// A component in this process, which is known.
    InProcess(Arc<UserInfo>),
    /// A client over the network, its certificate, and whose the connection is taken to be.
    Remote { address: IpAddr, certificate: Option<Arc<Peer>>, flow: Flow },
}

/// Answers a request.
pub(crate) fn handle(
    core: Arc<Core>,
    caller: Caller,
    request: Request<RequestBody>,
) -> BoxFuture<'static, Response<Body>> {
    let begun = Begun::default();
    let flow = match &caller {
        Caller::InProcess(user) => Flow::of(core.executor.key(&user.name)),
        Caller::Remote { flow, .. } => Flow::of(flow.key()),
    };
    if request.method().is_safe() {
        return Box::pin(answer(core, caller, request, begun, flow));
    }
    let executor = core.executor.clone();
    let tasks = core.requests.clone();
    Box::pin(async move {
        let answer = tasks.track_future(answer(core, caller, request, begun.clone(), flow.clone()));
        detached::run(begun, executor.spawn(flow, answer)).await
    })
}

async fn answer(
    core: Arc<Core>,
    caller: Caller,
    request: Request<RequestBody>,
    begun: Begun,
    flow: Flow,
) -> Response<Body> {
    let head = request.method() == Method::HEAD;
    let presentation = Presentation::of(&request);
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let info = RequestInfo::parse(request.method(), request.uri().path(), &query);
    let mut ending = Ending::new(request.headers(), begun, flow);
    ending.measured = Measured::begin(&core, &info, &query, is_apply(&request), ending.begin);
    let result = stages(core, caller, info, query, request, &mut ending).await;
    let (response, failure) = match result {
        Ok(response) => (response, None),
        Err(status) => (presentation.error(&status), Some(status)),
    };
    let response = ending.answered(response, failure.as_ref());
    let mut response = presentation.apply(response);
    if head {
        *response.body_mut() = Body::empty();
    }
    ending.finish(response).await
}

/// Whether it is a patch that is applied.
fn is_apply(request: &Request<RequestBody>) -> bool {
    let media_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    request.method() == Method::PATCH && media_type.starts_with(b"application/apply-patch+")
}

/// What a request goes through, in upstream's order.
async fn stages(
    core: Arc<Core>,
    caller: Caller,
    info: RequestInfo,
    query: Query,
    mut request: Request<RequestBody>,
    ending: &mut Ending,
) -> Reply {
    let (user, remote) = match caller {
        Caller::InProcess(user) => (Ok(user), None),
        Caller::Remote { address, certificate, flow } => {
            let authenticator = &core.authenticator;
            let user = authenticator.authenticate(certificate.as_deref(), &info.path, request.headers_mut()).await;
            core.metrics.authenticated(user.is_ok());
            (user, Some((address, flow)))
        }
    };
    let address = remote.as_ref().map(|(address, _)| *address);
    ending.address = address;
    if let Some(audit) = &core.audit {
        ending.audit(audit, (request.uri(), request.headers()), &info, address, user.as_ref().ok()).await?;
    }
    let user = user?;
    let user = match authn::impersonate::effective_user(&core, user.clone(), request.headers()).await? {
        effective if Arc::ptr_eq(&effective, &user) => user,
        effective => {
            if let Some(record) = ending.record() {
                record.impersonated(&effective);
            }
            effective
        }
    };
    let key = core.executor.key(&user.name);
    ending.flow.becomes(key);
    if let Some((_, connection)) = remote {
        connection.becomes(key);
    }
    let Ok(seats) = take_seats(&core, &user, &info, &query, ending).await else { return Ok(too_many_requests()) };
    ending.flow.begins();
    authorize(&core, &user, &info, ending.record()).await?;
    route(core, user, info, query, request, seats, ending).await
}

/// A place among the requests that are served. What goes on for long, other than a watch's beginning, takes none.
async fn take_seats(
    core: &Core,
    user: &UserInfo,
    info: &RequestInfo,
    query: &Query,
    ending: &mut Ending,
) -> Result<Option<Seats>, flow::Reason> {
    if info.is_long_running() && info.verb != "watch" {
        return Ok(None);
    }
    let longest = core.config.request_timeout;
    let time = deadline(query, longest).unwrap_or(longest).saturating_sub(ending.begin.elapsed());
    let Entered { class, seats, waited } = core.flow.enter(core, user, info, query, time).await;
    ending.class = class;
    if let Some(measured) = &mut ending.measured {
        measured.waited(waited);
    }
    seats
}

/// As upstream says it, which is no `Status`.
fn too_many_requests() -> Response<Body> {
    let mut response = reply::text(429, "Too many requests, please try again later.\n");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

async fn authorize(
    core: &Core,
    user: &UserInfo,
    info: &RequestInfo,
    record: Option<&Arc<Record>>,
) -> Result<(), Status> {
    let attributes = Attributes::from(info);
    let decision = core.authorizer.decide(user, &attributes).await;
    core.metrics.authorized(&decision);
    if let Some(record) = record {
        record.annotate("authorization.k8s.io/decision", if decision.allowed { "allow" } else { "forbid" });
        record.annotate("authorization.k8s.io/reason", decision.reason.as_str());
    }
    decision.verdict(user, &attributes)
}

async fn route(
    core: Arc<Core>,
    user: Arc<UserInfo>,
    info: RequestInfo,
    query: Query,
    mut request: Request<RequestBody>,
    mut seats: Option<Seats>,
    ending: &mut Ending,
) -> Reply {
    if let Some(remote) = core.aggregator.remote_of(&info) {
        // The other server has limits of its own, and its slowness is nobody else's.
        drop(seats);
        request.extensions_mut().insert(ending.origin());
        return aggregator::serve(&core, remote, &user, &info, request).await;
    }
    let Some(target) = info.target.clone() else {
        return discovery::serve(&core, request.method(), &info.path, &query, request.headers()).await;
    };
    let Some(resource) = core.registry.get(&target.group, &target.version, &target.resource) else {
        return Err(Status::unknown_path());
    };
    let (parts, body) = request.into_parts();
    let mut call = Call {
        core: core.clone(),
        user,
        verb: info.verb.clone(),
        method: parts.method.clone(),
        target,
        resource,
        query,
        headers: parts.headers.clone(),
        notes: Arc::default(),
        audit: ending.record().cloned(),
        initializing: None,
    };
    if subresource::is_streaming(&call) {
        let permit = core.limits.stream()?;
        let mut request = Request::from_parts(parts, body);
        request.extensions_mut().insert(permit.clone());
        request.extensions_mut().insert(ending.origin());
        let said = Said::of(&call);
        let response = subresource::stream(call, request).await;
        let mut response = said.with(response)?.map(|body| body.holding(permit.clone()));
        response.extensions_mut().insert(permit);
        return Ok(response);
    }
    if call.verb == "watch" {
        let permit = core.limits.watch()?;
        call.initializing = seats.map(|seats| until_initialized(seats, core.config.request_timeout));
        return Ok(run(call, Bytes::new()).await?.map(|body| body.holding(permit)));
    }
    let reads = matches!(call.verb.as_str(), "get" | "list");
    let timeout = deadline(&call.query, core.config.request_timeout)?;
    let begin = ending.begin;
    let work = async {
        let mut held = None;
        let body = if reads {
            Bytes::new()
        } else {
            let mut reading = std::pin::pin!(read_body(&core.limits, body, &mut held));
            match futures::poll!(&mut reading) {
                Poll::Ready(body) => body?,
                // A client that sends slowly keeps no place from others.
                Poll::Pending => {
                    seats.take().into_iter().for_each(Seats::give_up);
                    let body = reading.await?;
                    let again = take_seats(&core, &call.user, &info, &call.query, ending).await;
                    let Ok(again) = again else { return Ok(too_many_requests()) };
                    seats = again;
                    body
                }
            }
        };
        ending::note_request(&call, &body);
        if !reads {
            ending.begun.begin()?;
        }
        // As upstream, the time is the whole response's.
        let left = || timeout.saturating_sub(begin.elapsed());
        let reply = if reads {
            run(call, body).await?
        } else {
            // What has begun is done to its end, though nobody waits for it any more.
            let task = core.requests.track_future(run(call, body));
            let task = core.executor.spawn(ending.flow.clone(), task);
            detached::outcome(ending.begun.clone(), task).await.unwrap_or_else(|| Err(detached::stopping()))?
        };
        Ok(reply.map(|body| body.within(left(), seats)))
    };
    match tokio::time::timeout_at(begin + timeout, work).await {
        Ok(reply) => reply,
        Err(_) if reads => Err(Status::timeout("request did not complete within the allotted timeout")),
        Err(_) => Err(Status::timeout("request did not complete within requested timeout - context deadline exceeded")),
    }
}

/// Keeps a watch's seats until what it begins with is sent, or for so long at most. For who sends it.
fn until_initialized(seats: Seats, longest: Duration) -> Arc<oneshot::Sender<()>> {
    let (initializing, done) = oneshot::channel();
    tokio::spawn(async move {
        let _ = tokio::time::timeout(longest, done).await;
        drop(seats);
    });
    Arc::new(initializing)
}

/// How long the request may take: what `timeout` says, within the server's own limit.
fn deadline(query: &Query, longest: Duration) -> Result<Duration, Status> {
    let Some(text) = query.text("timeout") else { return Ok(longest) };
    let asked = parse_duration(text)
        .map_err(|why| Status::bad_request(format!("invalid timeout specified in the request URL - {why}")))?;
    Ok(u64::try_from(asked)
        .ok()
        .filter(|nanos| *nanos > 0)
        .map_or(longest, |nanos| Duration::from_nanos(nanos).min(longest)))
}

async fn read_body<'a>(
    limits: &'a Limits,
    mut body: RequestBody,
    held: &mut Option<SemaphorePermit<'a>>,
) -> Result<Bytes, Status> {
    let too_large = || Status::too_large(format!("Request entity too large: limit is {MAX_BODY_BYTES}"));
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        let Ok(frame) = tokio::time::timeout(BODY_PAUSE, body.frame()).await else {
            return Err(Status::new(408, "Timeout", "Timeout: the request's body did not arrive in time"));
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|e| Status::bad_request(format!("the request's body broke off: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if all.len() + first.len() + data.len() > MAX_BODY_BYTES {
            return Err(too_large());
        }
        // Most bodies are one frame, which needs no copy.
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            limits.body(held, first.len() + data.len())?;
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// Which verb of the kind an HTTP verb of the path needs.
pub(crate) fn kind_verb(verb: &str) -> Option<Verb> {
    Some(match verb {
        "get" => Verb::Get,
        "list" => Verb::List,
        "watch" => Verb::Watch,
        "create" => Verb::Create,
        "update" => Verb::Update,
        "patch" => Verb::Patch,
        "delete" => Verb::Delete,
        "deletecollection" => Verb::DeleteCollection,
        _ => return None,
    })
}

async fn run(call: Call, body: Bytes) -> Reply {
    let said = Said::of(&call);
    said.with(run_current(call, body).await)
}

/// What is said beside a call's answer.
struct Said {
    notes: Arc<Notes>,
    deprecated: Option<Cow<'static, str>>,
    accept: Option<HeaderValue>,
    audit: Option<Arc<Record>>,
}

impl Said {
    fn of(call: &Call) -> Self {
        Self {
            notes: call.notes.clone(),
            deprecated: call.resource.kind.deprecated.clone(),
            accept: call.headers.get(ACCEPT).cloned(),
            audit: call.audit.clone(),
        }
    }

    /// Warns with the answer, and annotates the call's record.
    fn with(self, result: Reply) -> Reply {
        let Self { notes, deprecated, accept, audit } = self;
        let warnings = notes.take_warnings();
        if let Some(record) = &audit {
            notes.take_annotations(record.level()).for_each(|(key, value)| record.annotate(key, value));
            if deprecated.is_some() {
                record.annotate("k8s.io/deprecated", "true");
            }
        }
        if deprecated.is_none() && warnings.is_empty() {
            return result;
        }
        let mut response = result.unwrap_or_else(|status| reply::error(&status, accept.as_ref()));
        reply::warn(&mut response, &warnings);
        if let Some(warning) = deprecated {
            reply::warn_first(&mut response, warning.into_owned());
        }
        Ok(response)
    }
}

/// A custom resource may be replaced while a request is about it. Nothing was done then, and the request is for the new one.
async fn run_current(mut call: Call, body: Bytes) -> Reply {
    while let (Some(_), Some(cache)) = (call.resource.shared(), call.resource.stored().cloned()) {
        let status = match run_call(call.clone(), body.clone()).await {
            Err(status) if status.code == 503 && cache.is_over() => status,
            reply => return reply,
        };
        let Target { group, version, resource, .. } = &call.target;
        match call.core.registry.current(group, version, resource).await {
            None => return Err(Status::unknown_path()),
            Some(resource) if resource.is_over() => return Err(status),
            Some(resource) => call.resource = resource,
        }
    }
    run_call(call, body).await
}

async fn run_call(call: Call, body: Bytes) -> Reply {
    // Nothing is written whose result could not be shown.
    call.accepted()?;
    let kind = call.resource.kind.clone();
    let not_allowed =
        || Status::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
    let Some(verb) = kind_verb(&call.verb) else { return Err(not_allowed()) };
    let by_name = !matches!(call.verb.as_str(), "list" | "create" | "deletecollection") && call.verb != "watch";
    let namespaced = kind.scope == Scope::Namespaced;
    // `/api/v1/pods/x` and `/api/v1/namespaces/a/nodes` are no paths of these resources.
    if namespaced && call.target.namespace.is_empty() && (by_name || !call.target.subresource.is_empty()) {
        return Err(Status::unknown_path());
    }
    if !namespaced && !call.target.namespace.is_empty() && !subresource::is_namespace(&call.resource) {
        return Err(Status::unknown_path());
    }
    if !call.target.subresource.is_empty() {
        let known = kind.subresources.iter().find(|s| s.name == call.target.subresource);
        let Some(known) = known.filter(|_| call.target.rest.is_empty()) else { return Err(Status::unknown_path()) };
        if !known.verbs.contains(&verb) {
            return Err(not_allowed());
        }
        return Box::pin(subresource::run(&call, verb, body)).await;
    }
    if !kind.has_verb(verb) || (verb == Verb::Watch && call.method != Method::GET) {
        return Err(not_allowed());
    }
    if namespaced && call.target.namespace.is_empty() && verb == Verb::Create {
        return Err(not_allowed());
    }
    if verb == Verb::Create && !call.target.name.is_empty() {
        return Err(not_allowed());
    }
    Box::pin(registry::subresources::object(&call, verb, body)).await
}
