//! A small store for tests of what real ones seldom do: it fails when it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::hex;

/// What happens to a request instead of what should.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trouble {
    /// Nothing, for this one.
    None,
    /// It is refused with this status and code.
    Refuse(u16, &'static str),
    /// It is carried out, and the answer is this status all the same.
    Lose(u16),
    /// Its answer has the status of a success and the document of this failure.
    Late(&'static str),
    /// What is read ends in the middle.
    Cut,
    /// What is read stops in the middle, and does not end.
    Stall,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) objects: BTreeMap<String, Bytes>,
    pub(super) uploads: BTreeMap<String, BTreeMap<u32, Bytes>>,
    /// What happens to the next requests, in this order.
    pub(super) troubles: VecDeque<Trouble>,
    /// What happens to all others.
    pub(super) always: Option<Trouble>,
    /// `METHOD path?query` of all requests.
    pub(super) seen: Vec<String>,
}

/// A running store.
#[derive(Clone)]
pub(super) struct Fake {
    pub(super) inner: Arc<Mutex<Inner>>,
    pub(super) url: Url,
}

impl Fake {
    pub(super) async fn start() -> Self {
        let inner = Arc::<Mutex<Inner>>::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            inner,
            url: url.parse().unwrap(),
        }
    }

    pub(super) fn trouble(&self, troubles: &[Trouble]) {
        self.inner.lock().unwrap().troubles.extend(troubles);
    }

    pub(super) fn requests(&self) -> usize {
        self.inner.lock().unwrap().seen.len()
    }
}

fn refusal(status: u16, code: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>No.</Message></Error>"
    );
    (status, text).into_response()
}

async fn answer(State(inner): State<Arc<Mutex<Inner>>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let trouble = {
        let mut inner = inner.lock().unwrap();
        let line = format!("{} {}", head.method, head.uri);
        inner.seen.push(line);
        let next = inner.troubles.pop_front().or(inner.always);
        next.unwrap_or(Trouble::None)
    };
    let headers = &head.headers;
    if !headers["authorization"]
        .to_str()
        .unwrap()
        .contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date")
    {
        return refusal(403, "SignatureDoesNotMatch");
    }
    if headers["x-amz-content-sha256"] != hex(Sha256::new_with_prefix(&body)) {
        return refusal(400, "XAmzContentSHA256Mismatch");
    }
    match trouble {
        Trouble::Refuse(status, code) => return refusal(status, code),
        Trouble::Late(code) => return refusal(200, code),
        Trouble::None | Trouble::Lose(_) | Trouble::Cut | Trouble::Stall => {}
    }
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let mut inner = inner.lock().unwrap();
    let done = inner.carry_out(&head.method, head.uri.path().to_owned(), &query, body);
    match trouble {
        Trouble::Lose(status) => refusal(status, "InternalError"),
        Trouble::Cut | Trouble::Stall => {
            let object = inner.objects[head.uri.path()].clone();
            let half = stream::iter([Ok(object.slice(..object.len() / 2))]);
            let broken = stream::iter([Err(std::io::Error::other("the store breaks down"))]);
            let body = match trouble {
                Trouble::Cut => Body::from_stream(half.chain(broken)),
                _ => Body::from_stream(half.chain(stream::pending())),
            };
            let length = object.len();
            Response::builder()
                .header("content-length", length)
                .body(body)
                .unwrap()
        }
        _ => done,
    }
}

impl Inner {
    fn carry_out(
        &mut self,
        method: &Method,
        path: String,
        query: &BTreeMap<String, String>,
        body: Bytes,
    ) -> Response {
        let upload = query.get("uploadId");
        if upload.is_some_and(|upload| !self.uploads.contains_key(upload)) {
            return refusal(404, "NoSuchUpload");
        }
        match (method.as_str(), upload) {
            ("POST", None) if query.contains_key("uploads") => {
                let id = format!("a+b/c&{}=", self.seen.len());
                self.uploads.insert(id.clone(), BTreeMap::new());
                let id = id.replace('&', "&amp;");
                format!(
                    "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                )
                .into_response()
            }
            ("PUT", Some(upload)) => {
                let number = query["partNumber"].parse().unwrap();
                self.uploads.get_mut(upload).unwrap().insert(number, body);
                ([("etag", format!("\"{number}\""))], "").into_response()
            }
            ("POST", Some(upload)) => {
                let text = std::str::from_utf8(&body).unwrap();
                let document = roxmltree::Document::parse(text).unwrap();
                let tags: Vec<String> = document
                    .descendants()
                    .filter(|node| node.has_tag_name("ETag"))
                    .map(|node| node.text().unwrap().replace('"', ""))
                    .collect();
                let parts = &self.uploads[upload];
                assert_eq!(tags.len(), parts.len());
                let whole = tags.iter().flat_map(|tag| parts[&tag.parse().unwrap()].to_vec());
                let whole = whole.collect::<Vec<u8>>().into();
                self.objects.insert(path, whole);
                self.uploads.remove(upload);
                "\n  <?xml version=\"1.0\"?><CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
                    .into_response()
            }
            ("DELETE", Some(upload)) => {
                self.uploads.remove(upload);
                StatusCode::NO_CONTENT.into_response()
            }
            ("PUT", None) => {
                self.objects.insert(path, body);
                StatusCode::OK.into_response()
            }
            ("GET" | "HEAD", None) => match self.objects.get(&path) {
                Some(object) => object.clone().into_response(),
                None => refusal(404, "NoSuchKey"),
            },
            ("DELETE", None) => {
                self.objects.remove(&path);
                StatusCode::NO_CONTENT.into_response()
            }
            other => panic!("{other:?}"),
        }
    }
}
