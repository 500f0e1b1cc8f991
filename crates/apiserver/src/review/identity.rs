//! Who somebody is: TokenReview and the user of SelfSubjectReview.

use keelson_api::status::Status;
use serde_json::{Value, json};

use crate::UserInfo;
use crate::dispatch::Call;

/// `authentication.k8s.io/v1 UserInfo`
pub(super) fn user(user: &UserInfo) -> Value {
    let mut value = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        value["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        value["extra"] = user.extra.iter().map(|(k, v)| (k.clone(), Value::from(v.clone()))).collect();
    }
    value
}

pub(super) async fn token(call: &Call, object: &Value) -> Result<Value, Status> {
    let token = object.pointer("/spec/token").and_then(Value::as_str).unwrap_or_default();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let authenticator = &call.core.authenticator;
    let audiences = object.pointer("/spec/audiences").and_then(Value::as_array);
    let audiences: Vec<String> = audiences.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let audiences = if audiences.is_empty() { authenticator.audiences() } else { audiences.as_slice() };
    // It is judged as a request with it would be, whose header ends at a space.
    let token = token.split(' ').next().unwrap_or_default();
    Ok(match authenticator.verify(token, audiences).await {
        Ok(verified) => {
            let mut status = json!({"authenticated": true, "user": user(&verified.user)});
            if !verified.audiences.is_empty() {
                status["audiences"] = verified.audiences.into();
            }
            status
        }
        Err(why) => json!({"user": {}, "error": why}),
    })
}
