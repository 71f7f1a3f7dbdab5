//! The wire dialects: thin mappings between what clients speak and the one domain.

pub mod claude;
pub mod openai;
pub mod openclaw;
