//! `namespaces/finalize`: the namespace controller's word that a namespace is empty.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::dispatch::Call;
use crate::http::reply::Reply;
use crate::registry::body::{Strictness, decode};
use crate::registry::create::{set, text};
use crate::registry::options::WriteOptions;
use crate::registry::subresources::finish;
use crate::registry::update::{Target, update};

pub(super) async fn serve(call: &Call, body: Bytes) -> Reply {
    let Call { core, resource, target, .. } = call;
    let options = WriteOptions::of(call, "UpdateOptions")?;
    let mut strictness = Strictness::new(options.field_validation);
    let object = decode(&resource.kind, &call.media_type(), &body, &mut strictness)?;
    let finalizers = object.pointer("/spec/finalizers").cloned().unwrap_or_else(|| json!([]));
    let to = Target { resource, namespace: "", name: &target.name, subresource: "finalize" };
    let written = update(core, to, &options, |old| {
        let mut new = old.clone();
        if let Some(map) = new.as_object_mut() {
            let spec = map.entry("spec").or_insert_with(|| json!({}));
            if let Some(spec) = spec.as_object_mut() {
                match finalizers.as_array().is_some_and(Vec::is_empty) {
                    true => drop(spec.remove("finalizers")),
                    false => drop(spec.insert("finalizers".into(), finalizers.clone())),
                }
            }
        }
        set(&mut new, "uid", Value::from(text(&object, "uid")));
        set(&mut new, "resourceVersion", Value::from(text(&object, "resourceVersion")));
        Ok(new)
    })
    .await?;
    finish(call, written)
}
