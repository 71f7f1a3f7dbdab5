//! The reference page: the API's description as one HTML page, rendered by the server. It needs no script and
//! nothing from anywhere else, so it works offline, and its content policy allows nothing but its own style.

use std::fmt::Write;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use utoipa::openapi::OpenApi;

const STYLE: &str = include_str!("reference.css");
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
/// How deep nested schemas are followed; recursion beyond that is only named.
const DEPTH: usize = 4;

/// The page's route.
pub(crate) fn routes(document: &OpenApi) -> Router {
    let page = serde_json::to_value(document)
        .map(|document| Bytes::from(render(&document)))
        .ok();
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        STANDARD.encode(Sha256::digest(STYLE))
    );
    Router::new().route(
        "/docs",
        get(move || async move {
            let headers = [
                (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
                (header::CONTENT_SECURITY_POLICY, policy),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
                (header::REFERRER_POLICY, "no-referrer".to_owned()),
            ];
            match page {
                Some(page) => (headers, page).into_response(),
                None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            }
        }),
    )
}

struct Page<'a> {
    html: String,
    schemas: Option<&'a Map<String, Value>>,
}

fn render(document: &Value) -> String {
    let mut page = Page {
        html: String::new(),
        schemas: document["components"]["schemas"].as_object(),
    };
    let info = &document["info"];
    page.raw("<!doctype html><html lang=en><meta charset=utf-8>");
    page.raw("<meta name=viewport content='width=device-width,initial-scale=1'><title>");
    page.text(text(&info["title"]));
    page.raw("</title><style>");
    page.raw(STYLE);
    page.raw("</style><nav>");
    let operations = operations(document);
    let tags = document["tags"].as_array().map_or(&[][..], Vec::as_slice);
    for tag in tags {
        page.raw("<p>");
        page.text(text(&tag["name"]));
        page.raw("</p>");
        for (method, path, operation) in operations
            .iter()
            .filter(|(_, _, op)| op["tags"][0] == tag["name"])
        {
            page.raw("<a href='#");
            page.text(&anchor(method, path));
            page.raw("'>");
            page.text(text(&operation["summary"]));
            page.raw("</a>");
        }
    }
    page.raw("</nav><main><h1>");
    page.text(text(&info["title"]));
    page.raw(" <small>");
    page.text(text(&info["version"]));
    page.raw("</small></h1>");
    page.prose(text(&info["description"]));
    page.raw("<p><a href='/openapi.json'>openapi.json</a></p>");
    for tag in tags {
        page.raw("<h2>");
        page.text(text(&tag["name"]));
        page.raw("</h2>");
        page.prose(text(&tag["description"]));
        for (method, path, operation) in operations
            .iter()
            .filter(|(_, _, op)| op["tags"][0] == tag["name"])
        {
            page.operation(method, path, operation);
        }
    }
    page.raw("</main></html>");
    page.html
}

fn operations(document: &Value) -> Vec<(&'static str, &str, &Value)> {
    let paths = document["paths"].as_object();
    paths
        .into_iter()
        .flatten()
        .flat_map(|(path, item)| {
            METHODS
                .into_iter()
                .filter_map(move |method| Some((method, path.as_str(), item.get(method)?)))
        })
        .collect()
}

