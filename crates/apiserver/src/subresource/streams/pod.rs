//! Streams of one pod's containers, by way of its kubelet.

use http::Request;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use keelson_api::status::{FieldError, Status};
use serde_json::{Value, json};

use super::{admitted, checked, kubelet, kubelet_place, kubelets, object};
use crate::dispatch::Call;
use crate::http::body::RequestBody;
use crate::http::reply::{self, Reply};
use crate::relay::empty_body;

/// `GET …/log`
pub(super) async fn log(call: &Call) -> Reply {
    let pod = object(call)?;
    let query = log_query(call)?;
    let container = container(call, &pod, call.query.text("container").unwrap_or_default())?;
    let Some(node) = node_of(&pod) else { return Ok(reply::text(200, "")) };
    let path = path("containerLogs", &pod, Some(&container), &query);
    let backend = match call.query.flag("insecureSkipTLSVerifyBackend") {
        false => kubelet(call, node, path.clone())?,
        true => {
            let (address, port) = kubelet_place(call, node)?;
            kubelets(call)?.unverified(address, port, path.clone())
        }
    };
    let request = Request::builder()
        .method(Method::GET)
        .uri(&path)
        .header(http::header::HOST, "kubelet")
        .body(empty_body())
        .map_err(Status::internal)?;
    let mut response = checked(call, backend, request).await?;
    response.headers_mut().entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// `exec`, `attach`, `portforward`: an upgrade, spliced through.
pub(super) async fn connect(call: &Call, request: Request<RequestBody>) -> Reply {
    let pod = object(call)?;
    let subresource = call.target.subresource.as_str();
    let name = &call.target.name;
    let Some(node) = node_of(&pod) else {
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    };
    let options = admitted(call, asked_options(call, &pod)?).await?;
    let mut query = Params::default();
    let path = match subresource {
        "portforward" => {
            for port in options["ports"].as_array().into_iter().flatten() {
                query.add("port", &port.to_string());
            }
            path("portForward", &pod, None, &query)
        }
        _ => {
            for (ours, theirs) in STREAMS {
                if options[ours] == true {
                    query.add(theirs, "1");
                }
            }
            let command = options["command"].as_array().into_iter().flatten().filter_map(Value::as_str);
            command.for_each(|word| query.add("command", word));
            let container = container(call, &pod, options["container"].as_str().unwrap_or_default())?;
            path(subresource, &pod, Some(&container), &query)
        }
    };
    if !request.headers().contains_key(http::header::UPGRADE) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    kubelet(call, node, path)?.forward(request, &call.core.draining).await
}

/// Our names of a container's streams, and the kubelet's.
const STREAMS: [(&str, &str); 4] = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];

/// The options of a `CONNECT`, from its query.
fn asked_options(call: &Call, pod: &Value) -> Result<Value, Status> {
    let (query, subresource) = (&call.query, call.target.subresource.as_str());
    if subresource == "portforward" {
        let ports: Vec<u16> = query
            .all("ports")
            .flat_map(|ports| ports.split(','))
            .map(|port| port.parse().map_err(|_| Status::bad_request(format!("invalid port {port:?}"))))
            .collect::<Result<_, _>>()?;
        return Ok(if ports.is_empty() { json!({}) } else { json!({"ports": ports}) });
    }
    let mut options = json!({"container": container(call, pod, query.text("container").unwrap_or_default())?});
    for (stream, _) in STREAMS {
        let default = subresource == "attach" && matches!(stream, "stdout" | "stderr");
        if query.optional_flag(stream).unwrap_or(default) {
            options[stream] = true.into();
        }
    }
    if subresource == "exec" {
        let command: Vec<&str> = query.all("command").collect();
        if command.is_empty() {
            return Err(Status::bad_request("you must specify at least 1 command for the container"));
        }
        options["command"] = command.into();
    }
    Ok(options)
}

#[derive(Default)]
struct Params(String);

impl Params {
    fn add(&mut self, key: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(key);
        self.0.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => self.0.push(char::from(byte)),
                other => self.0.push_str(&format!("%{other:02X}")),
            }
        }
    }
}

fn path(what: &str, pod: &Value, container: Option<&str>, query: &Params) -> String {
    let field = |name: &str| pod.pointer(&format!("/metadata/{name}")).and_then(Value::as_str).unwrap_or_default();
    let container = container.map(|c| format!("/{c}")).unwrap_or_default();
    let query = if query.0.is_empty() { String::new() } else { format!("?{}", query.0) };
    format!("/{what}/{}/{}{container}{query}", field("namespace"), field("name"))
}

fn node_of(pod: &Value) -> Option<&str> {
    pod.pointer("/spec/nodeName").and_then(Value::as_str).filter(|n| !n.is_empty())
}

/// Which container is meant.
fn container(call: &Call, pod: &Value, wanted: &str) -> Result<String, Status> {
    let names = |field: &str| -> Vec<&str> {
        let list = pod.pointer(&format!("/spec/{field}")).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|c| c.get("name")?.as_str()).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod_name = &call.target.name;
    if wanted.is_empty() {
        return match main.as_slice() {
            [one] => Ok((*one).to_owned()),
            [] => Err(Status::bad_request(format!("a container name must be specified for pod {pod_name}"))),
            _ => {
                let mut text = format!(
                    "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                    main.join(" ")
                );
                if !init.is_empty() {
                    text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
                }
                if !ephemeral.is_empty() {
                    text.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
                }
                Err(Status::bad_request(text))
            }
        };
    }
    if main.contains(&wanted) || init.contains(&wanted) || ephemeral.contains(&wanted) {
        return Ok(wanted.to_owned());
    }
    Err(Status::bad_request(format!("container {wanted} is not valid for pod {pod_name}")))
}

/// `PodLogOptions` as the kubelet takes them.
fn log_query(call: &Call) -> Result<Params, Status> {
    let mut errors = Vec::new();
    let mut query = Params::default();
    let number = |name: &str, least: i64, errors: &mut Vec<FieldError>| {
        let text = call.query.text(name)?;
        match text.parse::<i64>() {
            Ok(n) if n >= least => Some(n),
            Ok(n) => {
                let detail = if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
                errors.push(FieldError::invalid(name, n, detail));
                None
            }
            Err(_) => {
                errors.push(FieldError::invalid(name, text, "must be an integer"));
                None
            }
        }
    };
    let tail = number("tailLines", 0, &mut errors);
    let limit = number("limitBytes", 1, &mut errors);
    let since = number("sinceSeconds", 1, &mut errors);
    let since_time = call.query.text("sinceTime");
    if since.is_some() && since_time.is_some() {
        errors.push(FieldError::forbidden(
            "sinceSeconds",
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "PodLogOptions", &call.target.name, &errors));
    }
    for flag in ["follow", "previous", "timestamps"] {
        if call.query.flag(flag) {
            query.add(flag, "true");
        }
    }
    for (name, value) in [("tailLines", tail), ("limitBytes", limit), ("sinceSeconds", since)] {
        if let Some(value) = value {
            query.add(name, &value.to_string());
        }
    }
    if let Some(time) = since_time {
        query.add("sinceTime", time);
    }
    if let Some(stream) = call.query.text("stream") {
        query.add("stream", stream);
    }
    Ok(query)
}
