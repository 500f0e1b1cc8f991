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

pub(super) fn token(call: &Call, object: &Value) -> Result<Value, Status> {
    let token = object.pointer("/spec/token").and_then(Value::as_str).unwrap_or_default();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = object.pointer("/spec/audiences").and_then(Value::as_array);
    let audiences: Vec<String> = audiences.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let Some(tokens) = &call.core.authenticator.tokens else {
        return Ok(json!({"user": {}, "error": "no service account keys are configured"}));
    };
    Ok(match tokens.verify(token, &audiences) {
        Ok(verified) => {
            json!({"authenticated": true, "user": user(&verified.user), "audiences": verified.audiences})
        }
        Err(why) => json!({"user": {}, "error": format!("[invalid bearer token, {why}]")}),
    })
}
