//! What a model can do, as far as its name tells.
//!
//! The catalogue has prices and context windows but not what kinds of input a model takes, nor which form of
//! thinking it knows. Names follow patterns, so a few rules do; an unknown name gets the newest form.

/// What a model takes as input.
pub(crate) fn modalities(model: &str) -> Vec<String> {
    let name = model.to_lowercase();
    let any = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let documents = any(&["claude-3-5", "claude-3.5", "claude-3-7", "claude-3.7", "gemini"])
        || any(&["claude"]) && !any(&["claude-2", "claude-3", "claude-v", "claude-instant"])
        || any(&["gpt-4o", "gpt-4.1", "gpt-5", "gpt-6"]);
    let images = documents
        || any(&[
            "claude-3",
            "o1",
            "o3",
            "o4-mini",
            "pixtral",
            "mistral-small",
            "mistral-medium",
            "mistral-large",
        ])
        || any(&[
            "-vl",
            "vision",
            "kimi-k2.5",
            "kimi-k2.6",
            "kimi-k3",
            "grok-4",
            "llama-4",
            "gemma-3",
            "qwen3.5",
            "qwen3.6",
        ]);
    let mut kinds = vec!["text".to_owned()];
    if images {
        kinds.push("image".to_owned());
    }
    if documents {
        kinds.push("document".to_owned());
    }
    kinds
}

/// The context window of a model that no list knows, in tokens.
pub(crate) fn context_window(model: &str, local: bool) -> u64 {
    let name = model.to_lowercase();
    if name.contains("claude") {
        200_000
    } else if name.contains("gemini") {
        1_000_000
    } else if local {
        // What a local server really gives depends on how it was started; this is a cautious guess.
        32_768
    } else {
        128_000
    }
}

/// How a Claude model is asked to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaudeThinking {
    /// It can't.
    None,
    /// `enabled` with `budget_tokens`; thoughts between tool uses need a beta header when `interleaved`.
    Budget {
        /// Whether the model knows thoughts between tool uses.
        interleaved: bool,
    },
    /// `adaptive` with an effort.
    Adaptive {
        /// What turns it off.
        off: ClaudeOff,
        /// Whether the effort `xhigh` exists; otherwise the level above `high` is `max`.
        xhigh: bool,
    },
}

/// What turns a Claude model's adaptive thinking off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaudeOff {
    /// Leaving the parameter out.
    Omit,
    /// Saying `disabled`.
    Disabled,
    /// Nothing; the lowest effort comes nearest.
    Never,
}

/// A Claude model's features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claude {
    pub(crate) thinking: ClaudeThinking,
    /// The most output tokens of an answer.
    pub(crate) max_output: u32,
}

/// What a Claude model's name tells. A name without a version is taken for a current model.
pub(crate) fn claude(model: &str) -> Claude {
    let name = model.to_lowercase();
    if !name.contains("claude") {
        // Moonshot, DeepSeek and others took over the protocol when budgets were its only form.
        return Claude {
            thinking: ClaudeThinking::Budget { interleaved: false },
            max_output: 32_000,
        };
    }
    let version = claude_version(&name);
    let always_on = name.contains("fable") || name.contains("mythos");
    match version {
        Some(version) if version < (3, 5) => Claude {
            thinking: ClaudeThinking::None,
            max_output: 4_096,
        },
        Some(version) if version < (3, 7) => Claude {
            thinking: ClaudeThinking::None,
            max_output: 8_192,
        },
        Some(version) if version < (4, 0) => Claude {
            thinking: ClaudeThinking::Budget { interleaved: false },
            max_output: 64_000,
        },
        Some(version) if version < (4, 6) && !always_on => {
            // Opus 4 and 4.1 write half as much as the others of their time.
            let max_output = if name.contains("opus") && version < (4, 5) {
                32_000
            } else {
                64_000
            };
            Claude {
                thinking: ClaudeThinking::Budget { interleaved: true },
                max_output,
            }
        }
        Some(version) if version < (5, 0) && !always_on => Claude {
            thinking: ClaudeThinking::Adaptive {
                off: ClaudeOff::Omit,
                xhigh: version >= (4, 7),
            },
            max_output: 64_000,
        },
        Some(version) if version < (5, 5) && !always_on => Claude {
            thinking: ClaudeThinking::Adaptive {
                off: ClaudeOff::Disabled,
                xhigh: true,
            },
            max_output: 128_000,
        },
        Some(_) => Claude {
            thinking: ClaudeThinking::Adaptive {
                off: ClaudeOff::Never,
                xhigh: true,
            },
            max_output: 128_000,
        },
        None => {
            let off = if always_on {
                ClaudeOff::Never
            } else {
                ClaudeOff::Omit
            };
            Claude {
                thinking: ClaudeThinking::Adaptive { off, xhigh: true },
                max_output: 64_000,
            }
        }
    }
}

