//! Children that were opened with a parent token, in their parent's budgets.

use proptest::prelude::*;

use super::*;
use crate::id::SessionId;

fn child(number: usize) -> SessionId {
    SessionId::parse(&format!("ses_{number}")).unwrap()
}

fn lend(name: &SessionId, known: Option<(Option<Quota>, Standing)>) -> Input {
    Input::Lend {
        child: name.clone(),
        known,
    }
}

fn give_back(name: &SessionId, standing: Option<Standing>) -> Input {
    Input::GiveBack {
        child: name.clone(),
        standing,
    }
}

fn with_tokens(max: u64) -> Machine {
    Machine {
        quota: Some(Quota {
            max_tokens: Some(max),
            ..Quota::default()
        }),
        ..Machine::default()
    }
}

#[test]
fn a_share_is_set_aside_once_and_given_back_once() {
    let mut machine = with_tokens(10_000);
    let one = child(1);
    machine.feed(lend(&one, None)).unwrap();
    let share = machine.state.delegated.opened[&one].share.unwrap();
    assert_eq!(share.max_tokens, Some(5_000));
    assert_eq!(machine.state.spoken_for().usage.total(), 5_000);
    // It has not begun, then it has worked.
    assert_eq!(
        machine.feed(give_back(&one, Some(standing(0, 0)))),
        Err(Rejection::Stale)
    );
    machine.feed(give_back(&one, Some(standing(1, 2_000)))).unwrap();
    assert_eq!(machine.state.total().usage.total(), 2_000);
    assert_eq!(
        machine.feed(give_back(&one, Some(standing(1, 2_000)))),
        Err(Rejection::Stale)
    );
    // Another task may take what is left of its share; what was counted is not counted again.
    machine
        .feed(lend(&one, Some((Some(share), standing(1, 2_000)))))
        .unwrap();
    assert_eq!(machine.state.spoken_for().usage.total(), 5_000);
    machine.feed(give_back(&one, Some(standing(2, 4_500)))).unwrap();
    assert_eq!(machine.state.spoken_for().usage.total(), 4_500);
    // What others have taken meanwhile is not there any more.
    machine.quota = Some(Quota {
        max_tokens: Some(4_600),
        ..Quota::default()
    });
    assert_eq!(
        machine.feed(lend(&one, Some((Some(share), standing(2, 4_400))))),
        Err(Rejection::QuotaExceeded(Exceeded::Tokens))
    );
    machine.feed(give_back(&one, None)).unwrap();
    assert_eq!(
        machine.state.total().usage.total(),
        4_500,
        "what is gone was counted"
    );
    assert!(machine.state.delegated.opened.is_empty());
}

#[test]
fn a_second_message_keeps_the_share_until_it_is_worked_off() {
    let mut machine = with_tokens(10_000);
    let one = child(1);
    machine.feed(lend(&one, None)).unwrap();
    let share = machine.state.delegated.opened[&one].share;
    machine.feed(lend(&one, Some((share, standing(1, 100))))).unwrap();
    assert_eq!(
        machine.feed(give_back(&one, Some(standing(1, 300)))),
        Err(Rejection::Stale)
    );
    machine.feed(give_back(&one, Some(standing(2, 400)))).unwrap();
    assert_eq!(machine.state.total().usage.total(), 400);
}

#[test]
fn children_are_bounded_in_number_and_by_what_is_left() {
    let mut machine = Machine::default();
    for number in 0..MAX_OPENED {
        machine.feed(lend(&child(number), None)).unwrap();
    }
    assert_eq!(
        machine.feed(lend(&child(MAX_OPENED), None)),
        Err(Rejection::TooManyChildren)
    );
    for (quota, cap) in [
        (
            Quota {
                max_tokens: Some(1_000),
                ..Quota::default()
            },
            Exceeded::Tokens,
        ),
        (
            Quota {
                max_cost: Some(NanoUsd(1)),
                ..Quota::default()
            },
            Exceeded::Cost,
        ),
        (
            Quota {
                max_wall_ms: Some(1),
                ..Quota::default()
            },
            Exceeded::Duration,
        ),
    ] {
        let mut machine = Machine {
            quota: Some(quota),
            ..Machine::default()
        };
        assert_eq!(
            machine.feed(lend(&child(1), None)),
            Err(Rejection::QuotaExceeded(cap))
        );
    }
}

