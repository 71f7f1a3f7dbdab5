//! What the watch makes of what it sees.

use super::judgement::excess;
use super::*;

const MIB: u64 = 1 << 20;

fn limits() -> Limits {
    Limits {
        disk: 100 * MIB,
        inodes: 1_000,
        ..Limits::default()
    }
}

fn usage(mebibytes: u64, inodes: u64) -> Usage {
    Usage {
        bytes: mebibytes * MIB,
        inodes,
        hidden: false,
    }
}

/// A session that holds as much as this, on a disk with as much room.
fn seen(total: Usage, free: u64) -> Seen {
    Seen {
        total,
        held: Holdings::default(),
        free: Free {
            bytes: free * MIB,
            inodes: 1 << 20,
            is_low: false,
        },
    }
}

fn low(mut seen: Seen) -> Seen {
    seen.free.is_low = true;
    seen
}

fn hiding(mut seen: Seen) -> Seen {
    seen.held.unseen = Some(Unseen::Mapped);
    seen
}

fn writing(mut seen: Seen, mebibytes: u64) -> Seen {
    seen.held.written = mebibytes * MIB;
    seen
}

fn over(cause: Cause, lowest: Usage, from: &Seen) -> Over {
    Over {
        cause,
        lowest,
        from: (from.free, from.held),
    }
}

#[test]
fn who_is_guilty() {
    use Cause::{Floor, Quota};
    let clear = seen(usage(50, 10), 1_000);
    let full = seen(usage(110, 10), 1_000);
    let (lowest, tight) = (usage(110, 10), low(seen(usage(50, 10), 40)));
    let by_quota = over(Quota, lowest, &full);
    let by_floor = over(Floor, usage(50, 10), &tight);
    let more = |seen: Seen, kibibytes: u64, inodes: u64| {
        let mut seen = seen;
        seen.total.bytes += kibibytes << 10;
        seen.total.inodes += inodes;
        seen
    };
    let less_free = |seen: Seen, mebibytes: u64| {
        let mut seen = seen;
        seen.free.bytes -= mebibytes * MIB;
        seen
    };
    // (what, while over, before, now, the cause and the guilt)
    let cases = [
        ("well within", None, clear, clear, None),
        (
            "over the quota for the first time",
            None,
            clear,
            full,
            Some((Quota, true)),
        ),
        (
            "too many files",
            None,
            clear,
            seen(usage(50, 1_001), 1_000),
            Some((Quota, true)),
        ),
        ("over it still", Some(by_quota), full, full, Some((Quota, false))),
        (
            "a log file grows a little",
            Some(by_quota),
            full,
            more(full, 200, 3),
            Some((Quota, false)),
        ),
        (
            "it grows a lot",
            Some(by_quota),
            full,
            more(full, 300, 0),
            Some((Quota, true)),
        ),
        (
            "many small files",
            Some(by_quota),
            full,
            more(full, 0, 20),
            Some((Quota, true)),
        ),
        (
            "small steps add up",
            Some(by_quota),
            more(full, 250, 0),
            more(full, 260, 0),
            Some((Quota, true)),
        ),
        (
            "what was written before is being removed",
            Some(by_quota),
            more(full, 9_000, 99),
            more(full, 8_000, 98),
            Some((Quota, false)),
        ),
        (
            "a little more after a burst that was killed",
            Some(by_quota),
            more(full, 9_000, 99),
            more(full, 9_004, 99),
            Some((Quota, true)),
        ),
        ("room again", Some(by_quota), full, clear, None),
        (
            "the disk fills by others",
            None,
            clear,
            low(seen(usage(50, 10), 40)),
            Some((Floor, false)),
        ),
        (
            "the disk fills by this one",
            None,
            clear,
            low(seen(usage(60, 10), 40)),
            Some((Floor, true)),
        ),
        (
            "from the floor over the quota",
            Some(by_floor),
            tight,
            low(full),
            Some((Quota, true)),
        ),
        (
            "from the quota to the floor",
            Some(by_quota),
            full,
            low(seen(usage(90, 9), 40)),
            Some((Floor, false)),
        ),
        (
            "nearly full, others write",
            Some(by_floor),
            tight,
            less_free(tight, 8),
            Some((Floor, false)),
        ),
        (
            "nearly full, and this one writes where nothing is seen",
            Some(by_floor),
            tight,
            writing(less_free(tight, 8), 8),
            Some((Floor, true)),
        ),
        (
            "nearly full, and this one writes over what it has",
            Some(by_floor),
            tight,
            writing(tight, 8),
            Some((Floor, false)),
        ),
        (
            "something is hidden, nothing is lost",
            None,
            clear,
            hiding(clear),
            None,
        ),
        (
            "something is hidden, some is lost",
            None,
            clear,
            hiding(less_free(clear, 90)),
            None,
        ),
        (
            "something is hidden, and more than the quota is lost",
            None,
            clear,
            hiding(less_free(clear, 101)),
            Some((Quota, true)),
        ),
        (
            "what was seen is hidden now",
            None,
            clear,
            hiding(less_free(seen(usage(0, 0), 1_000), 60)),
            Some((Quota, true)),
        ),
        (
            "nothing is hidden, others write",
            None,
            clear,
            less_free(clear, 900),
            None,
        ),
    ];
    for (what, over, before, now, expected) in cases {
        let verdict = match judge(&limits(), over.as_ref(), &clear, &before, &now) {
            Verdict::Fine => None,
            Verdict::Over { cause, is_guilty, .. } => Some((cause, is_guilty)),
        };
        assert_eq!(verdict, expected, "{what}");
    }
    let now = hiding(less_free(tight, 8));
    let verdict = judge(&limits(), Some(&by_floor), &tight, &tight, &now);
    let is_guilty = matches!(
        verdict,
        Verdict::Over {
            cause: Floor,
            is_guilty: true,
            ..
        }
    );
    assert!(
        is_guilty,
        "nearly full, and this one hides something: {verdict:?}"
    );
}

