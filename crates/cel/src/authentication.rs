//! Expressions of an `AuthenticationConfiguration`: what they may name.

use crate::admission::user;
use crate::env::Env;
use crate::types::{Decl, Type};

/// The environment of expressions about a token's `claims`.
pub fn claims_env() -> Env {
    Env::new().variable("claims", Decl::new(Type::map(Type::String, Type::Dyn)))
}

/// The environment of expressions about the `user` that was made of them.
pub fn user_env() -> Env {
    Env::new().variable("user", user())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::limits::PER_CALL_LIMIT;
    use crate::{Bindings, Value};

    #[test]
    fn claims_are_anything_and_users_are_not() {
        let env = claims_env();
        let claims = json!({"sub": "jane", "groups": ["a", "b"], "nested": {"deep": 1}});
        let run = |source: &str| {
            let program = env.compile(source).unwrap();
            let value = Value::from_json(&claims, env.lookup("claims").map(|decl| &**decl)).unwrap();
            let run = program.evaluate(&Bindings::new().with("claims", value), PER_CALL_LIMIT);
            format!("{:?}", run.value.unwrap().as_bool())
        };
        assert_eq!(run("claims.sub == 'jane' && claims.nested.deep == 1 && 'b' in claims.groups"), "Some(true)");
        assert_eq!(run("has(claims.email) || claims.?email.orValue('none') == 'none'"), "Some(true)");
        user_env().compile("!user.username.startsWith('system:') && user.groups.all(g, g != 'x')").unwrap();
        user_env().compile("user.name == 'x'").unwrap_err();
        env.compile("user.username").unwrap_err();
    }

    #[test]
    fn fields_that_are_read_are_known() {
        let selects = |source: &str| claims_env().compile(source).unwrap().selects("claims", "email");
        assert!(
            selects("claims.email") && selects("claims.?email.orValue('')") && selects("[claims.email].size() > 0")
        );
        assert!(!selects("claims.sub + claims.nested.email"));
    }
}
