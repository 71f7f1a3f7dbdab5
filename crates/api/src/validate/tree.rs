//! The tree of what is wrong with a body.

use std::fmt::Write;

use serde_json::{Map, Value, json};

/// What is wrong with a value, and with the values in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    errors: Vec<String>,
    children: Vec<(String, Self)>,
}

impl Tree {
    /// Reports a problem here.
    pub fn push(&mut self, problem: impl Into<String>) {
        self.errors.push(problem.into());
    }

    /// The node of a field or of a list's element.
    pub fn at(&mut self, name: &str) -> &mut Self {
        let index = match self.children.iter().position(|(key, _)| key == name) {
            Some(index) => index,
            None => {
                self.children.push((name.to_owned(), Self::default()));
                self.children.len() - 1
            }
        };
        &mut self.children[index].1
    }

    /// Whether nothing is wrong, here or below.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty() && self.children.iter().all(|(_, child)| child.is_empty())
    }

    /// The first problem with its path, in words.
    #[must_use]
    pub fn first(&self) -> String {
        let mut path = String::new();
        let mut node = self;
        loop {
            if let Some(problem) = node.errors.first() {
                return if path.is_empty() {
                    problem.clone()
                } else {
                    format!("{path}: {problem}")
                };
            }
            let Some((name, child)) = node.children.iter().find(|(_, child)| !child.is_empty()) else {
                return path;
            };
            if !path.is_empty() {
                path.push('.');
            }
            // Writing to a string can't fail.
            let _infallible = write!(path, "{name}");
            node = child;
        }
    }

    /// The tree as clients get it; nodes without problems are left out.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("_errors".to_owned(), json!(self.errors));
        for (name, child) in self.children.iter().filter(|(_, child)| !child.is_empty()) {
            object.insert(name.clone(), child.to_json());
        }
        Value::Object(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_branches_are_left_out() {
        let mut tree = Tree::default();
        tree.at("clean").at("deep");
        assert!(tree.is_empty());
        tree.at("tools").at("1").push("Expected string, received null");
        tree.at("model").push("Required");
        assert_eq!(tree.first(), "tools.1: Expected string, received null");
        assert_eq!(
            tree.to_json(),
            json!({
                "_errors": [],
                "tools": {"_errors": [], "1": {"_errors": ["Expected string, received null"]}},
                "model": {"_errors": ["Required"]},
            })
        );
    }
}
