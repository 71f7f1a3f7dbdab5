//! Validation of request bodies, in one place: every bad field is reported, all of them together, in the tree
//! that the reference's clients know (`{"_errors": [...], "<field>": {"_errors": [...]}}`).
//!
//! A body's type implements [`Body`]: it reads its fields from an [`Object`], each with a [check](checks)
//! that gives the value or reports into the [`Tree`].

pub mod checks;
mod object;
mod tree;

pub use object::{Change, Object};
pub use tree::Tree;

use serde_json::Value;

use crate::fault::{Fault, Result};

/// A request body.
pub trait Body: Sized {
    /// Reads it; `None` when something is wrong, which is then in the object's tree.
    fn read(object: &mut Object<'_>) -> Option<Self>;

    /// Reads it from JSON.
    ///
    /// # Errors
    /// 400 `invalid_request` with the tree of all bad fields.
    fn parse(value: &Value) -> Result<Self> {
        parse(value, |value, issues| {
            Object::of(value, issues).and_then(|mut object| Self::read(&mut object))
        })
    }
}

/// Runs a check over a whole body.
///
/// # Errors
/// 400 `invalid_request` with the tree of all bad fields.
pub fn parse<T>(value: &Value, check: impl FnOnce(&Value, &mut Tree) -> Option<T>) -> Result<T> {
    let mut issues = Tree::default();
    match check(value, &mut issues) {
        Some(body) if issues.is_empty() => Ok(body),
        _ => Err(Fault::invalid(&issues)),
    }
}
