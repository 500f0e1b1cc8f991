//! Which representation a client wants: an encoding, and the object itself, a Table, or metadata only.

#[cfg(test)]
mod tests;

use keelson_api::codec::Encoding;
use keelson_api::status::Status;

/// What a watch in CBOR is: one data item after another.
const CBOR_SEQUENCE: &str = "application/cbor-seq";

/// Shape of a response. `beta` is `v1beta1` in place of `v1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    #[default]
    Object,
    /// `meta.k8s.io` Table
    Table {
        beta: bool,
    },
    PartialObjectMetadata {
        beta: bool,
    },
    PartialObjectMetadataList {
        beta: bool,
    },
    /// Aggregated discovery, `v2` or `v2beta1`.
    Discovery {
        beta: bool,
    },
}

/// An acceptable representation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) encoding: Encoding,
    pub(crate) shape: Shape,
}

/// What an endpoint can answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offers {
    /// Objects, tables, metadata. Custom resources have no protobuf form, their metadata has.
    Objects { protobuf: bool },
    /// Streams of events about them; there is none of YAML.
    Events { protobuf: bool },
    /// Discovery documents, also aggregated.
    Discovery,
    /// Only the plain document.
    Plain,
}

/// The best clause of an `Accept` header that the endpoint can serve; 406 when there is none.
pub(crate) fn accept(header: Option<&str>, offers: Offers) -> Result<Accepted, Status> {
    let accepted = choose(header, offers).ok_or_else(|| not_acceptable(offers))?;
    // As in upstream, a watch in YAML is refused even if the client would take something else.
    if matches!(offers, Offers::Events { .. }) && accepted.encoding == Encoding::Yaml {
        return Err(not_acceptable(offers));
    }
    Ok(accepted)
}

/// How an error is written: in the encoding that the client accepts, in JSON when it accepts none.
pub(crate) fn error_encoding(header: Option<&str>) -> Encoding {
    choose(header, Offers::Plain).unwrap_or_default().encoding
}

fn choose(header: Option<&str>, offers: Offers) -> Option<Accepted> {
    let header = header.map(str::trim).unwrap_or_default();
    if header.is_empty() {
        return Some(Accepted::default());
    }
    let mut clauses: Vec<Clause<'_>> = header.split(',').map(Clause::parse).filter(|c| c.quality > 0.0).collect();
    // Equal ones in the client's order, but wildcards after what is named.
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality).then_with(|| a.wildcards().cmp(&b.wildcards())));
    clauses.iter().find_map(|clause| clause.serve(offers))
}

/// One media range of an `Accept` header.
#[derive(Default)]
struct Clause<'a> {
    media_type: &'a str,
    quality: f32,
    /// The kind to convert to, and its group and version.
    target: Option<[&'a str; 3]>,
    stream: &'a str,
    server_version: &'a str,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';');
        let mut clause = Self { media_type: parts.next().unwrap_or_default().trim(), quality: 1.0, ..Self::default() };
        for (key, value) in parts.filter_map(|part| part.trim().split_once('=')) {
            match key {
                "q" => clause.quality = value.parse().unwrap_or(1.0),
                "as" => clause.target.get_or_insert_default()[0] = value,
                "g" => clause.target.get_or_insert_default()[1] = value,
                "v" => clause.target.get_or_insert_default()[2] = value,
                "stream" => clause.stream = value,
                "sv" => clause.server_version = value,
                _ => {}
            }
        }
        clause
    }

    /// How many of its halves are wildcards.
    fn wildcards(&self) -> usize {
        self.media_type.split('/').filter(|half| *half == "*").count()
    }

    fn serve(&self, offers: Offers) -> Option<Accepted> {
        let matches = |encoding: &Encoding| match self.media_type {
            "*/*" | "application/*" => true,
            CBOR_SEQUENCE => *encoding == Encoding::Cbor && matches!(offers, Offers::Events { .. }),
            media_type => media_type == encoding.media_type(),
        };
        Encoding::ALL.into_iter().filter(matches).find_map(|encoding| {
            let shape = self.shape(encoding, offers)?;
            Some(Accepted { encoding, shape })
        })
    }

    fn shape(&self, encoding: Encoding, offers: Offers) -> Option<Shape> {
        let streams = encoding != Encoding::Yaml && self.stream == "watch";
        if !(self.stream.is_empty() || streams) || !matches!(self.server_version, "" | "v1") {
            return None;
        }
        let objects = matches!(offers, Offers::Objects { .. } | Offers::Events { .. });
        let protobuf = encoding == Encoding::Protobuf;
        match (self.target, offers) {
            (None, Offers::Objects { protobuf: false } | Offers::Events { protobuf: false }) if protobuf => None,
            (None, _) => Some(Shape::Object),
            (Some([kind, "meta.k8s.io", version @ ("v1" | "v1beta1")]), _) if objects => {
                let beta = version == "v1beta1";
                match kind {
                    "Table" => matches!(encoding, Encoding::Json | Encoding::Yaml).then_some(Shape::Table { beta }),
                    "PartialObjectMetadata" => Some(Shape::PartialObjectMetadata { beta }),
                    "PartialObjectMetadataList" => Some(Shape::PartialObjectMetadataList { beta }),
                    _ => None,
                }
            }
            (Some(["APIGroupDiscoveryList", "apidiscovery.k8s.io", version @ ("v2" | "v2beta1")]), _) => {
                let known = offers == Offers::Discovery && encoding == Encoding::Json;
                known.then_some(Shape::Discovery { beta: version == "v2beta1" })
            }
            _ => None,
        }
    }
}

/// 406
fn not_acceptable(offers: Offers) -> Status {
    let types: Vec<String> = match offers {
        Offers::Events { .. } => Encoding::ALL.into_iter().filter(|e| *e != Encoding::Yaml).map(stream_type).collect(),
        _ => Encoding::ALL.into_iter().map(|encoding| encoding.media_type().to_owned()).collect(),
    };
    refused(format!("only the following media types are accepted: {}", types.join(", ")))
}

fn stream_type(encoding: Encoding) -> String {
    match encoding {
        Encoding::Cbor => CBOR_SEQUENCE.into(),
        other => format!("{};stream=watch", other.media_type()),
    }
}

/// 406 with upstream's words for it.
pub(crate) fn refused(message: impl Into<String>) -> Status {
    Status::new(406, "NotAcceptable", message)
}

/// The `Content-Type` of a watch.
pub(crate) fn watch_content_type(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        Encoding::Cbor => CBOR_SEQUENCE,
        other => other.media_type(),
    }
}
