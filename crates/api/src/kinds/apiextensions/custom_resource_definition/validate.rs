//! The rules of a definition apart from those of its schemas. Upstream keeps what all versions have in common in fields of
//! its internal type that v1 does not have; its messages name those (`spec.validation.openAPIV3Schema…` when all versions
//! have the same schema), and so do these.

use serde_json::{Value, json};

use crate::crd::rules::{check_schema, check_simple_path};
use crate::jsonpath::JsonPath;
use crate::kind::Write;
use crate::kinds::webhook_config;
use crate::status::FieldError;
use crate::validation::{Errors, View, immutable, names, required, required_one_of};

const APPROVED: &str = "api-approved.kubernetes.io";
const MAX_SELECTABLE: usize = 8;
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 9] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "name", "password"];

pub(super) fn validate(root: View, write: Write<'_>) -> Errors {
    let mut errors = Errors::new();
    let (spec, status) = (root.get("spec"), root.get("status"));
    if let Write::Subresource(..) = write {
        check_names(status.get("acceptedNames"), &mut errors);
        return errors;
    }
    let names = spec.get("names");
    if write == Write::Create {
        let name = root.value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        if name != format!("{}.{}", names.get("plural").str(), spec.get("group").str()) {
            let why = "must be spec.names.plural+\".\"+spec.group";
            errors.push(FieldError::invalid("metadata.name", name, why));
        }
    }
    let old = match write {
        Write::Update(old) => Some(old),
        _ => None,
    };
    check_spec(spec, old, &mut errors);
    if let Some(old) = old {
        let old_spec = &old["spec"];
        if super::condition(old, "Established").is_some_and(|condition| condition["status"] == "True") {
            immutable(spec.get("scope"), &old_spec["scope"], &mut errors);
            immutable(names.get("kind"), &old_spec["names"]["kind"], &mut errors);
        }
        immutable(spec.get("group"), &old_spec["group"], &mut errors);
        immutable(names.get("plural"), &old_spec["names"]["plural"], &mut errors);
    }
    check_names(status.get("acceptedNames"), &mut errors);
    check_stored_versions(status.get("storedVersions"), spec.get("versions"), &mut errors);
    check_approval(root.value, old, &mut errors);
    let preserve = spec.get("preserveUnknownFields");
    if preserve.bool() && old.is_none_or(|old| old["spec"]["preserveUnknownFields"] != true) {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(preserve.invalid(why));
    }
    errors
}

fn check_spec(spec: View, old: Option<&Value>, errors: &mut Errors) {
    let group = spec.get("group");
    if required(group, errors) {
        let complaints = names::subdomain(group.str());
        if !complaints.is_empty() {
            errors.push(group.invalid(&complaints.join(",")));
        } else if !group.str().contains('.') {
            errors.push(group.invalid("should be a domain with at least one dot"));
        }
    }
    required_one_of(spec.get("scope"), &["Cluster", "Namespaced"], errors);
    let versions = spec.get("versions");
    let common = Common::of(versions.value);
    for (i, version) in versions.items().enumerate() {
        if !version.get("schema").get("openAPIV3Schema").is_set() {
            let path = format!("spec.versions[{i}].schema.openAPIV3Schema");
            errors.push(FieldError::required(path, "schemas are required"));
        }
    }
    let mut seen = Vec::new();
    let mut unique = true;
    for version in versions.items() {
        let name = version.get("name");
        unique &= !seen.contains(&name.str());
        seen.push(name.str());
        let complaints = names::label_1035(name.str());
        if !complaints.is_empty() {
            errors.push(name.invalid_str(&complaints.join(",")));
        }
        check_version(version, &common, errors);
    }
    let names: Vec<Value> = seen.iter().map(|name| json!(name)).collect();
    if !unique {
        let why = "must contain unique version names";
        errors.push(FieldError::invalid(versions.path(), names.clone(), why));
    }
    if versions.items().filter(|version| version.get("storage").bool()).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid(versions.path(), names, why));
    }
    let first = versions.items().next();
    if let Some(first) = first {
        check_common(spec, first, &common, errors);
    }
    let names = spec.get("names");
    for field in ["plural", "singular", "kind", "listKind"] {
        required(names.get(field), errors);
    }
    check_names(names, errors);
    check_conversion(spec.get("conversion"), old, errors);
}

