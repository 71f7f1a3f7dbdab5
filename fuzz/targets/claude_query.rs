//! Queries of the Claude dialect, with the cursors in them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oma_api::dialects::claude::fuzzing::read_query;

fuzz_target!(|query: &str| {
    read_query(query);
});
