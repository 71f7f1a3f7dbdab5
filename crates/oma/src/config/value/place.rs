//! Places: folders, and buckets of stores of objects.

use std::path::PathBuf;

use serde_json::json;

use super::Value;

/// Where something is kept: in a folder, or in a bucket of a store of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Folder(PathBuf),
    Bucket {
        name: String,
        /// Without slashes around it; may be empty.
        prefix: String,
    },
}

impl Value for Place {
    const NOTATION: &'static str = "path or `s3://BUCKET/PREFIX`";
    const PLACEHOLDER: &'static str = "PLACE";

    fn parse(text: &str) -> Result<Self, String> {
        let Some(address) = text.strip_prefix("s3://") else {
            return match text.split_once("://") {
                Some((scheme, _)) => Err(format!(
                    "`{scheme}` is no kind of store; write a path or `s3://BUCKET/PREFIX`"
                )),
                None => PathBuf::parse(text).map(Self::Folder),
            };
        };
        // No more than every store takes as it is, in names and in addresses.
        let is_plain = |part: &str| {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !part.is_empty() && part.bytes().all(legal) && !part.bytes().all(|byte| byte == b'.')
        };
        let (name, prefix) = address.split_once('/').unwrap_or((address, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        if !is_plain(name) || !(3..=63).contains(&name.len()) {
            return Err("the bucket's name must be 3 to 63 letters, digits, `-`, `.` and `_`".to_owned());
        }
        let is_legal = prefix.is_empty() || (prefix.len() <= 512 && prefix.split('/').all(is_plain));
        if !is_legal {
            return Err(
                "the prefix must be at most 512 letters, digits, `-`, `.` and `_`, with single `/` between"
                    .to_owned(),
            );
        }
        Ok(Self::Bucket {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
        })
    }

    fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Folder(path) => path.to_json(),
            Self::Bucket { name, prefix } if prefix.is_empty() => json!(format!("s3://{name}")),
            Self::Bucket { name, prefix } => json!(format!("s3://{name}/{prefix}")),
        }
    }
}