/// What all versions have in common.
struct Common {
    schema: bool,
    subresources: bool,
    columns: bool,
    selectable: bool,
}

impl Common {
    fn of(versions: &Value) -> Self {
        let versions = versions.as_array().map(Vec::as_slice).unwrap_or_default();
        let same = |field: &str| versions.windows(2).all(|pair| matches!(pair, [a, b] if a[field] == b[field]));
        Self {
            schema: same("schema"),
            subresources: same("subresources"),
            columns: same("additionalPrinterColumns"),
            selectable: same("selectableFields"),
        }
    }
}

fn has_status(version: View) -> bool {
    version.get("subresources").get("status").is_set()
}

/// The parts in which a version differs from the others.
fn check_version(version: View, common: &Common, errors: &mut Errors) {
    let warning = version.get("deprecationWarning");
    if warning.is_set() {
        for why in deprecation_warning(version.get("deprecated").bool(), warning.str()) {
            errors.push(warning.invalid(&why));
        }
    }
    let schema = version.get("schema").value;
    if !common.schema {
        let path = format!("{}.schema.openAPIV3Schema", version.path());
        check_one_schema(&path, schema, has_status(version), errors);
    }
    if !common.subresources {
        check_scale(version.get("subresources"), errors);
    }
    if !common.columns {
        version.get("additionalPrinterColumns").items().for_each(|column| check_column(column, errors));
    }
    if !common.selectable {
        check_selectable(version.get("selectableFields"), &schema["openAPIV3Schema"], errors);
    }
}

/// The parts that are the same in all versions, under the paths that upstream gives them.
fn check_common(spec: View, version: View, common: &Common, errors: &mut Errors) {
    let schema = version.get("schema").value;
    if common.schema {
        let status = spec.get("versions").items().any(has_status);
        check_one_schema("spec.validation.openAPIV3Schema", schema, status, errors);
    }
    if common.subresources {
        check_scale(View::at("spec.subresources", version.get("subresources").value), errors);
    }
    if common.columns {
        let columns = View::at("spec.additionalPrinterColumns", version.get("additionalPrinterColumns").value);
        columns.items().for_each(|column| check_column(column, errors));
    }
    if common.selectable {
        let fields = View::at("spec.selectableFields", version.get("selectableFields").value);
        check_selectable(fields, &schema["openAPIV3Schema"], errors);
    }
}

fn check_one_schema(path: &str, schema: &Value, has_status: bool, errors: &mut Errors) {
    let schema = &schema["openAPIV3Schema"];
    if schema.is_object() {
        errors.extend(check_schema(View::at(path, schema), has_status));
    }
}

fn deprecation_warning(deprecated: bool, warning: &str) -> Vec<String> {
    if !deprecated {
        return vec!["can only be set for deprecated versions".into()];
    }
    let mut errors = Vec::new();
    if warning.len() > 256 {
        errors.push("must be <= 256 characters long".into());
    }
    if warning.is_empty() {
        errors.push("must not be an empty string".into());
    }
    let odd = |c: char| c.is_control() || (c.is_whitespace() && c != ' ');
    if let Some(at) = warning.find(odd) {
        errors
            .push(format!("must only contain printable UTF-8 characters; non-printable character found at index {at}"));
    }
    errors
}

fn check_names(names: View, errors: &mut Errors) {
    let label = |view: View, mixed: bool, errors: &mut Errors| {
        let text = if mixed { view.str().to_ascii_lowercase() } else { view.str().to_owned() };
        let complaints = names::label_1035(&text);
        if !complaints.is_empty() {
            let prefix = if mixed { "may have mixed case, but should otherwise match: " } else { "" };
            errors.push(view.invalid_str(&format!("{prefix}{}", complaints.join(","))));
        }
    };
    for (field, mixed) in [("plural", false), ("singular", false), ("kind", true), ("listKind", true)] {
        let name = names.get(field);
        if !name.is_empty() {
            label(name, mixed, errors);
        }
    }
    names.get("shortNames").items().for_each(|name| label(name, false, errors));
    let (kind, list_kind) = (names.get("kind"), names.get("listKind"));
    if !kind.is_empty() && kind.str() == list_kind.str() {
        errors.push(list_kind.invalid("kind and listKind may not be the same"));
    }
    names.get("categories").items().for_each(|name| label(name, false, errors));
}

