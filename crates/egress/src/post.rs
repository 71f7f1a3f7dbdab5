//! Posting for users: webhooks.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use crate::dial::{Guard, failed};
use crate::error::Error;

impl Guard {
    /// Posts a body and gives the answer's status; the rest of the answer is not read. No redirect is followed: one is
    /// an answer like others.
    ///
    /// # Errors
    /// [`Error`]; a status that tells of a failure is none.
    pub async fn post(
        &self,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> Result<u16, Error> {
        let (client, url) = self.client_for(url)?;
        let request = Box::pin(client.post(url).headers(headers).body(body).send());
        let answer = tokio::time::timeout(timeout, request)
            .await
            .map_err(|_| Error::Timeout(timeout))?;
        let response = answer.map_err(|error| failed(&error))?;
        Ok(response.status().as_u16())
    }
}
