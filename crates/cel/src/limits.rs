//! Upstream's limits on expressions (`k8s.io/apiserver/pkg/apis/cel`, `pkg/cel/limits.go` and cel-go's parser).

/// Characters of an expression.
pub const EXPRESSION_CHARS: usize = 100_000;
/// Brackets and conditionals inside each other.
pub(crate) const NESTING: usize = 120;
/// Height of the tree of an expression with its macros expanded. Bounds the stack of checker and evaluator.
pub(crate) const TREE_DEPTH: usize = 250;
/// Findings reported for one expression.
pub(crate) const ISSUES: usize = 100;
/// Bytes that one evaluation may build.
pub(crate) const MEMORY: u64 = 64 << 20;

/// Cost of one evaluation: roughly 0.1 s.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// Cost of all evaluations of a request: roughly 1 s.
pub const RUNTIME_BUDGET: u64 = 10_000_000;
/// Cost of the match conditions of a webhook or policy.
pub const MATCH_CONDITIONS_BUDGET: u64 = 2_500_000;
/// Estimated cost of one expression of a CRD, times how often it may run.
pub const STATIC_ESTIMATED_COST: u64 = 10_000_000;
/// Estimated cost of all expressions of one schema of a CRD.
pub const STATIC_ESTIMATED_CRD_COST: u64 = 100_000_000;
/// Bytes of the value of a `messageExpression`.
pub const MESSAGE_BYTES: usize = 5 * 1024;

/// The largest request, from which sizes of values without limits of their own are guessed.
pub const REQUEST_BYTES: u64 = 3 * 1024 * 1024;
