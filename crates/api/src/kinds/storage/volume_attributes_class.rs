//! VolumeAttributesClass

use serde_json::Value;

use super::{GROUP, marked_name, name_column, parameters, provisioner};
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::prepare_plain;
use crate::kinds::print::{age, or};
use crate::status::FieldError;
use crate::validation::{View, same};

pub(crate) fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "VolumeAttributesClass", "volumeattributesclasses", &VolumeAttributesClass)
        .short("vac")
        .returns_deleted()
        .columns(vec![
            name_column(|object, _| {
                marked_name(object, &["volumeattributesclass.alpha.kubernetes.io/is-default-class"])
            }),
            Column::string("DriverName", "Whose volumes it is about.", |object, _| or(&object["driverName"], "")),
            age(),
        ])
}

#[derive(Debug)]
struct VolumeAttributesClass;

impl Strategy for VolumeAttributesClass {
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let settings = root.get("parameters");
        if let Write::Update(old) = write {
            for field in ["driverName", "parameters"] {
                if !same(root.get(field).value, &old[field]) {
                    errors.push(root.get(field).forbidden(&format!("updates to {field} are forbidden.")));
                }
            }
        }
        provisioner(root.get("driverName"), &mut errors);
        parameters(settings, &mut errors);
        if settings.is_empty() {
            errors.push(settings.required("must contain at least one key/value pair"));
        }
        errors
    }
}
