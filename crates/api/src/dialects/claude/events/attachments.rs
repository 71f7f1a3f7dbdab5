//! Content that names a file, and rubrics that do: the file's bytes take its place before anything else looks at an
//! event. So the log has what the model was shown, whatever becomes of the file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oma_domain::FileId;
use oma_engine::{Error, files};
use serde_json::{Value, json};

use super::body::RUBRIC;
use crate::AppState;
use crate::auth::Caller;
use crate::dialects::claude::body::bad;
use crate::fault::{Fault, Result};

/// The most files in one request.
const MOST: usize = 100;
/// The most bytes of one file, and of all files of a request. Base64 of it is stored and sent to the model each time.
const FILE_BYTES: u64 = 32 << 20;
const REQUEST_BYTES: u64 = 64 << 20;

/// Puts the bytes of files where the events of `list` name them.
///
/// # Errors
/// 400 that names the field, for a file that is not there or not of a kind that a message can have.
pub(crate) async fn resolve(state: &AppState, caller: &Caller, body: &mut Value, list: &str) -> Result<()> {
    let Some(events) = body.get_mut(list).and_then(Value::as_array_mut) else {
        return Ok(());
    };
    let (mut count, mut left) = (0, REQUEST_BYTES);
    for (number, event) in events.iter_mut().enumerate() {
        let Some(blocks) = event.get_mut("content").and_then(Value::as_array_mut) else {
            continue;
        };
        for (place, block) in blocks.iter_mut().enumerate() {
            let is_image = match block.get("type").and_then(Value::as_str) {
                Some("image") => true,
                Some("document") => false,
                _ => continue,
            };
            let Some(id) = block.get("source").and_then(named) else {
                continue;
            };
            let field = format!("{list}.{number}.content.{place}.source");
            let id = id.map_err(|problem| bad(format!("{field}.{problem}")))?;
            count += 1;
            if count > MOST {
                return Err(bad(format!(
                    "{field}: there may be at most {MOST} files in a request"
                )));
            }
            let source = source(state, caller, &id, is_image, left.min(FILE_BYTES));
            let (source, size) = source.await.map_err(|fault| placed(fault, &field))?;
            left -= size;
            block["source"] = source;
        }
    }
    resolve_rubrics(state, caller, body, list).await
}

/// Puts the text of files where the outcomes among the events of `list` name them as rubrics.
///
/// # Errors
/// 400 that names the field, for a file that is not there, not text, or too long.
pub(crate) async fn resolve_rubrics(
    state: &AppState,
    caller: &Caller,
    body: &mut Value,
    list: &str,
) -> Result<()> {
    let Some(events) = body.get_mut(list).and_then(Value::as_array_mut) else {
        return Ok(());
    };
    for (number, event) in events.iter_mut().enumerate() {
        if event.get("type").and_then(Value::as_str) != Some("user.define_outcome") {
            continue;
        }
        let Some(id) = event.get("rubric").and_then(named) else {
            continue;
        };
        let field = format!("{list}.{number}.rubric");
        let id = id.map_err(|problem| bad(format!("{field}.{problem}")))?;
        let text = rubric(state, caller, &id).await;
        let text = text.map_err(|fault| placed(fault, &field))?;
        event["rubric"] = json!({"type": "text", "content": text});
    }
    Ok(())
}

/// The text of a rubric's file.
async fn rubric(state: &AppState, caller: &Caller, id: &FileId) -> Result<String> {
    let too_long = || bad(format!("a rubric may have {RUBRIC} characters at the most"));
    // No character takes more than four bytes.
    let most = 4 * RUBRIC as u64;
    let read = state.engine.read_file(caller.workspace(), id, most).await;
    let (_, bytes) = read.map_err(|error| match error {
        Error::Files(files::Error::TooLarge(_)) => too_long(),
        error => error.into(),
    })?;
    let text =
        String::from_utf8(bytes).map_err(|_| bad("a rubric must be text in UTF-8, this file is not"))?;
    if text.is_empty() {
        return Err(bad("the file is empty"));
    }
    if text.chars().count() > RUBRIC {
        return Err(too_long());
    }
    Ok(text)
}

/// The file that a source names, if it names one.
fn named(source: &Value) -> Option<std::result::Result<FileId, String>> {
    let source = source.as_object()?;
    if source.get("type")? != "file" {
        return None;
    }
    if let Some(unknown) = source
        .keys()
        .find(|key| !matches!(key.as_str(), "type" | "file_id"))
    {
        return Some(Err(format!("{unknown}: Extra inputs are not permitted")));
    }
    let id = source.get("file_id").and_then(Value::as_str);
    let id = id.and_then(|id| FileId::parse(id).ok());
    Some(id.ok_or_else(|| "file_id: No file has this id".to_owned()))
}

/// Says which field a fault is about. A missing file is the request's mistake, not its address's.
fn placed(fault: Fault, field: &str) -> Fault {
    if fault.status().is_client_error() {
        bad(format!("{field}.file_id: {}", fault.message()))
    } else {
        fault
    }
}

async fn source(
    state: &AppState,
    caller: &Caller,
    id: &FileId,
    is_image: bool,
    most: u64,
) -> Result<(Value, u64)> {
    let read = state.engine.read_file(caller.workspace(), id, most).await;
    let (file, bytes) = read.map_err(|error| match error {
        Error::Files(files::Error::TooLarge(_)) => bad(format!(
            "a message's files may have {FILE_BYTES} bytes each, and {REQUEST_BYTES} in all"
        )),
        error => error.into(),
    })?;
    let kind = file.mime_type.as_str();
    let encoded = || json!({"type": "base64", "media_type": kind, "data": STANDARD.encode(&bytes)});
    let source = match kind {
        _ if bytes.is_empty() => return Err(bad("the file is empty")),
        "image/png" | "image/jpeg" | "image/gif" | "image/webp" if is_image => encoded(),
        "application/pdf" if !is_image => encoded(),
        _ if is_image => return Err(bad(format!("a file of type {kind} is no image that models take"))),
        _ => match std::str::from_utf8(&bytes) {
            Ok(text) => json!({"type": "text", "media_type": "text/plain", "data": text}),
            Err(_) => {
                return Err(bad(format!(
                    "a file of type {kind} is no document: only PDF and text are"
                )));
            }
        },
    };
    Ok((source, file.size))
}
