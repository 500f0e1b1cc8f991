//! CSIStorageCapacity

use serde_json::Value;

use super::GROUP;
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::pod_spec::resources::quantity;
use crate::kinds::prepare_plain;
use crate::kinds::print::or;
use crate::status::FieldError;
use crate::validation::{View, checked, immutable, immutable_as, labels, names};

pub(crate) fn kind() -> Kind {
    Kind::namespaced(GROUP, "v1", "CSIStorageCapacity", "csistoragecapacities", &CsiStorageCapacity).columns(vec![
        Column::string("StorageClassName", "The class whose volumes it counts.", |object, _| {
            or(&object["storageClassName"], "")
        }),
        Column::string("Capacity", "How much there is.", |object, _| or(&object["capacity"], "<unset>")),
    ])
}

#[derive(Debug)]
struct CsiStorageCapacity;

impl Strategy for CsiStorageCapacity {
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let (topology, class) = (root.get("nodeTopology"), root.get("storageClassName"));
        labels::validate_selector(topology, &mut errors);
        checked(class, names::subdomain, &mut errors);
        quantity(root.get("capacity"), &mut errors);
        if let Write::Update(old) = write {
            immutable_as("apimachinery.pkg.apis.meta.v1.LabelSelector", topology, &old["nodeTopology"], &mut errors);
            immutable(class, &old["storageClassName"], &mut errors);
        }
        errors
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}
