//! ComponentStatus: health of the control plane, computed when read.

use serde_json::Value;

use crate::kind::{Column, Kind, Verb};
use crate::kinds::Plain;
use crate::kinds::print::items;

pub(crate) fn kind() -> Kind {
    Kind::cluster("", "v1", "ComponentStatus", "componentstatuses", &Plain)
        .short("cs")
        .verbs(&[Verb::Get, Verb::List])
        .deprecated("v1 ComponentStatus is deprecated in v1.19+")
        .columns(vec![
            Column::string("Status", "Healthy, Unhealthy or Unknown.", |object, _| {
                match healthy(object, "status").as_str() {
                    Some("True") => "Healthy",
                    Some("False") => "Unhealthy",
                    _ => "Unknown",
                }
                .into()
            }),
            Column::string("Message", "What the component says.", |object, _| healthy(object, "message")),
            Column::string("Error", "What went wrong in asking it.", |object, _| healthy(object, "error")),
        ])
}

fn healthy(object: &Value, field: &str) -> Value {
    let condition = items(&object["conditions"]).find(|c| c["type"] == "Healthy");
    condition.and_then(|c| c[field].as_str()).unwrap_or_default().into()
}
