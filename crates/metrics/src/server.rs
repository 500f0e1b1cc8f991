//! HTTPS for the API server's aggregator.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::api::{Answer, Api};

/// Connections at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 256;
/// A client that has not finished its handshake or a request's head by then is dropped.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Between accepts that fail.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown`.
pub(crate) async fn run(listener: TcpListener, acceptor: TlsAcceptor, api: Api, shutdown: CancellationToken) {
    let (api, permits) = (Arc::new(api), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            () = shutdown.cancelled() => return,
        };
        let (acceptor, api, closing) = (acceptor.clone(), api.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let work = async {
                let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await else { return };
                let service = service_fn(move |request| {
                    let api = api.clone();
                    async move { Ok::<_, Infallible>(respond(&api, request).await) }
                });
                let mut builder = auto::Builder::new(TokioExecutor::new());
                builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
                builder.http2().timer(TokioTimer::new());
                if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                    tracing::debug!(error, "a connection ended badly");
                }
            };
            let _ = closing.run_until_cancelled(work).await;
        });
    }
}

async fn respond(api: &Api, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let accept = request.headers().get(http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let answer = match *request.method() {
        Method::GET | Method::HEAD => {
            api.get(request.uri().path(), request.uri().query().unwrap_or_default(), accept).await
        }
        ref method => Answer::method_not_allowed(method),
    };
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, answer.content_type);
    response
}
