use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;

fn instant(text: &str) -> Timestamp {
    Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

/// The next matches after a time, as the zone's clocks show them.
fn next(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let cron = Cron::parse(expression).unwrap();
    let zone = TimeZone::get(zone).unwrap();
    let mut at = instant(after);
    let mut found = Vec::new();
    while found.len() < count
        && let Some(next) = cron.after(&zone, at)
    {
        at = next;
        let shown = jiff::Timestamp::from_millisecond(at.0)
            .unwrap()
            .to_zoned(zone.clone());
        found.push(shown.strftime("%Y-%m-%d %H:%M%:z").to_string());
    }
    found
}

#[test]
fn plain_expressions() {
    for (expression, after, expected) in [
        (
            "* * * * *",
            "2026-11-28T22:00:00Z",
            ["2026-11-28 22:01+00:00", "2026-11-28 22:02+00:00"],
        ),
        (
            "* * * * *",
            "2026-11-28T21:59:59.999Z",
            ["2026-11-28 22:00+00:00", "2026-11-28 22:01+00:00"],
        ),
        (
            "*/20 9-17/4 * * *",
            "2026-11-28T13:40:00Z",
            ["2026-11-28 17:00+00:00", "2026-11-28 17:20+00:00"],
        ),
        (
            "0 9 * * MON-FRI",
            "2026-11-27T09:00:00Z",
            ["2026-11-30 09:00+00:00", "2026-12-01 09:00+00:00"],
        ),
        (
            "0 0 1 jan,Jul *",
            "2026-11-28T00:00:00Z",
            ["2027-01-01 00:00+00:00", "2027-07-01 00:00+00:00"],
        ),
        // Either one, because both are restricted.
        (
            "0 0 13 * 5",
            "2026-11-28T00:00:00Z",
            ["2026-12-04 00:00+00:00", "2026-12-11 00:00+00:00"],
        ),
        (
            "0 0 13 * 1",
            "2026-12-08T00:00:00Z",
            ["2026-12-13 00:00+00:00", "2026-12-14 00:00+00:00"],
        ),
        // Both, because one of them has a star.
        (
            "0 0 13 * */5",
            "2026-11-28T00:00:00Z",
            ["2026-12-13 00:00+00:00", "2027-06-13 00:00+00:00"],
        ),
        (
            "0 0 * * 7",
            "2026-11-28T00:00:00Z",
            ["2026-11-29 00:00+00:00", "2026-12-06 00:00+00:00"],
        ),
        (
            "0 0 * * fri-sun",
            "2026-11-28T00:00:00Z",
            ["2026-11-29 00:00+00:00", "2026-12-04 00:00+00:00"],
        ),
        (
            "0 0 29 2 *",
            "2026-11-28T00:00:00Z",
            ["2028-02-29 00:00+00:00", "2032-02-29 00:00+00:00"],
        ),
        (
            "  59   23 31 * * ",
            "2026-11-28T00:00:00Z",
            ["2026-12-31 23:59+00:00", "2027-01-31 23:59+00:00"],
        ),
    ] {
        assert_eq!(next(expression, "UTC", after, 2), expected, "{expression}");
    }
}

#[test]
fn clocks_that_change() {
    for (expression, zone, after, expected) in [
        // 2:00 to 3:00 is skipped on 28 March 2027.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2027-03-27T00:00:00Z",
            vec!["2027-03-27 02:30+01:00", "2027-03-29 02:30+02:00"],
        ),
        (
            "*/30 1-3 28 3 *",
            "Europe/Berlin",
            "2027-03-27T00:00:00Z",
            vec![
                "2027-03-28 01:00+01:00",
                "2027-03-28 01:30+01:00",
                "2027-03-28 03:00+02:00",
                "2027-03-28 03:30+02:00",
            ],
        ),
        // 2:00 to 3:00 is there twice on 31 October 2027.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2027-10-30T12:00:00Z",
            vec![
                "2027-10-31 02:30+02:00",
                "2027-10-31 02:30+01:00",
                "2027-11-01 02:30+01:00",
            ],
        ),
        (
            "0 * * * *",
            "America/New_York",
            "2026-11-01T04:30:00Z",
            vec![
                "2026-11-01 01:00-04:00",
                "2026-11-01 01:00-05:00",
                "2026-11-01 02:00-05:00",
            ],
        ),
        // The first instant of the second pass matches, and so does the first after a gap.
        (
            "0 2 * * *",
            "Europe/Berlin",
            "2027-10-30T12:00:00Z",
            vec!["2027-10-31 02:00+02:00", "2027-10-31 02:00+01:00"],
        ),
        (
            "0 3 * * *",
            "Europe/Berlin",
            "2027-03-27T12:00:00Z",
            vec!["2027-03-28 03:00+02:00"],
        ),
        // By half an hour.
        (
            "*/15 1-2 4 4 *",
            "Australia/Lord_Howe",
            "2027-04-03T12:00:00Z",
            vec![
                "2027-04-04 01:00+11:00",
                "2027-04-04 01:15+11:00",
                "2027-04-04 01:30+11:00",
                "2027-04-04 01:45+11:00",
                "2027-04-04 01:30+10:30",
                "2027-04-04 01:45+10:30",
                "2027-04-04 02:00+10:30",
            ],
        ),
        // An offset that is no whole hour.
        (
            "0 9 * * *",
            "Asia/Kathmandu",
            "2026-11-28T00:00:00Z",
            vec!["2026-11-28 09:00+05:45"],
        ),
        // Midnight is skipped.
        (
            "0 0 * * *",
            "Africa/Cairo",
            "2027-04-28T22:00:00Z",
            vec!["2027-05-01 00:00+03:00"],
        ),
    ] {
        let found = next(expression, zone, after, expected.len());
        assert_eq!(found, expected, "{expression} {zone}");
    }
}

