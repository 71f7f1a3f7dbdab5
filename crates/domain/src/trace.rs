//! Where a piece of work stands in a distributed trace, as W3C Trace Context writes it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A `traceparent` of version 00: the trace, the span that caused the work, and whether it is recorded
/// (<https://www.w3.org/TR/trace-context/>).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceParent {
    trace: u128,
    span: u64,
    flags: u8,
}

/// A text that is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent of version 00")]
pub struct Malformed;

impl TraceParent {
    /// From its parts; `None` when the trace or the span is zero, which stands for "none".
    #[must_use]
    pub fn new(trace: u128, span: u64, flags: u8) -> Option<Self> {
        (trace != 0 && span != 0).then_some(Self { trace, span, flags })
    }

    /// Reads the header. Later versions may say more after the flags, so they are read as far as this one goes.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let mut parts = text.split('-');
        let version = hex(parts.next(), 2)?;
        let (trace, span, flags) = (
            hex(parts.next(), 32)?,
            hex(parts.next(), 16)?,
            hex(parts.next(), 2)?,
        );
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return Err(Malformed);
        }
        let (span, flags) = (u64::try_from(span), u8::try_from(flags));
        let (span, flags) = (span.map_err(|_| Malformed)?, flags.map_err(|_| Malformed)?);
        Self::new(trace, span, flags).ok_or(Malformed)
    }

    /// The trace's id.
    #[must_use]
    pub fn trace(&self) -> u128 {
        self.trace
    }

    /// The id of the span that caused the work.
    #[must_use]
    pub fn span(&self) -> u64 {
        self.span
    }

    /// The flags; the lowest bit says that the trace is recorded.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.flags
    }
}

/// So many lower-case hexadecimal digits, neither more nor fewer.
fn hex(part: Option<&str>, digits: usize) -> Result<u128, Malformed> {
    let part = part.filter(|part| {
        part.len() == digits
            && part
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    });
    u128::from_str_radix(part.ok_or(Malformed)?, 16).map_err(|_| Malformed)
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

impl TryFrom<String> for TraceParent {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        Self::parse(&text)
    }
}

impl From<TraceParent> for String {
    fn from(parent: TraceParent) -> Self {
        parent.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent = TraceParent::parse(good).unwrap();
        assert_eq!(parent.to_string(), good);
        assert_eq!((parent.span(), parent.flags()), (0xb7ad_6b71_6920_3331, 1));
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes";
        assert_eq!(TraceParent::parse(later), Ok(parent));
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-é1",
        ] {
            assert_eq!(TraceParent::parse(bad), Err(Malformed), "{bad}");
        }
    }
}
