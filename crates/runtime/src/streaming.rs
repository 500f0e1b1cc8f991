//! The streaming server behind Exec, Attach and PortForward.

use std::sync::Arc;

use keelson_cri::v1::{AttachRequest, ExecRequest, PortForwardRequest};

use crate::{Error, core::Core};

pub(crate) async fn exec_url(_: &Arc<Core>, _: ExecRequest) -> Result<String, Error> {
    Err(Error::Unsupported("streaming is not built yet".into()))
}

pub(crate) async fn attach_url(_: &Arc<Core>, _: AttachRequest) -> Result<String, Error> {
    Err(Error::Unsupported("streaming is not built yet".into()))
}

pub(crate) async fn port_forward_url(_: &Arc<Core>, _: PortForwardRequest) -> Result<String, Error> {
    Err(Error::Unsupported("streaming is not built yet".into()))
}
