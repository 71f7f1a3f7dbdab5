use proptest::prelude::*;

use super::*;

#[test]
fn months_are_those_of_the_calendar() {
    let day = |text: &str| {
        let moment: jiff::Timestamp = format!("{text}T12:00:00Z").parse().unwrap();
        Timestamp(moment.as_millisecond())
    };
    for (at, first, last) in [
        ("2026-01-01", "2026-01-01", "2026-01-31"),
        ("2026-02-28", "2026-02-01", "2026-02-28"),
        ("2028-02-29", "2028-02-01", "2028-02-29"),
        ("2026-12-31", "2026-12-01", "2026-12-31"),
        ("1969-12-31", "1969-12-01", "1969-12-31"),
    ] {
        let days = |text: &str| day(text).as_millis().div_euclid(MILLIS_PER_DAY);
        let month = Month::of(day(at));
        assert_eq!((month.first, month.last), (days(first), days(last)), "{at}");
        assert!(month.has(days(at)) && !month.has(days(last) + 1) && !month.has(days(first) - 1));
    }
    let end = Timestamp(i64::MAX);
    assert!(Month::of(end).has(i64::MAX.div_euclid(MILLIS_PER_DAY)));
}

fn account(key: Option<u8>) -> Account {
    let workspace = WorkspaceId::default_workspace();
    match key {
        None => Account::Workspace(workspace),
        Some(key) => Account::Key(workspace, KeyId::parse(&format!("key_{key}")).unwrap()),
    }
}

fn ledger(caps: [Monthly; 3]) -> Ledger {
    let ledger = Ledger::default();
    for (key, caps) in [None, Some(0), Some(1)].into_iter().zip(caps) {
        let balance = Balance {
            month: Month::of(Timestamp(0)),
            caps,
            spent: Amount::default(),
            reserved: HashMap::new(),
        };
        ledger.lock().insert(account(key), balance);
    }
    ledger
}

fn bound(input: u64, output: u64) -> Bound {
    let price = Some(oma_domain::quota::Price {
        input: NanoUsd(input),
        output_token: NanoUsd(2),
    });
    Bound { input, output, price }
}

fn used(day: i64, tokens: u64, cost: u64) -> Used {
    Used {
        day,
        model: "p/m".into(),
        key: None,
        requests: 1,
        usage: Usage {
            output: tokens,
            ..Usage::default()
        },
        cost: CostTotal {
            known: NanoUsd(cost),
            unknown_requests: 0,
        },
    }
}

#[test]
fn what_others_have_reserved_is_waited_for_and_what_they_consumed_is_not() {
    let tokens = Monthly {
        max_cost: None,
        max_tokens: Some(10_000),
    };
    let ledger = ledger([Monthly::default(), tokens, Monthly::default()]);
    let accounts = [account(Some(0)), account(None)];
    let (one, two) = (EventId::generate(), EventId::generate());
    let bound = bound(1_000, 8_000);
    assert_eq!(ledger.reserve(&accounts, &one, &bound), Verdict::Granted(8_000));
    assert_eq!(ledger.reserve(&accounts, &two, &bound), Verdict::Crowded);
    let others = [account(Some(1)), account(None)];
    assert_eq!(
        ledger.reserve(&others, &two, &bound),
        Verdict::Granted(8_000),
        "another key's"
    );
    ledger.settle(&others, &two, None, Unreported::default());
    // Less was needed than was reserved: others may have the rest.
    ledger.settle(&accounts, &one, Some(&used(3, 4_000, 0)), Unreported::default());
    assert_eq!(ledger.reserve(&accounts, &two, &bound), Verdict::Granted(5_000));
    ledger.settle(&accounts, &two, Some(&used(3, 5_900, 0)), Unreported::default());
    assert_eq!(ledger.exceeded(&accounts, None), None);
    let held = ledger.exceeded(&accounts, Some(&bound));
    assert_eq!(held, Some(Exceeded::KeyTokens), "too little for such a one");
    let refused = Verdict::Exceeded(Exceeded::KeyTokens);
    assert_eq!(ledger.reserve(&accounts, &one, &bound), refused);
    // What ended in another month is none of this one's.
    ledger.settle(
        &accounts,
        &two,
        Some(&used(40, 1_000_000, 0)),
        Unreported::default(),
    );
    assert_eq!(ledger.exceeded(&accounts, None), None);
    ledger.settle(&accounts, &two, Some(&used(30, 200, 0)), Unreported::default());
    assert_eq!(ledger.exceeded(&accounts, None), Some(Exceeded::KeyTokens));
    assert_eq!(ledger.exceeded(&others, None), None);
}

#[derive(Debug, Clone)]
enum Move {
    Begin {
        key: u8,
        input: u64,
        output: u64,
    },
    /// One of those under way ends: a part of its output, or nothing.
    End(prop::sample::Index, f64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let begin = (0..2u8, 0..3_000u64, 0..8_000u64).prop_map(|(key, input, output)| Move::Begin {
        key,
        input,
        output,
    });
    let end = (any::<prop::sample::Index>(), 0.0..=1.0f64).prop_map(|(at, part)| Move::End(at, part));
    prop::collection::vec(prop_oneof![begin, end], 0..80)
}

fn caps() -> impl Strategy<Value = Monthly> {
    let cap = || prop::option::of(1..60_000u64);
    (cap(), cap()).prop_map(|(cost, max_tokens)| Monthly {
        max_cost: cost.map(NanoUsd),
        max_tokens,
    })
}

proptest! {
    /// However many requests are under way at once, of whichever keys: what they consume together stays within the
    /// budgets of each key and of the workspace, as long as each keeps to what was reckoned for it. And whoever has
    /// to wait does so for somebody who will end.
    #[test]
    fn requests_side_by_side_stay_within_the_budgets(
        workspace in caps(), keys in [caps(), caps()], moves in moves(),
    ) {
        let all = [workspace, keys[0], keys[1]];
        let ledger = ledger(all);
        let mut under_way: Vec<(u8, EventId, u64, u64)> = Vec::new();
        let mut spent = [Amount::default(); 3];
        for step in moves {
            match step {
                Move::Begin { key, input, output } => {
                    let accounts = [account(Some(key)), account(None)];
                    let id = EventId::generate();
                    match ledger.reserve(&accounts, &id, &bound(input, output)) {
                        Verdict::Granted(output) => under_way.push((key, id, input, output)),
                        Verdict::Crowded => prop_assert!(!under_way.is_empty()),
                        Verdict::Exceeded(_) => {}
                    }
                }
                Move::End(at, part) if !under_way.is_empty() => {
                    let (key, id, input, output) = under_way.swap_remove(at.index(under_way.len()));
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss,
                        reason = "a part of a small number")]
                    let output = (output as f64 * part) as u64;
                    let amount = Amount { tokens: input + output, cost: NanoUsd(input + 2 * output) };
                    for index in [0, usize::from(key) + 1] {
                        spent[index] = spent[index].plus(amount);
                    }
                    let used = used(3, amount.tokens, amount.cost.0);
                    ledger.settle(&[account(Some(key)), account(None)], &id, Some(&used), Unreported::default());
                }
                Move::End(..) => {}
            }
            for (caps, spent) in all.iter().zip(spent) {
                prop_assert!(caps.max_tokens.is_none_or(|max| spent.tokens <= max));
                prop_assert!(caps.max_cost.is_none_or(|max| spent.cost <= max));
            }
        }
    }
}
