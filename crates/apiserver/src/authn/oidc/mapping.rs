//! From claims to a user: by claim and prefix, or by expression; and the rules that claims and user must keep.

use keelson_api::status::FieldError;
use keelson_cel::admission::compile;
use keelson_cel::authentication::{claims_env, user_env};
use keelson_cel::limits::PER_CALL_LIMIT;
use keelson_cel::{Bindings, Env, Program, Type, Value as Cel};
use serde_json::{Map, Value, json};

use super::settings::{ClaimMappings, ClaimRule, JwtAuthenticator, Prefixed, UserRule};
use crate::UserInfo;

/// Compiled.
pub(super) struct Mapping {
    username: Source,
    groups: Option<Source>,
    uid: Option<Source>,
    extra: Vec<(String, Expression)>,
    required: Vec<(String, String)>,
    claim_rules: Vec<Rule>,
    user_rules: Vec<Rule>,
    claims: Env,
    user: Env,
}

/// Where something of a user comes from.
enum Source {
    Claim { name: String, prefix: String },
    Expression(Expression),
}

struct Expression {
    source: String,
    program: Box<Program>,
}

/// What must be true.
struct Rule {
    expression: Expression,
    message: String,
}

type Claims = Map<String, Value>;

impl Mapping {
    /// Compiles what is under `path`. When there are errors, what comes back is of no use.
    pub(super) fn compile(jwt: &JwtAuthenticator, path: &str, errors: &mut Vec<FieldError>) -> Self {
        let mut compiler = Compiler { claims: claims_env(), user: user_env(), errors };
        let (required, claim_rules) = compiler.claim_rules(&jwt.claim_validation_rules, path);
        let ClaimMappings { username, groups, uid, extra } = &jwt.claim_mappings;
        let at = format!("{path}.claimMappings");
        let (username_at, groups_at) = (format!("{at}.username"), format!("{at}.groups"));
        if username.claim.is_empty() && username.expression.is_empty() {
            compiler.errors.push(FieldError::required(&username_at, "claim or expression is required"));
        }
        let compiled_username = compiler.prefixed(username, &username_at);
        let groups = compiler.prefixed(groups, &groups_at);
        let uid_at = format!("{at}.uid");
        let uid = match (uid.claim.as_str(), uid.expression.as_str()) {
            ("", "") => None,
            (claim, "") => Some(Source::Claim { name: claim.to_owned(), prefix: String::new() }),
            ("", source) => compiler.about_claims(source, &format!("{uid_at}.expression"), &[]).map(Source::Expression),
            _ => {
                compiler.errors.push(FieldError::invalid(&uid_at, "", "claim and expression can't both be set"));
                None
            }
        };
        let extra = compiler.extra(extra, &format!("{at}.extra"));
        compiler.email(compiled_username.as_ref(), &extra, &claim_rules, &username_at);
        let user_rules = compiler.user_rules(&jwt.user_validation_rules, &format!("{path}.userValidationRules"));
        let Compiler { claims, user, .. } = compiler;
        let none = || Source::Claim { name: String::new(), prefix: String::new() };
        let username = compiled_username.unwrap_or_else(none);
        Self { username, groups, uid, extra, required, claim_rules, user_rules, claims, user }
    }

