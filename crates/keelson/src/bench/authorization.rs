//! What it costs to decide what somebody may do, without bindings of others and with 10,000 of them.

use std::time::Duration;

use serde_json::json;

use super::request::{load, send};
use super::scratch::Scratch;
use super::standalone::Process;
use super::{Figure, NO_BUDGET, Row, Size, thousands};
use crate::cli::Failure;

const IN_FLIGHT: usize = 32;
const BINDINGS: usize = 10_000;
const REVIEWS: usize = 10_000;
const BASE: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/bench/rolebindings";

/// Access reviews about one user, before and after the bindings are there. The difference is theirs.
pub(super) async fn costs(size: Size, print: impl Fn(Row)) -> Result<(), Failure> {
    let (bindings, reviews, scratch) = (size.of(BINDINGS), size.of(REVIEWS), Scratch::new()?);
    let process = Process::start(&scratch.path().join("server"), 1, &[], None).await?;
    let (client, server) = (&process.client, process.server());
    send(client, "POST", "/api/v1/namespaces", Some(json!({"metadata": {"name": "bench"}}))).await?;
    let bind = |index: usize| {
        let user = format!("user-{index}");
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": user},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        });
        async move { send(client, "POST", BASE, Some(binding)).await }
    };
    let review = |_: usize| {
        let spec = json!({
            "user": "user-0", "groups": ["system:authenticated"],
            "resourceAttributes": {"namespace": "bench", "verb": "get", "resource": "pods", "name": "x"},
        });
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        async move { send(client, "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", Some(review)).await }
    };
    let measure = async || {
        let before: Duration = server.cpu()?;
        load(reviews, IN_FLIGHT, review).await?;
        let used = server.cpu()?.saturating_sub(before);
        Ok::<_, Failure>(used.as_secs_f64() * 1e6 / reviews as f64)
    };
    bind(0).await?;
    let budget = Figure::Micros(NO_BUDGET);
    print(Row::new("authorization: CPU of an access review", budget, measure().await?));
    load(bindings, IN_FLIGHT, |index| bind(index + 1)).await?;
    print(Row::new(
        format!("authorization: CPU of an access review, with {} bindings", thousands(bindings)),
        budget,
        measure().await?,
    ));
    Ok(())
}
