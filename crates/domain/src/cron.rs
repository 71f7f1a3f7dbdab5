//! Cron expressions: five fields (minute, hour, day of month, month, day of week), matched against the wall clock of a
//! time zone.
//!
//! A field is `*`, a number, a range `a-b`, a step `*/n` or `a-b/n`, or a list of these. Months and days of the week may
//! be named by three letters; Sunday is 0 and 7. When the day of the month and the day of the week are both restricted
//! (neither contains `*`), a day that matches either one matches.
//!
//! Invariant: an instant matches if and only if the wall clock shows a whole minute then that matches. So a time that
//! the clocks skip does not occur, and one that they show twice occurs twice.

use std::fmt;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, ToSpan as _};
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The longest expression, in bytes.
pub const MAX_LEN: usize = 256;
/// How far the search for the next match goes: the rarest days that there are (a 29 February on one day of the week)
/// come again within 40 years.
const HORIZON_YEARS: i16 = 50;

/// Why a text is no cron expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It is too long.
    #[error("must have at most {MAX_LEN} characters")]
    Long,
    /// It has another number of fields.
    #[error("must have 5 fields (minute, hour, day of month, month, day of week), not {0}")]
    Fields(usize),
    /// A part of a field is none of the forms.
    #[error("{field}: '{part}' is none of *, a number, a range a-b, a step */n or a-b/n")]
    Part {
        /// The field.
        field: &'static str,
        /// The part of its list.
        part: String,
    },
    /// A number is beyond what the field can hold.
    #[error("{field}: {number} is not between {min} and {max}")]
    Beyond {
        /// The field.
        field: &'static str,
        /// The number.
        number: u32,
        /// The least.
        min: u8,
        /// The most.
        max: u8,
    },
    /// A range ends before it begins.
    #[error("{field}: the range '{part}' ends before it begins")]
    Backwards {
        /// The field.
        field: &'static str,
        /// The range.
        part: String,
    },
    /// No calendar has such a day.
    #[error("names a day that no month has")]
    Never,
}

/// A field's place in an expression and what it can hold.
struct Field {
    name: &'static str,
    min: u8,
    max: u8,
    names: &'static [&'static str],
}

const MINUTE: Field = Field {
    name: "minute",
    min: 0,
    max: 59,
    names: &[],
};
const HOUR: Field = Field {
    name: "hour",
    min: 0,
    max: 23,
    names: &[],
};
const DAY: Field = Field {
    name: "day of month",
    min: 1,
    max: 31,
    names: &[],
};
const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
const WEEKDAY: Field = Field {
    name: "day of week",
    min: 0,
    max: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

/// What a field matches: one bit for each number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Set {
    bits: u64,
    /// Whether it contains `*`.
    open: bool,
}

impl Set {
    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| self.bits.checked_shr(number).unwrap_or(0) & 1 == 1)
    }

    /// The least number from `least` on.
    fn from(self, least: i8) -> Option<i8> {
        let least = u32::try_from(least).ok()?;
        let rest = self.bits.checked_shr(least)?;
        (rest != 0).then(|| i8::try_from(rest.trailing_zeros() + least).ok())?
    }
}

impl Field {
    fn parse(&self, text: &str) -> Result<Set, Invalid> {
        let mut set = Set { bits: 0, open: false };
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, Some(self.digits(step, part)?)),
                None => (part, None),
            };
            let (first, last) = match (range, range.split_once('-')) {
                ("*", _) => {
                    set.open = true;
                    (self.min, self.max)
                }
                (_, Some((first, last))) => {
                    let (first, end) = (self.number(first, part)?, self.number(last, part)?);
                    // A week that ends with a Sunday called by its name.
                    let is_sunday = self.max == 7 && end == 0 && first > 0;
                    (first, if is_sunday { 7 } else { end })
                }
                // A step needs something to step through.
                (_, None) if step.is_some() => return Err(self.unreadable(part)),
                (number, None) => {
                    let number = self.number(number, part)?;
                    (number, number)
                }
            };
            if last < first {
                return Err(Invalid::Backwards {
                    field: self.name,
                    part: part.to_owned(),
                });
            }
            let step = match step {
                None => 1,
                Some(0) => return Err(self.unreadable(part)),
                Some(step) => usize::try_from(step).unwrap_or(usize::MAX),
            };
            for number in (first..=last).step_by(step) {
                set.bits |= 1 << number;
            }
        }
        if self.max == 7 && set.bits >> 7 == 1 {
            set.bits = set.bits & 0x7f | 1;
        }
        Ok(set)
    }

    fn unreadable(&self, part: &str) -> Invalid {
        Invalid::Part {
            field: self.name,
            part: part.to_owned(),
        }
    }

    fn digits(&self, text: &str, part: &str) -> Result<u32, Invalid> {
        let plain = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
        let number = plain.then(|| text.parse().ok()).flatten();
        number.ok_or_else(|| self.unreadable(part))
    }

    fn number(&self, text: &str, part: &str) -> Result<u8, Invalid> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        if let Some(index) = named.and_then(|index| u8::try_from(index).ok()) {
            // The first name is that of the least number.
            return Ok(self.min + index);
        }
        let number = self.digits(text, part)?;
        match u8::try_from(number) {
            Ok(number) if (self.min..=self.max).contains(&number) => Ok(number),
            _ => Err(Invalid::Beyond {
                field: self.name,
                number,
                min: self.min,
                max: self.max,
            }),
        }
    }
}

