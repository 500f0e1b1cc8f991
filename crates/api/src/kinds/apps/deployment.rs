//! Deployment

use crate::kind::Kind;
use crate::kinds::Plain;

pub(crate) fn kind() -> Kind {
    Kind::namespaced("apps", "v1", "Deployment", "deployments", &Plain)
        .short("deploy")
        .category_all()
        .with_scale(|_| String::new())
        .with_status()
}
