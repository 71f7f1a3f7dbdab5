//! The interpreter of programs: what they can do, and its bounds.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rhai::packages::{
    ArithmeticPackage, BasicArrayPackage, BasicFnPackage, BasicIteratorPackage, BasicMapPackage,
    BasicMathPackage, BasicStringPackage, LogicPackage, MoreStringPackage, Package as _,
};
use rhai::{Array, Dynamic, Engine, EvalAltResult, ImmutableString, Map, OptimizationLevel, Position, Scope};
use serde_json::Value;

use crate::value::{from_json, to_json};
use crate::{
    Answer, Call, Callee, MAX_ANSWER, MAX_ANSWERS, MAX_CALLS, MAX_MARKS, MAX_PROMPT, MAX_RESULT, Progress,
    Rules, Step,
};

/// The most operations of an evaluation, as the interpreter counts them.
const MAX_OPERATIONS: u64 = 1_000_000;
/// The longest that an evaluation may take. Only a program that means harm gets near it: what a run does does not depend on
/// how fast the machine is, but for one that is ended here.
const MAX_TIME: Duration = Duration::from_secs(10);
/// The most bytes in one value, all texts in it taken together.
const MAX_TEXT: usize = 1 << 20;
/// The most elements of an array with all that is in it, and the same of maps.
const MAX_ELEMENTS: usize = 4096;
const MAX_VARIABLES: usize = 40;
const MAX_FUNCTIONS: usize = 64;
const MAX_CALL_LEVELS: usize = 10;
/// How deep expressions nest, in the program and in its functions.
const MAX_EXPRESSION: (usize, usize) = (48, 32);

type Raised = Box<EvalAltResult>;

/// What an evaluation goes by, and what it has done until now.
struct Tape {
    rules: Rules,
    answers: Vec<Option<Given>>,
    asked: usize,
    marks: Vec<usize>,
    /// Why the evaluation was left, when the program itself has not ended it.
    left: Option<Step>,
}

/// An answer as the program is given it.
#[derive(Clone)]
struct Given {
    ok: bool,
    text: ImmutableString,
}

impl Given {
    /// An answer whose text has at most so many bytes.
    fn within(&self, most: usize) -> Dynamic {
        let text = if self.text.len() <= most {
            self.text.clone()
        } else {
            let note = format!("\n[cut: the answer has {} bytes]", self.text.len());
            let end = self.text.floor_char_boundary(most.saturating_sub(note.len()));
            format!("{}{note}", &self.text[..end]).into()
        };
        let mut map = Map::new();
        map.insert("ok".into(), Dynamic::from_bool(self.ok));
        map.insert("text".into(), Dynamic::from(text));
        Dynamic::from_map(map)
    }
}

fn raise(message: impl Into<ImmutableString>) -> Raised {
    EvalAltResult::ErrorRuntime(Dynamic::from(message.into()), Position::NONE).into()
}

/// Ends the evaluation in a way that no program can catch.
fn leave() -> Raised {
    EvalAltResult::ErrorTerminated(Dynamic::UNIT, Position::NONE).into()
}

impl Tape {
    /// Enters a phase.
    fn enter(&mut self, name: &str) -> Result<(), Raised> {
        let known = self.rules.phases.iter().position(|phase| phase == name);
        let Some(phase) = known else {
            let all = self.rules.phases.join(", ");
            return Err(raise(format!("there is no phase {name:?}; there are: {all}")));
        };
        if self.marks.last() == Some(&phase) {
            return Ok(());
        }
        if self.marks.len() == MAX_MARKS {
            let problem = format!("the program enters more than {MAX_MARKS} phases");
            self.left = Some(Step::Failed(problem));
            return Err(leave());
        }
        self.marks.push(phase);
        Ok(())
    }

    /// The answers of calls that are made at once; without all of them the evaluation ends.
    fn call(&mut self, calls: Vec<(Callee, String)>) -> Result<Array, Raised> {
        let first = self.asked;
        let end = first + calls.len();
        if end > MAX_CALLS {
            self.left = Some(Step::Exhausted);
            return Err(leave());
        }
        self.asked = end;
        let most = MAX_ANSWER.min(MAX_ANSWERS / calls.len().max(1));
        let given = |index: usize| self.answers.get(index).and_then(Option::as_ref);
        let answers: Option<Array> = (first..end)
            .map(|index| given(index).map(|given| given.within(most)))
            .collect();
        if let Some(answers) = answers {
            return Ok(answers);
        }
        let calls = calls.into_iter().zip(first..);
        let waiting = calls
            .filter(|(_, index)| given(*index).is_none())
            .map(|((callee, prompt), index)| Call {
                index,
                callee,
                prompt,
            });
        self.left = Some(Step::Waiting(waiting.collect()));
        Err(leave())
    }

