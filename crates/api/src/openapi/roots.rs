//! What the server says of itself: groups, versions, its own version, the keys of its tokens. Each path has a v3 document of
//! its own; v2 has them all in one.

use std::borrow::Borrow;

use serde_json::{Map, Value};

use super::operation::{Answer, Operation, path_item};
use super::schemas::{META, of_the_server};
use super::{Format, names};
use crate::kind::Kind;

/// A path, with the one schema it answers with.
pub(super) struct Root {
    /// Of the v3 document: `apis/apps`
    pub(super) path: String,
    operation: Operation,
    schema: Option<String>,
}

impl Root {
    /// The path's item under its path.
    pub(super) fn paths(self, format: Format) -> Map<String, Value> {
        let mut paths = Map::new();
        // The OpenID documents are files, not folders.
        let slash = if self.schema.is_some() { "/" } else { "" };
        paths.insert(format!("/{}{slash}", self.path), path_item(vec![self.operation], Vec::new(), format));
        paths
    }

    /// What it refers to.
    pub(super) fn schemas(&self, format: Format) -> Map<String, Value> {
        self.schema.as_ref().map_or_else(Map::new, |name| of_the_server(&[name], format))
    }
}

/// All of them, in the order of their paths.
pub(super) fn all<K: Borrow<Kind>>(kinds: &[K]) -> Vec<Root> {
    let document = |path: &str, id: &str, tag: &str, text: &str, kind: &str| {
        let schema = format!("{META}.{kind}");
        let operation = Operation::read(id.to_owned(), tag.to_owned(), text, Answer::Document(schema.clone()));
        Root { path: path.to_owned(), operation, schema: Some(schema) }
    };
    let text = |path: &str, id: &str, tag: &str, text: &str, media: &'static str| Root {
        path: path.to_owned(),
        operation: Operation::read(id.to_owned(), tag.to_owned(), text, Answer::Text(media)),
        schema: None,
    };
    let mut all = vec![
        text(
            ".well-known/openid-configuration",
            "getServiceAccountIssuerOpenIDConfiguration",
            "WellKnown",
            "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
            "application/json",
        ),
        document("api", "getCoreAPIVersions", "core", "get available API versions", "APIVersions"),
        document("apis", "getAPIVersions", "apis", "get available API versions", "APIGroupList"),
    ];
    let mut groups: Vec<&str> =
        kinds.iter().map(|kind| kind.borrow().group.as_ref()).filter(|g| !g.is_empty()).collect();
    groups.sort_unstable();
    groups.dedup();
    for group in groups {
        let id = format!("get{}APIGroup", names::group(group));
        let path = format!("apis/{group}");
        all.push(document(&path, &id, &names::group_tag(group), "get information of a group", "APIGroup"));
    }
    all.push(text(
        "openid/v1/jwks",
        "getServiceAccountIssuerOpenIDKeyset",
        "openid",
        "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
        "application/jwk-set+json",
    ));
    let info = "io.k8s.apimachinery.pkg.version.Info".to_owned();
    let answer = Answer::Json(info.clone());
    let text = "get the version information for this server";
    let operation = Operation::read("getCodeVersion".into(), "version".into(), text, answer);
    all.push(Root { path: "version".into(), operation, schema: Some(info) });
    all
}