/// A cron expression.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cron {
    text: String,
    minutes: Set,
    hours: Set,
    days: Set,
    months: Set,
    weekdays: Set,
}

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// [`Invalid`], with the field that is wrong.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.len() > MAX_LEN {
            return Err(Invalid::Long);
        }
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let &[minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(Invalid::Fields(fields.len()));
        };
        let cron = Self {
            text: fields.join(" "),
            minutes: MINUTE.parse(minutes)?,
            hours: HOUR.parse(hours)?,
            days: DAY.parse(days)?,
            months: MONTH.parse(months)?,
            weekdays: WEEKDAY.parse(weekdays)?,
        };
        // From a leap year on, over all days that there are.
        let (from, last) = (Date::constant(2000, 1, 1), Date::constant(2050, 1, 1));
        match cron.from(from.at(0, 0, 0, 0), last) {
            Some(_) => Ok(cron),
            None => Err(Invalid::Never),
        }
    }

    /// The expression, with single spaces.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first instant after `at` at which the clocks of the zone show a time that matches; `None` when there is none
    /// within 50 years.
    #[must_use]
    pub fn after(&self, zone: &TimeZone, at: Timestamp) -> Option<Timestamp> {
        let begin = jiff::Timestamp::from_millisecond(at.as_millis()).ok()?;
        let horizon = begin
            .to_zoned(TimeZone::UTC)
            .checked_add(Span::new().years(HORIZON_YEARS))
            .map_or(jiff::Timestamp::MAX, |end| end.timestamp());
        // Between two changes of a zone's offset its wall clock is a plain calendar.
        let mut start = begin;
        let mut inclusive = false;
        while start < horizon {
            let offset = zone.to_offset(start);
            let end = zone.following(start).next().map(|change| change.timestamp());
            let local = offset.to_datetime(start);
            let whole = local.second() == 0 && local.subsec_nanosecond() == 0;
            let minute = local.with().second(0).subsec_nanosecond(0).build().ok()?;
            let from = if inclusive && whole {
                minute
            } else {
                minute.checked_add(1.minute()).ok()?
            };
            let last = offset
                .to_datetime(end.map_or(horizon, |end| end.min(horizon)))
                .date();
            let found = self
                .from(from, last)
                .and_then(|found| offset.to_timestamp(found).ok());
            match (found, end) {
                (Some(found), end) if end.is_none_or(|end| found < end) => {
                    return Some(Timestamp(found.as_millisecond()));
                }
                (_, Some(end)) => start = end,
                (_, None) => return None,
            }
            inclusive = true;
        }
        None
    }

    /// The first time that matches from `from` on, on no later day than `last`.
    fn from(&self, from: DateTime, last: Date) -> Option<DateTime> {
        let mut date = from.date();
        let (mut hour, mut minute) = (from.hour(), from.minute());
        while date <= last {
            if !self.months.has(date.month()) {
                date = date.last_of_month().tomorrow().ok()?;
            } else {
                if self.has_day(date)
                    && let Some((hour, minute)) = self.time_from(hour, minute)
                {
                    return Some(date.at(hour, minute, 0, 0));
                }
                date = date.tomorrow().ok()?;
            }
            (hour, minute) = (0, 0);
        }
        None
    }

    fn has_day(&self, date: Date) -> bool {
        let day = self.days.has(date.day());
        let weekday = self.weekdays.has(date.weekday().to_sunday_zero_offset());
        if self.days.open || self.weekdays.open {
            day && weekday
        } else {
            day || weekday
        }
    }

    fn time_from(&self, hour: i8, minute: i8) -> Option<(i8, i8)> {
        let found = self.hours.from(hour)?;
        if found > hour {
            return Some((found, self.minutes.from(0)?));
        }
        match self.minutes.from(minute) {
            Some(minute) => Some((found, minute)),
            None => Some((self.hours.from(hour + 1)?, self.minutes.from(0)?)),
        }
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl TryFrom<String> for Cron {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<Cron> for String {
    fn from(cron: Cron) -> Self {
        cron.text
    }
}

#[cfg(test)]
mod tests;
