//! Cron expressions and the names of time zones: what is accepted has a next time, whose wall clock matches it.

#![no_main]

use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;
use oma_domain::Timestamp;
use oma_domain::cron::Cron;

const ZONES: [&str; 4] = ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns"];

fuzz_target!(|input: (&str, u8, u32)| {
    let (text, zone, minute) = input;
    if let Some(canonical) = oma_engine::timezone(text) {
        assert_eq!(oma_engine::timezone(&canonical), Some(canonical));
    }
    let Ok(cron) = Cron::parse(text) else {
        return;
    };
    assert_eq!(Cron::parse(cron.as_str()), Ok(cron.clone()), "one spelling");
    let zone = TimeZone::get(ZONES[usize::from(zone) % ZONES.len()]).expect("it is bundled");
    let mut at = Timestamp(i64::from(minute) * 60_000);
    for _ in 0..3 {
        let Some(next) = cron.after(&zone, at) else {
            return;
        };
        assert!(next > at && next.0 % 1000 == 0, "{text} {next:?}");
        // Nothing was passed over: one millisecond before it is still the next one.
        assert_eq!(cron.after(&zone, Timestamp(next.0 - 1)), Some(next));
        at = next;
    }
});
