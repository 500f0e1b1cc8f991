//! `/containerLogs`: which log, which part of it, and for how long.

use std::path::PathBuf;
use std::sync::Arc;

use futures::StreamExt;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use keelson_streaming::proxy::ProxyBody;
use tokio::sync::watch;

use super::route::Target;
use super::text;
use crate::context::{Context, PodHandle};
use crate::logs::follow;
use crate::logs::read::Options;
use crate::pod::observed::{ContainerRecord, Observed, State};
use crate::pod::view;

/// A client's wishes.
#[derive(Clone, Copy, Debug, Default)]
struct Query {
    follow: bool,
    previous: bool,
    options: Options,
}

impl Query {
    fn parse(query: &str, now: Timestamp) -> Result<Query, String> {
        let mut parsed = Query::default();
        for (name, value) in super::stream::pairs(query) {
            let bad = || format!("invalid value for {name}: {value:?}");
            let truth = || matches!(value.as_str(), "true" | "1" | "t" | "T" | "TRUE" | "True");
            match name.as_str() {
                "follow" => parsed.follow = truth(),
                "previous" => parsed.previous = truth(),
                "timestamps" => parsed.options.timestamps = truth(),
                // Upstream's client gives -1 for all.
                "tailLines" if value.starts_with('-') => {}
                "tailLines" => parsed.options.tail_lines = Some(value.parse().map_err(|_| bad())?),
                "limitBytes" => parsed.options.limit_bytes = Some(value.parse().map_err(|_| bad())?),
                "sinceSeconds" => {
                    let seconds: i64 = value.parse().map_err(|_| bad())?;
                    let since = now.saturating_sub(SignedDuration::from_secs(seconds)).map_err(|_| bad())?;
                    parsed.options.since = Some(since);
                }
                "sinceTime" => parsed.options.since = Some(value.parse().map_err(|_| bad())?),
                _ => {}
            }
        }
        Ok(parsed)
    }
}

