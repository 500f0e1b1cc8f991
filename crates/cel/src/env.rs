//! What expressions may name: variables, types to construct, optional libraries.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::check::check;
use crate::error::Issues;
use crate::functions::{self, Function};
use crate::parse::parse;
use crate::program::Program;
use crate::types::{Decl, Object};

/// An environment for expressions. Cheap to make.
#[derive(Clone, Debug, Default)]
pub struct Env {
    variables: Vec<(String, Arc<Decl>)>,
    structures: BTreeMap<String, Arc<Object>>,
    bindings: bool,
    json_patch: bool,
    open: bool,
}

impl Env {
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares a variable.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, decl: Arc<Decl>) -> Self {
        self.variables.push((name.into(), decl));
        self
    }

    /// Declares an object type that expressions may construct (`Object{…}`).
    #[must_use]
    pub fn structure(mut self, object: Arc<Object>) -> Self {
        self.structures.insert(object.name.clone(), object);
        self
    }

    /// Allows `cel.bind` (device selectors have it).
    #[must_use]
    pub fn bindings(mut self) -> Self {
        self.bindings = true;
        self
    }

    /// Allows `jsonpatch.escapeKey` (mutating admission policies have it).
    #[must_use]
    pub fn json_patch(mut self) -> Self {
        self.json_patch = true;
        self
    }

    /// Allows `Object{…}` and `Object.any.field{…}` with fields of any name and type (mutating admission policies have them).
    #[must_use]
    pub fn open_objects(mut self) -> Self {
        self.open = true;
        self
    }

    /// Parses and checks an expression.
    pub fn compile(&self, source: &str) -> Result<Program, Issues> {
        let ast = parse(source, self.bindings)?;
        let checked = check(self, source, ast)?;
        Ok(Program::new(self, checked))
    }

    /// A variable's declaration.
    pub fn lookup(&self, name: &str) -> Option<&Arc<Decl>> {
        self.variables.iter().rev().find(|(known, _)| known == name).map(|(_, decl)| decl)
    }

    pub(crate) fn variables(&self) -> &[(String, Arc<Decl>)] {
        &self.variables
    }

    pub(crate) fn structure_named(&self, name: &str) -> Option<&Arc<Object>> {
        self.structures.get(name)
    }

    /// Whether a type of this name takes any fields.
    pub(crate) fn is_open(&self, name: &str) -> bool {
        self.open && (name == "Object" || name.starts_with("Object."))
    }

    pub(crate) fn function(&self, name: &str) -> Option<&'static Function> {
        if name == "jsonpatch.escapeKey" && !self.json_patch {
            return None;
        }
        functions::find(name)
    }
}
