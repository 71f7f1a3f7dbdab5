//! What a summary leaves of the conversation: itself, and as much of the user's newest message as there is room for.

use oma_domain::ContentBlock;
use oma_domain::event::{Cut, Kept};

use super::Conversation;
use crate::shrink::{ends, short, without_middle};
use crate::weight::{CHARS_PER_TOKEN, weight};

/// What stands before and after a message that is kept beside a summary.
const BEFORE_KEPT: &str = "The conversation so far has been replaced by a summary. The user's latest message is \
kept beside it, word for word:";
const BEFORE_CUT: &str = "The conversation so far has been replaced by a summary. The user's latest message is \
kept beside it; it is too long to be kept whole, and what is left out is marked in brackets:";
const AFTER_KEPT: &str = "This is the summary of the conversation so far, and of what has been done about this \
message already. Go on from there:";

impl Conversation {
    /// What a summary leaves of the conversation: itself, and the message that it keeps.
    pub(super) fn summarised(&self, summary: &str, kept: Option<&Kept>) -> Vec<ContentBlock> {
        let spoken = self.spoken.as_ref();
        let Some((kept, spoken)) = kept.zip(spoken).filter(|(kept, it)| it.at == kept.message) else {
            let text = format!("This is a summary of the conversation so far:\n\n{summary}");
            return vec![ContentBlock::text(text)];
        };
        let is_whole = kept.whole.len() == spoken.content.len();
        let before = if is_whole { BEFORE_KEPT } else { BEFORE_CUT };
        let mut blocks = vec![ContentBlock::text(before)];
        for (index, block) in spoken.content.iter().enumerate() {
            let cut = kept.cut.iter().find(|cut| cut.block == index);
            blocks.push(match (block, cut) {
                _ if kept.whole.contains(&index) => block.clone(),
                (ContentBlock::Text { text }, Some(cut)) => without_middle(text, cut.head, cut.tail),
                _ => short(block),
            });
        }
        blocks.push(ContentBlock::text(format!("{AFTER_KEPT}\n\n{summary}")));
        blocks
    }

    /// What of the user's newest message can be kept beside a summary within so many tokens. Text goes first: it
    /// says what the user wants. Of texts that don't fit, what is left of the room shows the start and the end.
    pub(crate) fn keep(&self, tokens: u64) -> Option<Kept> {
        let spoken = self.spoken.as_ref()?;
        let is_text = |block: &ContentBlock| matches!(block, ContentBlock::Text { .. });
        let blocks = || spoken.content.iter().enumerate();
        let texts = blocks().filter(|(_, block)| is_text(block));
        let media = blocks().filter(|(_, block)| !is_text(block));
        let mut left = tokens.saturating_mul(CHARS_PER_TOKEN);
        let mut whole = Vec::new();
        let mut too_long = Vec::new();
        for (index, block) in texts {
            match left.checked_sub(weight(block)) {
                Some(rest) => {
                    left = rest;
                    whole.push(index);
                }
                None => too_long.push((index, block)),
            }
        }
        // What does not fit gets half of what is left at least.
        let reserved = if too_long.is_empty() { 0 } else { left / 2 };
        for (index, block) in media {
            if let Some(rest) = left.checked_sub(weight(block)).filter(|rest| *rest >= reserved) {
                left = rest;
                whole.push(index);
            }
        }
        whole.sort_unstable();
        let sharers = (too_long.len() as u64).max(1);
        let share = usize::try_from(left / sharers).unwrap_or(usize::MAX);
        let cuts = too_long.into_iter().filter_map(|(index, block)| match block {
            ContentBlock::Text { text } => {
                let (head, tail) = ends(text, share);
                let block = index;
                Some(Cut { block, head, tail })
            }
            ContentBlock::Image { .. }
            | ContentBlock::Document { .. }
            | ContentBlock::SearchResult { .. } => None,
        });
        let cut = cuts.collect();
        Some(Kept {
            message: spoken.at,
            whole,
            cut,
        })
    }
}
