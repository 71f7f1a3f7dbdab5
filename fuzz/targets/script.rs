//! The scripts of the scripted model, as an agent's instructions hold them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oma_models::fuzzing;

fuzz_target!(|system: &str| {
    match fuzzing::script(system) {
        // A script stands in a fence, or begins with a bracket.
        Ok(true) => assert!(system.contains(['{', '['])),
        Ok(false) => assert!(!system.contains("```script")),
        Err(message) => assert!(!message.is_empty()),
    }
});
