//! DeviceClass

use serde_json::Value;

use super::{GROUP, devices, slice};
use crate::kind::{Kind, Strategy, Write};
use crate::kinds::gates::drop_unused;
use crate::kinds::mutate::{Rules, prepare};
use crate::kinds::print::age;
use crate::status::FieldError;
use crate::validation::View;

pub(crate) fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "DeviceClass", "deviceclasses", &DeviceClass).returns_deleted().columns(vec![age()])
}

#[derive(Debug)]
struct DeviceClass;

impl Strategy for DeviceClass {
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        let old = if let Write::Update(old) = write { Some(old) } else { None };
        drop_unused(object, old, &[&[&["spec", "extendedResourceName"]]]);
        prepare(object, write, Rules { generation: true, create_with_status: false });
    }

    fn validate(&self, object: &Value, _write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let spec = root.get("spec");
        devices::selectors(spec.get("selectors"), &mut errors);
        slice(spec.get("config"), devices::MAX_CONFIG, &mut errors, devices::configuration);
        errors
    }
}
