//! Which representation a client wants: JSON or YAML, the object itself, a Table, or metadata only.

use keelson_api::status::Status;

/// Encoding of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Json,
    Yaml,
}

/// Shape of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    #[default]
    Object,
    /// `meta.k8s.io/v1` (or `v1beta1`) Table
    Table {
        beta: bool,
    },
    PartialObjectMetadata,
    PartialObjectMetadataList,
    /// Aggregated discovery, `v2` or `v2beta1`.
    Discovery {
        beta: bool,
    },
}

/// An acceptable representation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) format: Format,
    pub(crate) shape: Shape,
}

/// Which shapes an endpoint can answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offers {
    /// Objects, tables, metadata.
    Objects,
    /// Discovery documents, also aggregated.
    Discovery,
    /// Only the plain document.
    Plain,
}

/// The first clause of an `Accept` header that the endpoint can serve; 406 when there is none.
pub(crate) fn accept(header: Option<&str>, offers: Offers) -> Result<Accepted, Status> {
    let header = header.map(str::trim).unwrap_or_default();
    if header.is_empty() {
        return Ok(Accepted::default());
    }
    let mut clauses: Vec<(f32, &str)> = header.split(',').map(|c| (quality(c), c)).filter(|(q, _)| *q > 0.0).collect();
    clauses.sort_by(|a, b| b.0.total_cmp(&a.0));
    clauses.into_iter().find_map(|(_, clause)| accept_clause(clause, offers)).ok_or_else(not_acceptable)
}

fn quality(clause: &str) -> f32 {
    params(clause).find(|(k, _)| *k == "q").and_then(|(_, v)| v.parse().ok()).unwrap_or(1.0)
}

fn params(clause: &str) -> impl Iterator<Item = (&str, &str)> {
    clause.split(';').skip(1).filter_map(|p| p.trim().split_once('='))
}

fn accept_clause(clause: &str, offers: Offers) -> Option<Accepted> {
    let format = match clause.split(';').next().unwrap_or_default().trim() {
        "application/json" | "*/*" | "application/*" => Format::Json,
        "application/yaml" => Format::Yaml,
        _ => return None,
    };
    let (mut as_, mut group, mut version) = ("", "", "");
    for (key, value) in params(clause) {
        match key {
            "as" => as_ = value,
            "g" => group = value,
            "v" => version = value,
            _ => {}
        }
    }
    let meta = group == "meta.k8s.io" && matches!(version, "v1" | "v1beta1") && offers == Offers::Objects;
    let shape = match as_ {
        "" => Shape::Object,
        "Table" if meta => Shape::Table { beta: version == "v1beta1" },
        "PartialObjectMetadata" if meta => Shape::PartialObjectMetadata,
        "PartialObjectMetadataList" if meta => Shape::PartialObjectMetadataList,
        "APIGroupDiscoveryList"
            if group == "apidiscovery.k8s.io" && offers == Offers::Discovery && matches!(version, "v2" | "v2beta1") =>
        {
            Shape::Discovery { beta: version == "v2beta1" }
        }
        _ => return None,
    };
    Some(Accepted { format, shape })
}

/// 406
pub(crate) fn not_acceptable() -> Status {
    Status::new(406, "NotAcceptable", "only the following media types are accepted: application/json, application/yaml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_headers() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(accept(Some(table), Offers::Objects).unwrap().shape, Shape::Table { beta: false });
        assert_eq!(accept(Some(table), Offers::Plain).unwrap().shape, Shape::Object);
        let typed = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(accept(Some(typed), Offers::Objects).unwrap(), Accepted::default());
        assert_eq!(accept(Some("application/vnd.kubernetes.protobuf"), Offers::Objects).unwrap_err().code, 406);
        assert_eq!(accept(Some("text/html"), Offers::Objects).unwrap_err().code, 406);
        assert_eq!(accept(Some("text/html, */*;q=0.8"), Offers::Plain).unwrap(), Accepted::default());
        assert_eq!(
            accept(Some("application/json;q=0.1,application/yaml"), Offers::Plain).unwrap().format,
            Format::Yaml
        );
        let discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(accept(Some(discovery), Offers::Discovery).unwrap().shape, Shape::Discovery { beta: false });
    }
}
