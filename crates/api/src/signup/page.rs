//! The page that shows a new token to whoever has signed in in a browser. It has no script and asks for nothing.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use oma_engine::SignedUp;
use secrecy::ExposeSecret as _;

/// The page, with a token that only this answer has.
pub(super) fn signed_in(signed_up: &SignedUp) -> Response {
    let login = signed_up
        .user
        .github
        .as_ref()
        .map(|account| account.login.as_str());
    let html = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Signed in</title>\n\
         <h1>Signed in as {}</h1>\n<p>Your API token, shown this once; the one before works no more:</p>\n\
         <pre>{}</pre>\n</html>\n",
        escaped(login.unwrap_or_default()),
        escaped(signed_up.token.expose_secret()),
    );
    let headers: [(HeaderName, HeaderValue); 5] = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        // The sign-in is over.
        (
            header::SET_COOKIE,
            HeaderValue::from_static("oma_signin=; Path=/auth/github; Max-Age=0; HttpOnly; SameSite=Lax"),
        ),
    ];
    (headers, Html(html)).into_response()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text() {
        assert_eq!(escaped("<b>&\"x\""), "&lt;b&gt;&amp;&quot;x&quot;");
    }
}