    /// The user that claims make.
    pub(super) fn user(&self, claims: Claims) -> Result<UserInfo, String> {
        let as_value = Value::Object(claims);
        let claims = as_value.as_object().ok_or("oidc: parse claims")?;
        let eval = |expression: &Expression| evaluate(expression, &self.claims, "claims", &as_value);
        let mut user = UserInfo { name: self.name(claims, &eval)?, ..UserInfo::default() };
        user.groups = match &self.groups {
            None => Vec::new(),
            Some(Source::Claim { name, prefix }) => match claims.get(name) {
                None => Vec::new(),
                Some(value) => {
                    let groups = strings(value).ok_or_else(|| {
                        format!("oidc: parse groups claim {name:?}: it is neither a string nor an array of strings")
                    })?;
                    groups.into_iter().map(|group| format!("{prefix}{group}")).collect()
                }
            },
            Some(Source::Expression(expression)) => eval(expression)
                .and_then(list)
                .map_err(|why| format!("oidc: error evaluating group claim expression: {why}"))?,
        };
        user.uid = match &self.uid {
            None => String::new(),
            Some(Source::Claim { name, .. }) => {
                text_claim(claims, name).map_err(|why| format!("oidc: parse uid claim {name:?}: {why}"))?
            }
            Some(Source::Expression(expression)) => eval(expression)
                .and_then(|value| text(value, "uid"))
                .map_err(|why| format!("oidc: error evaluating uid claim expression: {why}"))?,
        };
        for (key, expression) in &self.extra {
            let values = eval(expression).and_then(list).map_err(|why| {
                format!("oidc: error evaluating extra claim expression: {}: {why}", expression.source)
            })?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        self.check(claims, &eval, &user)?;
        Ok(user)
    }

    fn name<'a>(
        &'a self,
        claims: &Claims,
        eval: &impl Fn(&'a Expression) -> Result<Out, String>,
    ) -> Result<String, String> {
        let (name, prefix) = match &self.username {
            Source::Expression(expression) => {
                let name = eval(expression)
                    .and_then(|value| text(value, "username"))
                    .map_err(|why| format!("oidc: error evaluating username claim expression: {why}"))?;
                (name, "")
            }
            Source::Claim { name, prefix } => {
                let value =
                    text_claim(claims, name).map_err(|why| format!("oidc: parse username claims {name:?}: {why}"))?;
                // An address that the issuer has not verified is anybody's.
                if name == "email" {
                    match claims.get("email_verified") {
                        None | Some(Value::Bool(true)) => {}
                        Some(Value::Bool(false)) => return Err("oidc: email not verified".into()),
                        Some(_) => return Err("oidc: parse 'email_verified' claim: it is no boolean".into()),
                    }
                }
                (value, prefix.as_str())
            }
        };
        if name.is_empty() {
            return Err("oidc: the username is empty".into());
        }
        Ok(format!("{prefix}{name}"))
    }

    fn check<'a>(
        &'a self,
        claims: &Claims,
        eval: &impl Fn(&'a Expression) -> Result<Out, String>,
        user: &UserInfo,
    ) -> Result<(), String> {
        for (name, wanted) in &self.required {
            if !claims.contains_key(name) {
                return Err(format!("oidc: required claim {name} not present in ID token"));
            }
            let value = text_claim(claims, name).map_err(|why| format!("oidc: parse claim {name}: {why}"))?;
            if value != *wanted {
                return Err(format!(
                    "oidc: required claim {name} value does not match. Got = {value}, want = {wanted}"
                ));
            }
        }
        for rule in &self.claim_rules {
            rule.judge(eval(&rule.expression))
                .map_err(|why| format!("oidc: error evaluating claim validation expression: {why}"))?;
        }
        if self.user_rules.is_empty() {
            return Ok(());
        }
        // As a Go struct becomes JSON: what is empty is left out.
        let mut value = json!({"username": user.name});
        for (key, part) in [
            ("uid", Value::from(user.uid.as_str())),
            ("groups", Value::from(user.groups.clone())),
            ("extra", json!(user.extra)),
        ] {
            let empty = part == "" || part == json!([]) || part == json!({});
            if !empty {
                value[key] = part;
            }
        }
        for rule in &self.user_rules {
            rule.judge(evaluate(&rule.expression, &self.user, "user", &value))
                .map_err(|why| format!("oidc: error evaluating user info validation rule: {why}"))?;
        }
        Ok(())
    }
}

impl Rule {
    fn judge(&self, value: Result<Out, String>) -> Result<(), String> {
        match value? {
            Out::Bool(true) => Ok(()),
            Out::Bool(false) => {
                Err(format!("validation expression '{}' failed: {}", self.expression.source, self.message))
            }
            _ => Err("validation expression must return a boolean".into()),
        }
    }
}

/// What an expression gave, as far as it is of use.
enum Out {
    Null,
    Bool(bool),
    Text(String),
    List(Vec<String>),
    Other,
}

fn evaluate(expression: &Expression, env: &Env, variable: &str, value: &Value) -> Result<Out, String> {
    let value = Cel::from_json(value, env.lookup(variable).map(|decl| &**decl)).map_err(|e| e.to_string())?;
    let run = expression.program.evaluate(&Bindings::new().with(variable, value), PER_CALL_LIMIT);
    Ok(match run.value.map_err(|e| format!("expression '{}' resulted in error: {e}", expression.source))? {
        Cel::Null => Out::Null,
        Cel::Bool(value) => Out::Bool(value),
        Cel::String(text) => Out::Text(text.as_str().to_owned()),
        Cel::List(items) => {
            let mut all = Vec::with_capacity(items.len());
            for item in items.iter() {
                match item.map_err(|e| e.to_string())?.as_str() {
                    Some(text) => all.push(text.to_owned()),
                    None => return Ok(Out::Other),
                }
            }
            Out::List(all)
        }
        _ => Out::Other,
    })
}

fn text(value: Out, what: &str) -> Result<String, String> {
    match value {
        Out::Text(text) => Ok(text),
        _ => Err(format!("{what} claim expression must return a string")),
    }
}

/// One or several; empty ones are none.
fn list(value: Out) -> Result<Vec<String>, String> {
    let mut all = match value {
        Out::Null => Vec::new(),
        Out::Text(one) => vec![one],
        Out::List(all) => all,
        Out::Bool(_) | Out::Other => return Err("expression must return a string or a list of strings".into()),
    };
    all.retain(|text| !text.is_empty());
    Ok(all)
}

fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(all) => all.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

fn text_claim(claims: &Claims, name: &str) -> Result<String, String> {
    match claims.get(name) {
        None => Err("claim not present".into()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err("it is no string".into()),
    }
}

struct Compiler<'a> {
    claims: Env,
    user: Env,
    errors: &'a mut Vec<FieldError>,
}

impl Compiler<'_> {
    fn compile(&mut self, env: &Env, source: &str, at: &str, wanted: &[Type]) -> Option<Expression> {
        match compile(env, source, wanted) {
            Ok(program) => Some(Expression { source: source.to_owned(), program: Box::new(program) }),
            Err(why) => {
                self.errors.push(FieldError::invalid(at, source, &why));
                None
            }
        }
    }

