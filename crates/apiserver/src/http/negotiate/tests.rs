use keelson_api::codec::Encoding;

use super::{Accepted, Offers, Shape, accept, error_encoding};

const OBJECTS: Offers = Offers::Objects { protobuf: true };
const CUSTOM: Offers = Offers::Objects { protobuf: false };
const EVENTS: Offers = Offers::Events { protobuf: true };

#[track_caller]
fn chosen(header: &str, offers: Offers, encoding: Encoding, shape: Shape) {
    assert_eq!(accept(Some(header), offers).unwrap(), Accepted { encoding, shape }, "{header}");
}

#[track_caller]
fn refused(header: &str, offers: Offers, message: &str) {
    let status = accept(Some(header), offers).unwrap_err();
    assert_eq!((status.code, status.reason), (406, "NotAcceptable"));
    assert_eq!(status.message, format!("only the following media types are accepted: {message}"), "{header}");
}

#[test]
fn encodings() {
    for header in
        ["", "*/*", "application/*", "application/json", "text/html, */*;q=0.8", "application/json; charset=utf-8"]
    {
        chosen(header, OBJECTS, Encoding::Json, Shape::Object);
    }
    chosen("application/yaml", OBJECTS, Encoding::Yaml, Shape::Object);
    chosen("application/json;q=0.1,application/yaml", Offers::Plain, Encoding::Yaml, Shape::Object);
    chosen("*/*,application/yaml", Offers::Plain, Encoding::Yaml, Shape::Object);
    chosen("application/vnd.kubernetes.protobuf,application/json", OBJECTS, Encoding::Protobuf, Shape::Object);
    chosen("application/cbor;q=0.9,application/json;q=0.5", OBJECTS, Encoding::Cbor, Shape::Object);
    chosen("application/json;q=0,application/cbor", OBJECTS, Encoding::Cbor, Shape::Object);
    let all = "application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor";
    for header in [
        "text/html",
        "application/json;q=0",
        "application/json;stream=other",
        "application/json;sv=v9",
        "application/cbor-seq",
    ] {
        refused(header, OBJECTS, all);
    }
}

#[test]
fn custom_resources_have_no_protobuf_but_their_metadata_has() {
    chosen("application/vnd.kubernetes.protobuf,application/json", CUSTOM, Encoding::Json, Shape::Object);
    refused(
        "application/vnd.kubernetes.protobuf",
        CUSTOM,
        "application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor",
    );
    let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    chosen(metadata, CUSTOM, Encoding::Protobuf, Shape::PartialObjectMetadata { beta: false });
}

#[test]
fn shapes() {
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    chosen(table, OBJECTS, Encoding::Json, Shape::Table { beta: false });
    chosen(table, Offers::Plain, Encoding::Json, Shape::Object);
    chosen("application/json;as=Table;v=v1beta1;g=meta.k8s.io", OBJECTS, Encoding::Json, Shape::Table { beta: true });
    chosen("application/yaml;as=Table;v=v1;g=meta.k8s.io", OBJECTS, Encoding::Yaml, Shape::Table { beta: false });
    let list = "application/cbor;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1beta1";
    chosen(list, OBJECTS, Encoding::Cbor, Shape::PartialObjectMetadataList { beta: true });
    // No tables in binary encodings; a conversion to nothing is none; other groups have none of these kinds.
    for media in [
        "vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io",
        "cbor;as=Table;v=v1;g=meta.k8s.io",
        "json;g=meta.k8s.io;v=v1",
        "json;as=Table;g=x;v=v1",
        "json;as=Pod;g=meta.k8s.io;v=v1",
    ] {
        chosen(&format!("application/{media},application/yaml"), OBJECTS, Encoding::Yaml, Shape::Object);
    }
    let discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    chosen(discovery, Offers::Discovery, Encoding::Json, Shape::Discovery { beta: false });
    chosen(discovery, OBJECTS, Encoding::Json, Shape::Object);
}

#[test]
fn watches() {
    chosen(
        "application/vnd.kubernetes.protobuf;stream=watch,application/json",
        EVENTS,
        Encoding::Protobuf,
        Shape::Object,
    );
    chosen("application/cbor-seq,application/json", EVENTS, Encoding::Cbor, Shape::Object);
    chosen("application/cbor", EVENTS, Encoding::Cbor, Shape::Object);
    chosen("application/json;stream=watch", EVENTS, Encoding::Json, Shape::Object);
    let streams =
        "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch, application/cbor-seq";
    refused("application/yaml,application/json", EVENTS, streams);
    refused("text/plain", EVENTS, streams);
}

#[test]
fn errors_are_json_at_worst() {
    assert_eq!(error_encoding(Some("application/vnd.kubernetes.protobuf")), Encoding::Protobuf);
    assert_eq!(error_encoding(Some("application/json;as=Table;v=v1;g=meta.k8s.io,application/yaml")), Encoding::Yaml);
    assert_eq!(error_encoding(Some("text/html")), Encoding::Json);
    assert_eq!(error_encoding(None), Encoding::Json);
}
