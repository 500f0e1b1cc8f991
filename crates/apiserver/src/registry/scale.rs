//! `scale`: the object's replicas as an `autoscaling/v1 Scale`.

use bytes::Bytes;
use keelson_api::apply;
use keelson_api::kind::{Kind, ScaleMap, Verb};
use keelson_api::status::{FieldError, Status};
use serde_json::Value;

use super::body::{Strictness, conform, decode, schema_of};
use super::create::{self, text};
use super::options::{WriteOptions, is_apply};
use super::ownership::Ownership;
use super::update::{Target, update};
use super::{patch, read, render};
use crate::core::Core;
use crate::dispatch::Call;
use crate::http::reply::{self, Reply};

/// Answers a verb on the scale of an object.
pub(crate) async fn serve(call: &Call, verb: Verb, body: Bytes) -> Reply {
    let Call { core, resource, target, query, .. } = call;
    let namespace = call.object_namespace();
    let Some(map) = &resource.kind.scale else { return Err(Status::unknown_path()) };
    let scales = core.registry.body_resource("autoscaling", "Scale")?;
    if verb == Verb::Get {
        let entry = read::get_entry(core, resource, namespace, &target.name, query).await?;
        let object = resource.decode(&entry)?;
        if let Some(path) = map.missing(&object) {
            return Err(Status::internal(format!("the spec replicas field {path:?} does not exist")));
        }
        let scale = map.read(&object);
        return render::object(scales, 200, scale, call.accepted()?, query);
    }
    let options_kind = if verb == Verb::Patch { "PatchOptions" } else { "UpdateOptions" };
    let options = WriteOptions::of(call, options_kind)?;
    let mut strictness = Strictness::new(options.field_validation);
    let scale_kind = &*scales.kind;
    let scaled = Scaled { core, map, kind: &resource.kind, scale_kind, options: &options };
    let to = Target { resource, namespace, name: &target.name, subresource: "scale" };
    let given = WriteOptions { tracked: false, ..options.clone() };
    let media_type = call.media_type();
    let written = if verb == Verb::Patch && is_apply(&media_type) {
        let config = patch::parse_config(&media_type, &body, &mut strictness)?;
        update(core, to, &given, |old| scaled.apply(old, &config)).await?
    } else if verb == Verb::Patch {
        let (patch, _) = patch::parse(&resource.kind, &media_type, &body)?;
        let schema = schema_of(scale_kind)?;
        update(core, to, &given, |old| {
            let live = scaled.live(old);
            let mut scale = live.clone();
            patch.apply(&mut scale, schema)?;
            conform(schema, &mut scale, &mut Vec::new()).map_err(|why| patch.undecodable(&scale, &why))?;
            scaled.update(old, &live, scale)
        })
        .await?
    } else {
        let scale = decode(scale_kind, &media_type, &body, &mut strictness)?;
        if text(&scale, "name") != target.name {
            return Err(Status::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                text(&scale, "name"),
                target.name
            )));
        }
        update(core, to, &given, |old| scaled.update(old, &scaled.live(old), scale.clone())).await?
    };
    let mut response = render::object(scales, 200, map.read(&written.object), call.accepted()?, query)?;
    reply::warn(&mut response, &strictness.warnings());
    Ok(response)
}

/// How a changed scale changes its object.
struct Scaled<'a> {
    core: &'a Core,
    map: &'a ScaleMap,
    kind: &'a Kind,
    scale_kind: &'a Kind,
    options: &'a WriteOptions,
}

impl Scaled<'_> {
    /// The stored object's scale, with the owners of the replicas.
    fn live(&self, old: &Value) -> Value {
        let mut scale = self.map.read(old);
        apply::to_scale(old, &self.map.spec_replicas, &mut scale);
        scale
    }

    fn ownership(&self) -> Ownership<'_> {
        Ownership::new(self.core, self.scale_kind, "scale", self.options)
    }

    fn update(&self, old: &Value, live: &Value, mut scale: Value) -> Result<Value, Status> {
        self.ownership().track_now(Some(live), &mut scale)?;
        self.write(old, &scale)
    }

    fn apply(&self, old: &Value, config: &Value) -> Result<Value, Status> {
        let scale = self.ownership().apply(Some(&self.live(old)), config)?;
        self.write(old, &scale)
    }

    fn write(&self, old: &Value, scale: &Value) -> Result<Value, Status> {
        let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
        if replicas < 0 {
            let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
            return Err(Status::invalid("autoscaling", "Scale", text(scale, "name"), &[error]));
        }
        let mut object = old.clone();
        self.map.write(&mut object, scale);
        // Who names no version means the one that is there, also where the object itself asks for one.
        if matches!(text(&object, "resourceVersion"), "" | "0") {
            create::set(&mut object, "resourceVersion", text(old, "resourceVersion").into());
        }
        apply::from_scale(&mut object, &self.kind.api_version(), &self.map.spec_replicas, scale);
        Ok(object)
    }
}
