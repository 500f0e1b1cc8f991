//! Authorization checks: the caller implements [`Authorizer`] and binds the variable `authorizer` to it.

use std::sync::Arc;

use super::opaque::Opaque;
use super::{Args, no_overload, string_arg};
use crate::error::Error;
use crate::value::Value;

/// Answers whether the user of the request may do something.
pub trait Authorizer: Send + Sync {
    fn authorize(&self, request: &Request) -> Decision;
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Namespace and name, when asked for someone else than the user of the request.
    pub service_account: Option<(String, String)>,
    /// Of requests for no resource.
    pub path: Option<String>,
    pub verb: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
}

/// What the answer is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    /// Why there is no proper answer.
    pub error: Option<String>,
}

/// The variable `authorizer`.
#[derive(Clone)]
pub struct Authorization<'a> {
    authorizer: &'a dyn Authorizer,
    service_account: Option<(String, String)>,
}

/// A request under construction.
#[derive(Clone)]
pub struct Check<'a> {
    authorizer: &'a dyn Authorizer,
    request: Request,
}

impl<'a> Value<'a> {
    /// The value of the variable `authorizer`.
    pub fn authorizer(authorizer: &'a dyn Authorizer) -> Self {
        Self::Opaque(Opaque::Authorizer(Authorization { authorizer, service_account: None }))
    }

    /// The value of the variable `authorizer.requestResource`: everything but the verb is set.
    pub fn resource_check(authorizer: &'a dyn Authorizer, request: Request) -> Self {
        Self::Opaque(Opaque::ResourceCheck(Arc::new(Check { authorizer, request })))
    }
}

fn started<'a>(args: Args<'_, 'a>, set: fn(&mut Request, String)) -> Result<Arc<Check<'a>>, Error> {
    let [Value::Opaque(Opaque::Authorizer(authorization)), text] = args else { return no_overload() };
    let mut request = Request { service_account: authorization.service_account.clone(), ..Request::default() };
    set(&mut request, string_arg(text)?.into());
    Ok(Arc::new(Check { authorizer: authorization.authorizer, request }))
}

pub(super) fn path<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    if let [_, text] = args
        && string_arg(text)?.is_empty()
    {
        return Err(Error::new("path must not be empty"));
    }
    Ok(Value::Opaque(Opaque::PathCheck(started(args, |request, path| request.path = Some(path))?)))
}

pub(super) fn group<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(Value::Opaque(Opaque::GroupCheck(started(args, |request, group| request.group = group)?)))
}

pub(super) fn service_account<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [Value::Opaque(Opaque::Authorizer(authorization)), namespace, name] = args else { return no_overload() };
    let (namespace, name) = (string_arg(namespace)?, string_arg(name)?);
    if !keelson_api::validation::names::subdomain(name).is_empty() {
        return Err(Error::new("Invalid service account name"));
    }
    if !keelson_api::validation::names::label(namespace).is_empty() {
        return Err(Error::new("Invalid service account namespace"));
    }
    let service_account = Some((namespace.into(), name.into()));
    Ok(Value::Opaque(Opaque::Authorizer(Authorization { authorizer: authorization.authorizer, service_account })))
}

pub(super) fn set<'a>(args: Args<'_, 'a>, set: fn(&mut Request, String)) -> Result<Value<'a>, Error> {
    let [Value::Opaque(Opaque::GroupCheck(check) | Opaque::ResourceCheck(check)), text] = args else {
        return no_overload();
    };
    let mut check = (**check).clone();
    set(&mut check.request, string_arg(text)?.into());
    Ok(Value::Opaque(Opaque::ResourceCheck(Arc::new(check))))
}

pub(super) fn check<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    let [Value::Opaque(Opaque::PathCheck(check) | Opaque::ResourceCheck(check)), verb] = args else {
        return no_overload();
    };
    let request = Request { verb: string_arg(verb)?.into(), ..check.request.clone() };
    Ok(Value::Opaque(Opaque::Decision(Arc::new(check.authorizer.authorize(&request)))))
}

fn decided<'x>(args: Args<'x, '_>) -> Result<&'x Decision, Error> {
    match args {
        [Value::Opaque(Opaque::Decision(decision))] => Ok(decision),
        _ => no_overload(),
    }
}

pub(super) fn allowed<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(Value::Bool(decided(args)?.allowed))
}

pub(super) fn reason<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(Value::text(decided(args)?.reason.as_str()))
}

pub(super) fn errored<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(Value::Bool(decided(args)?.error.is_some()))
}

pub(super) fn error<'a>(args: Args<'_, 'a>) -> Result<Value<'a>, Error> {
    Ok(Value::text(decided(args)?.error.as_deref().unwrap_or_default()))
}