/// The version in a Claude model's name: `claude-opus-4-7-20260301`, `claude-3-5-sonnet`, `claude-opus-4.6`,
/// `us.anthropic.claude-sonnet-4-5-20250929-v1:0`.
fn claude_version(name: &str) -> Option<(u32, u32)> {
    let (_, after) = name.split_once("claude")?;
    // A date or a build number is no part of the version.
    let mut numbers = after
        .split(|ch: char| !ch.is_ascii_alphanumeric())
        .map(|part| {
            if part.len() <= 2 {
                part.parse::<u32>().ok()
            } else {
                None
            }
        })
        .skip_while(Option::is_none);
    let major = numbers.next()??;
    let minor = numbers.next().flatten().unwrap_or(0);
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claude_names_tell_what_they_can_do() {
        use ClaudeOff::{Disabled, Never, Omit};
        use ClaudeThinking::{Adaptive, Budget, None};
        for (name, thinking) in [
            ("claude-3-opus-20240229", None),
            ("claude-3-5-sonnet-20241022", None),
            ("claude-3-7-sonnet-latest", Budget { interleaved: false }),
            ("claude-sonnet-4-20250514", Budget { interleaved: true }),
            ("claude-haiku-4-5", Budget { interleaved: true }),
            (
                "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
                Budget { interleaved: true },
            ),
            (
                "claude-opus-4-6",
                Adaptive {
                    off: Omit,
                    xhigh: false,
                },
            ),
            (
                "anthropic/claude-opus-4.8",
                Adaptive {
                    off: Omit,
                    xhigh: true,
                },
            ),
            (
                "claude-sonnet-5",
                Adaptive {
                    off: Disabled,
                    xhigh: true,
                },
            ),
            (
                "claude-opus-5-20260724",
                Adaptive {
                    off: Disabled,
                    xhigh: true,
                },
            ),
            (
                "claude-opus-5-5",
                Adaptive {
                    off: Never,
                    xhigh: true,
                },
            ),
            (
                "claude-fable-5",
                Adaptive {
                    off: Never,
                    xhigh: true,
                },
            ),
            (
                "claude-mythos-preview",
                Adaptive {
                    off: Never,
                    xhigh: true,
                },
            ),
            (
                "claude-next",
                Adaptive {
                    off: Omit,
                    xhigh: true,
                },
            ),
            ("kimi-k2.6", Budget { interleaved: false }),
        ] {
            assert_eq!(claude(name).thinking, thinking, "{name}");
        }
    }

    #[test]
    fn modalities_follow_the_name() {
        for (name, expected) in [
            ("claude-opus-4-7", vec!["text", "image", "document"]),
            ("claude-3-haiku", vec!["text", "image"]),
            ("gemini-3.6-flash", vec!["text", "image", "document"]),
            ("deepseek-v4-pro", vec!["text"]),
            ("kimi-k2.6", vec!["text", "image"]),
        ] {
            assert_eq!(modalities(name), expected, "{name}");
        }
    }
}
