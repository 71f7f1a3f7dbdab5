//! One turn of a conversation: post a message, show what comes, until the session has stopped working.

use serde_json::{Value, json};

use crate::chat::input::{Ask, Line};
use crate::chat::{Confirm, Conversation};
use crate::client::Request;
use crate::client::stream::{Follow, Frame};
use crate::commands::session::{self, is_settled};
use crate::print::{Failure, Outcome, Style, plain};
use crate::shown::Shown;
use crate::transcript;

/// How far a cancel of the user has got.
#[derive(PartialEq, Eq)]
pub(super) enum Cancel {
    NotAsked,
    Asked,
}

impl Conversation {
    /// Carries out one turn.
    ///
    /// # Errors
    /// What the server says, that the turn failed, or that the user left.
    pub(super) async fn turn(&mut self, message: &str) -> Outcome {
        self.forget_interrupts()?;
        // The stream comes first: pieces of the answer are not kept for those who come late.
        let deltas = !self.output.json;
        let mut follow = Follow::new(self.client.clone(), &self.session, self.cursor.clone(), deltas);
        follow.connect().await?;
        let mut body = json!({"type": "user.message", "content": message});
        for (name, value) in std::mem::take(&mut self.overrides) {
            body[name] = value;
        }
        let posted = self
            .client
            .json(Request::post(&["v1", "sessions", &self.session, "events"], body))
            .await?;
        if posted["queued"] == Value::Bool(true) {
            self.output.remark(Style::Dim, "queued behind other work")?;
        }
        let mut shown = Shown::default();
        let ended = self.watch(&mut follow, &posted, message, &mut shown).await;
        shown.end_line(self.output)?;
        ended
    }

    async fn watch(
        &mut self,
        follow: &mut Follow,
        posted: &Value,
        message: &str,
        shown: &mut Shown,
    ) -> Outcome {
        let mut begun = false;
        let mut cancel = Cancel::NotAsked;
        let mut told = false;
        loop {
            let frame = tokio::select! {
                frame = follow.next() => frame?,
                _ = self.interrupts.recv() => {
                    self.interrupt(&mut cancel, shown).await?;
                    continue;
                }
            };
            if let Some(id) = &frame.id {
                self.cursor = Some(id.clone());
            }
            if frame.kind == "user.message" && is_ours(&frame, posted, message) {
                begun = true;
            }
            told |= matches!(frame.kind.as_str(), "agent.error" | "session.error");
            self.show(&frame, shown)?;
            match frame.kind.as_str() {
                "agent.tool_confirmation_request" => self.decide(&frame, &mut cancel, shown).await?,
                "session.deleted" => return Err(Failure::Other("the session was deleted".to_owned())),
                // Its reason has been shown as an error of its own.
                "session.status_failed" if begun && (told || self.output.json) => return Err(Failure::Told),
                "session.status_failed" if begun => return Err(Failure::Other(failure_text(&frame))),
                _ if begun && is_settled(&frame) => break,
                _ => {}
            }
        }
        match (cancel, self.input.is_some()) {
            // Whoever cancels a single question has no answer; a dialogue just goes on.
            (Cancel::Asked, false) => Err(Failure::Interrupted),
            _ => Ok(()),
        }
    }

    fn show(&self, frame: &Frame, shown: &mut Shown) -> Outcome {
        if self.output.json {
            shown.frame(frame, self.output)?;
            return Ok(());
        }
        match frame.kind.as_str() {
            "agent.message" | "agent.message_delta" => shown.frame(frame, self.output)?,
            // What the user typed, what `decide` asks and what the turn's end says is not repeated.
            "user.message"
            | "user.tool_confirmation"
            | "agent.tool_confirmation_request"
            | "session.status_failed" => {}
            // Why it stopped, when it did not just finish: an output limit, a refusal, a used-up budget.
            "session.status_idle"
                if !frame.text("content").is_empty() && frame.text("stop_reason") != "interrupted" =>
            {
                shown.end_line(self.output)?;
                self.output.remark(Style::Yellow, &plain(frame.text("content")))?;
            }
            kind if kind.starts_with("session.status_") || kind.ends_with("_delta") => {}
            "agent.thinking" if !self.show_thinking => {}
            _ => {
                shown.end_line(self.output)?;
                let Some(text) = transcript::render(&frame.data, &self.output) else {
                    return Ok(());
                };
                if self.input.is_some() {
                    self.output.line(&text)?;
                } else {
                    self.output.remark(Style::Plain, &text)?;
                }
            }
        }
        Ok(())
    }

    pub(super) async fn interrupt(&mut self, cancel: &mut Cancel, shown: &mut Shown) -> Outcome {
        if *cancel == Cancel::Asked {
            return Err(Failure::Interrupted);
        }
        *cancel = Cancel::Asked;
        shown.end_line(self.output)?;
        self.output
            .remark(Style::Yellow, "cancelling; Ctrl-C again leaves")?;
        tokio::select! {
            cancelled = session::cancel(&self.client, &self.session) => match cancelled {
                Ok(_) => {}
                // It had just ended by itself.
                Err(crate::client::Error::Refused(refusal)) if refusal.status == 409 => {}
                Err(error) => return Err(error.into()),
            },
            _ = self.interrupts.recv() => return Err(Failure::Interrupted),
        }
        Ok(())
    }

    /// Answers a tool use that asks.
    async fn decide(&mut self, frame: &Frame, cancel: &mut Cancel, shown: &mut Shown) -> Outcome {
        shown.end_line(self.output)?;
        let tool_use = match frame.text("approval_id") {
            "" => frame.text("tool_call_id"),
            approval => approval,
        };
        let call = transcript::call(&frame.data);
        let allow = match self.confirm {
            Confirm::Allow => true,
            Confirm::Deny => false,
            Confirm::Ask => {
                let Some(input) = &mut self.input else {
                    let text = format!(
                        "denied, because nobody can be asked (see --confirm): {}",
                        plain(&call)
                    );
                    self.output.remark(Style::Yellow, &text)?;
                    return self.answer(tool_use, false).await;
                };
                loop {
                    let question = format!("allow {}? [y]es [n]o [a]ll ", plain(&call));
                    let line = match input.line(&question, Ask::Answer).await? {
                        Line::Text(line) => line.trim().to_ascii_lowercase(),
                        Line::Interrupted => return self.interrupt(cancel, shown).await,
                        // The end of input is no consent.
                        Line::End => break false,
                    };
                    match line.as_str() {
                        "y" | "yes" => break true,
                        "a" | "all" => {
                            self.confirm = Confirm::Allow;
                            break true;
                        }
                        "n" | "no" => break false,
                        _ => {}
                    }
                }
            }
        };
        self.answer(tool_use, allow).await
    }

    async fn answer(&self, tool_use: &str, allow: bool) -> Outcome {
        match session::confirm(&self.client, &self.session, tool_use, allow, None).await {
            Ok(_) => Ok(()),
            // Somebody else was faster, or the turn was cancelled.
            Err(crate::client::Error::Refused(refusal)) if refusal.status == 409 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a user's message in the log is the one that was posted.
fn is_ours(frame: &Frame, posted: &Value, message: &str) -> bool {
    match posted["event_id"].as_str() {
        Some(id) => frame.id.as_deref() == Some(id),
        None => frame.text("content") == message,
    }
}

fn failure_text(frame: &Frame) -> String {
    match frame.text("content") {
        "" => "the turn failed".to_owned(),
        text => text.to_owned(),
    }
}