#[test]
fn what_is_refused() {
    for (expression, part) in [
        ("", "5 fields"),
        ("* * * *", "not 4"),
        ("* * * * * *", "not 6"),
        ("@daily", "not 1"),
        ("60 * * * *", "minute: 60 is not between 0 and 59"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day of month: 0"),
        ("* * 32 * *", "day of month"),
        ("* * * 13 *", "month"),
        ("* * * * 8", "day of week"),
        ("* * L * *", "day of month: 'L'"),
        ("* * 15W * *", "15W"),
        ("* * * * 5#2", "5#2"),
        ("* * ? * *", "'?'"),
        ("5/15 * * * *", "5/15"),
        ("*/0 * * * *", "*/0"),
        ("*/ * * * *", "*/"),
        ("1- * * * *", "1-"),
        ("-1 * * * *", "-1"),
        ("+1 * * * *", "+1"),
        ("1,,2 * * * *", "''"),
        ("9-5 * * * *", "ends before"),
        ("* * 30 2 *", "no month has"),
        ("* * 31 4,6,9,11 *", "no month has"),
        ("* * * foo *", "foo"),
        ("99999 * * * *", "99999"),
        ("٣ * * * *", "minute"),
    ] {
        let refused = Cron::parse(expression).unwrap_err().to_string();
        assert!(refused.contains(part), "{expression}: {refused}");
    }
    assert_eq!(Cron::parse(&"*".repeat(300)), Err(Invalid::Long));
}

/// Whether the clocks of the zone show a matching minute, by the definition.
fn matches(cron: &Cron, zone: &TimeZone, at: jiff::Timestamp) -> bool {
    let shown = zone.to_datetime(at);
    cron.minutes.has(shown.minute())
        && cron.hours.has(shown.hour())
        && cron.months.has(shown.month())
        && cron.has_day(shown.date())
}

proptest! {
    /// Over two days around changes of the clocks, exactly those minutes are found that match.
    #[test]
    fn all_matches_and_only_they_are_found(
        minutes in "(\\*|[0-5]?[0-9]|\\*/[1-9][0-9]?)",
        hours in "(\\*|1?[0-9]|\\*/[1-9]|[0-4]-[5-9])",
        days in "(\\*|2[89]|3[01])",
        weekdays in "(\\*|[0-7])",
        place in 0..4_usize,
    ) {
        let (zone, begin) = [
            ("Europe/Berlin", "2027-03-27T12:00:00Z"),
            ("Europe/Berlin", "2027-10-30T12:00:00Z"),
            ("Australia/Lord_Howe", "2027-04-03T00:00:00Z"),
            ("America/St_Johns", "2027-03-13T12:00:00Z"),
        ][place];
        let cron = Cron::parse(&format!("{minutes} {hours} {days} * {weekdays}")).unwrap();
        let zone = TimeZone::get(zone).unwrap();
        let begin: jiff::Timestamp = begin.parse().unwrap();
        let mut expected = Vec::new();
        for minute in 1..=2 * 24 * 60 {
            let at = begin + jiff::SignedDuration::from_mins(minute);
            if matches(&cron, &zone, at) {
                expected.push(at.as_millisecond());
            }
        }
        let end = (begin + jiff::SignedDuration::from_hours(48)).as_millisecond();
        let mut found = Vec::new();
        let mut at = Timestamp(begin.as_millisecond());
        while let Some(next) = cron.after(&zone, at) && next.0 <= end {
            found.push(next.0);
            at = next;
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[-*/,0-9 a-zA-Z#?@]{0,40}|\\PC{0,40}") {
        if let Ok(cron) = Cron::parse(&text) {
            prop_assert_eq!(&Cron::parse(cron.as_str()).unwrap(), &cron);
            let at = Timestamp(1_790_000_000_000);
            let next = cron.after(&TimeZone::UTC, at);
            prop_assert!(next.is_some_and(|next| next > at), "{:?}", cron);
        }
    }
}
