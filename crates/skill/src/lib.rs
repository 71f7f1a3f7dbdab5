//! Skills as clients upload them: a folder with a `SKILL.md` and whatever goes with it, as single files or as a zip.
//!
//! A [`Bundle`] is such a folder, checked. It is stored as a zip that [`Bundle::to_zip`] makes, whatever was uploaded,
//! so nothing that is read later was packed by a stranger.
//!
//! Invariants kept here:
//! - what is unpacked is bounded ([`MAX_BYTES`], [`MAX_FILES`]) before it is, whatever an archive says of itself;
//! - no name leads out of the folder, and nothing in it is a link or anything else but a file;
//! - name and description, which go into prompts, are short and hold no markup.
//!
//! Where it sits: below the API, which reads uploads, and the sandboxes, into which skills are put; it depends on nothing
//! of ours.

mod archive;
mod bundle;
mod frontmatter;
mod path;

pub use bundle::{Bundle, File, Part};
pub use frontmatter::Frontmatter;

/// The most bytes of all files of a skill together.
pub const MAX_BYTES: usize = 30 << 20;
/// The most files of a skill.
pub const MAX_FILES: usize = 1_000;
/// The file that every skill has, in its folder.
pub const MAIN: &str = "SKILL.md";

/// Why an upload is no skill. The texts are for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is nothing in it.
    #[error("no files were uploaded")]
    Empty,
    /// The files are too large together.
    #[error("the files have more than {MAX_BYTES} bytes together")]
    TooLarge,
    /// There are too many of them.
    #[error("there are more than {MAX_FILES} files")]
    TooMany,
    /// A file's name is none.
    #[error("{name}: {problem}")]
    Name {
        /// The name, shortened and without what nobody sees.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A file is not in the folder that the others are in.
    #[error("all files must be in the same top-level folder, such as my-skill/{MAIN}: {0} is not")]
    Folder(String),
    /// `SKILL.md` is missing.
    #[error("{MAIN} is missing at the root of the folder")]
    NoMain,
    /// What stands at the beginning of `SKILL.md` is not what it must be.
    #[error("{MAIN}: {0}")]
    Frontmatter(String),
    /// The archive can't be read.
    #[error("the zip archive can't be read: {0}")]
    Archive(String),
}