    /// What a call says, checked.
    fn read(&self, request: &Map) -> Result<(Callee, String), Raised> {
        let text = |field: &str| -> Result<Option<String>, Raised> {
            let Some(value) = request.get(field).filter(|value| !value.is_unit()) else {
                return Ok(None);
            };
            match value.as_immutable_string_ref() {
                Ok(text) => Ok(Some(text.to_string()).filter(|text| !text.trim().is_empty())),
                Err(kind) => Err(raise(format!(
                    "an agent's {field:?} is a text, and not of type {kind}"
                ))),
            }
        };
        let prompt = text("prompt")?.ok_or_else(|| raise("an agent needs a text for \"prompt\""))?;
        if prompt.len() > MAX_PROMPT {
            return Err(raise(format!("a prompt may have at most {MAX_PROMPT} bytes")));
        }
        if let Some(name) = text("agent")? {
            let extra = request
                .keys()
                .find(|key| !["agent", "prompt"].contains(&key.as_str()));
            if let Some(extra) = extra {
                return Err(raise(format!(
                    "an agent that is named has \"agent\" and \"prompt\", and no {extra:?}"
                )));
            }
            if !self.rules.agents.contains(&name) {
                return Err(raise(self.nobody(&name)));
            }
            return Ok((Callee::Named(name), prompt));
        }
        if !self.rules.inline {
            return Err(raise(format!(
                "an agent needs a text for \"agent\". {}",
                self.there_are()
            )));
        }
        let mut definition = serde_json::Map::new();
        for (field, value) in request {
            if !["agent", "prompt"].contains(&field.as_str()) {
                let value = to_json(value).map_err(raise)?;
                definition.insert(field.to_string(), value);
            }
        }
        Ok((Callee::Inline(definition), prompt))
    }

    fn nobody(&self, name: &str) -> String {
        format!("there is no agent {name:?}. {}", self.there_are())
    }

    fn there_are(&self) -> String {
        match self.rules.agents.as_slice() {
            [] => "There are none that can be named.".to_owned(),
            agents => format!("There are: {}.", agents.join(", ")),
        }
    }
}

/// The interpreter with what programs can do that needs no run.
fn interpreter() -> Engine {
    let mut engine = Engine::new_raw();
    // Not among them: the core of the language's package, which can sleep, and blobs and bits, which nobody needs.
    ArithmeticPackage::new().register_into_engine(&mut engine);
    LogicPackage::new().register_into_engine(&mut engine);
    BasicMathPackage::new().register_into_engine(&mut engine);
    BasicStringPackage::new().register_into_engine(&mut engine);
    MoreStringPackage::new().register_into_engine(&mut engine);
    BasicIteratorPackage::new().register_into_engine(&mut engine);
    BasicFnPackage::new().register_into_engine(&mut engine);
    BasicArrayPackage::new().register_into_engine(&mut engine);
    BasicMapPackage::new().register_into_engine(&mut engine);
    engine
        .set_optimization_level(OptimizationLevel::None)
        .set_max_operations(MAX_OPERATIONS)
        .set_max_call_levels(MAX_CALL_LEVELS)
        .set_max_variables(MAX_VARIABLES)
        .set_max_functions(MAX_FUNCTIONS)
        .set_max_expr_depths(MAX_EXPRESSION.0, MAX_EXPRESSION.1)
        .set_max_string_size(MAX_TEXT)
        .set_max_array_size(MAX_ELEMENTS)
        .set_max_map_size(MAX_ELEMENTS)
        .set_max_strings_interned(0)
        .set_fail_on_invalid_map_property(true);
    for nothing in ["eval", "print", "debug"] {
        engine.disable_symbol(nothing);
    }
    engine.register_fn("replace", |text: &mut ImmutableString, find: &str, by: &str| {
        replace(text, find, by)
    });
    engine.register_fn("replace", |text: &mut ImmutableString, find: char, by: &str| {
        replace(text, find.encode_utf8(&mut [0; 4]), by)
    });
    engine.register_fn("parse_json", |text: &str| -> Result<Dynamic, Raised> {
        let parsed: Value =
            serde_json::from_str(text).map_err(|error| raise(format!("this is no JSON: {error}")))?;
        from_json(parsed).map_err(raise)
    });
    engine.register_fn("to_json", |value: Dynamic| -> Result<ImmutableString, Raised> {
        to_json(&value).map(|json| json.to_string().into()).map_err(raise)
    });
    let began = Instant::now();
    engine.on_progress(move |operations| {
        // The clock is looked at now and then only.
        let is_over = operations % 256 == 0 && began.elapsed() > MAX_TIME;
        is_over.then(|| Dynamic::from(ImmutableString::from("time")))
    });
    engine
}

