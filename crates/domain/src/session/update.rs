//! A client changes what is said about the session.

use std::collections::BTreeMap;

use super::state::{Context, Transition};
use crate::event::Body;

impl Transition {
    /// Records what is other than before, if anything is.
    pub(super) fn update(
        &mut self,
        title: Option<Option<String>>,
        metadata: Option<BTreeMap<String, String>>,
        ctx: &mut Context<'_>,
    ) {
        let title = title.filter(|title| *title != self.state.title);
        let metadata = metadata.filter(|metadata| *metadata != self.state.metadata);
        if title.is_none() && metadata.is_none() {
            return;
        }
        if let Some(title) = &title {
            self.state.title.clone_from(title);
        }
        if let Some(metadata) = &metadata {
            self.state.metadata.clone_from(metadata);
        }
        self.push(
            ctx,
            Body::SessionUpdated {
                title: title.map(Option::unwrap_or_default),
                metadata,
            },
        );
    }
}
