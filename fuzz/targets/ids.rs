//! Ids, cursors and trace contexts that come from clients.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oma_api::dialects::openclaw::events::cursor::Cursor;
use oma_domain::id::MAX_LEN;
use oma_domain::trace::TraceParent;
use oma_domain::{AgentId, EventId, SessionId};

fuzz_target!(|text: &str| {
    let id = SessionId::parse(text);
    assert_eq!(id.is_ok(), AgentId::parse(text).is_ok());
    if let Ok(id) = &id {
        assert_eq!(id.as_str(), text);
        assert!(text.len() <= MAX_LEN && text != "." && text != ".." && !text.contains('/'));
        let json = serde_json::to_string(id).expect("a string");
        let read = serde_json::from_str::<SessionId>(&json).expect("what was written is read");
        assert_eq!(read, *id);
    }
    let quoted = serde_json::to_string(text).expect("a string");
    assert_eq!(serde_json::from_str::<EventId>(&quoted).is_ok(), EventId::parse(text).is_ok());
    if let Ok(trace) = TraceParent::parse(text) {
        assert_eq!(TraceParent::parse(&trace.to_string()), Ok(trace));
    }
    if let Some(cursor) = Cursor::parse(text) {
        assert_eq!(cursor.to_string(), text, "one spelling only");
        assert_eq!(Cursor::parse(&cursor.event.to_string()).map(|it| it.index), Some(0));
    }
});