/// Replaces all occurrences, unless that would make a text that is too long: the interpreter looks at its length only
/// afterwards.
fn replace(text: &mut ImmutableString, find: &str, by: &str) -> Result<(), Raised> {
    let found = text.matches(find).count();
    if text.len().saturating_add(found.saturating_mul(by.len())) > MAX_TEXT {
        return Err(raise("the text becomes too long"));
    }
    *text = text.replace(find, by).into();
    Ok(())
}

/// Whether a text is a program.
pub(crate) fn compile(program: &str) -> Result<(), String> {
    let compiled = interpreter().compile(program);
    compiled.map(|_| ()).map_err(|error| error.to_string())
}

/// Evaluates a program from its start.
pub(crate) fn evaluate(program: &str, rules: &Rules, answers: &[Option<Answer>]) -> Progress {
    let given = |answer: &Answer| Given {
        ok: answer.ok,
        text: answer.text.as_str().into(),
    };
    let tape = Rc::new(RefCell::new(Tape {
        rules: rules.clone(),
        answers: answers.iter().map(|answer| answer.as_ref().map(given)).collect(),
        asked: 0,
        marks: Vec::new(),
        left: None,
    }));
    let mut engine = interpreter();
    let to = Rc::clone(&tape);
    engine.register_fn("phase", move |name: &str| to.borrow_mut().enter(name));
    let to = Rc::clone(&tape);
    engine.register_fn("agent", move |request: Map| -> Result<Dynamic, Raised> {
        let mut tape = to.borrow_mut();
        let call = tape.read(&request)?;
        let answers = tape.call(vec![call])?;
        Ok(answers.into_iter().next().unwrap_or_default())
    });
    let to = Rc::clone(&tape);
    engine.register_fn("parallel", move |requests: Array| -> Result<Array, Raised> {
        let mut tape = to.borrow_mut();
        let calls = requests.iter().map(|request| match request.as_map_ref() {
            Ok(request) => tape.read(&request),
            Err(kind) => Err(raise(format!(
                "parallel takes an array of maps, and no value of type {kind}"
            ))),
        });
        let calls = calls.collect::<Result<Vec<_>, _>>()?;
        tape.call(calls)
    });
    let outcome = match engine.compile(program) {
        Ok(ast) => engine
            .eval_ast_with_scope::<Dynamic>(&mut Scope::new(), &ast)
            .map_err(|error| explain(&error)),
        Err(error) => Err(error.to_string()),
    };
    let tape = tape.borrow();
    let step = match (&tape.left, outcome) {
        (Some(left), _) => left.clone(),
        (None, Ok(value)) => result(&value).map_or_else(Step::Failed, Step::Done),
        (None, Err(problem)) => Step::Failed(problem),
    };
    Progress {
        marks: tape.marks.clone(),
        asked: tape.asked,
        step,
    }
}

/// What a program gives: a text as it is, anything else as JSON.
fn result(value: &Dynamic) -> Result<String, String> {
    let text =
        match to_json(value).map_err(|problem| format!("the program's result can't be told: {problem}"))? {
            Value::Null => String::new(),
            Value::String(text) => text,
            json => json.to_string(),
        };
    if text.len() > MAX_RESULT {
        return Err(format!("the program's result has more than {MAX_RESULT} bytes"));
    }
    Ok(text)
}

/// Why a program can't go on, in words for whoever wrote it.
fn explain(error: &EvalAltResult) -> String {
    match error {
        EvalAltResult::ErrorTooManyOperations(position) => {
            format!("the program does more than {MAX_OPERATIONS} operations ({position})")
        }
        EvalAltResult::ErrorTerminated(_, position) => {
            format!(
                "the program takes more than {} seconds ({position})",
                MAX_TIME.as_secs()
            )
        }
        other => other.to_string(),
    }
}