fn check_scale(subresources: View, errors: &mut Errors) {
    let scale = subresources.get("scale");
    if !scale.is_set() {
        return;
    }
    // Upstream makes one path element of the two.
    let base = format!("{}.scale", subresources.path());
    let fields: [(&str, &[&str], &str); 3] = [
        ("specReplicasPath", &[".spec."], "should be a json path under .spec"),
        ("statusReplicasPath", &[".status."], "should be a json path under .status"),
        ("labelSelectorPath", &[".spec.", ".status."], "should be a json path under either .spec or .status"),
    ];
    for (field, prefixes, why) in fields {
        let path = format!("{base}.{field}");
        let view = View::at(&path, scale.get(field).value);
        if view.is_empty() {
            if field != "labelSelectorPath" {
                errors.push(view.required(""));
            }
        } else if check_simple_path(view, errors) && !prefixes.iter().any(|prefix| view.str().starts_with(prefix)) {
            errors.push(view.invalid(why));
        }
    }
}

fn check_column(column: View, errors: &mut Errors) {
    required(column.get("name"), errors);
    let ty = column.get("type");
    let one_of = |names: &[&str]| format!("must be one of {}", names.join(","));
    if ty.is_empty() {
        errors.push(ty.required(&one_of(&COLUMN_TYPES)));
    } else if !COLUMN_TYPES.contains(&ty.str()) {
        errors.push(ty.invalid(&one_of(&COLUMN_TYPES)));
    }
    let format = column.get("format");
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format.str()) {
        errors.push(format.invalid(&one_of(&COLUMN_FORMATS)));
    }
    let path = format!("{}.JSONPath", column.path());
    let view = View::at(&path, column.get("jsonPath").value);
    if required(view, errors) && check_simple_path(view, errors) && JsonPath::parse(view.str()).is_err() {
        let shown = view.str();
        errors.push(view.invalid(&format!("unrecognized column definition {shown:?}")));
    }
}

fn check_selectable(fields: View, schema: &Value, errors: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for field in fields.items() {
        let path = field.get("jsonPath");
        if !required(path, errors) {
            continue;
        }
        let names = match JsonPath::parse(path.str()).map(|path| path.fields()) {
            Ok(Some(names)) if path.str().starts_with('.') && !names.is_empty() => names,
            Ok(_) => {
                errors.push(path.invalid("is an invalid path: must be a simple path of fields starting with ."));
                continue;
            }
            Err(why) => {
                errors.push(path.invalid(&format!("is an invalid path: {why}")));
                continue;
            }
        };
        let found = names.iter().try_fold(schema, |schema, name| schema["properties"].get(name));
        let Some(found) = found else {
            errors.push(path.invalid("is an invalid path: does not refer to a valid field"));
            continue;
        };
        if names.first().is_some_and(|name| name == "metadata") {
            errors.push(path.invalid("must not point to fields in metadata"));
        }
        if !matches!(found["type"].as_str(), Some("string" | "boolean" | "integer")) {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                       formats are allowed.";
            errors.push(path.invalid(why));
        }
        let name = names.join(".");
        if seen.contains(&name) {
            errors.push(path.duplicate());
        } else {
            seen.push(name);
        }
    }
    if seen.len() > MAX_SELECTABLE {
        errors.push(FieldError::too_many(fields.path(), seen.len(), MAX_SELECTABLE));
    }
}