    fn about_claims(&mut self, source: &str, at: &str, wanted: &[Type]) -> Option<Expression> {
        let env = self.claims.clone();
        self.compile(&env, source, at, wanted)
    }

    fn prefixed(&mut self, mapping: &Prefixed, at: &str) -> Option<Source> {
        let Prefixed { claim, prefix, expression } = mapping;
        match (claim.as_str(), expression.as_str()) {
            ("", "") => None,
            (claim, "") => {
                if prefix.is_none() {
                    let why =
                        "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                    self.errors.push(FieldError::required(format!("{at}.prefix"), why));
                }
                Some(Source::Claim { name: claim.to_owned(), prefix: prefix.clone().unwrap_or_default() })
            }
            ("", source) => {
                if let Some(prefix) = prefix {
                    let why = "may not be specified when expression is set";
                    self.errors.push(FieldError::invalid(format!("{at}.prefix"), prefix.as_str(), why));
                }
                self.about_claims(source, &format!("{at}.expression"), &[]).map(Source::Expression)
            }
            _ => {
                self.errors.push(FieldError::invalid(at, "", "claim and expression can't both be set"));
                None
            }
        }
    }

    fn claim_rules(&mut self, rules: &[ClaimRule], path: &str) -> (Vec<(String, String)>, Vec<Rule>) {
        let (mut required, mut compiled) = (Vec::<(String, String)>::new(), Vec::new());
        for (index, rule) in rules.iter().enumerate() {
            let at = format!("{path}.claimValidationRules[{index}]");
            match (rule.claim.as_str(), rule.expression.as_str()) {
                ("", "") => self.errors.push(FieldError::required(&at, "claim or expression is required")),
                (claim, "") => {
                    if !rule.message.is_empty() {
                        let why = "may not be specified when claim is set";
                        self.errors.push(FieldError::invalid(format!("{at}.message"), rule.message.as_str(), why));
                    }
                    if rules.iter().take(index).any(|other| other.claim == claim) {
                        self.errors.push(FieldError::duplicate(format!("{at}.claim"), claim));
                    }
                    required.push((claim.to_owned(), rule.required_value.clone()));
                }
                ("", source) => {
                    if !rule.required_value.is_empty() {
                        let (at, value) = (format!("{at}.requiredValue"), rule.required_value.as_str());
                        self.errors.push(FieldError::invalid(at, value, "may not be specified when expression is set"));
                    }
                    let at = format!("{at}.expression");
                    if rules.iter().take(index).any(|other| other.expression == source) {
                        self.errors.push(FieldError::duplicate(&at, source));
                        continue;
                    }
                    let expression = self.about_claims(source, &at, &[Type::Bool]);
                    compiled.extend(expression.map(|expression| Rule { expression, message: rule.message.clone() }));
                }
                (claim, _) => {
                    self.errors.push(FieldError::invalid(&at, claim, "claim and expression can't both be set"));
                }
            }
        }
        (required, compiled)
    }

