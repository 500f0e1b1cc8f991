//! Reinvocation: when a webhook or policy has changed the object, everybody who wants to see such changes is asked once more,
//! and no more than once.

use std::collections::HashMap;

use serde_json::Value;

/// The rounds of one request.
#[derive(Default)]
pub(super) struct Rounds {
    second: bool,
    /// Somebody changed the object in the first round.
    again: bool,
    by_kind: HashMap<&'static str, Round>,
}

/// What one kind of judges did.
#[derive(Default)]
struct Round {
    /// Those who want to be asked again and have been asked.
    ran: Vec<String>,
    /// Those of them that are to be asked again.
    due: Vec<String>,
    /// The object as the last of them left it.
    output: Option<Value>,
}

impl Round {
    fn require(&mut self) {
        self.due.append(&mut self.ran);
    }
}

impl Rounds {
    /// Begins the second round, if there is to be one.
    pub(super) fn next(&mut self) -> bool {
        self.second = self.again;
        self.again
    }

    pub(super) fn number(&self) -> usize {
        usize::from(self.second)
    }

    /// Before the judges of a kind. In the second round, what others changed since makes all of them due.
    pub(super) fn begin(&mut self, kind: &'static str, object: &Value) {
        let second = self.second;
        let round = self.by_kind.entry(kind).or_default();
        if second && round.output.as_ref().is_some_and(|output| output != object) {
            round.require();
        }
    }

    /// Whether a judge may be asked in this round.
    pub(super) fn may_run(&self, kind: &str, key: &str) -> bool {
        !self.second || self.by_kind.get(kind).is_some_and(|round| round.due.iter().any(|due| due == key))
    }

    /// A judge that wants to be asked again was asked.
    pub(super) fn ran(&mut self, kind: &'static str, key: String) {
        self.by_kind.entry(kind).or_default().ran.push(key);
    }

    /// The object was changed: all who have been asked so far are due in the second round.
    pub(super) fn changed(&mut self) {
        self.again = true;
        self.by_kind.values_mut().for_each(Round::require);
    }

    /// Whether anybody changed the object.
    pub(super) fn is_changed(&self) -> bool {
        self.again
    }

    /// After the judges of a kind.
    pub(super) fn end(&mut self, kind: &'static str, object: &Value) {
        if !self.second && self.again {
            self.by_kind.entry(kind).or_default().output = Some(object.clone());
        }
    }
}