#[test]
fn a_loss_is_counted_from_where_it_began() {
    let start = writing(low(seen(usage(50, 10), 40)), 5);
    let mut over = over(Cause::Floor, start.total, &start);
    let free = |mebibytes| Free {
        bytes: mebibytes * MIB,
        ..start.free
    };
    let held = |mebibytes| writing(start, mebibytes).held;
    over.follow(held(6), free(38));
    assert_eq!(over.from, (free(40), held(5)), "it goes on");
    over.follow(held(2), free(38));
    assert_eq!(over.from, (free(40), held(2)), "a process took its count along");
    assert!(over.drains(held(3), free(36)));
    over.follow(held(3), free(36));
    assert_eq!(over.from, (free(36), held(3)), "it has been looked into");
    over.follow(held(4), free(39));
    assert_eq!(over.from, (free(39), held(4)), "there is more room");
    assert!(!over.drains(held(9), free(37)));
    let enough = Free {
        is_low: false,
        ..free(20)
    };
    assert!(!over.drains(held(9), enough));
}

#[test]
fn the_model_is_told_what_to_do() {
    let clear = seen(usage(50, 10), 1_000);
    let mut now = seen(usage(110, 10), 1_000);
    let told = |now: &Seen| excess(&limits(), &clear, now).unwrap();
    let text = told(&now);
    assert!(
        text.contains("over its disk quota") && text.contains("removed"),
        "{text}"
    );
    assert!(!text.contains("deleted files"), "{text}");
    (now.held.bytes, now.held.inodes) = (60 * MIB, 1);
    assert!(
        told(&now).contains("62914560 bytes are in deleted files"),
        "{}",
        told(&now)
    );
    now.total = usage(50, 10);
    assert_eq!(excess(&limits(), &clear, &now), None);
    now.total.hidden = true;
    assert!(told(&now).contains("can't be measured"), "{}", told(&now));
}
