//! Parameters of operations: what each is called and for.

use serde_json::{Value, json};

use super::Format;

/// Name, type and description.
type Query = (&'static str, &'static str, &'static str);

const DRY_RUN: Query = ("dryRun", "string", "Says that nothing is to be stored. The only value is All.");

/// Of every operation that answers with an object.
pub(super) const PRETTY: &[Query] = &[("pretty", "string", "If 'true', then the output is pretty printed.")];

/// Of creates and updates.
pub(super) const WRITE: &[Query] = &[
    DRY_RUN,
    ("fieldManager", "string", "The name of the actor that makes these changes, at most 128 characters."),
    (
        "fieldValidation",
        "string",
        "What to do about unknown and duplicate fields: Ignore, Warn (the default) or Strict.",
    ),
];

/// Of patches, beside [`WRITE`].
pub(super) const FORCE: &[Query] = &[("force", "boolean", "For apply patches: take over fields that others own.")];

/// Of deletes.
pub(super) const DELETE: &[Query] = &[
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "Seconds before the object is deleted. Zero means at once."),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Delete an object that cannot be read from the store. Dangerous.",
    ),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    ("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
];

/// Of lists and of deletes of collections.
pub(super) const LIST: &[Query] = &[
    ("continue", "string", "The token of an earlier list, to get what follows it."),
    ("fieldSelector", "string", "Selects objects by their fields. Defaults to everything."),
    ("labelSelector", "string", "Selects objects by their labels. Defaults to everything."),
    ("limit", "integer", "The most objects to answer with; a continue token leads to the rest."),
    ("resourceVersion", "string", "The version of the store that the answer must be from or not be older than."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."),
    ("sendInitialEvents", "boolean", "Begins a watch with an event for each object there is, then a bookmark."),
    ("timeoutSeconds", "integer", "How long the call may last."),
];

/// Of lists and watches, beside [`LIST`].
pub(super) const WATCH: &[Query] = &[
    ("allowWatchBookmarks", "boolean", "Asks for events of type BOOKMARK."),
    ("watch", "boolean", "Watch for changes instead of listing."),
];

/// Of logs.
pub(super) const LOG: &[Query] = &[
    CONTAINER,
    ("follow", "boolean", "Go on with what is yet to be logged."),
    ("insecureSkipTLSVerifyBackend", "boolean", "Do not check the kubelet's certificate."),
    ("limitBytes", "integer", "The most bytes to answer with."),
    ("previous", "boolean", "Logs of the container's previous run."),
    ("sinceSeconds", "integer", "Only lines at most so many seconds old."),
    ("stream", "string", "All, Stdout or Stderr."),
    ("tailLines", "integer", "Only so many lines from the end."),
    ("timestamps", "boolean", "Begin each line with its time."),
];

const CONTAINER: Query = ("container", "string", "The container; may be left out when the pod has one only.");
const STDERR: Query = ("stderr", "boolean", "Whether to send standard error.");
const STDIN: Query = ("stdin", "boolean", "Whether to take standard input.");
const STDOUT: Query = ("stdout", "boolean", "Whether to send standard output.");
const TTY: Query = ("tty", "boolean", "Whether there is a terminal.");

/// Of the streaming subresource called `name`.
pub(super) fn of_connect(name: &str) -> &'static [Query] {
    match name {
        "attach" => &[CONTAINER, STDERR, STDIN, STDOUT, TTY],
        "exec" => &[
            ("command", "string", "The command and its arguments; not run in a shell."),
            CONTAINER,
            STDERR,
            STDIN,
            STDOUT,
            TTY,
        ],
        "portforward" => &[("ports", "integer", "Ports to forward, for WebSocket.")],
        "proxy" => &[("path", "string", "The path below what is proxied.")],
        _ => &[],
    }
}

/// The parameters as the document has them.
pub(super) fn queries(lists: &[&[Query]], format: Format) -> Vec<Value> {
    let all = lists.iter().flat_map(|list| list.iter());
    all.map(|(name, ty, text)| typed(json!({ "name": name, "in": "query", "description": text }), ty, format)).collect()
}

/// A part of the path.
pub(super) fn path(name: &str, description: &str, format: Format) -> Value {
    typed(json!({ "name": name, "in": "path", "description": description, "required": true }), "string", format)
}

fn typed(mut parameter: Value, ty: &str, format: Format) -> Value {
    match format {
        Format::V3 => parameter["schema"] = json!({ "type": ty, "uniqueItems": true }),
        Format::V2 => {
            parameter["type"] = ty.into();
            parameter["uniqueItems"] = true.into();
        }
    }
    parameter
}
