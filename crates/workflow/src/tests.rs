//! Programs and what becomes of them; and that nothing in a program can break or hold up its evaluation.

use proptest::prelude::*;

use crate::*;

fn rules() -> Rules {
    Rules {
        phases: vec!["research".to_owned(), "write".to_owned()],
        agents: vec!["agt_1".to_owned(), "scout".to_owned()],
        inline: false,
    }
}

fn said(text: &str) -> Option<Answer> {
    Some(Answer {
        ok: true,
        text: text.to_owned(),
    })
}

fn run(program: &str, answers: &[Option<Answer>]) -> Progress {
    step(program, &rules(), answers)
}

fn call(index: usize, prompt: &str) -> Call {
    Call {
        index,
        callee: Callee::Named("scout".to_owned()),
        prompt: prompt.to_owned(),
    }
}

#[track_caller]
fn done(program: &str, result: &str) {
    assert_eq!(run(program, &[]).step, Step::Done(result.to_owned()), "{program}");
}

#[track_caller]
fn fails(program: &str, because: &str) {
    match run(program, &[]).step {
        Step::Failed(problem) => assert!(problem.contains(because), "{program}: {problem}"),
        other => panic!("{program}: {other:?}"),
    }
}

const LOOP: &str = r#"
phase("research");
let topics = parse_json(agent(#{agent: "scout", prompt: "topics?"}).text);
let asked = [];
for topic in topics { asked.push(#{agent: "scout", prompt: `about ${topic}`}); }
let found = parallel(asked);
phase("write");
let text = "";
for one in found { text += one.text + ";"; }
let tries = 0;
while tries < 3 {
    let verdict = agent(#{agent: "scout", prompt: "good? " + text});
    tries += 1;
    if verdict.ok && verdict.text == "yes" { break; }
    text += "!";
}
#{text: text, tries: tries}
"#;

#[test]
fn a_program_asks_step_by_step() {
    let mut answers = Vec::new();
    let first = run(LOOP, &answers);
    assert_eq!((first.marks.as_slice(), first.asked), (&[0][..], 1));
    assert_eq!(first.step, Step::Waiting(vec![call(0, "topics?")]));
    answers.push(said(r#"["a", "b"]"#));
    let second = run(LOOP, &answers);
    assert_eq!(
        second.step,
        Step::Waiting(vec![call(1, "about a"), call(2, "about b")])
    );
    // One of two is not enough, in whichever order they come.
    answers.extend([None, said("B")]);
    let third = run(LOOP, &answers);
    assert_eq!(third.step, Step::Waiting(vec![call(1, "about a")]));
    assert_eq!((third.marks.as_slice(), third.asked), (&[0][..], 3));
    answers[1] = said("A");
    let fourth = run(LOOP, &answers);
    assert_eq!(fourth.step, Step::Waiting(vec![call(3, "good? A;B;")]));
    assert_eq!(fourth.marks, [0, 1]);
    answers.push(said("no"));
    assert_eq!(
        run(LOOP, &answers).step,
        Step::Waiting(vec![call(4, "good? A;B;!")])
    );
    answers.push(said("yes"));
    let last = run(LOOP, &answers);
    assert_eq!(last.step, Step::Done(r#"{"text":"A;B;!","tries":2}"#.to_owned()));
    assert_eq!((last.marks.as_slice(), last.asked), (&[0, 1][..], 5));
}

#[test]
fn what_programs_give() {
    done("", "");
    done("42", "42");
    done("\"a text\"", "a text");
    done(
        "#{b: 1, a: [(), true, 1.5, 'c']}",
        r#"{"a":[null,true,1.5,"c"],"b":1}"#,
    );
    done("parallel([])", "[]");
    done("fn twice(x) { x * 2 } twice(21)", "42");
    done("[1, 2, 3].map(|x| x + 1).filter(|x| x > 2)", "[3,4]");
    done(
        "parse_json(`{\"a\": [1, {\"b\": null}], \"c\": 1e300}`).a[1]",
        r#"{"b":null}"#,
    );
    done("to_json(#{a: 1})", r#"{"a":1}"#);
    done(
        "let r = (); try { parse_json(\"{\") } catch { r = \"caught\" } r",
        "caught",
    );
    done("let s = \"a-b\"; s.replace(\"-\", \"+\"); s", "a+b");
    done("\"a,b\".split(\",\")", r#"["a","b"]"#);
    done("if 3 > 2 { return \"early\"; } \"late\"", "early");
}

#[test]
fn failures_are_values_to_look_at() {
    let program = r#"
        let one = agent(#{agent: "scout", prompt: "go"});
        if one.ok { "fine" } else { `not: ${one.text}` }
    "#;
    let answer = Some(Answer {
        ok: false,
        text: "broken".to_owned(),
    });
    assert_eq!(run(program, &[answer]).step, Step::Done("not: broken".to_owned()));
}

#[test]
fn mistakes_are_told() {
    fails(
        "phase(\"x\")",
        "there is no phase \"x\"; there are: research, write",
    );
    fails(
        "agent(#{agent: \"who\", prompt: \"x\"})",
        "There are: agt_1, scout.",
    );
    fails("agent(#{agent: \"scout\"})", "needs a text for \"prompt\"");
    fails(
        "agent(#{agent: \"scout\", prompt: \" \"})",
        "needs a text for \"prompt\"",
    );
    fails("agent(#{agent: 1, prompt: \"x\"})", "\"agent\" is a text");
    fails(
        "agent(#{prompt: \"x\", system: \"y\"})",
        "needs a text for \"agent\"",
    );
    fails(
        "agent(#{agent: \"scout\", prompt: \"x\", system: \"y\"})",
        "no \"system\"",
    );
    fails("parallel([1])", "array of maps");
    fails("let x = ;", "");
    fails("nothing", "nothing");
    fails("#{a: 1}.b", "b");
    fails("throw \"my words\"", "my words");
    fails("0.0 / 0.0", "has no JSON");
    fails("|x| x", "has no JSON");
    for gone in [
        "eval(\"1\")",
        "print(1)",
        "debug(1)",
        "sleep(1)",
        "timestamp()",
        "import \"x\" as y;",
        "exit()",
    ] {
        fails(gone, "");
    }
}

#[test]
fn nothing_is_caught_that_ends_an_evaluation() {
    let program = r#"try { agent(#{agent: "scout", prompt: "x"}) } catch { "caught" }"#;
    assert_eq!(run(program, &[]).step, Step::Waiting(vec![call(0, "x")]));
    let program = r#"loop { try { loop { } } catch { } }"#;
    fails(program, "operations");
}

#[test]
fn agents_may_be_defined_where_that_is_allowed() {
    let rules = Rules {
        inline: true,
        ..rules()
    };
    let program = r#"agent(#{name: "poet", system: "Rhyme.", tools: ["read"], prompt: "go"})"#;
    let Step::Waiting(calls) = step(program, &rules, &[]).step else {
        panic!("it asks");
    };
    let definition = serde_json::json!({"name": "poet", "system": "Rhyme.", "tools": ["read"]});
    let Callee::Inline(found) = &calls[0].callee else {
        panic!("it is defined");
    };
    assert_eq!(Value::Object(found.clone()), definition);
    assert_eq!(calls[0].prompt, "go");
}

#[test]
fn calls_and_phases_have_a_bound() {
    let program = r#"let n = 0; loop { n += 1; agent(#{agent: "scout", prompt: `${n}`}); }"#;
    let answers = vec![said("x"); MAX_CALLS];
    assert!(matches!(
        run(program, &answers[..MAX_CALLS - 1]).step,
        Step::Waiting(_)
    ));
    assert_eq!(run(program, &answers).step, Step::Exhausted);
    let program = r#"
        let all = []; for n in 0..1001 { all.push(#{agent: "scout", prompt: "x"}); } parallel(all)
    "#;
    assert_eq!(run(program, &[]).step, Step::Exhausted);
    fails("loop { phase(\"research\"); phase(\"write\"); }", "phases");
}

#[test]
fn long_answers_are_cut() {
    let long = "ä".repeat(MAX_ANSWER);
    let program = r#"agent(#{agent: "scout", prompt: "x"}).text"#;
    let Step::Done(text) = run(program, &[said(&long)]).step else {
        panic!("it is done");
    };
    assert!(
        text.len() <= MAX_ANSWER && text.ends_with(&format!("[cut: the answer has {} bytes]", long.len()))
    );
    let program = r#"
        let all = []; for n in 0..100 { all.push(#{agent: "scout", prompt: "x"}); }
        let sum = 0; for one in parallel(all) { sum += one.text.bytes; } sum
    "#;
    let Step::Done(sum) = run(program, &vec![said(&long); 100]).step else {
        panic!("it is done");
    };
    assert!(sum.parse::<usize>().unwrap() <= MAX_ANSWERS);
}

#[test]
fn hostile_programs_end() {
    for program in [
        "loop { }",
        "fn f() { f() } f()",
        "let a = []; loop { a = [a]; }",
        "let a = #{}; loop { a = #{a: a}; }",
        "let a = [1]; loop { a += a; }",
        "let s = \"x\"; loop { s += s; }",
        "let s = \"x\"; s.pad(900000, \"y\"); s.replace(\"y\", s); s.len",
        "let s = \"x\"; s.pad(900000, 'y'); s.replace('y', s); s.len",
        "let s = \"x\"; s.pad(900000, \"y\"); s.replace(\"\", s); s.len",
        "let a = []; a.pad(100000000, 0); a",
        "let a = []; a.pad(4000, \"x\"); loop { a.sort(|x, y| -1); a.sort(|x, y| 1); }",
        "for x in 0..9223372036854775807 { }",
        "let all = []; loop { let s = \"\"; s.pad(1000000, \"y\"); all.push(s); }",
        "let s = \"\"; s.pad(1000000, \"y\"); let b = s.split(\"\"); b",
        "parse_json(\"[\".repeat(100000))",
    ] {
        assert!(matches!(run(program, &[]).step, Step::Failed(_)), "{program}");
    }
    for nested in [
        "(",
        "[",
        "#{a:",
        "-",
        "!",
        "|x|",
        "if true {",
        "fn a() {",
        "{",
        "x.",
        "a[",
        "1+(",
        "`${",
    ] {
        let program = nested.repeat(MAX_PROGRAM / nested.len());
        assert!(check(&program).is_err(), "{nested}");
        assert!(matches!(run(&program, &[]).step, Step::Failed(_)), "{nested}");
    }
    // A comparison without an order is the program's own affair.
    let _ = run(
        "let a = []; for n in 0..2000 { a.push(n * 7919 % 2003); } a.sort(|x, y| (x * y) % 3 - 1); a.len",
        &[],
    );
    let too_long = " ".repeat(MAX_PROGRAM + 1);
    assert!(check(&too_long).is_err());
    assert!(matches!(run(&too_long, &[]).step, Step::Failed(_)));
    assert_eq!(check(LOOP), Ok(()));
}

/// Pieces of programs, so that what is made of them often is one.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "let a = ",
            "a",
            "b",
            "= ",
            ";",
            "1",
            "2.5",
            "\"t\"",
            "`${a}`",
            "(",
            ")",
            "{",
            "}",
            "[",
            "]",
            "#{",
            ":",
            ",",
            ".",
            "..",
            "+",
            "-",
            "*",
            "/",
            "%",
            "==",
            "<",
            "&&",
            "||",
            "!",
            "|x| ",
            "x",
            "fn f(x) {",
            "f(",
            "if ",
            "else ",
            "for x in ",
            "while ",
            "loop {",
            "break",
            "return ",
            "throw ",
            "try {",
            "} catch {",
            "phase(\"write\")",
            "agent(#{agent: \"scout\", prompt: \"p\"})",
            "parallel([",
            "parse_json(",
            "to_json(",
            ".push(",
            ".map(",
            ".len",
            ".sort()",
            ".split(",
            ".replace(",
            ".sub_string(",
            ".text",
            ".ok",
            "switch ",
            "=> ",
            "this",
            "Fn(\"f\")",
            ".call(",
            ".curry(",
            "const ",
            "?? ",
            "?.",
            "in ",
            "\n",
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,8}",
        "\\PC{0,4}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_evaluated_within_bounds(
        pieces in prop::collection::vec(piece(), 0..40),
        texts in prop::collection::vec(prop::option::of("[a-z\"{}\\[\\]0-9]{0,8}"), 0..6),
    ) {
        let program = pieces.concat();
        let answers: Vec<Option<Answer>> = texts
            .into_iter()
            .map(|text| text.map(|text| Answer { ok: text.len() % 2 == 0, text }))
            .collect();
        let once = step(&program, &rules(), &answers);
        // The same again.
        prop_assert_eq!(&once, &step(&program, &rules(), &answers));
        prop_assert!(once.asked <= MAX_CALLS && once.marks.len() <= MAX_MARKS);
        if let Step::Waiting(calls) = &once.step {
            prop_assert!(!calls.is_empty());
            prop_assert!(calls.iter().all(|call| call.index < once.asked));
            // With answers it gets at least as far, by the same way.
            let mut more = answers;
            more.resize(once.asked.max(more.len()), None);
            for call in calls {
                more[call.index] = said("x");
            }
            let next = step(&program, &rules(), &more);
            prop_assert!(next.asked >= once.asked);
            prop_assert!(next.marks.starts_with(&once.marks));
        }
        if check(&program).is_err() {
            prop_assert!(matches!(once.step, Step::Failed(_)));
        }
    }
}