pub(super) async fn answer(ctx: &Arc<Context>, target: &Target, query: &str) -> Response<ProxyBody> {
    let query = match Query::parse(query, keelson_client::clock::now()) {
        Ok(query) => query,
        Err(message) => return text(StatusCode::UNPROCESSABLE_ENTITY, message),
    };
    let Some(handle) = ctx.pods.named(&target.namespace, &target.pod) else {
        return text(StatusCode::NOT_FOUND, "pod does not exist");
    };
    let pod = handle.pod.borrow().pod.clone();
    if view::find_container(&pod, &target.container).is_none() {
        let message = format!("container {:?} not found in pod {:?}", target.container, target.pod);
        return text(StatusCode::NOT_FOUND, message);
    }
    let observed = handle.observed.borrow().clone();
    let record = match pick(&pod, &observed, &target.container, query.previous) {
        Ok(record) => record.clone(),
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let path = PathBuf::from(&record.log_path);
    if !path.exists() {
        let message = format!(
            "failed to try resolving symlinks in path {:?}: lstat {}: no such file or directory",
            record.log_path, record.log_path
        );
        return text(StatusCode::BAD_REQUEST, message);
    }
    let alive = (query.follow && record.state == State::Running).then(|| alive(&handle, record.id.clone()));
    let chunks = follow::stream(path, query.options, alive);
    let frames = tokio_stream::wrappers::ReceiverStream::new(chunks).map(|chunk| {
        chunk.map(Frame::data).map_err(|error| Box::new(error) as Box<dyn std::error::Error + Send + Sync>)
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The container whose log is meant, or upstream's words for why there is none.
fn pick<'a>(pod: &Pod, observed: &'a Observed, name: &str, previous: bool) -> Result<&'a ContainerRecord, String> {
    let pod_name = view::name(pod);
    let mut records = observed.named(name).filter(|record| matches!(record.state, State::Running | State::Exited));
    let newest = records.next();
    if previous {
        let waits = view::last_status(pod, name)
            .and_then(|status| status.state.as_ref())
            .is_some_and(|state| state.waiting.is_some());
        // While a crashed container waits for its restart, it is itself the previous one.
        let last = match newest {
            Some(record) if record.state == State::Exited && waits => Some(record),
            _ => records.next(),
        };
        return last.ok_or_else(|| format!("previous terminated container {name:?} in pod {pod_name:?} not found"));
    }
    newest.ok_or_else(|| {
        let waiting = view::last_status(pod, name)
            .and_then(|status| status.state.as_ref())
            .and_then(|state| state.waiting.as_ref())
            .and_then(|waiting| waiting.reason.as_deref());
        let start = format!("container {name:?} in pod {pod_name:?} is");
        match waiting {
            Some("ErrImagePull") => format!("{start} waiting to start: image can't be pulled"),
            Some("ImagePullBackOff") => format!("{start} waiting to start: trying and failing to pull image"),
            Some(reason) => format!("{start} waiting to start: {reason}"),
            None => format!("{start} waiting to start: ContainerCreating"),
        }
    })
}

/// Whether the container runs, as long as somebody wants to know.
fn alive(handle: &Arc<PodHandle>, id: String) -> watch::Receiver<bool> {
    let mut observed = handle.observed.subscribe();
    let (sender, receiver) = watch::channel(true);
    tokio::spawn(async move {
        let running = |observed: &Arc<Observed>| {
            observed.containers.iter().any(|record| record.id == id && record.state == State::Running)
        };
        tokio::select! {
            // An error means that the pod's task is over.
            _ = observed.wait_for(|observed| !running(observed)) => drop(sender.send(false)),
            () = sender.closed() => {}
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let query = Query::parse("follow=true&tailLines=5&sinceSeconds=60&timestamps=1&limitBytes=10", now).unwrap();
        assert!(query.follow && query.options.timestamps && !query.previous);
        assert_eq!((query.options.tail_lines, query.options.limit_bytes), (Some(5), Some(10)));
        assert_eq!(query.options.since.unwrap().to_string(), "2026-01-01T00:00:00Z");
        let query = Query::parse("sinceTime=2026-01-01T00%3A00%3A30Z&previous=true", now).unwrap();
        assert_eq!((query.options.since.unwrap().as_second(), query.previous), (now.as_second() - 30, true));
        assert!(Query::parse("tailLines=x", now).is_err());
        assert_eq!(Query::parse("tailLines=-1", now).unwrap().options.tail_lines, None);
    }

    #[test]
    fn which_log() {
        let record = |id: &str, state| ContainerRecord { id: id.into(), name: "c".into(), state, ..Default::default() };
        let pod = |state: serde_json::Value| -> Pod {
            serde_json::from_value(serde_json::json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [
                {"name": "c", "state": state, "ready": false, "restartCount": 0, "image": "", "imageID": ""}]}}))
            .unwrap()
        };
        let running = pod(serde_json::json!({"running": {}}));
        let waiting = pod(serde_json::json!({"waiting": {"reason": "CrashLoopBackOff"}}));
        let of = |containers: &[ContainerRecord]| Observed { containers: containers.to_vec(), ..Default::default() };
        let both = of(&[record("new", State::Running), record("old", State::Exited)]);
        let dead = of(&[record("new", State::Exited), record("old", State::Exited)]);
        for (pod, observed, previous, expected) in [
            (&running, &both, false, Ok("new")),
            (&running, &both, true, Ok("old")),
            (&waiting, &dead, false, Ok("new")),
            (&waiting, &dead, true, Ok("new")),
            (
                &running,
                &of(&[record("new", State::Running)]),
                true,
                Err("previous terminated container \"c\" in pod \"p\" not found"),
            ),
            (&waiting, &of(&[]), false, Err("container \"c\" in pod \"p\" is waiting to start: CrashLoopBackOff")),
        ] {
            let got = pick(pod, observed, "c", previous);
            assert_eq!(got.as_ref().map(|record| record.id.as_str()).map_err(|e| e.as_str()), expected);
        }
    }
}