    fn extra(&mut self, extra: &[super::settings::Extra], path: &str) -> Vec<(String, Expression)> {
        let mut compiled = Vec::new();
        for (index, mapping) in extra.iter().enumerate() {
            let (at, key) = (format!("{path}[{index}]"), mapping.key.as_str());
            let key_at = format!("{at}.key");
            validate_key(key, &key_at, self.errors);
            if extra.iter().take(index).any(|other| other.key == key) {
                self.errors.push(FieldError::duplicate(&key_at, key));
                continue;
            }
            let at = format!("{at}.valueExpression");
            if mapping.value_expression.is_empty() {
                self.errors.push(FieldError::required(&at, ""));
                continue;
            }
            let expression = self.about_claims(&mapping.value_expression, &at, &[]);
            compiled.extend(expression.map(|expression| (key.to_owned(), expression)));
        }
        compiled
    }

    /// Who goes by an address must see to it that the issuer has verified it.
    fn email(&mut self, username: Option<&Source>, extra: &[(String, Expression)], rules: &[Rule], at: &str) {
        let Some(Source::Expression(username)) = username else { return };
        let selects = |expression: &Expression, field: &str| expression.program.selects("claims", field);
        let verified = |expression: &Expression| selects(expression, "email_verified");
        let seen = verified(username)
            || extra.iter().any(|(_, expression)| verified(expression))
            || rules.iter().any(|rule| verified(&rule.expression));
        if selects(username, "email") && !seen {
            let why = "claims.email_verified must be used in claimMappings.username.expression or \
                       claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is \
                       used in claimMappings.username.expression";
            self.errors.push(FieldError::invalid(format!("{at}.expression"), username.source.as_str(), why));
        }
    }

    fn user_rules(&mut self, rules: &[UserRule], path: &str) -> Vec<Rule> {
        let mut compiled = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let (at, source) = (format!("{path}[{index}].expression"), rule.expression.as_str());
            if source.is_empty() {
                self.errors.push(FieldError::required(&at, ""));
            } else if rules.iter().take(index).any(|other| other.expression == source) {
                self.errors.push(FieldError::duplicate(&at, source));
            } else {
                let env = self.user.clone();
                let expression = self.compile(&env, source, &at, &[Type::Bool]);
                compiled.extend(expression.map(|expression| Rule { expression, message: rule.message.clone() }));
            }
        }
        compiled
    }
}

/// A key must be a path under a domain that is not Kubernetes' own.
fn validate_key(key: &str, at: &str, errors: &mut Vec<FieldError>) {
    if key.is_empty() {
        errors.push(FieldError::required(at, ""));
        return;
    }
    let Some((domain, rest)) = key.split_once('/').filter(|(domain, rest)| !domain.is_empty() && !rest.is_empty())
    else {
        let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.push(FieldError::invalid(at, key, why));
        return;
    };
    for why in keelson_api::validation::names::subdomain(domain) {
        errors.push(FieldError::invalid(at, domain, &why));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:/%".contains(&b);
    if !rest.bytes().all(plain) {
        errors.push(FieldError::invalid(at, rest, "Invalid path"));
    }
    if key.chars().any(char::is_uppercase) {
        errors.push(FieldError::invalid(at, key, "must be lowercase"));
    }
    let reserved = ["k8s.io", "kubernetes.io"];
    if reserved.iter().any(|own| domain == *own || domain.ends_with(&format!(".{own}"))) {
        let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
        errors.push(FieldError::invalid(at, key, why));
    }
}
