//! Samples and the table of results.

use std::fmt;
use std::time::Duration;

/// The row below a figure's, which says what it is in the Claude dialect.
pub(crate) const SAME: &str = "  the same in the Claude dialect";
/// How much longer that may take.
pub(crate) const AIM: &str = "< x1.10";

/// Durations of one thing, done many times.
#[derive(Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// The value that `percent` of the samples do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let index = (sorted.len().saturating_sub(1)) * percent / 100;
        sorted.get(index).copied().unwrap_or_default()
    }
}

impl Extend<Duration> for Samples {
    fn extend<T: IntoIterator<Item = Duration>>(&mut self, iter: T) {
        self.0.extend(iter);
    }
}

#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<[String; 5]>,
}

impl Table {
    /// A row of durations beside its floor.
    pub(crate) fn row(&mut self, what: &str, ours: &Samples, aim: &str, floor: Option<(&str, &Samples)>) {
        let half = ours.percentile(50);
        let beside = match floor {
            Some((name, samples)) => {
                let other = samples.percentile(50);
                let ratio = half.as_secs_f64() / other.as_secs_f64().max(1e-9);
                format!("{name} {} (x{ratio:.2})", show(other))
            }
            None => "-".to_owned(),
        };
        self.rows.push([
            what.to_owned(),
            show(half),
            show(ours.percentile(99)),
            aim.to_owned(),
            beside,
        ]);
    }

    /// A row of any other figure.
    pub(crate) fn figure(&mut self, what: &str, value: String, aim: &str, beside: &str) {
        self.rows.push([
            what.to_owned(),
            value,
            "-".to_owned(),
            aim.to_owned(),
            beside.to_owned(),
        ]);
    }
}

fn show(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["figure", "p50", "p99", "aim", "in the same run"].map(str::to_owned);
        let all = || std::iter::once(&head).chain(&self.rows);
        let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 5] = std::array::from_fn(width);
        for (index, row) in all().enumerate() {
            for (cell, width) in row.iter().zip(widths) {
                write!(f, "| {cell:width$} ")?;
            }
            writeln!(f, "|")?;
            if index == 0 {
                for width in widths {
                    write!(f, "|{}", "-".repeat(width + 2))?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}