#[derive(Debug, Clone)]
enum Move {
    Open,
    /// Another task for one of them.
    Again(prop::sample::Index),
    /// One of them consumes a part of what it may still consume, and rests.
    Rest(prop::sample::Index, f64),
    /// One of them goes, at rest.
    Delete(prop::sample::Index),
    /// The parent makes a request and consumes a part of what that may.
    Own(f64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let index = any::<prop::sample::Index>;
    let part = 0.0..=1.0f64;
    let step = prop_oneof![
        Just(Move::Open),
        index().prop_map(Move::Again),
        (index(), part.clone()).prop_map(|(at, part)| Move::Rest(at, part)),
        index().prop_map(Move::Delete),
        part.prop_map(Move::Own),
    ];
    prop::collection::vec(step, 0..60)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a part of a small number"
)]
fn part_of(whole: u64, part: f64) -> u64 {
    (whole as f64 * part) as u64
}

/// A child: its cap, how many tasks it was given, what it has consumed, whether it is at work.
#[derive(Debug, Clone)]
struct Child {
    id: SessionId,
    cap: Option<Quota>,
    turns: u64,
    spent: u64,
    works: bool,
    gone: bool,
}

proptest! {
    /// A parent and whoever works on its behalf stay within its budgets, whenever each is given work and rests; and
    /// everything that they consumed is counted in the parent in the end, once.
    #[test]
    fn a_family_stays_within_its_budgets(moves in moves(), max in 1..60_000u64) {
        let quota = Quota { max_cost: Some(NanoUsd(max)), max_tokens: Some(max), max_wall_ms: None };
        let mut machine = Machine { quota: Some(quota), ..Machine::default() };
        let mut children: Vec<Child> = Vec::new();
        for (n, step) in moves.into_iter().enumerate() {
            match step {
                Move::Open => {
                    let id = child(n);
                    if machine.feed(lend(&id, None)).is_ok() {
                        let cap = machine.state.delegated.opened[&id].share;
                        children.push(Child { id, cap, turns: 1, spent: 0, works: true, gone: false });
                    }
                }
                Move::Again(at) if !children.is_empty() => {
                    let one = at.get(&children).clone();
                    let known = Some((one.cap, standing(one.turns, one.spent)));
                    if !one.gone && machine.feed(lend(&one.id, known)).is_ok() {
                        let one = children.iter_mut().find(|other| other.id == one.id).unwrap();
                        one.turns += 1;
                        one.works = true;
                    }
                }
                Move::Rest(at, part) if !children.is_empty() => {
                    let at = at.index(children.len());
                    let one = &mut children[at];
                    if one.works {
                        let left = one.cap.unwrap().max_tokens.unwrap() - one.spent;
                        one.spent += part_of(left, part);
                        one.works = false;
                        machine.feed(give_back(&one.id, Some(standing(one.turns, one.spent)))).unwrap();
                    }
                }
                Move::Delete(at) if !children.is_empty() => {
                    let at = at.index(children.len());
                    let one = &mut children[at];
                    if !one.works && !one.gone {
                        one.gone = true;
                        machine.feed(give_back(&one.id, None)).unwrap();
                    }
                }
                Move::Own(part) => {
                    let _refused = machine.feed(post(&format!("m{n}")));
                    let request = format!("r{n}");
                    if machine.state.is_running() {
                        machine.feed(begin_bounded(&request, 1_000, 4_000, true)).unwrap();
                    }
                    if let Some(Step::Sampling { max_output, .. }) = machine.state.turn().map(|turn| &turn.step) {
                        let output = part_of(max_output.unwrap_or(4_000), part);
                        let usage = Usage { input: 1_000, output, ..Usage::default() };
                        let cost = Some(Cost { amount: NanoUsd(usage.total()), source: "test".into() });
                        let reply = Reply {
                            blocks: vec![],
                            model: "p/m".into(),
                            usage,
                            cost,
                            stop: ReplyStop::Done,
                        };
                        machine.feed(Input::FinishRequest { request: id(&request), reply }).unwrap();
                    }
                }
                Move::Again(_) | Move::Rest(..) | Move::Delete(_) => {}
            }
            let consumed = machine.state.usage.total() + children.iter().map(|child| child.spent).sum::<u64>();
            prop_assert!(consumed <= max);
            prop_assert!(machine.state.spoken_for().usage.total() <= max);
            prop_assert!(machine.state.spoken_for().cost.known.0 <= max);
        }
        for one in children.iter().filter(|child| child.works) {
            machine.feed(give_back(&one.id, Some(standing(one.turns, one.spent)))).unwrap();
        }
        let consumed = machine.state.usage.total() + children.iter().map(|child| child.spent).sum::<u64>();
        prop_assert_eq!(machine.state.total().usage.total(), consumed);
        prop_assert_eq!(machine.state.spoken_for().usage.total(), consumed);
    }
}
