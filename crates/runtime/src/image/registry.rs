//! Pulls from registries.

use std::sync::Arc;

use keelson_cri::v1::AuthConfig;

use super::{Image, Reference};
use crate::{Error, core::Core};

pub(crate) async fn pull(_: &Arc<Core>, reference: &Reference, _: AuthConfig) -> Result<Arc<Image>, Error> {
    Err(Error::Unsupported(format!("failed to pull {reference}: pulling is not built yet")))
}