fn check_conversion(conversion: View, old: Option<&Value>, errors: &mut Errors) {
    if !conversion.is_set() {
        return;
    }
    let strategy = conversion.get("strategy");
    required_one_of(strategy, &["None", "Webhook"], errors);
    let webhook = conversion.get("webhook");
    let versions_path = format!("{}.conversionReviewVersions", conversion.path());
    let versions = View::at(&versions_path, webhook.get("conversionReviewVersions").value);
    let config_path = format!("{}.webhookClientConfig", conversion.path());
    let config = View::at(&config_path, webhook.get("clientConfig").value);
    if strategy.str() != "Webhook" {
        let why = "should not be set when strategy is not set to Webhook";
        for view in [config, versions] {
            if !view.is_empty() {
                errors.push(view.forbidden(why));
            }
        }
        return;
    }
    if config.is_set() {
        webhook_config::validate(config, errors);
    } else {
        errors.push(config.required("required when strategy is set to Webhook"));
    }
    // An established definition may not lose a bundle that works.
    let bundle = config.get("caBundle");
    let established =
        old.filter(|old| super::condition(old, "Established").is_some_and(|condition| condition["status"] == "True"));
    if let (false, Some(old)) = (bundle.is_empty(), established)
        && !is_bundle(bundle.str())
    {
        let before = old.pointer("/spec/conversion/webhook/clientConfig/caBundle").and_then(Value::as_str);
        if before.is_none_or(is_bundle) {
            errors.push(bundle.invalid("unable to load root certificates: unable to parse bytes as PEM block"));
        }
    }
    check_review_versions(versions, errors);
}

/// Whether the base64 text holds a PEM certificate.
fn is_bundle(text: &str) -> bool {
    use base64::Engine as _;
    let pem = base64::prelude::BASE64_STANDARD.decode(text).unwrap_or_default();
    pem.windows(27).any(|window| window == b"-----BEGIN CERTIFICATE-----")
}

fn check_review_versions(versions: View, errors: &mut Errors) {
    if !required(versions, errors) {
        return;
    }
    let mut seen = Vec::new();
    for version in versions.items() {
        if seen.contains(&version.str()) {
            errors.push(version.invalid("duplicate version"));
            continue;
        }
        seen.push(version.str());
        errors.extend(names::label_1035(version.str()).iter().map(|why| version.invalid(why)));
    }
    if !seen.iter().any(|version| matches!(*version, "v1" | "v1beta1")) {
        errors.push(versions.invalid("must include at least one of v1, v1beta1"));
    }
}

fn check_stored_versions(stored: View, versions: View, errors: &mut Errors) {
    if stored.is_empty() {
        errors.push(FieldError::invalid(stored.path(), json!([]), "must have at least one stored version"));
        return;
    }
    for version in versions.items().filter(|version| version.get("storage").bool()) {
        let name = version.get("name").str();
        if !stored.items().any(|stored| stored.str() == name) {
            errors.push(stored.invalid(&format!("must have the storage version {name}")));
        }
    }
    for stored in stored.items() {
        let name = stored.str();
        if !versions.items().any(|version| version.get("name").str() == name) {
            errors.push(stored.invalid(&format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                 status.storedVersions"
            )));
        }
    }
}

/// How a definition in one of the community's groups says that its API was reviewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Approval {
    Invalid,
    Approved,
    Bypassed,
    Missing,
}

/// The approval of a definition and why; `None` outside the groups that need one.
pub(super) fn approval(object: &Value) -> Option<(Approval, String)> {
    let group = object["spec"]["group"].as_str().unwrap_or_default();
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group.strip_suffix(domain).is_some_and(|head| head.is_empty() || head.ends_with('.')));
    if !protected {
        return None;
    }
    let annotation = object["metadata"]["annotations"][APPROVED].as_str().unwrap_or_default();
    let host = annotation.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    Some(match annotation {
        "" => (Approval::Missing, format!("protected groups must have approval annotation \"{APPROVED}\", {see}")),
        text if text.starts_with("unapproved") => (Approval::Bypassed, format!("not approved: {text:?}")),
        text if host.is_some_and(|host| !host.is_empty()) => (Approval::Approved, format!("approved in {text}")),
        _ => (
            Approval::Invalid,
            format!(
                "protected groups must have approval annotation \"{APPROVED}\" with either a URL or a reason starting \
                 with \"unapproved\", {see}"
            ),
        ),
    })
}

fn check_approval(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let Some((state, why)) = approval(object) else { return };
    if old.and_then(approval).is_some_and(|(old, _)| old == state) {
        return;
    }
    let path = format!("metadata.annotations[{APPROVED}]");
    match state {
        Approval::Invalid => {
            let shown = object["metadata"]["annotations"][APPROVED].clone();
            errors.push(FieldError::invalid(path, shown, &why));
        }
        Approval::Missing => errors.push(FieldError::required(path, &why)),
        Approval::Approved | Approval::Bypassed => {}
    }
}
