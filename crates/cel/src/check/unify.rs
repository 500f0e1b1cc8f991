//! Type variables and what they stand for.

use std::sync::Arc;

use crate::types::Type;

/// Substitutions made so far, with a trail to undo them.
#[derive(Default)]
pub(super) struct Unifier {
    bound: Vec<Option<Type>>,
    trail: Vec<(u32, Option<Type>)>,
}

/// A signature's variables made those that start at `base`.
pub(super) fn instantiate(ty: &Type, base: u32) -> Type {
    match ty {
        Type::Param(id) => Type::Param(base + id),
        Type::List(items) => Type::list(instantiate(items, base)),
        Type::Optional(of) => Type::optional(instantiate(of, base)),
        Type::Map(entry) => Type::map(instantiate(&entry.0, base), instantiate(&entry.1, base)),
        other => other.clone(),
    }
}

impl Unifier {
    /// The first of `count` new variables.
    pub(super) fn fresh(&mut self, count: u32) -> u32 {
        let base = self.bound.len() as u32;
        self.bound.extend((0..count).map(|_| None));
        base
    }

    /// What a variable stands for; any other type as it is.
    pub(super) fn shallow(&self, ty: &Type) -> Type {
        let mut ty = ty;
        while let Type::Param(id) = ty {
            match self.bound.get(*id as usize) {
                Some(Some(bound)) => ty = bound,
                _ => break,
            }
        }
        ty.clone()
    }

    /// With all known variables replaced.
    pub(super) fn resolve(&self, ty: &Type) -> Type {
        self.replace(ty, false, 0)
    }

    /// With unknown variables replaced by `dyn` too.
    pub(super) fn finish(&self, ty: &Type) -> Type {
        self.replace(ty, true, 0)
    }

    fn replace(&self, ty: &Type, all: bool, depth: u32) -> Type {
        if depth > 100 {
            return Type::Dyn;
        }
        let inner = |ty: &Type| self.replace(ty, all, depth + 1);
        match self.shallow(ty) {
            Type::Param(_) if all => Type::Dyn,
            Type::List(items) => Type::list(inner(&items)),
            Type::Optional(of) => Type::optional(inner(&of)),
            Type::Map(entry) => Type::map(inner(&entry.0), inner(&entry.1)),
            other => other,
        }
    }

    /// Whether all arguments fit; if so the variables are bound.
    pub(super) fn assign_all(&mut self, args: &[Type], wanted: &[Type]) -> bool {
        self.trail.clear();
        let fits = args.iter().zip(wanted).all(|(arg, wanted)| self.assign(arg, wanted));
        if !fits {
            while let Some((id, before)) = self.trail.pop() {
                if let Some(slot) = self.bound.get_mut(id as usize) {
                    *slot = before;
                }
            }
        }
        fits
    }

    fn bind(&mut self, id: u32, ty: Type) {
        if let Some(slot) = self.bound.get_mut(id as usize) {
            self.trail.push((id, slot.replace(ty)));
        }
    }

    /// The variable at the end of a chain of variables.
    fn last(&self, id: u32) -> u32 {
        let mut id = id;
        while let Some(Some(Type::Param(next))) = self.bound.get(id as usize) {
            id = *next;
        }
        id
    }

    pub(super) fn assign(&mut self, arg: &Type, wanted: &Type) -> bool {
        let (found, target) = (self.shallow(arg), self.shallow(wanted));
        // The more general type wins: dyn.
        if let Type::Param(id) = wanted
            && matches!(found, Type::Dyn)
            && !matches!(target, Type::Param(_) | Type::Dyn)
        {
            let id = self.last(*id);
            self.bind(id, Type::Dyn);
            return true;
        }
        match (&found, &target) {
            (Type::Param(a), Type::Param(b)) if a == b => true,
            (_, Type::Param(id)) => {
                if self.occurs(*id, &found, 0) {
                    return false;
                }
                self.bind(*id, found);
                true
            }
            (Type::Param(id), _) => {
                if self.occurs(*id, &target, 0) {
                    return false;
                }
                self.bind(*id, target);
                true
            }
            (a, b) if a.is_dyn_or_error() || b.is_dyn_or_error() => true,
            (Type::Null, other) | (other, Type::Null) => matches!(
                other,
                Type::Null | Type::Duration | Type::Timestamp | Type::Optional(_) | Type::Opaque(_) | Type::Object(_)
            ),
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => {
                let (a, b) = (Arc::clone(a), Arc::clone(b));
                self.assign(&a, &b)
            }
            (Type::Map(a), Type::Map(b)) => {
                let (a, b) = (Arc::clone(a), Arc::clone(b));
                self.assign(&a.0, &b.0) && self.assign(&a.1, &b.1)
            }
            (a, b) => a == b,
        }
    }

    fn occurs(&self, id: u32, ty: &Type, depth: u32) -> bool {
        depth > 100
            || match self.shallow(ty) {
                Type::Param(other) => other == id,
                Type::List(items) => self.occurs(id, &items, depth + 1),
                Type::Optional(of) => self.occurs(id, &of, depth + 1),
                Type::Map(entry) => self.occurs(id, &entry.0, depth + 1) || self.occurs(id, &entry.1, depth + 1),
                _ => false,
            }
    }
}
