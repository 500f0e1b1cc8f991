//! The targets, by what they read.

mod codecs;
mod expressions;
mod patches;
mod text;
mod wire;

use crate::Target;

const DOCUMENT: &[&str] = &[
    "{\"a\":",
    "[[[[",
    "1e999",
    "-0",
    "\\u0000",
    "\\ud800",
    "null",
    "&a ",
    "*a",
    "<<: ",
    "!!binary ",
    "? ",
    "---\n",
    "%YAML",
    "0x10",
    ".nan",
    "~",
    "\u{feff}",
];
const PATCH: &[&str] = &[
    "$patch",
    "$retainKeys",
    "$deleteFromPrimitiveList/",
    "$setElementOrder/",
    "replace",
    "delete",
    "merge",
    "op",
    "add",
    "copy",
    "move",
    "test",
    "path",
    "from",
    "value",
    "/spec/template/spec/containers/0",
    "/-",
    "~1",
    "~0",
    "name",
    "null",
];
const APPLY: &[&str] =
    &["f:", "k:{\"name\":\"c\"}", "v:", "i:0", ".", "managedFields", "fieldsV1", "manager", "Apply", "null"];
const CEL: &[&str] = &[
    ".all(x, ",
    ".map(x, x)",
    ".exists_one(",
    "has(",
    "self",
    "oldSelf",
    "? :",
    "[?",
    ".?",
    "optional.of(",
    " in ",
    "&&",
    "||",
    "b'",
    "r\"\"\"",
    "0xFFu",
    "1e400",
    "duration('1h')",
    "quantity('1Gi')",
    "matches('",
    ".format([",
    "-9223372036854775808",
];
const JSON_PATH: &[&str] = &["[?(@.", "==", "..", "[*]", "[-1:]", "['a','b']", "\\.", ".items", "[::2]"];
const SELECTOR: &[&str] = &[" in (", " notin (", "!=", "==", "!", ")", ",", ">", "<", "\\,", "\\=", "a.b/c"];
const FRAME: &[&str] = &["\u{1}", "streamtype", "stdin", "port"];

/// Every target.
pub fn all() -> &'static [Target] {
    const ALL: &[Target] = &[
        Target { name: "json", run: codecs::json, dictionary: DOCUMENT },
        Target { name: "yaml", run: codecs::yaml, dictionary: DOCUMENT },
        Target { name: "protobuf", run: codecs::protobuf, dictionary: &[] },
        Target { name: "cbor", run: codecs::cbor, dictionary: &[] },
        Target { name: "json-patch", run: patches::json, dictionary: PATCH },
        Target { name: "merge-patch", run: patches::merge, dictionary: PATCH },
        Target { name: "strategic-merge-patch", run: patches::strategic, dictionary: PATCH },
        Target { name: "apply", run: patches::apply_configuration, dictionary: APPLY },
        Target { name: "cel", run: expressions::cel, dictionary: CEL },
        Target { name: "json-path", run: expressions::json_path, dictionary: JSON_PATH },
        Target { name: "label-selector", run: text::label_selector, dictionary: SELECTOR },
        Target { name: "field-selector", run: text::field_selector, dictionary: SELECTOR },
        Target { name: "quantity", run: text::quantity, dictionary: &["Ki", "Ei", "m", "n", "e-9", "E", "."] },
        Target { name: "spdy", run: wire::spdy, dictionary: FRAME },
    ];
    ALL
}
