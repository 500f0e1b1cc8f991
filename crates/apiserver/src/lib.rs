//! The API server: HTTP and TLS, authentication, RBAC, admission, the generic verbs over every registered kind, the watch
//! cache, discovery, and the way to the kubelets. Nothing else in the project touches the store.

#![forbid(unsafe_code)]

mod admission;
mod aggregator;
mod alloc;
mod audit;
mod authn;
mod authz;
mod bootstrap;
mod cache;
mod compaction;
mod config;
mod core;
mod crd;
mod discovery;
mod dispatch;
mod encryption;
mod endpoint;
mod error;
mod executor;
mod expressions;
mod files;
mod flow;
mod http;
mod kubelet;
mod limits;
mod metrics;
mod registry;
mod relay;
mod review;
mod server;
mod subresource;
mod user;
mod webhook;

pub use config::{
    Audit, AuditBatch, AuditFormat, AuditLog, AuditMode, AuditThrottle, AuditTruncate, AuditWebhook, Authentication,
    Config, Identity, KubeletClient, Oidc, Pem, RequestHeader, ServiceAccountKeys, TokenReviewVersion,
    WebhookAuthentication,
};
pub use config::{Authorization, AuthorizationMode, Switches, WebhookAuthorization, switches};
pub use encryption::EncryptionFile;
pub use error::Error;
pub use http::body::{Body, BoxError};
pub use server::{ApiServer, InProcess};
pub use user::UserInfo;