fn anchor(method: &str, path: &str) -> String {
    let path: String = path
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    format!("{method}{path}")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl Page<'_> {
    fn raw(&mut self, html: &str) {
        self.html.push_str(html);
    }

    fn text(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '&' => self.raw("&amp;"),
                '<' => self.raw("&lt;"),
                '>' => self.raw("&gt;"),
                '"' => self.raw("&quot;"),
                '\'' => self.raw("&#39;"),
                c => self.html.push(c),
            }
        }
    }

    /// Paragraphs, with `code` in backticks.
    fn prose(&mut self, text: &str) {
        for paragraph in text
            .split("\n\n")
            .filter(|paragraph| !paragraph.trim().is_empty())
        {
            self.raw("<p>");
            self.code_spans(paragraph);
            self.raw("</p>");
        }
    }

    fn code_spans(&mut self, text: &str) {
        for (index, piece) in text.split('`').enumerate() {
            let code = index % 2 == 1;
            self.raw(if code { "<code>" } else { "" });
            self.text(piece);
            self.raw(if code { "</code>" } else { "" });
        }
    }

    fn operation(&mut self, method: &str, path: &str, operation: &Value) {
        self.raw("<section id='");
        self.text(&anchor(method, path));
        self.raw("'><h3>");
        self.text(text(&operation["summary"]));
        self.raw("</h3><p class=path><b>");
        self.text(&method.to_ascii_uppercase());
        self.raw("</b> <code>");
        self.text(path);
        self.raw("</code></p>");
        self.prose(text(&operation["description"]));
        if let Some(params) = operation["parameters"].as_array() {
            self.raw("<h4>Parameters</h4><dl>");
            for param in params {
                self.term(text(&param["name"]), param["required"] == true);
                self.raw(" <i>");
                self.text(text(&param["in"]));
                self.raw("</i></dt><dd>");
                self.code_spans(text(&param["description"]));
                self.raw("</dd>");
            }
            self.raw("</dl>");
        }
        self.contents("Body", &operation["requestBody"]["content"]);
        for (status, response) in operation["responses"].as_object().into_iter().flatten() {
            if status.starts_with('2') {
                self.contents(&format!("Response {status}"), &response["content"]);
            }
        }
        let refusals: Vec<&str> = operation["responses"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(status, _)| status.as_str())
            .filter(|status| !status.starts_with('2'))
            .collect();
        if !refusals.is_empty() {
            self.raw("<p>Other answers: ");
            self.text(&refusals.join(", "));
            self.raw("</p>");
        }
        self.raw("</section>");
    }

    fn contents(&mut self, title: &str, content: &Value) {
        for (media_type, body) in content.as_object().into_iter().flatten() {
            self.raw("<h4>");
            self.text(title);
            self.raw(" <small>");
            self.text(media_type);
            self.raw("</small></h4>");
            self.schema(&body["schema"], 0);
        }
    }

    fn term(&mut self, name: &str, required: bool) {
        self.raw("<dt><code>");
        self.text(name);
        self.raw(if required {
            "</code> <em>required</em>"
        } else {
            "</code>"
        });
    }

    /// A schema's fields, nested ones indented.
    fn schema(&mut self, schema: &Value, depth: usize) {
        let schema = self.resolve(schema);
        if depth > DEPTH {
            return;
        }
        for key in ["oneOf", "anyOf", "allOf"] {
            for variant in schema[key].as_array().into_iter().flatten() {
                self.schema(variant, depth);
            }
        }
        if schema["type"] == "array" || schema["items"].is_object() {
            self.schema(&schema["items"].clone(), depth);
        }
        let Some(properties) = schema["properties"].as_object() else {
            return;
        };
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        self.raw("<dl>");
        for (name, property) in properties {
            self.term(name, required.iter().any(|field| field == name));
            self.raw(" <i>");
            let kind = self.kind(property);
            self.text(&kind);
            self.raw("</i></dt><dd>");
            self.code_spans(text(&property["description"]));
            self.schema(property, depth + 1);
            self.raw("</dd>");
        }
        self.raw("</dl>");
    }

    /// Follows a reference.
    fn resolve(&self, schema: &Value) -> Value {
        let name = text(&schema["$ref"]).rsplit('/').next().unwrap_or_default();
        self.schemas
            .and_then(|schemas| schemas.get(name))
            .unwrap_or(schema)
            .clone()
    }

    /// A type in a few words.
    fn kind(&self, schema: &Value) -> String {
        let resolved = self.resolve(schema);
        if let Some(names) = resolved["enum"].as_array() {
            return names.iter().map(text).collect::<Vec<_>>().join(" | ");
        }
        for key in ["oneOf", "anyOf"] {
            if let Some(variants) = resolved[key].as_array() {
                return variants
                    .iter()
                    .map(|variant| self.kind(variant))
                    .collect::<Vec<_>>()
                    .join(" or ");
            }
        }
        let mut words = match &resolved["type"] {
            Value::String(kind) if kind == "array" => format!("list of {}", self.kind(&resolved["items"])),
            Value::String(kind) => kind.clone(),
            Value::Array(kinds) => kinds.iter().map(text).collect::<Vec<_>>().join(" or "),
            _ => "any".to_owned(),
        };
        for (key, word) in [
            ("minLength", "at least"),
            ("maxLength", "at most"),
            ("maxItems", "at most"),
        ] {
            if let Some(bound) = schema[key].as_u64() {
                // Writing to a string can't fail.
                let _infallible = write!(words, ", {word} {bound}");
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_operation_and_nothing_foreign() {
        let document = serde_json::to_value(crate::openapi::document()).expect("serialises");
        let page = render(&document);
        let operations = operations(&document);
        assert!(operations.len() > 25, "{}", operations.len());
        for (method, path, _) in operations {
            assert!(
                page.contains(&format!("id='{}'", anchor(method, path))),
                "{method} {path}"
            );
        }
        for foreign in ["<script", "src=", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn text_is_escaped() {
        let mut page = Page {
            html: String::new(),
            schemas: None,
        };
        page.prose("<b>&\"' `<x>`");
        assert_eq!(
            page.html,
            "<p>&lt;b&gt;&amp;&quot;&#39; <code>&lt;x&gt;</code></p>"
        );
    }
}
