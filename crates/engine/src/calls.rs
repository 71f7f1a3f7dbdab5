//! Calls of workflow runs: each is a thread that is told one thing and ends for good with its answer.
//!
//! Which calls there are, in which order they begin and what their answers lead to is the runtime's to know, which evaluates
//! the program. What was answered stands in the coordinator's log; so a call that has its answer is not made again.

use std::sync::Arc;

use oma_domain::session::{BeginCall, Input, Outcome, Rejection, State};
use oma_domain::{Agent, ContentBlock, Seq, SessionId};
use oma_runtime::{PortError, Recipient};

use crate::threads::Errand;

/// Whether a call has begun.
fn has_begun(state: &State, errand: &Errand<'_>) -> bool {
    let run = errand
        .call
        .as_ref()
        .and_then(|call| Some((call, state.runs.get(&call.run)?)));
    run.is_some_and(|(call, run)| call.index < run.begun)
}

impl Errand<'_> {
    /// Has the call of a run answered; gives the input that records the answer.
    ///
    /// # Errors
    /// [`PortError`]; trying again is safe. Stale when somebody else has recorded the answer.
    pub(crate) async fn answer(&self, agent: &Arc<Agent>, prompt: &str) -> Result<Input, PortError> {
        let stale = || PortError::Rejected(Rejection::Stale);
        let call = self.call.as_ref().ok_or_else(stale)?;
        let thread = SessionId::of_call(call);
        let _opening = self.engine.inner.opening.begin(&thread);
        if !has_begun(&self.port.state().0, self) {
            let begin = Input::BeginCall(BeginCall {
                call: call.clone(),
                agent: agent.id.clone(),
                agent_name: agent.shown_name().to_owned(),
            });
            match self.port.commit(begin).await {
                Ok(_) => {}
                Err(PortError::Rejected(Rejection::QuotaExceeded(_))) => {
                    return Ok(Input::RefuseCall {
                        call: call.clone(),
                        text: "The budget leaves nothing for this call.".to_owned(),
                    });
                }
                Err(error) => return Err(error),
            }
        }
        let to = Recipient::Defined(Arc::clone(agent));
        let content = vec![ContentBlock::text(prompt)];
        if let Err(text) = self.deliver(&thread, &to, content).await? {
            return self
                .end(&thread, Outcome::error(text), (Seq(0), Vec::new()))
                .await;
        }
        self.attend(&thread).await
    }
}
