//! Programs of workflow runs: any text is evaluated within bounds, always in the same way, and further with more answers.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oma_workflow::{Answer, MAX_CALLS, MAX_MARKS, Rules, Step, check, step};

fuzz_target!(|program: &str| {
    let rules = Rules {
        phases: vec!["a".to_owned(), "b".to_owned()],
        agents: vec!["x".to_owned()],
        inline: program.len() % 2 == 0,
    };
    let is_program = check(program).is_ok();
    let mut answers: Vec<Option<Answer>> = Vec::new();
    let mut marks = Vec::new();
    for round in 0..4 {
        let progress = step(program, &rules, &answers);
        assert_eq!(progress, step(program, &rules, &answers), "the same again");
        assert!(progress.asked <= MAX_CALLS && progress.marks.len() <= MAX_MARKS);
        assert!(progress.marks.starts_with(&marks), "another way");
        marks = progress.marks;
        match progress.step {
            Step::Waiting(calls) => {
                assert!(is_program && !calls.is_empty());
                answers.resize(progress.asked, None);
                for call in calls {
                    let text = call.prompt.chars().take(64).collect();
                    answers[call.index] = Some(Answer { ok: round % 2 == 0, text });
                }
            }
            Step::Done(_) | Step::Exhausted => return assert!(is_program),
            Step::Failed(_) => return,
        }
    }
});
