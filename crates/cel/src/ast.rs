//! Parsed expressions: nodes in one vector, referring to each other by index, so that dropping and sharing them is cheap
//! and what checker and estimator find out about a node sits in vectors beside it. Macros are expanded.

/// Index of a node.
pub(crate) type Id = usize;

/// The expression of one source text.
#[derive(Debug, Default)]
pub(crate) struct Ast {
    pub nodes: Vec<Node>,
    pub root: Id,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub kind: Kind,
    /// Offset in characters into the source.
    pub at: u32,
    /// Height of the tree below.
    pub depth: u16,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Literal(Literal),
    Ident(String),
    Select {
        operand: Id,
        field: String,
        /// `has(operand.field)`
        test: bool,
        /// `operand.?field`
        optional: bool,
    },
    Call {
        function: String,
        target: Option<Id>,
        args: Vec<Id>,
    },
    /// Items, and whether each is optional (`[?x]`).
    List(Vec<(Id, bool)>),
    /// Key, value, optional.
    Map(Vec<(Id, Id, bool)>),
    /// `Name{field: value}`
    Struct {
        name: String,
        fields: Vec<(String, Id, bool)>,
    },
    Fold(Box<Fold>),
    /// `cel.bind(var, init, body)`
    Bind {
        var: String,
        init: Id,
        body: Id,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
}

/// A macro over a list or map. `init`, `condition`, `step` and `result` are what the macro stands for: the checker and the
/// estimator read them. The evaluator goes by `kind`, `filter` and `expr`.
#[derive(Debug)]
pub(crate) struct Fold {
    pub range: Id,
    pub var: String,
    pub var2: Option<String>,
    pub init: Id,
    pub condition: Id,
    pub step: Id,
    pub result: Id,
    pub kind: FoldKind,
    pub filter: Option<Id>,
    pub expr: Id,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoldKind {
    All,
    Exists,
    ExistsOne,
    /// `map`, `filter`, `transformList`: collects `expr`.
    List,
    /// `transformMap`: the first variable is the key.
    Map,
    /// `transformMapEntry`: `expr` is a map to merge.
    MapEntry,
}

/// The name of the accumulator in expanded macros; no source can spell it.
pub(crate) const ACCUMULATOR: &str = "@result";

impl Ast {
    pub(crate) fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    pub(crate) fn kind(&self, id: Id) -> &Kind {
        &self.nodes[id].kind
    }

    pub(crate) fn literal_str(&self, id: Id) -> Option<&str> {
        match self.kind(id) {
            Kind::Literal(Literal::String(text)) => Some(text),
            _ => None,
        }
    }

    /// `a.b.c` for a chain of plain selections from an identifier.
    pub(crate) fn qualified_name(&self, id: Id) -> Option<String> {
        match self.kind(id) {
            Kind::Ident(name) => Some(name.clone()),
            Kind::Select { operand, field, test: false, optional: false } => {
                Some(format!("{}.{field}", self.qualified_name(*operand)?))
            }
            _ => None,
        }
    }
}

impl Kind {
    /// Calls `visit` with each child.
    pub(crate) fn children(&self, mut visit: impl FnMut(Id)) {
        match self {
            Self::Literal(_) | Self::Ident(_) => {}
            Self::Select { operand, .. } => visit(*operand),
            Self::Call { target, args, .. } => target.iter().chain(args).copied().for_each(visit),
            Self::List(items) => items.iter().for_each(|(id, _)| visit(*id)),
            Self::Map(entries) => entries.iter().for_each(|(key, value, _)| {
                visit(*key);
                visit(*value);
            }),
            Self::Struct { fields, .. } => fields.iter().for_each(|(_, value, _)| visit(*value)),
            Self::Fold(fold) => {
                [fold.range, fold.init, fold.condition, fold.step, fold.result].into_iter().for_each(visit);
            }
            Self::Bind { init, body, .. } => {
                visit(*init);
                visit(*body);
            }
        }
    }
}
