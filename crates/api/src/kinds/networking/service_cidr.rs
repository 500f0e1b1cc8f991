//! ServiceCIDR: ranges that ClusterIPs come from.

use serde_json::Value;

use super::GROUP;
use crate::kind::{Column, Kind, Strategy, Write};
use crate::kinds::prepare_plain;
use crate::kinds::print::{age, items, join};
use crate::status::FieldError;
use crate::validation::{Errors, View, checked, names};

const IMMUTABLE: &str = "field is immutable";

pub(crate) fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "ServiceCIDR", "servicecidrs", &ServiceCidr).with_status().columns(vec![
        Column::string("CIDRs", "Its ranges, one of each family at most.", |object, _| {
            join(items(&object["spec"]["cidrs"]).filter_map(Value::as_str)).into()
        }),
        age(),
    ])
}

#[derive(Debug)]
struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn prepare(&self, object: &mut Value, write: Write<'_>) {
        prepare_plain(object, write);
    }

    fn validate(&self, object: &Value, write: Write<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = View::root(object);
        let spec = root.get("spec");
        let cidrs = spec.get("cidrs");
        match write {
            Write::Subresource(..) => {}
            Write::Create => validate_cidrs(cidrs, spec, &mut errors),
            Write::Update(old) => {
                let old: Vec<_> = items(&old["spec"]["cidrs"]).collect();
                match (old.as_slice(), cidrs.len()) {
                    // A second family may be added.
                    ([first], 2) => {
                        if cidrs.value[0] != **first {
                            errors.extend(cidrs.items().next().map(|new| new.invalid(IMMUTABLE)));
                        }
                        validate_cidrs(cidrs, spec, &mut errors);
                    }
                    (old, count) if old.len() == count => {
                        let changed = cidrs.items().zip(old).filter(|(new, old)| new.value != **old);
                        errors.extend(changed.map(|(new, _)| new.invalid(IMMUTABLE)));
                    }
                    _ => errors.push(cidrs.invalid(IMMUTABLE)),
                }
            }
        }
        errors
    }
}

fn validate_cidrs(cidrs: View, spec: View, errors: &mut Errors) {
    if cidrs.is_empty() {
        errors.push(cidrs.required("at least one CIDR required"));
        return;
    }
    if cidrs.len() > 2 {
        let shown = format!(r#"{{"CIDRs":{}}}"#, spec.get("cidrs").value);
        errors.push(FieldError::of_struct("FieldValueInvalid", cidrs.path(), &shown, "may only hold up to 2 values"));
        return;
    }
    for cidr in cidrs.items() {
        checked(cidr, names::canonical_cidr, errors);
    }
    let families: Vec<bool> =
        cidrs.items().filter_map(|cidr| names::parse_cidr(cidr.str())).map(|(address, _)| address.is_ipv4()).collect();
    if matches!(families.as_slice(), [a, b] if a == b) {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(cidrs.invalid(detail));
    }
}
