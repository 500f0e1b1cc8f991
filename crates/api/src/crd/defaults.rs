//! Defaults, and nulls where none may be.

use serde_json::Value;

use super::node::Node;

impl Node {
    /// Fills in defaults. A null that the schema does not allow counts as absent: it becomes the default, or goes.
    pub fn fill(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|key, value| match self.child(key) {
                    Some(node) => !(value.is_null() && !node.nullable && node.default.is_none()),
                    None => true,
                });
                for (key, node) in &self.properties {
                    let Some(default) = &node.default else { continue };
                    match map.get_mut(key) {
                        None => drop(map.insert(key.clone(), default.clone())),
                        Some(value) if value.is_null() && !node.nullable => *value = default.clone(),
                        Some(_) => {}
                    }
                }
                for (key, value) in map.iter_mut() {
                    if let Some(node) = self.child(key) {
                        node.fill_one(value);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(node) = &self.items {
                    items.iter_mut().for_each(|value| node.fill_one(value));
                }
            }
            _ => {}
        }
    }

    fn fill_one(&self, value: &mut Value) {
        if let (Value::Null, false, Some(default)) = (&*value, self.nullable, &self.default) {
            *value = default.clone();
        }
        self.fill(value);
    }
}
